// SPDX-License-Identifier: MIT OR Apache-2.0

//! The search of a rate.

use std::collections::BTreeMap;

use anyhow::Context;

use super::super::probe::Probe;
use super::trial::{in_open_loop, Exchanged, Treatment};
use crate::traffic::open_loop::{Generator, Stream};
use crate::traffic::target::Stop;
use mutexlab_model::measured::Delivery;
use mutexlab_model::rfc2544::throughput::{Goal, Search, Searched, Step, Trial};
use mutexlab_model::traffic::Traffic;

/// Tries rates until the one that `goal` looks for is found, and gives the last good trial at it, or the
/// last of all if none was good.
pub fn search(
    generator: &mut Generator,
    probe: &Probe,
    traffic: &Traffic,
    goal: Goal,
    delivery: &mut Delivery,
) -> Result<Exchanged, Stop> {
    let mut search = Search::new(goal);
    let mut trials = Vec::new();
    let mut good = BTreeMap::new();
    let mut last = None;
    let rate = loop {
        let rate = match search.next() {
            Step::Try(rate) => rate,
            Step::Done(rate) => break rate,
        };
        let stream = Stream {
            packets: goal.packets(rate),
            rate,
            churn: 0,
        };
        // The trials of a search are not watched.
        let treatment = Treatment::default();
        let exchanged = in_open_loop(generator, probe, traffic, &stream, treatment, delivery)?;
        let trial = exchanged.trial(&goal, rate);
        search.take(&trial);
        trials.push(trial);
        if goal.accepts(&trial) {
            good.insert(rate, exchanged);
        } else {
            last = Some(exchanged);
        }
    };
    let found = rate.and_then(|rate| good.remove(&rate)).or(last);
    let mut exchanged = found.context("a search without a trial")?;
    let searched = Searched { goal, rate, trials };
    if let Some(open) = &mut exchanged.open {
        open.searched = Some(searched);
    }
    Ok(exchanged)
}

impl Exchanged {
    /// A trial of a search at `rate`.
    fn trial(&self, goal: &Goal, rate: u32) -> Trial {
        let open = self.open.as_ref();
        let late = open.and_then(|open| open.lateness.max()).unwrap_or(0);
        Trial {
            rate,
            sent: open.map_or(0, |open| open.sent),
            lost: open.map_or(0, |open| open.round_trip.lost),
            // A hundredth of the trial, in nanoseconds.
            in_time: late <= u64::from(goal.trial_ms) * 10_000,
        }
    }
}
