// SPDX-License-Identifier: GPL-2.0

//! Network namespaces.

use core::ptr::NonNull;

#[cfg(probe)]
use kernel::prelude::*;

use super::bindings;

// What keeps a namespace: of the probe, whose descriptors may outlive all else in it, a reference.
#[cfg(probe)]
use bindings::{mxp_get_net as hold, mxp_put_net as release};
// Of the proxy it is the namespace's exit that waits, since what has a name stays there without a descriptor.
#[cfg(not(probe))]
use bindings::{mxp_net_hold as hold, mxp_net_release as release};

/// A network namespace that lives as long as this.
pub(crate) struct Namespace(NonNull<bindings::net>);

// SAFETY: a namespace may be used and put from any thread.
unsafe impl Send for Namespace {}
// SAFETY: as above.
unsafe impl Sync for Namespace {}

impl Namespace {
    /// The caller's namespace, if it has CAP_NET_ADMIN there, else EPERM. It does not end while this is there.
    #[cfg(probe)]
    pub(crate) fn administered() -> Result<Self> {
        // SAFETY: called for a task in a system call, whose namespace lives.
        let net = unsafe { bindings::mxp_current_net() };
        // SAFETY: as above.
        if !unsafe { bindings::mxp_net_admin(net) } {
            return Err(EPERM);
        }
        // SAFETY: as above; released in `drop`.
        unsafe { hold(net) };
        Ok(Self(NonNull::new(net).ok_or(ENODEV)?))
    }

    /// The namespace: if it ends, its exit waits until this is dropped.
    ///
    /// # Safety
    ///
    /// The namespace is there, and its exit has not ended.
    #[cfg(not(probe))]
    pub(super) unsafe fn until_exit(net: *mut bindings::net) -> Self {
        // SAFETY: the caller's promise; released in `drop`.
        unsafe {
            hold(net);
            Self(NonNull::new_unchecked(net))
        }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::net {
        self.0.as_ptr()
    }
}

impl Clone for Namespace {
    fn clone(&self) -> Self {
        // SAFETY: the namespace lives; released in `drop`, too.
        unsafe { hold(self.as_ptr()) };
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
        // SAFETY: held since it was made.
        unsafe { release(self.as_ptr()) };
    }
}
