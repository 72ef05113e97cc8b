// SPDX-License-Identifier: GPL-2.0

//! What the machine's memory is used for. The probe only.

use kernel::prelude::*;

use super::bindings;
use super::percpu;
use super::task;
use crate::abi::memory::{Area, Use};

const _: () = assert!(Area::NAME == bindings::MXP_AREA_NAME as usize);

/// How many areas are asked for at once.
const AT_ONCE: usize = 64;
/// The most threads whose stacks are listed.
const MOST_STACKS: usize = 1024;

/// Whether the caller may see the kernel's addresses.
pub(crate) fn may_be_seen() -> bool {
    // SAFETY: has no preconditions.
    unsafe { bindings::mxp_may_see_addresses() }
}

/// For each possible CPU, the offset from a per-CPU variable's symbol to its address there.
pub(crate) fn per_cpu_offsets() -> impl Iterator<Item = u64> {
    // SAFETY: the CPU is possible.
    percpu::cpus().map(|cpu| unsafe { bindings::mxp_per_cpu_offset(cpu) } as u64)
}

/// Calls `each` with every slab and every thread's kernel stack. Sleeps.
pub(crate) fn areas(mut each: impl FnMut(&Area) -> Result) -> Result {
    let mut buffer = room(AT_ONCE)?;
    let mut frame = 0;
    loop {
        // SAFETY: there is room for so many areas.
        let count = unsafe { bindings::mxp_slabs(&mut frame, buffer.as_mut_ptr(), AT_ONCE as u32) };
        if count == 0 {
            break;
        }
        for area in buffer.iter().take(count as usize) {
            each(&from_c(area, Use::Slab))?;
        }
        task::pause();
    }
    let mut buffer = room(MOST_STACKS)?;
    // SAFETY: as above.
    let count = unsafe { bindings::mxp_stacks(buffer.as_mut_ptr(), MOST_STACKS as u32) };
    for area in buffer.iter().take(count as usize) {
        each(&from_c(area, Use::Stack))?;
    }
    Ok(())
}

fn room(count: usize) -> Result<KVVec<bindings::mxp_area>> {
    let mut buffer = KVVec::with_capacity(count, GFP_KERNEL)?;
    for _ in 0..count {
        // SAFETY: all bytes zero is a value of this C struct.
        buffer.push(unsafe { core::mem::zeroed() }, GFP_KERNEL)?;
    }
    Ok(buffer)
}

fn from_c(area: &bindings::mxp_area, used: Use) -> Area {
    Area {
        address: area.address,
        bytes: area.bytes,
        object: area.object,
        used,
        name: area.name,
    }
}
