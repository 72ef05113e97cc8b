// SPDX-License-Identifier: GPL-2.0

//! All flows of a table, one after the other, while others change it.

use core::ops::Deref;

use super::link::{Lock, ReadGuard};
use super::table::{FlowNode, Head, Table};
use super::tuple::Address;

/// How far it has come, which is not bound to a read-side critical section.
///
/// A flow that is in the table from the beginning to the end is found, unless others of its bucket go meanwhile; if others
/// come, or the table grows, one may be found twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// How many buckets there were; zero before it begins.
    pub buckets: u64,
    /// In which of them it is.
    pub bucket: u64,
    /// How many flows of that bucket it has passed.
    pub passed: u64,
}

/// What some steps lead to.
pub enum Step<'g, A: Address, R> {
    /// A flow.
    Found(&'g FlowNode<A, R>),
    /// Buckets that are to be looked at in another read-side critical section.
    More,
    /// The end.
    End,
}

impl Walk {
    /// Goes on to the next flow for which `is` says so, through `most` buckets at the most.
    pub fn step<'g, A: Address, R, S: Deref<Target = [Head<A, R>]>, L: Lock>(
        &mut self,
        guard: &'g ReadGuard,
        table: &'g Table<A, R, S, L>,
        most: usize,
        mut is: impl FnMut(&FlowNode<A, R>) -> bool,
    ) -> Step<'g, A, R> {
        self.follow(table.buckets(guard) as u64);
        let end = self.bucket.saturating_add(most as u64).min(self.buckets);
        while self.bucket < end {
            let passed = self.passed as usize;
            for flow in table.originals(guard, self.bucket as usize).skip(passed) {
                self.passed = self.passed.saturating_add(1);
                if is(flow) {
                    return Step::Found(flow);
                }
            }
            self.bucket = self.bucket.saturating_add(1);
            self.passed = 0;
        }
        match self.bucket < self.buckets {
            true => Step::More,
            false => Step::End,
        }
    }

    // A table only grows: what is in a bucket is in several then, one behind the other (see `Buckets::bucket_of`).
    fn follow(&mut self, buckets: u64) {
        if buckets == self.buckets {
            return;
        }
        if let Some(times) = buckets.checked_div(self.buckets) {
            self.bucket = self.bucket.saturating_mul(times);
            self.passed = 0;
        }
        self.buckets = buckets;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::super::abi::proxy::Protocol;
    use super::super::flow::{Direction, Flow, Owner};
    use super::super::host::{Boxes, Heads, Sections};
    use super::super::link::{Owned, Rcu};
    use super::super::tuple::{Ports, Tuple, V4};
    use super::*;

    type TestTable = Table<V4, (), Heads<Tuple<V4>, Flow<()>>, Mutex<()>>;

    fn tuple(port: u16) -> Tuple<V4> {
        Tuple::new(Protocol::Udp, V4(1), V4(2), Ports::new(port, 9))
    }

    fn table(buckets: usize, flows: u16) -> TestTable {
        let table = Table::new(Heads::new(buckets), Mutex::new(()), 1.into()).unwrap();
        for port in 0..flows {
            let to = tuple(port).to(V4(3), 9);
            let (keys, flow) = Flow::<()>::new(&tuple(port), &to, Owner::NOBODY, 0);
            let flow = Owned::new(&Boxes, keys, flow).unwrap();
            Sections::read(|guard| table.edit(|edit| edit.insert(guard, flow).state()));
        }
        table
    }

    fn port(flow: &FlowNode<V4, ()>) -> u16 {
        flow.key(Direction::Original as usize).ports.source()
    }

    /// How often each flow was found; `meanwhile` is told after how many.
    fn walk(
        table: &TestTable,
        most: usize,
        is: impl Fn(u16) -> bool,
        mut meanwhile: impl FnMut(usize),
    ) -> BTreeMap<u16, usize> {
        let (mut walk, mut found) = (Walk::default(), BTreeMap::new());
        loop {
            let step = Sections::read(|guard| {
                match walk.step(guard, table, most, |flow| is(port(flow))) {
                    Step::Found(flow) => Some(Some(port(flow))),
                    Step::More => Some(None),
                    Step::End => None,
                }
            });
            match step {
                None => return found,
                Some(None) => {}
                Some(Some(port)) => {
                    *found.entry(port).or_default() += 1;
                    meanwhile(found.len());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn all_that_are_meant_are_found_once(bits in 0..8_u32, flows in 0..200_u16, most in 1..70_usize, rest in 1..5_u16) {
            let table = table(1 << bits, flows);
            let found = walk(&table, most, |port| port % rest == 0, |_| {});
            let expected: BTreeMap<u16, usize> = (0..flows).filter(|port| port % rest == 0).map(|port| (port, 1)).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn none_is_overlooked_while_the_table_grows(bits in 0..5_u32, flows in 1..100_u16, after in 0..100_usize) {
            let table = table(1 << bits, flows);
            let mut grown = false;
            let found = walk(&table, 8, |_| true, |so_far| {
                if so_far > after && !grown {
                    grown = true;
                    assert!(table.resize::<Sections>(Heads::new(8 << bits), || {}).is_some());
                }
            });
            prop_assert!(found.keys().copied().eq(0..flows));
            let twice = found.values().filter(|times| **times > 1).count();
            // At the most those of the bucket in which it was.
            prop_assert!(twice <= flows as usize);
            prop_assert!(found.values().all(|times| *times <= 2));
        }
    }
}
