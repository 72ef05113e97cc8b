// SPDX-License-Identifier: GPL-2.0

//! `/dev/mutex_memory`: what the machine's memory is used for.

use kernel::prelude::*;
use kernel::sync::{new_mutex, Mutex};

use crate::abi::memory::Header;
use crate::sys::device::{Device, FromUser, ToUser};
use crate::sys::memory;

/// The device.
pub(crate) struct MemoryDevice;

/// What one reader has seen.
pub(crate) struct Seen(Pin<KBox<Mutex<KVVec<u8>>>>);

impl Device for MemoryDevice {
    type Context = Seen;

    const MAX_WRITE: usize = 0;

    fn open(&self) -> Result<Seen> {
        if !memory::may_be_seen() {
            return Err(EPERM);
        }
        let nothing = new_mutex!(KVVec::new());
        Ok(Seen(KBox::pin_init(nothing, GFP_KERNEL)?))
    }

    fn write(&self, _: &Seen, _: &[u8]) -> Result {
        Err(EINVAL)
    }

    fn read(&self, seen: &Seen, position: usize, to_user: ToUser<'_>) -> Result<usize> {
        let mut bytes = seen.0.lock();
        if position == 0 {
            *bytes = look()?;
        }
        to_user(bytes.get(position..).unwrap_or_default())
    }

    fn ioctl(&self, _: &Seen, _: u32, _: FromUser<'_>, _: ToUser<'_>) -> Result<usize> {
        Err(ENOTTY)
    }
}

/// The records of `abi::memory`.
fn look() -> Result<KVVec<u8>> {
    let mut bytes = KVVec::new();
    let cpus = memory::per_cpu_offsets().count() as u32;
    bytes.extend_from_slice(&Header { cpus }.encode(), GFP_KERNEL)?;
    for offset in memory::per_cpu_offsets() {
        bytes.extend_from_slice(&offset.to_le_bytes(), GFP_KERNEL)?;
    }
    memory::areas(|area| Ok(bytes.extend_from_slice(&area.encode(), GFP_KERNEL)?))?;
    Ok(bytes)
}
