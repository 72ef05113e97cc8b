// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which connection is where: of the flows that were there first, and of those that came later.

use std::collections::BTreeMap;

use super::super::tcp::Numbers;

/// The numbers of connections by flow.
#[derive(Clone, Debug)]
pub struct Book {
    first: Vec<Option<Numbers>>,
    // Not by hash: a map's random seed would make each run another.
    later: BTreeMap<u32, Numbers>,
}

impl Book {
    /// Of the flows numbered from 0.
    pub fn new(first: Vec<Numbers>) -> Self {
        Self {
            first: first.into_iter().map(Some).collect(),
            later: BTreeMap::new(),
        }
    }

    /// What is known of a flow's connection; `None` if it has none.
    pub fn get(&self, flow: u32) -> Option<Numbers> {
        match self.first.get(flow as usize) {
            Some(numbers) => *numbers,
            None => self.later.get(&flow).copied(),
        }
    }

    /// Keeps what is known of it now; `None` if it has ended.
    pub fn put(&mut self, flow: u32, numbers: Option<Numbers>) {
        match (self.first.get_mut(flow as usize), numbers) {
            (Some(place), numbers) => *place = numbers,
            (None, Some(numbers)) => {
                self.later.insert(flow, numbers);
            }
            (None, None) => {
                self.later.remove(&flow);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_come_and_go() {
        let mut book = Book::new(vec![Numbers::new(1), Numbers::new(2)]);
        for flow in [0, 7] {
            book.put(flow, Some(Numbers::new(9)));
            assert_eq!(book.get(flow), Some(Numbers::new(9)));
            book.put(flow, None);
            assert_eq!(book.get(flow), None);
        }
        assert_eq!(book.get(1), Some(Numbers::new(2)));
        assert_eq!(book.get(2), None);
    }
}
