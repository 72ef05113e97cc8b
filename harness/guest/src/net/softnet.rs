// SPDX-License-Identifier: MIT OR Apache-2.0

//! How many packets each CPU has received: `/proc/net/softnet_stat`, of all namespaces together.

use std::fs;

use anyhow::{bail, Context, Result};

/// How many links a packet passes: from the client to the router, and from there to the server, or back. At
/// the end of each it is received.
const LINKS: u64 = 2;

/// Packets that each CPU has received, in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received(Vec<u64>);

impl Received {
    /// Until now.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn read() -> Result<Self> {
        let path = "/proc/net/softnet_stat";
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        parse(&text).with_context(|| format!("{path} is not understood: {text:?}"))
    }

    /// Those since `before`, when so many packets went their way on each CPU.
    ///
    /// # Errors
    /// If a CPU received fewer than that takes: another one did it for it.
    pub fn since(&self, before: &Self, packets: &[u64]) -> Result<Vec<u64>> {
        let received: Vec<u64> = self
            .0
            .iter()
            .zip(&before.0)
            .map(|(now, before)| now.wrapping_sub(*before))
            .collect();
        for (cpu, &packets) in packets.iter().enumerate() {
            let count = received.get(cpu).copied().unwrap_or(0);
            if count < LINKS * packets {
                bail!(
                    "CPU {cpu} received {count} times, and not {} times as {packets} packets on it take: \
                     something hands them to other CPUs, which received {received:?}",
                    LINKS * packets
                );
            }
        }
        Ok(received)
    }
}

/// A line for each CPU that is online, of hexadecimal numbers; the first is what it processed, the 13th
/// the CPU (softnet_seq_show() of net/core/net-procfs.c).
fn parse(text: &str) -> Option<Received> {
    let mut received = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let number = |word: &str| u32::from_str_radix(word, 16).ok();
        let processed = number(words.next()?)?;
        let cpu = number(words.nth(11)?)? as usize;
        if received.len() <= cpu {
            received.resize(cpu + 1, 0);
        }
        received[cpu] = processed.into();
    }
    (!received.is_empty()).then_some(Received(received))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
000000a0 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
00000010 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000002 00000000 00000000
";

    #[test]
    fn lines_say_which_cpu_they_are_of() {
        assert_eq!(parse(TEXT), Some(Received(vec![0xa0, 0, 0x10])));
        for bad in ["", "a0 0 0\n", "x 0 0 0 0 0 0 0 0 0 0 0 1\n"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn packets_on_another_cpu_are_noticed() {
        let before = Received(vec![10, 20]);
        let after = Received(vec![18, 29]);
        // One more than those of four packets: of somebody else's.
        assert_eq!(after.since(&before, &[4, 4]).unwrap(), [8, 9]);
        for misplaced in [&[5, 3][..], &[0, 5], &[4, 4, 1]] {
            assert!(after.since(&before, misplaced).is_err(), "{misplaced:?}");
        }
    }
}
