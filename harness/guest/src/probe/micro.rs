// SPDX-License-Identifier: MIT OR Apache-2.0

//! Single steps, which the probe's module measures on request.

use anyhow::{Context, Result};
use mutex_abi::bytes::Reader;
use mutex_abi::micro::{Times, IOC_MICRO, PLAN, SIZE};
use mutex_abi::probe::DEVICE;

use crate::kernel::device;
use mutexlab_protocol::StepTimes;

/// Has all steps measured. The probe's module must be loaded.
pub fn measure() -> Result<Vec<StepTimes>> {
    let file = device::open(DEVICE)?;
    let bytes = device::ask::<SIZE>(&file, IOC_MICRO)
        .with_context(|| format!("{DEVICE} cannot measure single steps"))?;
    let mut reader = Reader::new(&bytes);
    PLAN.iter()
        .map(|step| {
            let times = Times::decode(&mut reader).context("the table is cut short")?;
            Ok(StepTimes {
                step: step.name().to_owned(),
                size: step.size(),
                samples: times.samples,
                min: times.min,
                median: times.median,
                max: times.max,
                sum: times.sum,
            })
        })
        .collect()
}
