// SPDX-License-Identifier: MIT OR Apache-2.0

//! A server that misbehaves on purpose, so that it can be tested whether the instrument notices.

use std::collections::VecDeque;

use anyhow::Result;

use super::channel::Channel;
use crate::kernel::tsc;
use mutexlab_protocol::{Deed, Mischief};
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Hop, FRAME_MAX};

/// Sends answers, some of them as they should not be.
pub struct Prankster {
    mischief: Option<Mischief>,
    // Frames that wait until the counter is at a time, in order.
    delayed: VecDeque<(u64, Vec<u8>)>,
    // One that waits for the next.
    overtaken: Option<Vec<u8>>,
    buffer: Box<[u8; FRAME_MAX]>,
}

/// Whether mischief befalls the answer of this number.
fn befalls(mischief: Mischief, number: u32) -> bool {
    let every = mischief.every.max(1);
    number % every == every - 1
}

impl Prankster {
    /// One that does `mischief`; without it, it only sends.
    pub fn new(mischief: Option<Mischief>) -> Self {
        Self {
            mischief,
            delayed: VecDeque::new(),
            overtaken: None,
            buffer: Box::new([0; FRAME_MAX]),
        }
    }

    /// Sends the answer to the request `number`, or does whatever is to be done to it.
    pub fn send(
        &mut self,
        channel: &mut Channel,
        hop: Hop,
        header: &Header,
        payload: &[u8],
        number: u32,
    ) -> Result<()> {
        let deed = self.mischief.filter(|&mischief| befalls(mischief, number));
        match deed.map(|mischief| mischief.deed) {
            None => channel.send(hop, header, payload)?,
            Some(Deed::Drop) => return Ok(()),
            Some(Deed::Duplicate) => {
                channel.send(hop, header, payload)?;
                channel.send(hop, header, payload)?;
            }
            Some(Deed::Corrupt) => {
                let length = frame::build(&mut self.buffer[..], hop, header, payload)?.len();
                self.buffer[length - 1] ^= 1;
                channel.send_frame(&self.buffer[..length])?;
            }
            Some(Deed::Delay(nanoseconds)) => {
                let frame = frame::build(&mut self.buffer[..], hop, header, payload)?;
                let due = tsc::now() + tsc::ticks(nanoseconds);
                self.delayed.push_back((due, frame.to_vec()));
                return Ok(());
            }
            Some(Deed::Reorder) => {
                let frame = frame::build(&mut self.buffer[..], hop, header, payload)?;
                // One that waited already has waited long enough.
                return match self.overtaken.replace(frame.to_vec()) {
                    Some(frame) => channel.send_frame(&frame),
                    None => Ok(()),
                };
            }
        }
        match self.overtaken.take() {
            Some(frame) => channel.send_frame(&frame),
            None => Ok(()),
        }
    }

    /// When the next answer that was delayed is to be sent; `None` if none was.
    pub fn due(&self) -> Option<u64> {
        self.delayed.front().map(|&(due, _)| due)
    }

    /// Sends what is due at the time `now`.
    pub fn release(&mut self, channel: &mut Channel, now: u64) -> Result<()> {
        while self.due().is_some_and(|due| due <= now) {
            if let Some((_, frame)) = self.delayed.pop_front() {
                channel.send_frame(&frame)?;
            }
        }
        Ok(())
    }

    /// Waits until all that was delayed is sent.
    pub fn release_all(&mut self, channel: &mut Channel) -> Result<()> {
        while let Some(due) = self.due() {
            tsc::spin_until(due);
            self.release(channel, due)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_so_many_th_answer_is_befallen() {
        let befallen = |every| {
            let mischief = Mischief {
                deed: Deed::Drop,
                every,
            };
            (0..10_u32)
                .filter(|&number| befalls(mischief, number))
                .collect::<Vec<_>>()
        };
        assert_eq!(befallen(4), [3, 7]);
        assert_eq!(befallen(1), (0..10).collect::<Vec<_>>());
    }
}
