// SPDX-License-Identifier: GPL-2.0

//! Network namespaces.

use core::ptr::NonNull;

use kernel::prelude::*;

use super::bindings;

/// A network namespace that lives as long as this reference.
pub(crate) struct Namespace(NonNull<bindings::net>);

// SAFETY: a namespace may be used and put from any thread.
unsafe impl Send for Namespace {}
// SAFETY: as above.
unsafe impl Sync for Namespace {}

impl Namespace {
    /// The caller's namespace, if it has CAP_NET_ADMIN there, else EPERM.
    pub(crate) fn administered() -> Result<Self> {
        // SAFETY: called for a task in a system call, whose namespace lives.
        let net = unsafe { bindings::mxp_current_net() };
        // SAFETY: as above.
        if !unsafe { bindings::mxp_net_admin(net) } {
            return Err(EPERM);
        }
        // SAFETY: as above; the reference is put in `drop`.
        let net = unsafe { bindings::mxp_get_net(net) };
        Ok(Self(NonNull::new(net).ok_or(ENODEV)?))
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::net {
        self.0.as_ptr()
    }
}

impl Clone for Namespace {
    fn clone(&self) -> Self {
        // SAFETY: the namespace lives; this reference to it is put in `drop`, too.
        unsafe { bindings::mxp_get_net(self.as_ptr()) };
        Self(self.0)
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // SAFETY: got in `administered` or `clone`.
        unsafe { bindings::mxp_put_net(self.as_ptr()) };
    }
}
