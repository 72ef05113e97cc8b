// SPDX-License-Identifier: GPL-2.0

//! Large values that begin as zeros. They are made on the heap: a kernel stack has no room for them.

use core::sync::atomic::AtomicU64;

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;

use crate::datapath::reopenings::Reopenings;

/// A type of which all bytes zero is a value.
///
/// # Safety
///
/// All bytes zero are a value of the type.
pub(crate) unsafe trait Zeroed {}

// SAFETY: zero is a value of a word.
unsafe impl<const N: usize> Zeroed for [AtomicU64; N] {}

// SAFETY: it is such an array (`repr(transparent)`), of which zeros are the empty one.
unsafe impl Zeroed for Reopenings {}

/// All bytes zero, on the heap; charged to the caller's control group.
pub(crate) fn boxed<T: Zeroed>() -> Result<KBox<T>> {
    let mut memory = KBox::<T>::new_uninit(GFP_KERNEL_ACCOUNT)?;
    // SAFETY: the memory is the box's, for one `T`.
    unsafe { memory.as_mut_ptr().write_bytes(0, 1) };
    // SAFETY: all bytes zero is a value of `T`, by its trait.
    Ok(unsafe { memory.assume_init() })
}
