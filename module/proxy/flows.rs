// SPDX-License-Identifier: GPL-2.0

//! The flows of a namespace.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::datapath::flow::{Flow, Side};
use crate::datapath::link::{Node, Owned, ReadGuard};
use crate::datapath::table::{Edit, Head, Table};
use crate::datapath::tuple::Tuple;
use crate::instance::{Counter, Instance};
use crate::parameters;
use crate::sys::lock::SpinLock;
use crate::sys::random::random;
use crate::sys::rcu;
use crate::sys::slab::Slab;
use crate::sys::time;

/// What the flows of all namespaces are in.
pub(crate) type Memory = Slab<Flow>;
type Heads = KVVec<Head<Memory>>;

/// A flow in the table.
pub(crate) type Entry = Node<Flow, Memory>;

/// Why there is no flow for a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused {
    NoMemory,
    TableFull,
    NoPort,
}

/// How many source ports are tried when the client's own is taken at the upstream.
const PORT_ATTEMPTS: u16 = 64;
/// Ports below are not given to flows: RFC 6056, section 3.2.
const FIRST_PORT: u16 = 1024;

/// The table, and the memory that its flows are in.
pub(crate) struct Flows {
    table: Table<Memory, Heads, SpinLock>,
    memory: Arc<Memory>,
}

impl Flows {
    /// An empty table, as large as the parameters say, of flows in `memory`.
    pub(crate) fn new(memory: Arc<Memory>) -> Result<Self> {
        let chains = (parameters::hash_buckets() as usize).next_power_of_two();
        let mut heads = Heads::with_capacity(chains, GFP_KERNEL)?;
        for _ in 0..chains {
            heads.push(Head::null(), GFP_KERNEL)?;
        }
        let seed = match parameters::hash_seed() {
            0 => random(),
            seed => seed,
        };
        Ok(Self {
            table: Table::new(heads, SpinLock::new()?, seed).ok_or(EINVAL)?,
            memory,
        })
    }

    /// How many flows there are.
    pub(crate) fn count(&self) -> usize {
        self.table.flows()
    }

    /// How many chains the table has.
    pub(crate) fn chains(&self) -> usize {
        self.table.chains()
    }

    /// The flow to which a packet of `tuple` belongs, and which of its sides it is.
    #[inline(always)]
    pub(crate) fn find<'g>(
        &self,
        guard: &'g ReadGuard,
        tuple: &Tuple,
    ) -> Option<(&'g Entry, Side)> {
        self.table.find(guard, tuple)
    }

    /// Makes a flow from `original` to `upstream`, from another source port if that one is taken
    /// there. The flow may be another CPU's that was faster.
    pub(crate) fn create<'g>(
        &self,
        guard: &'g ReadGuard,
        original: &Tuple,
        upstream: &Tuple,
        owner: u32,
    ) -> Result<(&'g Entry, bool), Refused> {
        let created = self.table.edit(|edit| {
            if self.table.find(guard, original).is_some() {
                return Ok(false);
            }
            if self.count() >= parameters::max_flows() as usize {
                return Err(Refused::TableFull);
            }
            let upstream = self.free_port(guard, upstream).ok_or(Refused::NoPort)?;
            let flow = Flow::new(*original, upstream, owner, time::jiffies());
            let flow = Owned::new(&*self.memory, flow).ok_or(Refused::NoMemory)?;
            // Both sides were looked up just now, under the same lock.
            edit.insert(guard, flow).map_err(|_| Refused::NoPort)?;
            Ok(true)
        })?;
        let (flow, _) = self.table.find(guard, original).ok_or(Refused::NoMemory)?;
        Ok((flow, created))
    }

    // `upstream`, or the same from another source port, such that answers to it are of no flow yet.
    fn free_port(&self, guard: &ReadGuard, upstream: &Tuple) -> Option<Tuple> {
        let free = |tuple: &Tuple| self.table.find(guard, &tuple.reverse()).is_none();
        if free(upstream) {
            return Some(*upstream);
        }
        let range = u16::MAX - FIRST_PORT;
        let start = random() as u16 % range;
        (0..PORT_ATTEMPTS)
            .map(|step| FIRST_PORT + (u32::from(start) + u32::from(step)) as u16 % range)
            .map(|port| upstream.from_port(port.to_be()))
            .find(free)
    }

    /// Takes one flow out.
    pub(crate) fn remove(&self, guard: &ReadGuard, flow: &Entry, instance: &Instance) {
        if self.table.edit(|edit| edit.remove(guard, flow)).is_some() {
            instance.count(Counter::FlowsRemoved);
        }
    }

    /// Takes the flows of `chains` out for which `goes` says so.
    pub(crate) fn sweep(
        &self,
        chains: core::ops::Range<usize>,
        instance: &Instance,
        mut goes: impl FnMut(&Flow) -> bool,
    ) {
        for chain in chains {
            // One chain at a time, so that nobody waits long for the lock.
            let removed = self.edit(|edit, guard| edit.sweep(guard, chain, &mut goes));
            if removed != 0 {
                instance.add(Counter::FlowsRemoved, removed as u64);
            }
        }
    }

    /// Takes all flows out that a context's rules made.
    pub(crate) fn remove_of(&self, owner: u32, instance: &Instance) {
        self.sweep(0..self.chains(), instance, |flow| flow.owner == owner);
    }

    fn edit<R>(
        &self,
        edit: impl FnOnce(&mut Edit<'_, '_, Memory, Heads, SpinLock>, &ReadGuard) -> R,
    ) -> R {
        rcu::read(|guard| self.table.edit(|table| edit(table, guard)))
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        for chain in 0..self.chains() {
            self.edit(|edit, guard| edit.sweep(guard, chain, |_| true));
        }
    }
}
