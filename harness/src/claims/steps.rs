// SPDX-License-Identifier: MIT OR Apache-2.0

//! What single steps take: one boot, in which the probe's module measures them.

use std::path::Path;

use anyhow::{bail, Context, Result};
use mutex_abi::micro::Step;

use super::claim::{Evidence, Pair, Unit};
use crate::accelerator::Accelerator;
use crate::boot::{Boot, Deadlines};
use crate::interrupt::Interrupt;
use crate::kernel::Kernel;
use crate::protocol::{Event, Order, StepTimes, Work, VERSION};
use crate::virtme::Virtme;

/// What each step took, by name and by what it depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps(Vec<StepTimes>);

impl Steps {
    /// Measures them in instructions, on one CPU of `kernel`.
    ///
    /// # Errors
    /// If the guest cannot be started or ends badly, or the user interrupts.
    pub fn measure(
        kernel: &Kernel,
        virtme: &Virtme,
        interrupt: &Interrupt,
        console_log: &Path,
    ) -> Result<Self> {
        let order = Order {
            version: VERSION,
            work: Work::Micro,
        };
        let boot = Boot {
            kernel: &kernel.bzimage(),
            arguments: kernel.arguments(),
            cpus: 1,
            accelerator: Accelerator::TcgIcount,
            order: &order,
            modules: kernel.modules.as_ref(),
            deadlines: Deadlines::PLAIN,
            lens: None,
            attended: None,
            console_log,
        };
        let mut measured = None;
        let booted = boot.run(virtme, interrupt, &mut |event| {
            if let Event::Steps { steps } = event {
                measured = Some(steps.clone());
            }
            Ok(())
        })?;
        if !booted.ending.is_ok() {
            bail!(
                "the boot that measures single steps ended badly ({}): {}; its console is in {}",
                booted.ending.verdict,
                booted.ending.reason,
                console_log.display()
            );
        }
        let steps = Self(measured.context("the agent left the steps out")?);
        let nothing = steps.times(Step::Nothing)?;
        if nothing.min != nothing.max {
            bail!(
                "the clock's own cost is {} to {} ticks: so ticks are no instructions here",
                nothing.min,
                nothing.max
            );
        }
        Ok(steps)
    }

    /// Those that were measured.
    pub fn all(&self) -> &[StepTimes] {
        &self.0
    }

    /// The median of a step.
    ///
    /// # Errors
    /// If it was not measured.
    pub fn median(&self, step: Step) -> Result<f64> {
        Ok(self.times(step)?.median as f64)
    }

    /// The mean of a step.
    ///
    /// # Errors
    /// If it was not measured.
    pub fn mean(&self, step: Step) -> Result<f64> {
        let times = self.times(step)?;
        Ok(times.sum as f64 / times.samples as f64)
    }

    fn times(&self, step: Step) -> Result<&StepTimes> {
        self.0
            .iter()
            .find(|times| times.step == step.name() && times.size == step.size())
            .with_context(|| format!("{step:?} was not measured"))
    }

    /// Evidence from the medians of steps: where, without the optimization, with it.
    ///
    /// # Errors
    /// If one was not measured.
    pub fn compare(
        &self,
        metric: &str,
        (off, on): (&str, &str),
        steps: &[(String, Step, Step)],
    ) -> Result<Evidence> {
        let pairs = steps
            .iter()
            .map(|(at, off, on)| {
                Ok(Pair {
                    at: at.clone(),
                    off: self.median(*off)?,
                    on: self.median(*on)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Evidence {
            metric: metric.to_owned(),
            unit: Unit::Instructions,
            off: off.to_owned(),
            on: on.to_owned(),
            pairs,
        })
    }
}
