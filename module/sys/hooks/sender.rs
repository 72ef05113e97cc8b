// SPDX-License-Identifier: GPL-2.0

//! Who sends a packet of the machine's own, and telling the sender of a packet that is blocked.

use super::super::bindings;
use super::{HookState, Packet};
use crate::abi::proxy::{Protocol, NAME_SIZE};
use crate::datapath::link::ReadGuard;

/// So deep are the control groups that rules can name, from the root on.
const DEPTH: i32 = 64;

impl<'h> HookState<'h> {
    /// The user of the socket, as the namespace's user namespace numbers it.
    #[inline(always)]
    pub(crate) fn user(self) -> Option<u32> {
        // SAFETY: the state is the hook's.
        u32::try_from(unsafe { bindings::mxp_sender_user(self.raw()) }).ok()
    }

    /// The group of who opened the socket, numbered likewise.
    pub(crate) fn group(self) -> Option<u32> {
        // SAFETY: the state is the hook's.
        u32::try_from(unsafe { bindings::mxp_sender_group(self.raw()) }).ok()
    }

    /// The numbers of the socket's control group's ancestors, from the root on, and its own, as far as they are not deeper than anybody's
    /// rule: who may make groups may make them as deep as he likes. None if it has none.
    pub(crate) fn control_groups(self) -> impl Iterator<Item = u64> + use<'h> {
        let mut level = 0_i32;
        core::iter::from_fn(move || {
            // SAFETY: the state is the hook's.
            let number = unsafe { bindings::mxp_sender_control_group(self.raw(), level) };
            level = level.wrapping_add(1);
            (number != 0 && level <= DEPTH).then_some(number)
        })
    }

    /// The numbers of the process that sends, and of those that it descends from, nearest first; none if nobody knows.
    pub(crate) fn processes<'a>(self, _: &'a ReadGuard) -> impl Iterator<Item = u64> + use<'a, 'h> {
        // SAFETY: the state is the hook's.
        let mut next = unsafe { bindings::mxp_sender_process(self.raw()) };
        core::iter::from_fn(move || {
            if next.is_null() {
                return None;
            }
            let task = next;
            // SAFETY: tasks are freed after a grace period, which ends after the guard, and each of these was one's leader or
            // parent when it was read under that.
            unsafe {
                next = bindings::mxp_process_parent(task);
                Some(bindings::mxp_process_number(task))
            }
        })
    }

    /// The name of the process that sends, filled up with zeros.
    pub(crate) fn program(self, _: &ReadGuard) -> Option<[u8; NAME_SIZE]> {
        // SAFETY: the state is the hook's.
        let task = unsafe { bindings::mxp_sender_process(self.raw()) };
        if task.is_null() {
            return None;
        }
        let mut name = [0; NAME_SIZE];
        // SAFETY: as in `processes`; the function writes 16 bytes.
        unsafe { bindings::mxp_process_name(task, name.as_mut_ptr()) };
        Some(name)
    }
}

impl Packet<'_> {
    /// Tells the packet's sender that it is blocked: by a reset, or that the port is unreachable. The packet is as it was, but may have
    /// a route.
    #[cold]
    pub(crate) fn reject(&mut self, protocol: Protocol) {
        // SAFETY: buffer and state are what netfilter gave the hook, whose number and family say how the packet got there.
        unsafe { bindings::mxp_reject(self.skb.as_ptr(), self.state.raw(), protocol as u8) };
    }
}
