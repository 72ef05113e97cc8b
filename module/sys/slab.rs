// SPDX-License-Identifier: GPL-2.0

//! A slab cache whose objects are freed after an RCU grace period.

use core::mem::offset_of;
use core::ptr::NonNull;

use kernel::prelude::*;
use kernel::str::CStr;

use super::bindings;
use crate::datapath::link::{Heap, Node};

#[repr(C)]
struct Object<T> {
    value: T,
    head: bindings::callback_head,
}

/// Memory for nodes of `T`. Drop it after the last node.
pub(crate) struct Slab<T>(
    NonNull<bindings::kmem_cache>,
    core::marker::PhantomData<fn(T)>,
);

// SAFETY: a slab cache may be used from everywhere.
unsafe impl<T> Send for Slab<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Slab<T> {}

impl<T> Slab<T> {
    /// A cache that /proc/slabinfo knows as `name`.
    pub(crate) fn new(name: &'static CStr) -> Result<Self> {
        let size = size_of::<Object<Node<T, Self>>>();
        const LINE: u32 = 64;
        // SAFETY: the name is a C string that lives as long as the module.
        let cache = unsafe { bindings::mxp_cache_create(name.as_ptr().cast(), size as u32, LINE) };
        Ok(Self(
            NonNull::new(cache).ok_or(ENOMEM)?,
            core::marker::PhantomData,
        ))
    }
}

// SAFETY: `allocate` gives memory of the slab that nobody else has, large enough and aligned to
// a cache line; `free_later` waits for a grace period, which all guards that exist at the call
// delay.
unsafe impl<T> Heap for Slab<T> {
    fn allocate<U>(&self, value: U) -> Result<NonNull<U>, U> {
        // The heap of a slab of `T` is only ever asked for nodes of `T`.
        const {
            assert!(align_of::<U>() <= 64);
        }
        if size_of::<U>() > size_of::<Node<T, Self>>() {
            return Err(value);
        }
        // SAFETY: the cache lives as long as `self`; any context is allowed.
        let object = unsafe { bindings::mxp_cache_alloc(self.0.as_ptr()) };
        let Some(object) = NonNull::new(object.cast::<Object<U>>()) else {
            return Err(value);
        };
        let object = object.cast::<U>();
        // SAFETY: `value` is the object's first field, and the memory is large enough.
        unsafe { object.write(value) };
        Ok(object)
    }

    unsafe fn free<U>(object: NonNull<U>) {
        // SAFETY: by the caller's promise the object is valid and not used again.
        unsafe { object.drop_in_place() };
        // SAFETY: from `mxp_cache_alloc`; kfree() takes objects of any slab cache.
        unsafe { bindings::kfree(object.as_ptr().cast()) };
    }

    unsafe fn free_later<U>(object: NonNull<U>) {
        unsafe extern "C" fn free<U>(head: *mut bindings::callback_head) {
            // `head` lies in an `Object<U>`, of which `value` is the first field.
            let object = head
                .cast::<u8>()
                .wrapping_sub(offset_of!(Object<U>, head))
                .cast::<U>();
            // SAFETY: the grace period is over: nobody else uses the object.
            unsafe { object.drop_in_place() };
            // SAFETY: from `mxp_cache_alloc`.
            unsafe { bindings::kfree(object.cast()) };
        }
        let object = object.as_ptr().cast::<Object<U>>();
        // SAFETY: the head lies in the object's memory, and readers do not look at it.
        unsafe { bindings::call_rcu(&raw mut (*object).head, Some(free::<U>)) };
    }
}

impl<T> Drop for Slab<T> {
    fn drop(&mut self) {
        // SAFETY: may sleep: a slab is dropped by the module's exit.
        unsafe { bindings::rcu_barrier() };
        // SAFETY: by the type's contract all objects were given back, and the barrier has waited
        // for those that were to be freed later.
        unsafe { bindings::kmem_cache_destroy(self.0.as_ptr()) };
    }
}
