// SPDX-License-Identifier: GPL-2.0

//! Work that a CPU does at the end of a softirq round.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use kernel::prelude::*;
use kernel::sync::Arc;

use super::bindings;
use super::percpu::PerCpu;

/// A target with work to be done at the end of a softirq round.
pub(crate) trait Deferring: Send + Sync {
    /// Each CPU's share.
    type Local: Send + Sync;

    /// All CPUs' shares.
    fn tasklets(&self) -> &Tasklets<Self::Local>;

    /// Does the work of one CPU; runs in a softirq: must not sleep.
    fn run(&self, slot: &TaskletSlot<Self::Local>);
}

/// One CPU's share, and the tasklet that works on it.
#[repr(C)]
pub(crate) struct TaskletSlot<L> {
    // The first field: see `run_tasklet`.
    tasklet: UnsafeCell<bindings::tasklet_struct>,
    target: AtomicPtr<c_void>,
    /// The share.
    pub(crate) local: L,
}

// SAFETY: the tasklet is the kernel's, which any CPU may schedule.
unsafe impl<L: Sync> Sync for TaskletSlot<L> {}
// SAFETY: as above; it is sent only before it is set up.
unsafe impl<L: Send> Send for TaskletSlot<L> {}

impl<L> TaskletSlot<L> {
    /// Runs the tasklet at the end of this softirq round. [`Tasklets::are_on`] must have said so in the RCU
    /// section that calls this.
    #[inline]
    pub(crate) fn schedule(&self) {
        if self.target.load(Ordering::Acquire).is_null() {
            return;
        }
        // SAFETY: set up before the target was stored.
        unsafe { bindings::mxp_tasklet_schedule(self.tasklet.get()) };
    }
}

/// A slot for each CPU.
pub(crate) struct Tasklets<L: Send + Sync> {
    slots: PerCpu<TaskletSlot<L>>,
    on: AtomicBool,
}

impl<L: Send + Sync> Tasklets<L> {
    /// Switched off.
    pub(crate) fn new(mut local: impl FnMut() -> L) -> Result<Self> {
        let slots = PerCpu::new(|| {
            Ok(TaskletSlot {
                // SAFETY: all bytes zero is a value of this C struct; `Running::new` sets it up.
                tasklet: UnsafeCell::new(unsafe { core::mem::zeroed() }),
                target: AtomicPtr::new(core::ptr::null_mut()),
                local: local(),
            })
        })?;
        Ok(Self {
            slots,
            on: AtomicBool::new(false),
        })
    }

    /// Whether they may be scheduled.
    #[inline]
    pub(crate) fn are_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The slot of this CPU.
    #[inline]
    pub(crate) fn this(&self) -> &TaskletSlot<L> {
        self.slots.this()
    }
}

unsafe extern "C" fn run_tasklet<T: Deferring>(tasklet: *mut bindings::tasklet_struct) {
    // SAFETY: the tasklet is the first field of a slot, which lives as long as the target; that
    // lives until the tasklet was killed.
    unsafe {
        let slot = &*tasklet.cast::<TaskletSlot<T::Local>>();
        let target = slot.target.load(Ordering::Acquire);
        (*target.cast::<T>()).run(slot);
    }
}

/// Tasklets that are switched on. When this is dropped, those that were scheduled still run; no more are
/// scheduled.
pub(crate) struct Running<T: Deferring>(Arc<T>);

impl<T: Deferring> Running<T> {
    /// Switches the tasklets of `target` on; once only.
    pub(crate) fn new(target: Arc<T>) -> Self {
        for slot in target.tasklets().slots.iter() {
            // SAFETY: it is not scheduled before its target is set, and stays where it is.
            unsafe { bindings::tasklet_setup(slot.tasklet.get(), Some(run_tasklet::<T>)) };
            let pointer = core::ptr::from_ref::<T>(&target).cast_mut().cast();
            slot.target.store(pointer, Ordering::Release);
        }
        target.tasklets().on.store(true, Ordering::Release);
        Self(target)
    }
}

impl<T: Deferring> Drop for Running<T> {
    fn drop(&mut self) {
        let tasklets = self.0.tasklets();
        tasklets.on.store(false, Ordering::Release);
        // SAFETY: may sleep: dropped by tasks only. After it no hook schedules a tasklet: hooks that
        // saw them on have returned.
        unsafe { bindings::synchronize_net() };
        for slot in tasklets.slots.iter() {
            // SAFETY: set up in `new`. Waits until it has run, if it was scheduled.
            unsafe { bindings::tasklet_kill(slot.tasklet.get()) };
        }
    }
}
