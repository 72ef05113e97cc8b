// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who uses which bytes of a line, which tells true sharing from false.
//!
//! A line that moves between CPUs does so for the sake of the bytes that are accessed (true
//! sharing), or because other bytes happen to be in the same line (false sharing). Told apart as
//! by Dubois, Skeppstedt, Ricciulli, Ramamurthy and Stenström, "The detection and elimination of
//! useless misses in multiprocessors" (ISCA 1993) for reads: a transfer is of use if it brings a
//! value that the reader does not know. Writes are looked at, too, as by Torrellas, Lam and Hennessy,
//! "False sharing and spatial locality in multiprocessor caches" (IEEE Transactions on Computers,
//! 1994), but by the byte: taking a line from other CPUs is of use if one of them knows what is
//! overwritten.

/// What one CPU has to do with a line. Bit 0 of a word is the line's first byte.
#[derive(Clone, Copy, Debug)]
struct Share {
    cpu: u8,
    /// The bytes whose present value it has read or written.
    known: u64,
    /// The bytes that it was the last to write.
    written: u64,
}

/// The shares of all CPUs that have accessed a line; most lines are accessed by one.
#[derive(Clone, Debug, Default)]
pub struct Sharing {
    shares: Vec<Share>,
}

impl Sharing {
    fn share(&mut self, cpu: u8) -> &mut Share {
        let place = self.shares.iter().position(|share| share.cpu == cpu);
        let place = place.unwrap_or_else(|| {
            self.shares.push(Share {
                cpu,
                known: 0,
                written: 0,
            });
            self.shares.len() - 1
        });
        &mut self.shares[place]
    }

    fn others(&self, cpu: u8) -> impl Iterator<Item = &Share> {
        self.shares.iter().filter(move |share| share.cpu != cpu)
    }

    /// `cpu` has read these bytes.
    pub fn read(&mut self, cpu: u8, bytes: u64) {
        self.share(cpu).known |= bytes;
    }

    /// `cpu` has written these bytes.
    pub fn write(&mut self, cpu: u8, bytes: u64) {
        for share in &mut self.shares {
            share.known &= !bytes;
            share.written &= !bytes;
        }
        let share = self.share(cpu);
        share.known |= bytes;
        share.written |= bytes;
    }

    /// Whether another CPU has written one of these bytes since `cpu` last read or wrote it.
    pub fn is_news(&self, cpu: u8, bytes: u64) -> bool {
        let own = self.shares.iter().find(|share| share.cpu == cpu);
        let unknown = bytes & !own.map_or(0, |share| share.known);
        self.others(cpu).any(|share| share.written & unknown != 0)
    }

    /// Whether another CPU has read or written one of these bytes since it was last written.
    pub fn is_known_elsewhere(&self, cpu: u8, bytes: u64) -> bool {
        self.others(cpu).any(|share| share.known & bytes != 0)
    }
}
