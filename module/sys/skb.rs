// SPDX-License-Identifier: GPL-2.0

//! Socket buffers, as a hook sees them: `data` is at the IP header.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::bindings;
use crate::datapath::translate::{Offload, SkbChecksum};

/// A packet in the hands of a hook.
///
/// # Invariants
///
/// The buffer is valid and the hook's for the lifetime `'a`, and `data` points to its IP header.
pub(crate) struct Skb<'a>(
    NonNull<bindings::sk_buff>,
    PhantomData<&'a mut bindings::sk_buff>,
);

impl<'a> Skb<'a> {
    #[inline(always)]
    pub(super) fn into_raw(self) -> NonNull<bindings::sk_buff> {
        self.0
    }

    /// As [`Self::linear`], for as long as the buffer lives.
    #[inline(always)]
    pub(super) fn into_linear(self) -> &'a [u8] {
        // SAFETY: as in `linear`; to write the bytes takes `self`, which is consumed here.
        unsafe { core::slice::from_raw_parts(self.skb().data, self.linear().len()) }
    }

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

    /// Identifies this packet among those that are on their way at the same time.
    #[inline(always)]
    pub(crate) fn id(&self) -> usize {
        self.0.as_ptr().addr()
    }

    /// Length from the IP header on, in bytes.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        self.skb().len
    }

    /// The linear bytes, from the IP header on.
    #[inline(always)]
    pub(crate) fn linear(&self) -> &[u8] {
        let skb = self.skb();
        let length = skb.len.wrapping_sub(skb.data_len) as usize;
        // SAFETY: `len - data_len` bytes from `data` on are the buffer's (skb_headlen()), and
        // nobody writes them while `self` is borrowed: to write takes `&mut self`.
        unsafe { core::slice::from_raw_parts(skb.data, length) }
    }

    /// Makes the first `length` bytes linear; false if there are not so many, or no memory.
    #[cold]
    pub(crate) fn pull(&mut self, length: usize) -> bool {
        let have = self.linear().len();
        if length <= have {
            return true;
        }
        if length > self.len() as usize {
            return false;
        }
        // SAFETY: the buffer is ours, and at least so many bytes are outside of the linear part.
        let tail = unsafe { bindings::__pskb_pull_tail(self.as_ptr(), (length - have) as i32) };
        !tail.is_null()
    }

    // Whether the first `length` bytes are this buffer's alone: skb_clone_writable().
    #[inline(always)]
    pub(super) fn owns(&self, length: usize) -> bool {
        let skb = self.skb();
        if skb.cloned() == 0 {
            return true;
        }
        let shared = skb.head.wrapping_add(skb.end as usize);
        // SAFETY: the shared info is at the buffer's end (skb_shinfo()); other CPUs write the word
        // whole.
        let references = unsafe {
            (&raw const (*shared.cast::<bindings::skb_shared_info>())
                .dataref
                .counter)
                .read_volatile()
        } as u32;
        let headroom = skb.data.addr().wrapping_sub(skb.head.addr());
        let fits = headroom.wrapping_add(length) <= usize::from(skb.hdr_len);
        // The lower half counts references to the data, the upper half those of them to the payload alone:
        // see skb_header_cloned(). First what a socket of TCP sends: it has kept the payload.
        const SENT: u32 = 1 << 16 | 2;
        if references == SENT {
            return fits;
        }
        let headers = (references & 0xffff).wrapping_sub(references >> 16);
        // Or all clones have let go of the data: skb_cloned().
        headers == 1 && fits || references & 0xffff == 1
    }

    /// Where the IP header is.
    #[inline(always)]
    pub(super) fn start(&self) -> NonNull<u8> {
        // SAFETY: a buffer has data.
        unsafe { NonNull::new_unchecked(self.skb().data) }
    }

    /// The first `length` bytes, to be changed; `None` if they are not linear, or are shared with other
    /// buffers. [`Self::unshare`] can mend both.
    #[inline(always)]
    pub(crate) fn writable(&mut self, length: usize) -> Option<&mut [u8]> {
        if length > self.linear().len() || !self.owns(length) {
            return None;
        }
        // SAFETY: the bytes are the buffer's, and this buffer's alone; the result borrows `self`
        // exclusively.
        Some(unsafe { core::slice::from_raw_parts_mut(self.skb().data, length) })
    }

    /// Makes the first `length` bytes writable; false if there are not so many, or no memory for a
    /// copy of them.
    #[cold]
    pub(crate) fn unshare(&mut self, length: usize) -> bool {
        // SAFETY: the buffer is ours.
        unsafe { bindings::skb_ensure_writable(self.as_ptr(), length as u32) == 0 }
    }

    /// Copies the whole packet into linear memory of its own; false without memory for it.
    #[cold]
    pub(crate) fn copy(&mut self) -> bool {
        // SAFETY: the buffer is ours.
        unsafe { bindings::mxp_skb_copy(self.as_ptr()) }
    }

    #[inline(always)]
    fn ip_summed(&self) -> u32 {
        // SAFETY: both variants of the union are the same fields (struct_group() in C).
        u32::from(unsafe { self.skb().__bindgen_anon_4.headers.as_ref().ip_summed() })
    }

    /// Whether a checksum of the packet is left to a device (CHECKSUM_PARTIAL), or was computed by one
    /// (CHECKSUM_COMPLETE).
    #[inline(always)]
    pub(crate) fn is_offloaded(&self) -> bool {
        self.ip_summed() & 2 != 0
    }

    /// How the checksum of the transport header at `transport`, in bytes from the IP header, is offloaded.
    /// `within`: the payload may be another packet with a checksum of its own.
    #[inline(always)]
    pub(crate) fn offload(&self, transport: usize, within: bool) -> Offload {
        let ip_summed = self.ip_summed();
        // Most packets are done after this one bit.
        const {
            assert!(bindings::CHECKSUM_NONE & 2 == 0 && bindings::CHECKSUM_UNNECESSARY & 2 == 0);
            assert!(bindings::CHECKSUM_COMPLETE & 2 != 0 && bindings::CHECKSUM_PARTIAL & 2 != 0);
        }
        if ip_summed & 2 == 0 {
            Offload::None
        } else if ip_summed != bindings::CHECKSUM_PARTIAL {
            Offload::Complete
        } else if !within || self.sums_from(transport) || self.is_gso() {
            Offload::Partial
        } else {
            // The device sums up an inner header: this one's checksum is complete (lco_csum()), or zero.
            Offload::None
        }
    }

    // Whether the checksum that is left to the device begins at `transport`.
    #[inline(always)]
    fn sums_from(&self, transport: usize) -> bool {
        let skb = self.skb();
        let start = self
            .as_ptr()
            .wrapping_byte_add(bindings::MXP_SKB_CSUM as usize)
            .cast::<u16>();
        // SAFETY: `csum_start` is the first half of the union with `csum`, and counts from `head`; the
        // buffer is ours.
        let start = usize::from(unsafe { start.read() });
        let headroom = skb.data.addr().wrapping_sub(skb.head.addr());
        start == headroom.wrapping_add(transport)
    }

    // Whether it is several packets (GSO). Their outer checksums are made from the pseudo header's sum when
    // they are segmented (udp_set_csum()).
    #[cold]
    fn is_gso(&self) -> bool {
        let skb = self.skb();
        let shared = skb.head.wrapping_add(skb.end as usize);
        // SAFETY: the shared info is at the buffer's end (skb_shinfo()).
        unsafe { (*shared.cast::<bindings::skb_shared_info>()).gso_size != 0 }
    }

    /// Applies what translating the packet changes in the sum that a device computed over it.
    #[inline(always)]
    pub(crate) fn fix_checksum(&mut self, sum: SkbChecksum) {
        match sum {
            SkbChecksum::Keep => {}
            SkbChecksum::Subtract(change) => {
                let sum = self
                    .as_ptr()
                    .wrapping_byte_add(bindings::MXP_SKB_CSUM as usize)
                    .cast::<u32>();
                // SAFETY: `csum` is a 32-bit field at this offset of the buffer, which is ours.
                unsafe { sum.write(change.subtract_from(sum.read())) };
            }
            SkbChecksum::Invalidate => {
                // SAFETY: the buffer is ours; both variants of the union are the same fields.
                unsafe {
                    let headers = (*self.as_ptr()).__bindgen_anon_4.headers.as_mut();
                    headers.set_ip_summed(bindings::CHECKSUM_NONE as u8);
                }
            }
        }
    }

    /// Marks the packet untracked, unless connection tracking has an entry for it already.
    #[inline(always)]
    pub(crate) fn untrack(&mut self) {
        // SAFETY: the buffer is ours; a tracked packet holds a reference and is left alone.
        unsafe {
            if (*self.as_ptr())._nfct == 0 {
                (*self.as_ptr())._nfct = bindings::IP_CT_UNTRACKED.into();
            } else {
                bindings::mxp_untrack_template(self.as_ptr());
            }
        }
    }

    /// Whether the packet is marked untracked.
    pub(crate) fn is_untracked(&self) -> bool {
        self.skb()._nfct == u64::from(bindings::IP_CT_UNTRACKED)
    }

    fn refdst(&self) -> *mut usize {
        self.as_ptr()
            .wrapping_byte_add(bindings::MXP_SKB_REFDST as usize)
            .cast()
    }

    /// Whether the packet has a route.
    #[inline(always)]
    pub(crate) fn has_dst(&self) -> bool {
        // SAFETY: `_skb_refdst` is a word at this offset of the buffer, which is ours.
        unsafe { self.refdst().read() != 0 }
    }

    // The packet's route: skb_dst().
    #[inline(always)]
    pub(crate) fn dst(&self) -> Option<NonNull<bindings::dst_entry>> {
        const NO_REFERENCE: usize = bindings::SKB_DST_NOREF as usize;
        // SAFETY: as in `has_dst`.
        let word = unsafe { self.refdst().read() };
        NonNull::new(core::ptr::with_exposed_provenance_mut(word & !NO_REFERENCE))
    }

    /// Drops the packet's route, if it has one.
    #[inline(always)]
    pub(crate) fn drop_dst(&mut self) {
        if self.has_dst() {
            // SAFETY: the buffer is ours.
            unsafe { bindings::mxp_skb_dst_drop(self.as_ptr()) };
        }
    }

    /// Gives a packet without a route one that lives at least until the end of the RCU section
    /// in which it is handled: skb_dst_set_noref().
    #[inline(always)]
    pub(super) fn set_dst_noref(&mut self, dst: NonNull<bindings::dst_entry>) {
        self.set_refdst(dst.as_ptr().addr() | bindings::SKB_DST_NOREF as usize);
    }

    /// Gives a packet without a route one, with the caller's reference: skb_dst_set().
    #[inline(always)]
    pub(super) fn set_dst(&mut self, dst: NonNull<bindings::dst_entry>) {
        self.set_refdst(dst.as_ptr().addr());
    }

    /// Takes the packet's route off it, to be put back in the same RCU section.
    #[inline(always)]
    pub(crate) fn detach_route(&mut self) -> DetachedRoute {
        // SAFETY: as in `has_dst`.
        DetachedRoute(unsafe { self.refdst().replace(0) })
    }

    /// Puts a route back on a packet that has none. `slow_gro` is still set since the packet had one.
    #[inline(always)]
    pub(crate) fn attach_route(&mut self, mut route: DetachedRoute) {
        // SAFETY: as in `has_dst`; the reference, if there is one, is the packet's now.
        unsafe { self.refdst().write(core::mem::take(&mut route.0)) };
    }

    /// The packet's mark, by which policy rules may route it.
    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: the mark is a word at this offset of the buffer, which is ours.
        unsafe {
            self.as_ptr()
                .wrapping_byte_add(bindings::MXP_SKB_MARK as usize)
                .cast::<u32>()
                .read()
        }
    }

    #[inline(always)]
    fn set_refdst(&mut self, word: usize) {
        // SAFETY: the buffer is ours; `_skb_refdst` is a word at this offset. Both variants of the
        // union are the same fields.
        unsafe {
            let headers = (*self.as_ptr()).__bindgen_anon_4.headers.as_mut();
            headers.set_slow_gro(1);
            self.refdst().write(word);
        }
    }
}

/// A route that was taken from a packet: the word of `_skb_refdst`, or zero.
///
/// # Invariants
///
/// Without `SKB_DST_NOREF` the word is a reference to the route; with it, the route lives until the end
/// of the RCU section.
pub(crate) struct DetachedRoute(usize);

impl Drop for DetachedRoute {
    #[inline(always)]
    fn drop(&mut self) {
        const NO_REFERENCE: usize = bindings::SKB_DST_NOREF as usize;
        if self.0 != 0 && self.0 & NO_REFERENCE == 0 {
            let dst = core::ptr::with_exposed_provenance_mut(self.0);
            // SAFETY: by the invariant the reference is ours.
            unsafe { bindings::mxp_dst_release(dst) };
        }
    }
}
