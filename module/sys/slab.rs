// SPDX-License-Identifier: GPL-2.0

//! Memory for objects of one size, from a slab cache or from kmalloc().

use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr::NonNull;

use kernel::prelude::*;
use kernel::str::CStr;

use super::bindings;

/// A slab cache. Drop it after its last object is freed.
pub(crate) struct Slab<N>(NonNull<bindings::kmem_cache>, PhantomData<fn(N)>);

// SAFETY: a slab cache may be used from everywhere.
unsafe impl<N> Send for Slab<N> {}
// SAFETY: as above.
unsafe impl<N> Sync for Slab<N> {}

impl<N> Slab<N> {
    /// A cache that /proc/slabinfo knows as `name`, of objects aligned to `align` bytes.
    pub(crate) fn new(name: &'static CStr, align: u32) -> Result<Self> {
        let size = size_of::<N>() as u32;
        // SAFETY: the name is a C string that lives as long as the module.
        let cache = unsafe { bindings::mxp_cache_create(name.as_ptr().cast(), size, align) };
        Ok(Self(NonNull::new(cache).ok_or(ENOMEM)?, PhantomData))
    }

    /// Takes memory for `COUNT` objects or, if there is not so much, for one. Calls `each` once for each object
    /// that is the caller's now, and for nothing else.
    pub(crate) fn allocate<const COUNT: usize>(&self, mut each: impl FnMut(NonNull<N>)) {
        const {
            assert!(COUNT > 0);
        }
        for count in [COUNT, 1] {
            // A new array for each try: a call that fails half way gives back what it had taken, but
            // leaves pointers to it in the array (kmem_cache_alloc_bulk_noprof() in mm/slub.c).
            let mut objects = [core::ptr::null_mut::<c_void>(); COUNT];
            // SAFETY: the cache lives as long as `self`, and there is room for so many pointers:
            // for one at least.
            let got =
                unsafe { bindings::mxp_cache_alloc(self.0.as_ptr(), count, objects.as_mut_ptr()) };
            if got {
                objects
                    .into_iter()
                    .take(count)
                    .filter_map(|object| NonNull::new(object.cast()))
                    .for_each(&mut each);
                return;
            }
        }
    }
}

impl<N> Drop for Slab<N> {
    fn drop(&mut self) {
        // SAFETY: by the type's contract all objects were freed.
        unsafe { bindings::kmem_cache_destroy(self.0.as_ptr()) };
    }
}

/// Memory for an `N` from kmalloc().
pub(crate) fn kmalloc<N>() -> Option<NonNull<N>> {
    // SAFETY: has no preconditions.
    NonNull::new(unsafe { bindings::mxp_kmalloc(size_of::<N>()) }.cast())
}

/// Frees memory.
///
/// # Safety
///
/// It comes from a slab cache or from [`kmalloc`], and is not used any more.
pub(crate) unsafe fn free<N>(memory: NonNull<N>) {
    // SAFETY: the caller's promise; kfree() takes objects of any slab cache.
    unsafe { bindings::kfree(memory.as_ptr().cast()) };
}
