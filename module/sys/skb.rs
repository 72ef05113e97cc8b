// SPDX-License-Identifier: GPL-2.0

//! Socket buffers, as a hook sees them: `data` is at the IP header.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::bindings;
use crate::datapath::checksum::Delta;
use crate::datapath::translate::Offload;

/// A packet in the hands of a hook.
///
/// # Invariants
///
/// The buffer is valid and the hook's for the lifetime `'a`, and `data` points to its IP header.
pub(crate) struct Skb<'a>(
    NonNull<bindings::sk_buff>,
    PhantomData<&'a mut bindings::sk_buff>,
);

impl Skb<'_> {
    /// # Safety
    ///
    /// The type's invariants.
    #[inline(always)]
    pub(super) unsafe fn new(skb: NonNull<bindings::sk_buff>) -> Self {
        Self(skb, PhantomData)
    }

    #[inline(always)]
    fn skb(&self) -> &bindings::sk_buff {
        // SAFETY: by the type's invariant.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::sk_buff {
        self.0.as_ptr()
    }

    /// Tells this packet from others that are on their way at the same time.
    #[inline(always)]
    pub(crate) fn id(&self) -> usize {
        self.0.as_ptr().addr()
    }

    /// Length from the IP header on, in bytes.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        self.skb().len
    }

    /// The bytes that lie in one piece, from the IP header on.
    #[inline(always)]
    pub(crate) fn linear(&self) -> &[u8] {
        let skb = self.skb();
        let length = skb.len.wrapping_sub(skb.data_len) as usize;
        // SAFETY: `len - data_len` bytes from `data` on are the buffer's (skb_headlen()), and
        // nobody writes them while `self` is borrowed: to write takes `&mut self`.
        unsafe { core::slice::from_raw_parts(skb.data, length) }
    }

    /// Brings the first `length` bytes into one piece; false if there are not so many, or no
    /// memory.
    #[cold]
    pub(crate) fn pull(&mut self, length: usize) -> bool {
        let have = self.linear().len();
        if length <= have {
            return true;
        }
        if length > self.len() as usize {
            return false;
        }
        // SAFETY: the buffer is ours, and at least so many bytes are outside of the first piece.
        let tail = unsafe { bindings::__pskb_pull_tail(self.as_ptr(), (length - have) as i32) };
        !tail.is_null()
    }

    /// The first `length` bytes, made safe to change; `None` if they do not lie in one piece, or
    /// if there is no memory for a copy of them.
    #[inline(always)]
    pub(crate) fn writable(&mut self, length: usize) -> Option<&mut [u8]> {
        if length > self.linear().len() {
            return None;
        }
        // SAFETY: the buffer is ours; only a buffer that shares its data needs the call.
        if self.skb().cloned() != 0
            && unsafe { bindings::skb_ensure_writable(self.as_ptr(), length as u32) } != 0
        {
            return None;
        }
        // SAFETY: the bytes are the buffer's, and from here on this buffer's alone; the result
        // borrows `self` exclusively.
        Some(unsafe { core::slice::from_raw_parts_mut(self.skb().data, length) })
    }

    /// Who computes the transport's checksum.
    #[inline(always)]
    pub(crate) fn offload(&self) -> Offload {
        // SAFETY: both variants of the union are the same fields (struct_group() in C).
        let ip_summed = unsafe { self.skb().__bindgen_anon_4.headers.as_ref().ip_summed() };
        match u32::from(ip_summed) {
            bindings::CHECKSUM_PARTIAL => Offload::Partial,
            bindings::CHECKSUM_COMPLETE => Offload::Complete,
            _ => Offload::None,
        }
    }

    /// Takes `change` off the sum that the device computed over the packet (CHECKSUM_COMPLETE).
    pub(crate) fn correct_sum(&mut self, change: Delta) {
        let sum = self
            .as_ptr()
            .wrapping_byte_add(bindings::MXP_SKB_CSUM as usize)
            .cast::<u32>();
        // SAFETY: `csum` is a 32-bit field at this offset of the buffer, which is ours.
        unsafe { sum.write(change.take_off(sum.read())) };
    }

    /// Forgets what the device said of the checksum: whoever wants to know computes it.
    pub(crate) fn forget_sum(&mut self) {
        // SAFETY: the buffer is ours; both variants of the union are the same fields.
        unsafe {
            let headers = (*self.as_ptr()).__bindgen_anon_4.headers.as_mut();
            headers.set_ip_summed(bindings::CHECKSUM_NONE as u8);
        }
    }

    /// Keeps connection tracking from looking at the packet. Nothing may have looked yet.
    #[inline(always)]
    pub(crate) fn untrack(&mut self) {
        // SAFETY: the buffer is ours; a tracked packet holds a reference and is left alone.
        unsafe {
            if (*self.as_ptr())._nfct == 0 {
                (*self.as_ptr())._nfct = bindings::IP_CT_UNTRACKED.into();
            }
        }
    }
}
