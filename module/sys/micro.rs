// SPDX-License-Identifier: GPL-2.0

//! Single steps, timed: with interrupts off, and each reached by one call through a pointer, so that all have
//! the same overhead. The probe only.

use core::ffi::c_void;
use core::ptr::NonNull;

use kernel::prelude::*;
use kernel::str::CStr;

use super::pool::NodePool;
use super::skb::Skb;
use super::{bindings, rcu};
use crate::abi::micro::{FLOW_SIZE, LIST_LENGTH};
use crate::datapath::link::{Heap, Node, ReadGuard};
use crate::datapath::stack::FreePointer;

const _: () = assert!(FLOW_SIZE == bindings::MXP_FLOW_SIZE as usize);
const _: () = assert!(LIST_LENGTH == bindings::MXP_LIST_LENGTH as usize);

/// Runs `run` as hooks run: with BH disabled, in an RCU read-side section.
pub(crate) fn as_in_a_hook<R>(run: impl FnOnce(&ReadGuard) -> R) -> R {
    // SAFETY: has no preconditions; BH is enabled again below.
    unsafe { bindings::mxp_softirqs_off() };
    let result = rcu::read(run);
    // SAFETY: disabled above, in this task.
    unsafe { bindings::mxp_softirqs_on() };
    result
}

/// Something that can be done over and over, and must not sleep.
pub(crate) trait Repeat {
    /// Does it once.
    fn once(&mut self);
}

/// Ticks that one run of `step` takes, and a constant. Its arguments and results are in memory
/// behind one pointer, as for the kernel's own steps.
pub(crate) fn time_of<S: Repeat>(step: &mut S) -> u64 {
    time_on(once::<S>, step)
}

unsafe extern "C" fn once<S: Repeat>(step: *mut c_void) {
    // SAFETY: from `time_of`, which has it exclusively.
    unsafe { (*step.cast::<S>()).once() }
}

/// The same for a closure, which takes some moves more for what it captures.
pub(crate) fn time<F: FnMut()>(mut function: F) -> u64 {
    time_on(call::<F>, &mut function)
}

unsafe extern "C" fn call<F: FnMut()>(function: *mut c_void) {
    // SAFETY: from `time`, which has it exclusively.
    unsafe { (*function.cast::<F>())() }
}

// The same for a C function on `argument`.
fn time_on<T>(function: unsafe extern "C" fn(*mut c_void), argument: &mut T) -> u64 {
    // SAFETY: the callers give functions that take such an argument, which lives until after the call.
    unsafe { bindings::mxp_time(Some(function), core::ptr::from_mut(argument).cast()) }
}

/// Where memory for a flow may come from.
pub(crate) trait Allocator {
    /// Takes memory, and times it.
    fn take(&mut self) -> Result<(Memory, u64)>;
    /// Gives back memory that this one gave, and times it.
    fn give_back(&mut self, memory: Memory) -> u64;
}

/// Memory of an [`Allocator`]. Dropping it does not give it back.
pub(crate) struct Memory(NonNull<c_void>);

impl<K: Send + Sync, T: FreePointer> Allocator for NodePool<K, T> {
    fn take(&mut self) -> Result<(Memory, u64)> {
        let mut memory = None;
        let ticks = time(|| memory = Heap::alloc(self));
        Ok((Memory(memory.ok_or(ENOMEM)?.cast()), ticks))
    }

    fn give_back(&mut self, memory: Memory) -> u64 {
        // SAFETY: by the trait's contract the memory is from this pool. It is valid as a node: all zero but for
        // the links, and the modules' `FreePointer` values consist of numbers and pointers that may be null.
        time(|| unsafe { Heap::free(self, memory.0.cast::<Node<K, T>>()) })
    }
}

/// kmalloc(), or kzalloc() if `ZEROED`.
pub(crate) struct Kmalloc<const ZEROED: bool>;

impl<const ZEROED: bool> Allocator for Kmalloc<ZEROED> {
    fn take(&mut self) -> Result<(Memory, u64)> {
        let mut memory = core::ptr::null_mut::<c_void>();
        let function = if ZEROED {
            bindings::mxp_micro_kzalloc
        } else {
            bindings::mxp_micro_kmalloc
        };
        let ticks = time_on(function, &mut memory);
        Ok((Memory(NonNull::new(memory).ok_or(ENOMEM)?), ticks))
    }

    fn give_back(&mut self, memory: Memory) -> u64 {
        time_on(bindings::mxp_micro_kfree, &mut memory.0.as_ptr())
    }
}

/// A slab cache of the kernel's.
pub(crate) struct Slab(NonNull<bindings::kmem_cache>);

impl Slab {
    /// One that /proc/slabinfo knows as `name`.
    pub(crate) fn new(name: &'static CStr) -> Result<Self> {
        let size = FLOW_SIZE as u32;
        // SAFETY: the name is a C string that lives as long as the module.
        let cache = unsafe { bindings::mxp_cache_create(name.as_ptr().cast(), size, 64) };
        Ok(Self(NonNull::new(cache).ok_or(ENOMEM)?))
    }
}

impl Allocator for Slab {
    fn take(&mut self) -> Result<(Memory, u64)> {
        let mut slab = bindings::mxp_micro_slab {
            cache: self.0.as_ptr(),
            memory: core::ptr::null_mut(),
        };
        let ticks = time_on(bindings::mxp_micro_slab_alloc, &mut slab);
        Ok((Memory(NonNull::new(slab.memory).ok_or(ENOMEM)?), ticks))
    }

    fn give_back(&mut self, memory: Memory) -> u64 {
        let mut slab = bindings::mxp_micro_slab {
            cache: self.0.as_ptr(),
            memory: memory.0.as_ptr(),
        };
        time_on(bindings::mxp_micro_slab_free, &mut slab)
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: its objects were given back.
        unsafe { bindings::kmem_cache_destroy(self.0.as_ptr()) };
    }
}

/// The kernel's lists, whose entries have different tuples.
///
/// # Invariants
///
/// Initialised, and never moved.
pub(crate) struct Lists(KVBox<bindings::mxp_micro_table>);

impl Lists {
    /// A list of [`LIST_LENGTH`] entries; the first `bucket` of them are in one bucket of a hash table as well.
    pub(crate) fn new(bucket: u32) -> Result<Self> {
        let table = KVBox::<bindings::mxp_micro_table>::new_uninit(GFP_KERNEL)?;
        let table = KVBox::into_raw(table).cast::<bindings::mxp_micro_table>();
        // SAFETY: all bytes zero is a value of this C struct, and it stays where it is.
        unsafe {
            table.write_bytes(0, 1);
            bindings::mxp_micro_table_init(table, bucket);
            Ok(Self(KVBox::from_raw(table)))
        }
    }

    /// Looks for the entry at `place`, which is 1 for the first, on the list.
    pub(crate) fn find(&mut self, place: u32) -> Result<u64> {
        self.look(bindings::mxp_micro_list_find, place)
    }

    /// The same in the hash table.
    pub(crate) fn find_hashed(&mut self, place: u32) -> Result<u64> {
        self.look(bindings::mxp_micro_hlist_find, place)
    }

    fn look(&mut self, find: unsafe extern "C" fn(*mut c_void), place: u32) -> Result<u64> {
        let table = &mut *self.0;
        let wanted = place.wrapping_sub(1) as usize;
        let entry = table.entries.get(wanted).ok_or(EINVAL)?;
        table.wanted = entry.tuple;
        let entry = core::ptr::from_ref(entry);
        table.found = core::ptr::null_mut();
        let ticks = time_on(find, table);
        if !core::ptr::eq(table.found, entry) {
            return Err(ENOENT);
        }
        Ok(ticks)
    }
}

/// A UDP packet over IPv4, with one reference.
pub(crate) struct Datagram(NonNull<bindings::sk_buff>);

impl Datagram {
    /// With so many bytes of payload.
    pub(crate) fn new(payload: u32) -> Result<Self> {
        // SAFETY: has no preconditions but being allowed to sleep.
        let skb = unsafe { bindings::mxp_micro_skb(payload) };
        Ok(Self(NonNull::new(skb).ok_or(ENOMEM)?))
    }

    /// The packet as a hook sees it.
    #[inline(always)]
    pub(crate) fn skb(&mut self) -> Skb<'_> {
        // SAFETY: the buffer is ours, its data at the IP header, and borrowed exclusively.
        unsafe { Skb::new(self.0) }
    }

    /// Becomes a copy of itself: skb_copy(). False without memory for it.
    #[inline(always)]
    pub(crate) fn become_copy(&mut self) -> bool {
        self.replace(bindings::mxp_micro_skb_copy)
    }

    /// Becomes a clone of itself, with memory of its own. False without memory for it.
    #[inline(always)]
    pub(crate) fn become_clone(&mut self) -> bool {
        self.replace(bindings::mxp_micro_skb_clone)
    }

    #[inline(always)]
    fn replace(&mut self, by: unsafe extern "C" fn(*mut *mut bindings::sk_buff) -> bool) -> bool {
        let mut skb = self.0.as_ptr();
        // SAFETY: the buffer is ours, with one reference; the function leaves it, or another such buffer in
        // its place.
        let replaced = unsafe { by(&raw mut skb) };
        if let Some(skb) = NonNull::new(skb) {
            self.0 = skb;
        }
        replaced
    }

    /// Times a clone, which is then freed.
    pub(crate) fn time_clone(&mut self) -> Result<u64> {
        let mut pair = bindings::mxp_micro_pair {
            skb: self.0.as_ptr(),
            clone: core::ptr::null_mut(),
        };
        let ticks = time_on(bindings::mxp_micro_clone_only, &mut pair);
        if pair.clone.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: just made, with one reference.
        unsafe { bindings::mxp_micro_skb_free(pair.clone) };
        Ok(ticks)
    }
}

impl Drop for Datagram {
    fn drop(&mut self) {
        // SAFETY: the buffer is ours.
        unsafe { bindings::mxp_micro_skb_free(self.0.as_ptr()) };
    }
}

/// Ticks that it takes to copy `from` to the beginning of `to`, by the kernel's memcpy().
pub(crate) fn time_memcpy(to: &mut [u8], from: &[u8]) -> Result<u64> {
    if from.len() > to.len() {
        return Err(EINVAL);
    }
    let mut copy = bindings::mxp_micro_copy {
        to: to.as_mut_ptr().cast(),
        from: from.as_ptr().cast(),
        size: from.len(),
    };
    Ok(time_on(bindings::mxp_micro_memcpy, &mut copy))
}
