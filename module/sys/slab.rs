// SPDX-License-Identifier: GPL-2.0

//! A slab cache whose objects are freed after an RCU grace period.

use core::mem::offset_of;
use core::ptr::NonNull;

use kernel::prelude::*;
use kernel::str::CStr;

use super::bindings;
use crate::datapath::link::Heap;

#[repr(C)]
struct Object<N> {
    node: N,
    head: bindings::callback_head,
}

/// Memory for nodes. Drop it after the last node.
pub(crate) struct Slab<N>(
    NonNull<bindings::kmem_cache>,
    core::marker::PhantomData<fn(N)>,
);

// SAFETY: a slab cache may be used from everywhere.
unsafe impl<N> Send for Slab<N> {}
// SAFETY: as above.
unsafe impl<N> Sync for Slab<N> {}

impl<N> Slab<N> {
    /// A cache that /proc/slabinfo knows as `name`, of objects aligned to `align` bytes.
    pub(crate) fn new(name: &'static CStr, align: u32) -> Result<Self> {
        let size = size_of::<Object<N>>();
        // SAFETY: the name is a C string that lives as long as the module.
        let cache = unsafe { bindings::mxp_cache_create(name.as_ptr().cast(), size as u32, align) };
        Ok(Self(
            NonNull::new(cache).ok_or(ENOMEM)?,
            core::marker::PhantomData,
        ))
    }
}

// SAFETY: `take` gives memory of the slab that nobody else has, large enough and aligned as the
// slab is, to at least a word; `retire` waits for a grace period, which all guards that exist at
// the call delay.
unsafe impl<N> Heap<N> for Slab<N> {
    fn take(&self) -> Option<NonNull<N>> {
        const {
            assert!(align_of::<Object<N>>() <= align_of::<usize>());
        }
        // SAFETY: the cache lives as long as `self`; any context is allowed.
        let object = unsafe { bindings::mxp_cache_alloc(self.0.as_ptr()) };
        // The node is the object's first field.
        NonNull::new(object.cast())
    }

    unsafe fn give_back(&self, node: NonNull<N>) {
        // SAFETY: by the caller's promise the node is valid and not used again.
        unsafe { node.drop_in_place() };
        // SAFETY: from `mxp_cache_alloc`; kfree() takes objects of any slab cache.
        unsafe { bindings::kfree(node.as_ptr().cast()) };
    }

    unsafe fn retire(&self, node: NonNull<N>) {
        unsafe extern "C" fn free<N>(head: *mut bindings::callback_head) {
            // `head` lies in an `Object<N>`, of which the node is the first field.
            let node = head
                .cast::<u8>()
                .wrapping_sub(offset_of!(Object<N>, head))
                .cast::<N>();
            // SAFETY: the grace period is over: nobody else uses the node.
            unsafe { node.drop_in_place() };
            // SAFETY: from `mxp_cache_alloc`.
            unsafe { bindings::kfree(node.cast()) };
        }
        let object = node.as_ptr().cast::<Object<N>>();
        // SAFETY: the head lies in the object's memory, and readers do not look at it.
        unsafe { bindings::call_rcu(&raw mut (*object).head, Some(free::<N>)) };
    }
}

impl<N> Drop for Slab<N> {
    fn drop(&mut self) {
        // SAFETY: may sleep: a slab is dropped by the module's exit.
        unsafe { bindings::rcu_barrier() };
        // SAFETY: by the type's contract all objects were given back, and the barrier has waited
        // for those that were to be freed later.
        unsafe { bindings::kmem_cache_destroy(self.0.as_ptr()) };
    }
}
