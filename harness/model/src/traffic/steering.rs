// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which CPU answers come to.

use std::num::NonZeroU32;

use super::axis::axis;

axis! {
    /// How a device with several queues hands the two directions of a flow to CPUs: flows that are spread over
    /// CPUs are steered as by one.
    #[derive(Default)]
    pub enum Steering {
        /// Both to one, as with a symmetric hash, or with accelerated RFS.
        #[default]
        Symmetric,
        /// Answers to the CPU before that of the packets that they answer, as with the usual keys of RSS (receive
        /// side scaling), by which a flow's two directions have nothing to do with each other. From three CPUs on
        /// no packet is then handled by the CPU that handled the one before it.
        Asymmetric,
    }
}

impl Steering {
    /// The CPU of `cpus` that answers of a flow come to whose packets come to `there`.
    pub const fn back(self, there: u32, cpus: NonZeroU32) -> u32 {
        match self {
            Self::Symmetric => there,
            Self::Asymmetric => (there + cpus.get() - 1) % cpus.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The CPUs of the packets of flows that take turns.
    fn cpus(steering: Steering, cpus: u32) -> Vec<u32> {
        let number = NonZeroU32::new(cpus).unwrap();
        (0..2 * cpus)
            .flat_map(|flow| [flow % cpus, steering.back(flow % cpus, number)])
            .collect()
    }

    #[test]
    fn both_directions_are_of_one_cpu_or_no_two_packets_in_a_row_are() {
        assert_eq!(cpus(Steering::Symmetric, 2), [0, 0, 1, 1, 0, 0, 1, 1]);
        assert_eq!(cpus(Steering::Asymmetric, 1), [0; 4]);
        for number in 3..=64 {
            let cpus = cpus(Steering::Asymmetric, number);
            assert!(cpus.windows(2).all(|pair| pair[0] != pair[1]), "{cpus:?}");
            // Each CPU has as much to do as any other.
            for cpu in 0..number {
                assert_eq!(cpus.iter().filter(|&&other| other == cpu).count(), 4);
            }
        }
    }
}
