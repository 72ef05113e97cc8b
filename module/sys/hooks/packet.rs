// SPDX-License-Identifier: GPL-2.0

//! A packet at a hook: where it is on its path, its headers, and what the kernel knows of it and does with it.

use core::marker::PhantomData;

use super::super::bindings;
use super::super::route::RouteKey;
use super::super::skb::Skb;
use crate::abi::proxy::{Family, Protocol, NAME_SIZE};

/// Where on a packet's path a hook is: `enum nf_inet_hooks`, by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(dead_code)] // Each module uses its own share.
pub(crate) enum Hooknum {
    PreRouting = bindings::NF_INET_PRE_ROUTING as u8,
    LocalIn = bindings::NF_INET_LOCAL_IN as u8,
    Forward = bindings::NF_INET_FORWARD as u8,
    LocalOut = bindings::NF_INET_LOCAL_OUT as u8,
    PostRouting = bindings::NF_INET_POST_ROUTING as u8,
}

/// A packet at a hook.
pub(crate) struct Packet<'a> {
    /// The packet.
    pub(crate) skb: Skb<'a>,
    /// Where it is.
    pub(crate) state: HookState<'a>,
}

/// Where on its path a packet is: `struct nf_hook_state`.
#[derive(Clone, Copy)]
pub(crate) struct HookState<'a>(&'a bindings::nf_hook_state);

impl<'a> HookState<'a> {
    pub(in super::super) fn new(state: &'a bindings::nf_hook_state) -> Self {
        Self(state)
    }

    #[inline(always)]
    pub(in super::super) fn raw(self) -> &'a bindings::nf_hook_state {
        self.0
    }

    /// The device through which it came in; zero for the machine's own.
    #[inline(always)]
    pub(crate) fn device(self) -> u32 {
        // SAFETY: netfilter's state has the device or null, and it lives as long as the hook.
        unsafe { self.0.in_.as_ref() }.map_or(0, |device| device.ifindex as u32)
    }

    /// The name of the device through which it came in or, of the machine's own, would go out;
    /// filled up with zeros.
    #[cold]
    pub(crate) fn interface(self) -> [u8; NAME_SIZE] {
        let device = if self.is_own() {
            self.0.out
        } else {
            self.0.in_
        };
        if device.is_null() {
            return [0; NAME_SIZE];
        }
        // SAFETY: netfilter's state has the device, and it lives as long as the hook. If the device is
        // renamed meanwhile (dev_change_name()), a mixture of both names is read, of bytes that
        // all are valid.
        let name = unsafe {
            (&raw const (*device).name)
                .cast::<[u8; NAME_SIZE]>()
                .read_volatile()
        };
        // Bytes after the first zero may be left of a longer name.
        let mut ended = false;
        name.map(|byte| {
            ended |= byte == 0;
            if ended {
                0
            } else {
                byte
            }
        })
    }

    /// Whether it is one of the machine's own, on its way out.
    pub(crate) fn is_own(self) -> bool {
        u32::from(self.0.hook) == Hooknum::LocalOut as u32
    }

    /// As `device`, for a packet that came in.
    #[inline(always)]
    pub(in super::super) fn device_in(self) -> u32 {
        debug_assert!(!self.0.in_.is_null());
        // SAFETY: the callers of the hooks for packets that come in give their device
        // (ip_rcv(), ipv6_rcv()), and it lives as long as the hook.
        unsafe { (*self.0.in_).ifindex as u32 }
    }

    /// The device to which the sending socket of a packet of the machine's own is bound; zero if none.
    #[inline(always)]
    pub(in super::super) fn bound_device(self) -> u32 {
        let sk = self.0.sk;
        if sk.is_null() {
            return 0;
        }
        // SAFETY: netfilter's state has the socket as long as the hook; request sockets, which are smaller,
        // have the word, too (struct sock_common), and it is written whole.
        unsafe {
            sk.byte_add(bindings::MXP_SOCK_BOUND_DEVICE as usize)
                .cast::<u32>()
                .read_volatile()
        }
    }

    /// What a cached route of this packet depends on; `tos` is the byte of the IPv4 header.
    #[inline(always)]
    pub(crate) fn route_key<const LOCAL: bool>(self, v6: bool, tos: u8) -> RouteKey {
        let device = if LOCAL {
            self.bound_device()
        } else {
            self.device_in()
        };
        if v6 {
            // Read before the look-up: what is added to the tables meanwhile invalidates the route.
            RouteKey::v6(device, self.route_generation_v6())
        } else {
            RouteKey::v4(device, tos)
        }
    }

    #[inline(always)]
    fn net_word(self, offset: u32) -> i32 {
        // SAFETY: the namespace lives as long as the hook, and has an atomic_t at this offset, whose word
        // is written whole.
        unsafe {
            self.0
                .net
                .byte_add(offset as usize)
                .cast::<i32>()
                .read_volatile()
        }
    }

    /// Changes with the IPv4 routes of the namespace: rt_genid_ipv4().
    #[inline(always)]
    pub(in super::super) fn route_generation(self) -> i32 {
        self.net_word(bindings::MXP_NET_ROUTE_GENERATION)
    }

    // Changes when anything is added to any table of IPv6: rt_genid_ipv6(). A route that was removed shows
    // that itself.
    #[inline(always)]
    fn route_generation_v6(self) -> u32 {
        self.net_word(bindings::MXP_NET_ROUTE_GENERATION_V6)
            .cast_unsigned()
    }
}

/// The bytes of headers.
///
/// # Safety
///
/// Any bytes are a value of the type.
pub(crate) unsafe trait HeaderBytes: AsRef<[u8]> + AsMut<[u8]> {}

// SAFETY: any bytes are.
unsafe impl<const N: usize> HeaderBytes for [u8; N] {}

/// A packet whose first bytes, at least an `E`, are linear, so that functions that get it need not ask.
///
/// # Invariants
///
/// They are linear. Nothing is done with the packet that makes the linear part shorter.
pub(crate) struct LinearPacket<'a, E> {
    packet: Packet<'a>,
    marker: PhantomData<fn() -> E>,
}

impl<'a, E: HeaderBytes> LinearPacket<'a, E> {
    /// The packet, as it is.
    #[inline(always)]
    pub(crate) fn packet(&self) -> &Packet<'a> {
        &self.packet
    }

    /// The packet, without the promise.
    #[inline(always)]
    pub(crate) fn into_packet(self) -> Packet<'a> {
        self.packet
    }

    /// Copies the whole packet into memory of its own, in one piece; false without memory for it.
    pub(crate) fn copy(&mut self) -> bool {
        self.packet.skb.copy()
    }

    /// The first bytes.
    #[inline(always)]
    pub(crate) fn peek(&self) -> &E {
        // SAFETY: by the type's invariant so many bytes are there, and nobody writes them while
        // `self` is borrowed.
        unsafe { self.packet.skb.start().cast::<E>().as_ref() }
    }

    /// The first bytes, to be changed; `None` if they may be shared with other buffers.
    #[inline(always)]
    pub(crate) fn headers(&mut self) -> Option<&mut E> {
        if !self.packet.skb.owns(size_of::<E>()) {
            return None;
        }
        // SAFETY: by the type's invariant so many bytes are there, this buffer's alone, and the
        // result borrows `self` exclusively.
        Some(unsafe { self.packet.skb.start().cast::<E>().as_mut() })
    }
}

impl<'a> Packet<'a> {
    /// Makes sure that the first bytes, an `E`, are linear; gives the packet back if they are not.
    #[inline(always)]
    pub(crate) fn into_linear<E: HeaderBytes>(self) -> Result<LinearPacket<'a, E>, Self> {
        if self.skb.linear().len() < size_of::<E>() {
            return Err(self);
        }
        Ok(LinearPacket {
            packet: self,
            marker: PhantomData,
        })
    }
}

/// What is known of a packet before it has its new route: see `mxp_disposition()`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disposition(u32);

impl Disposition {
    /// Whether it goes to one host.
    pub(crate) fn is_unicast(self) -> bool {
        self.0 & bindings::MXP_UNICAST != 0
    }

    /// See [`Packet::may_be_stolen`].
    pub(crate) fn may_be_stolen(self) -> bool {
        self.0 & bindings::MXP_MAY_BE_STOLEN != 0
    }

    /// Whether one of our hooks sees it once more after this one.
    pub(crate) fn reenters(self) -> bool {
        self.0 & bindings::MXP_REENTERS != 0
    }

    /// Whether one of our hooks may have seen it before, although it is not marked untracked.
    pub(crate) fn may_be_back(self) -> bool {
        self.0 & bindings::MXP_MAY_BE_BACK != 0
    }
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fragment {
    /// It is whole now.
    Whole,
    /// It is not the caller's any more: it is queued until the others come, or it was bad and freed.
    Gone,
    /// It cannot be reassembled.
    Bad,
}

impl Packet<'_> {
    /// Looks up the route of a packet of the machine's own, by its header as it is now. Zero, or the error
    /// for its sender.
    #[cold]
    pub(crate) fn route_output(&mut self, family: Family) -> i32 {
        let (net, sk, skb) = (self.state.0.net, self.state.0.sk, self.skb.as_ptr());
        match family {
            // SAFETY: all three are what netfilter gave this hook.
            Family::V4 => unsafe { bindings::mxp_route_output_v4(net, sk, skb) },
            // SAFETY: as above.
            Family::V6 => unsafe { bindings::ip6_route_me_harder(net, sk, skb) },
        }
    }

    /// Looks up the route of a packet that came in, by its header as it is now; `ports` tells where its
    /// transport header starts, and of what protocol that is. Zero if the packet may go on, even by a route that
    /// reports an error; a negative error if it must not. Where the kernel looks the route up itself later, one if
    /// that will report an error and the caller `asks`.
    #[cold]
    pub(crate) fn route_input(
        &mut self,
        family: Family,
        ports: Option<(usize, Protocol)>,
        asks: bool,
    ) -> i32 {
        let (transport, protocol) = ports.map_or((0, 0), |(at, protocol)| (at, protocol as u8));
        let skb = self.skb.as_ptr();
        match family {
            // SAFETY: the buffer is the hook's, and it came in through a device.
            Family::V4 => unsafe { bindings::mxp_route_input_v4(skb) },
            // SAFETY: as above; the ports are linear, as the caller has read them.
            Family::V6 => unsafe {
                bindings::mxp_route_input_v6(skb, transport as u32, protocol, asks)
            },
        }
    }

    /// If by its header as it is now a packet that came in would go out through the same device: an
    /// address of ours on that. In any case the packet has its route then, unless it must not go on.
    #[cold]
    pub(crate) fn hairpin_source_v4(&mut self) -> Option<u32> {
        // SAFETY: the buffer is the hook's, and it came in through a device.
        match unsafe { bindings::mxp_hairpin_source_v4(self.skb.as_ptr()) } {
            0 => None,
            ours => Some(ours),
        }
    }

    /// As `hairpin_source_v4`; every packet may go on, and on some kernels it has no route then.
    #[cold]
    pub(crate) fn hairpin_source_v6(
        &mut self,
        transport: usize,
        protocol: Protocol,
    ) -> Option<[u64; 2]> {
        let mut ours = [0_u64; 2];
        // SAFETY: the buffer is the hook's, and it came in through a device; the ports are linear, as the
        // caller has read them; the address is 16 bytes.
        let found = unsafe {
            bindings::mxp_hairpin_source_v6(
                self.skb.as_ptr(),
                transport as u32,
                protocol as u8,
                (&raw mut ours).cast(),
            )
        };
        found.then_some(ours)
    }

    /// Whether the packet's route reports an error, which the kernel will send to the packet's sender.
    pub(crate) fn has_route_error(&self) -> bool {
        // SAFETY: the buffer's route, if it has one, lives as long as the buffer has it.
        self.skb
            .dst()
            .is_some_and(|dst| unsafe { (*dst.as_ptr()).error != 0 })
    }

    /// Whether the packet came in with a route that has the state of a lightweight tunnel.
    pub(crate) fn has_tunnel_route(&self) -> bool {
        // SAFETY: the buffer is the hook's.
        unsafe { bindings::mxp_has_tunnel_route(self.skb.as_ptr()) }
    }

    /// See [`Disposition`]; asked for first packets.
    pub(crate) fn disposition(&self) -> Disposition {
        // SAFETY: buffer and state are what netfilter gave the hook.
        Disposition(unsafe { bindings::mxp_disposition(self.skb.as_ptr(), self.state.0) })
    }

    /// Whether it can be stolen from its hook (NF_STOLEN) and handed on: the hook's caller goes on by okfn()
    /// alone, which a VRF does not.
    pub(crate) fn may_be_stolen(&self) -> bool {
        self.disposition().may_be_stolen()
    }

    /// Whether the packet, a fragment, may be reassembled: not if its socket has IP_NODEFRAG, nor if it is
    /// marked untracked.
    pub(crate) fn may_defragment(&self) -> bool {
        // SAFETY: the buffer is the hook's.
        unsafe { bindings::mxp_may_defragment(self.skb.as_ptr()) }
    }

    /// Reassembles fragments.
    #[cold]
    pub(crate) fn defragment(&mut self, family: Family) -> Fragment {
        let local = self.state.is_own();
        let (net, skb) = (self.state.0.net, self.skb.as_ptr());
        const IN_PROGRESS: i32 = -(bindings::EINPROGRESS as i32);
        match family {
            // SAFETY: the buffer is the hook's; it is not used again unless it becomes whole.
            Family::V4 => match unsafe { bindings::mxp_defragment_v4(net, skb, local) } {
                0 => Fragment::Whole,
                _ => Fragment::Gone,
            },
            // SAFETY: as above.
            Family::V6 => match unsafe { bindings::mxp_defragment_v6(net, skb, local) } {
                0 => Fragment::Whole,
                IN_PROGRESS => Fragment::Gone,
                _ => Fragment::Bad,
            },
        }
    }
}
