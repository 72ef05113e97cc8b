// SPDX-License-Identifier: MIT OR Apache-2.0

//! What single steps take.

use anyhow::{bail, Context, Result};
use mutex_abi::micro::Step;

use super::claim::{Evidence, Pair, Unit};
use mutexlab_protocol::StepTimes;

/// What each step took, by name and by what it depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps(Vec<StepTimes>);

impl Steps {
    /// What was measured.
    ///
    /// # Errors
    /// If the clock's own cost is not always the same: then ticks are no instructions.
    pub fn new(measured: Vec<StepTimes>) -> Result<Self> {
        let steps = Self(measured);
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
