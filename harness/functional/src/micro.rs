// SPDX-License-Identifier: MIT OR Apache-2.0

//! Single steps, measured where the kernel checks itself: their numbers mean nothing there.

use anyhow::{ensure, Context as _, Result};

use super::GuestTest;
use mutexlab_guest::kernel::module::{LoadedModule, Parameters};
use mutexlab_guest::probe::micro;
use mutexlab_protocol::{StepTimes, PROBE_MODULE_PATH};

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "micro-steps",
        "single steps are measured twice, each as often as the others, and nothing is left",
        steps_are_measured,
    )]
}

fn steps_are_measured() -> Result<()> {
    let probe = LoadedModule::load(PROBE_MODULE_PATH, &Parameters::new())?;
    for _ in 0..2 {
        let steps = micro::measure()?;
        for step in &steps {
            ensure!(
                step.samples == steps[0].samples && step.samples > 0,
                "{step:?} was not measured as often as the others"
            );
            let sums = step.min * step.samples..=step.max * step.samples;
            ensure!(
                (step.min..=step.max).contains(&step.median) && sums.contains(&step.sum),
                "{step:?} contradicts itself"
            );
        }
        let list = |place: u32| -> Result<&StepTimes> {
            let at = |step: &&StepTimes| step.step == "list-find" && step.size == Some(place);
            steps
                .iter()
                .find(at)
                .with_context(|| format!("no list was searched to place {place}"))
        };
        ensure!(
            list(512)?.median > list(1)?.median,
            "the 512th of a list is found no later than the first: {steps:?}"
        );
    }
    // As long as it had given any memory away, it could not go.
    probe.unload()
}
