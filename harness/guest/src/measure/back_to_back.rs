// SPDX-License-Identifier: MIT OR Apache-2.0

//! The search of the longest burst without a loss.

use std::thread;
use std::time::Duration;

use super::super::probe::Probe;
use super::throughput::search;
use super::trial::Exchanged;
use crate::traffic::open_loop::{Generator, Stream};
use crate::traffic::target::Stop;
use mutexlab_model::measured::Delivery;
use mutexlab_model::rfc2544::back_to_back::{BackToBack, Burst, Found, LengthSearch, Test};
use mutexlab_model::traffic::Traffic;

/// Searches the rate without loss, which RFC 9004 wants first (section 5), and the longest burst. Gives
/// the last good trial of the rate, with what was found.
pub fn back_to_back(
    generator: &mut Generator,
    probe: &Probe,
    traffic: &Traffic,
    goal: BackToBack,
    delivery: &mut Delivery,
) -> Result<Exchanged, Stop> {
    let mut exchanged = search(generator, probe, traffic, goal.throughput(), delivery)?;
    if let Some(open) = &mut exchanged.open {
        let throughput = open.searched.as_ref().and_then(|searched| searched.rate);
        let tests = match throughput {
            // Section 6.1: only then can a burst fill a buffer.
            Some(rate) if rate < goal.rate => (0..goal.tests)
                .map(|_| longest(generator, &goal, delivery))
                .collect::<Result<_, _>>()?,
            _ => Vec::new(),
        };
        open.back_to_back = Some(Found {
            goal,
            throughput,
            tests,
        });
    }
    Ok(exchanged)
}

/// One search of the longest burst.
pub fn longest(
    generator: &mut Generator,
    goal: &BackToBack,
    delivery: &mut Delivery,
) -> Result<Test, Stop> {
    let mut search = LengthSearch::new(goal);
    loop {
        let length = match search.next() {
            Ok(length) => length,
            Err(test) => return Ok(test),
        };
        thread::sleep(Duration::from_millis(goal.pause_ms.into()));
        let stream = Stream {
            packets: length,
            rate: goal.rate,
            churn: 0,
        };
        // No packets before: buffers shall be empty.
        let open = generator.run(&stream, delivery)?;
        let late = open.lateness.max().unwrap_or(0) > goal.patience(length);
        let burst = match open.round_trip.lost {
            _ if late => Burst::Late,
            0 => Burst::Whole,
            frames => Burst::Lost(frames),
        };
        search.take(length, burst);
    }
}
