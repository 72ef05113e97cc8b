// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is measured, put up in the router's namespace: what all of it can be asked.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use crate::net::layout::Layout;
use crate::net::namespace::Namespace;
use mutexlab_model::measured::Buckets;
use mutexlab_model::traffic::Traffic;

/// A subject that is up. Dropping it takes it down without a report; [`Self::down`] does it with
/// one.
pub trait Installed {
    /// The subject's own counters, by name; empty if it has none.
    fn counters(&self, router: &Namespace) -> Result<BTreeMap<String, u64>>;

    /// The buckets of the module's table; `None` of other subjects.
    fn buckets(&self, _traffic: &Traffic, _router: &Namespace) -> Result<Option<Buckets>> {
        Ok(None)
    }

    /// The time that a proxy's processes have spent; `None` if there are none.
    fn proxy_time(&self) -> Result<Option<Duration>> {
        Ok(None)
    }

    /// Waits until the subject has done what it puts off when it gets many flows.
    fn settle(&self, _traffic: &Traffic, _router: &Namespace) -> Result<()> {
        Ok(())
    }

    /// Waits until the subject has given back what memory nobody asked for.
    fn rest(&self, _router: &Namespace) -> Result<()> {
        Ok(())
    }

    /// Bytes of the kernel's memory that the flows of `traffic` take, with the table in which they
    /// are found; `None` if there is none of them. What connection tracking allocates for some
    /// beside their entries is left out.
    fn flow_memory(&self, traffic: &Traffic, router: &Namespace) -> Result<Option<u64>>;

    /// Fails if the subject did not keep all flows of `traffic`, of which it would have made some
    /// anew; `counters` are those since there was none of them.
    fn ensure_kept(
        &self,
        traffic: &Traffic,
        router: &Namespace,
        counters: &BTreeMap<String, u64>,
    ) -> Result<()>;

    /// Fails unless a subject that may leave packets to something slower did what it is for; to be
    /// asked while the flows of the traffic are there.
    fn ensure_at_work(&self, _router: &Namespace) -> Result<()> {
        Ok(())
    }

    /// Takes the subject down.
    fn down(self: Box<Self>, layout: &Layout) -> Result<()>;
}
