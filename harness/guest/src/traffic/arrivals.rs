// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which of a stream's numbered packets arrived, and in what order.

/// What the arrival of a packet means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is the first copy, and none that was sent later has come before.
    InOrder,
    /// It is the first copy, but one that was sent later was faster: reordered as in RFC 4737,
    /// section 3.3.
    Late,
    /// It has come before: a duplicate as in RFC 5560.
    Again,
}

/// Packets numbered from 0 in the order of sending.
#[derive(Clone, Debug)]
pub struct Arrivals {
    // A bit for each number.
    seen: Vec<u64>,
    // One more than the greatest number that came: NextExp of RFC 4737.
    next_expected: u32,
    distinct: u32,
    late: u32,
    again: u32,
}

impl Arrivals {
    /// None of `count` packets has come yet.
    pub fn new(count: u32) -> Self {
        Self {
            seen: vec![0; count.div_ceil(u64::BITS) as usize],
            next_expected: 0,
            distinct: 0,
            late: 0,
            again: 0,
        }
    }

    /// Takes note of the packet `number`, which is below the count.
    pub fn take(&mut self, number: u32) -> Arrival {
        let (word, bit) = (number / u64::BITS, 1 << (number % u64::BITS));
        let word = &mut self.seen[word as usize];
        if *word & bit != 0 {
            self.again += 1;
            return Arrival::Again;
        }
        *word |= bit;
        self.distinct += 1;
        if number < self.next_expected {
            self.late += 1;
            return Arrival::Late;
        }
        self.next_expected = number + 1;
        Arrival::InOrder
    }

    /// How many packets came, copies not counted.
    pub fn distinct(&self) -> u32 {
        self.distinct
    }

    /// How many of them came after one that was sent later.
    pub fn late(&self) -> u32 {
        self.late
    }

    /// How many copies came of packets that had come before.
    pub fn again(&self) -> u32 {
        self.again
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    const COUNT: u32 = 200;

    proptest! {
        #[test]
        fn arrivals_are_what_a_list_of_them_says(numbers in prop::collection::vec(0..COUNT, 0..300)) {
            let mut arrivals = Arrivals::new(COUNT);
            let mut before = BTreeSet::new();
            let (mut late, mut again) = (0, 0);
            for number in numbers {
                let expected = if before.contains(&number) {
                    again += 1;
                    Arrival::Again
                } else if before.iter().any(|&other| other > number) {
                    late += 1;
                    Arrival::Late
                } else {
                    Arrival::InOrder
                };
                before.insert(number);
                prop_assert_eq!(arrivals.take(number), expected);
            }
            prop_assert_eq!(arrivals.distinct() as usize, before.len());
            prop_assert_eq!((arrivals.late(), arrivals.again()), (late, again));
        }
    }
}
