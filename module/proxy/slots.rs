// SPDX-License-Identifier: GPL-2.0

//! Vectors whose elements go and leave their places to others. They are charged to who adds.

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;

/// Makes sure that there is an empty slot, or room for one.
pub(crate) fn reserve<T>(slots: &mut KVVec<Option<T>>) -> Result {
    if slots.iter().all(Option::is_some) {
        slots.reserve(1, GFP_KERNEL_ACCOUNT)?;
    }
    Ok(())
}

/// Puts `value` into an empty slot or a new one.
pub(crate) fn place<T>(slots: &mut KVVec<Option<T>>, value: T) -> Result {
    match slots.iter_mut().find(|slot| slot.is_none()) {
        Some(slot) => *slot = Some(value),
        None => slots.push(Some(value), GFP_KERNEL_ACCOUNT)?,
    }
    Ok(())
}
