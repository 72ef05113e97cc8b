// SPDX-License-Identifier: GPL-2.0

//! Source ports for flows whose own is taken.

/// Steps from one port to the next that is tried: primes, so that they come by all of them.
const STEPS: [u32; 4] = [7_919, 10_007, 12_289, 20_011];
/// Ports below are not given to flows: RFC 6056, section 3.2.
const FIRST: u16 = 1024;
/// Ports below are not given to sockets, unless net.ipv4.ip_local_port_range was changed.
const FIRST_OF_SOCKETS: u16 = 32_768;

/// Every port that a flow may have, or may have if its address is the machine's `own`, in steps that leave none out and
/// do not follow each other: what is taken is not to grow into long stretches (compare RFC 6056, section 3.3).
pub fn source_ports(own: bool, random: u32) -> impl Iterator<Item = u16> {
    let ports = if own {
        u32::from(FIRST_OF_SOCKETS - FIRST)
    } else {
        u32::from(u16::MAX - FIRST) + 1
    };
    let step = STEPS[random as usize % STEPS.len()];
    let start = random >> 8;
    // Below 2^32: the largest step times as many ports.
    (0..ports)
        .map(move |count| count.wrapping_mul(step).wrapping_add(start) % ports)
        .map(|offset| FIRST.wrapping_add(offset as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_tried_once() {
        const LAST: u32 = u32::MAX;
        let all = [0, 1, 2, 3, LAST, LAST - 1, LAST - 2, LAST - 3];
        // Miri takes minutes for each.
        let tried = if cfg!(miri) { &all[4..5] } else { &all };
        for &random in tried {
            for (own, last) in [(false, u16::MAX), (true, FIRST_OF_SOCKETS - 1)] {
                let mut ports: Vec<u16> = source_ports(own, random).collect();
                ports.sort_unstable();
                assert!(ports.into_iter().eq(FIRST..=last), "{own} {random:x}");
            }
        }
    }

    #[test]
    fn ports_do_not_follow_each_other() {
        for random in 0..4 {
            let ports: Vec<u16> = source_ports(false, random).take(64).collect();
            let near = |pair: &[u16]| pair[0].abs_diff(pair[1]) < 1000;
            assert!(!ports.windows(2).any(near), "{random}");
        }
    }
}
