// SPDX-License-Identifier: GPL-2.0

//! Work that is done later, again and again, by the system's work queue.

use core::mem::offset_of;

use kernel::prelude::*;

use super::bindings;

#[repr(C)]
struct Item<F> {
    work: bindings::mutex_work,
    run: F,
}

/// Runs `F` after a delay, and again after the delay that it returns, in jiffies. Dropping it
/// waits for a run under way.
pub(crate) struct Periodic<F: Fn() -> u32 + Send + Sync>(KBox<Item<F>>);

impl<F: Fn() -> u32 + Send + Sync> Periodic<F> {
    /// Starts, with the first run after `delay` jiffies.
    pub(crate) fn start(delay: u32, run: F) -> Result<Self> {
        unsafe extern "C" fn call<F: Fn() -> u32>(work: *mut bindings::work_struct) {
            // `work` is the first field of the delayed work, and that of the item.
            const {
                assert!(offset_of!(bindings::delayed_work, work) == 0);
            }
            let item = work.cast::<Item<F>>();
            // SAFETY: the item lives until the work was cancelled; `run` is only ever shared.
            let delay = unsafe { ((*item).run)() };
            // SAFETY: as above.
            unsafe { bindings::mutex_work_queue(&raw mut (*item).work, delay.into()) };
        }
        // SAFETY: all bytes zero is a value of this C struct; it is initialised below.
        let work = unsafe { core::mem::zeroed() };
        let mut item = KBox::new(Item { work, run }, GFP_KERNEL)?;
        // SAFETY: the item stays where it is; `call` takes it back from the work.
        unsafe { bindings::mutex_work_init(&mut item.work, Some(call::<F>)) };
        // SAFETY: initialised above.
        unsafe { bindings::mutex_work_queue(&mut item.work, delay.into()) };
        Ok(Self(item))
    }
}

impl<F: Fn() -> u32 + Send + Sync> Drop for Periodic<F> {
    fn drop(&mut self) {
        // SAFETY: initialised in `start`; works that queue themselves are cancelled for good.
        unsafe { bindings::cancel_delayed_work_sync(&mut self.0.work.work) };
    }
}
