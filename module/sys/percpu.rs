// SPDX-License-Identifier: GPL-2.0

//! A value for each CPU.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::AtomicPtr;

use kernel::prelude::*;

use super::{arch, bindings};

/// One `T` for each possible CPU. A hook can be interrupted by another one on the same CPU, and a
/// task can move to another CPU meanwhile: so `T` is only ever shared, and is changed through atomics.
pub(crate) struct PerCpu<T: Sync> {
    base: NonNull<u8>,
    marker: PhantomData<T>,
}

// SAFETY: gives shared references only, to `Sync` values.
unsafe impl<T: Send + Sync> Send for PerCpu<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for PerCpu<T> {}

/// The numbers of the possible CPUs.
pub(crate) fn cpus() -> impl Iterator<Item = u32> {
    // SAFETY: neither function has a precondition.
    (0..unsafe { bindings::mxp_cpus() }).filter(|&cpu| unsafe { bindings::mxp_cpu_possible(cpu) })
}

impl<T: Sync> PerCpu<T> {
    /// Makes a value for each CPU, in memory that is charged to the caller's control group.
    pub(crate) fn new(make: impl FnMut() -> Result<T>) -> Result<Self> {
        Self::make(true, make)
    }

    /// The same in memory of the module's own, which is charged to no control group.
    pub(crate) fn of_module(make: impl FnMut() -> Result<T>) -> Result<Self> {
        Self::make(false, make)
    }

    // On an error, the values that were made are dropped and the memory is free.
    fn make(charged: bool, mut make: impl FnMut() -> Result<T>) -> Result<Self> {
        let (size, align) = (size_of::<T>(), align_of::<T>());
        // SAFETY: has no preconditions; gives zeroed memory or null.
        let base = unsafe { bindings::mxp_alloc_percpu(size, align, charged) };
        let base = NonNull::new(base.cast::<u8>()).ok_or(ENOMEM)?;
        let allocated = Self {
            base,
            marker: PhantomData,
        };
        let mut made = 0;
        for cpu in cpus() {
            match make() {
                Ok(value) => {
                    // SAFETY: this CPU's memory is valid for a `T` and not used yet.
                    unsafe { allocated.at(cpu).write(value) };
                    made = usize::wrapping_add(made, 1);
                }
                Err(error) => {
                    allocated.free(made);
                    return Err(error);
                }
            }
        }
        Ok(allocated)
    }

    fn at(&self, cpu: u32) -> *mut T {
        // SAFETY: `base` is a per-CPU allocation and `cpu` possible.
        unsafe { bindings::mxp_per_cpu_ptr(self.base.as_ptr().cast(), cpu) }.cast()
    }

    /// The value of the CPU on which this runs, or ran a moment ago.
    #[inline(always)]
    pub(crate) fn this(&self) -> &T {
        // SAFETY: `base` is a per-CPU allocation, initialised for every possible CPU.
        unsafe { &*bindings::mxp_this_cpu_ptr(self.base.as_ptr().cast()).cast::<T>() }
    }

    /// The values of all CPUs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        // SAFETY: initialised for every possible CPU.
        cpus().map(|cpu| unsafe { &*self.at(cpu) })
    }
}

impl<T> PerCpu<AtomicPtr<T>> {
    /// The pointer of the CPU on which this runs, or ran a moment ago.
    #[inline(always)]
    pub(crate) fn load(&self) -> *mut T {
        // SAFETY: a per-CPU allocation of such pointers, initialised for every possible CPU.
        unsafe { arch::this_cpu_load(self.base.as_ptr()) }
    }
}

impl<T: Sync> PerCpu<T> {
    // Drops the first `made` CPUs' values and frees the memory, once.
    fn free(self, made: usize) {
        let this = core::mem::ManuallyDrop::new(self);
        for cpu in cpus().take(made) {
            // SAFETY: this CPU's value was made, and there is no other reference to it.
            unsafe { core::ptr::drop_in_place(this.at(cpu)) };
        }
        // SAFETY: the allocation is ours and not used any more.
        unsafe { bindings::mxp_free_percpu(this.base.as_ptr().cast()) };
    }
}

impl<T: Sync> Drop for PerCpu<T> {
    fn drop(&mut self) {
        let this = Self {
            base: self.base,
            marker: PhantomData,
        };
        this.free(usize::MAX);
    }
}
