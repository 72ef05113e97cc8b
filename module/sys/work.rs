// SPDX-License-Identifier: GPL-2.0

//! Periodic work, on the system's work queue.

use core::mem::offset_of;
use core::ptr::NonNull;

use kernel::prelude::*;

use super::bindings;

#[repr(C)]
struct Item<W> {
    work: bindings::mxp_work,
    target: W,
}

/// Something to do now and then; may sleep.
pub(crate) trait Work: Send + Sync {
    /// Does it, and tells after how many jiffies to do it again.
    fn run(&self) -> u32;
}

/// Runs `W` again and again. Dropping it waits for a run under way.
///
/// # Invariants
///
/// The pointer came from `KBox::into_raw`; the item's work was initialised.
pub(crate) struct Periodic<W: Work>(NonNull<Item<W>>);

// SAFETY: work may be cancelled from any thread; the target is sent and shared by contract.
unsafe impl<W: Work> Send for Periodic<W> {}
// SAFETY: gives no access to anything.
unsafe impl<W: Work> Sync for Periodic<W> {}

impl<W: Work> Periodic<W> {
    /// Starts, with the first run after `delay` jiffies.
    pub(crate) fn start(delay: u32, target: W) -> Result<Self> {
        unsafe extern "C" fn call<W: Work>(work: *mut bindings::work_struct) {
            // `work` is the first field of the delayed work, and that of the item.
            const {
                assert!(offset_of!(bindings::delayed_work, work) == 0);
            }
            let item = work.cast::<Item<W>>();
            // SAFETY: the item lives until the work was cancelled; the target is only ever shared.
            let delay = unsafe { (*item).target.run() };
            // SAFETY: as above.
            unsafe { bindings::mxp_work_queue(&raw mut (*item).work, delay.into()) };
        }
        // SAFETY: all bytes zero is a value of this C struct; it is initialised below.
        let work = unsafe { core::mem::zeroed() };
        let item = KBox::into_raw(KBox::new(Item { work, target }, GFP_KERNEL)?);
        // SAFETY: the item stays where it is; `call` takes it back from the work.
        unsafe {
            bindings::mxp_work_init(&raw mut (*item).work, Some(call::<W>));
            bindings::mxp_work_queue(&raw mut (*item).work, delay.into());
        }
        NonNull::new(item).map(Self).ok_or(ENOMEM)
    }
}

impl<W: Work> Drop for Periodic<W> {
    fn drop(&mut self) {
        let item = self.0.as_ptr();
        // SAFETY: initialised in `start`; the call also cancels work that queues itself again.
        unsafe { bindings::cancel_delayed_work_sync(&raw mut (*item).work.work) };
        // SAFETY: from `KBox::into_raw`, and the work does not run any more.
        drop(unsafe { KBox::from_raw(item) });
    }
}
