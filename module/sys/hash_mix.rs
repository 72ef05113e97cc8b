// SPDX-License-Identifier: GPL-2.0

//! The number that a network namespace mixes into its hashes (`net_hash_mix()`).
//!
//! The kernel draws it at random. So in one boot of a hundred two addresses of a machine share a bucket, and
//! `fib_validate_source()`, which looks up for each packet whether its source is an address of the machine's
//! own, takes five instructions more.

use core::ffi::c_int;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use kernel::prelude::*;

use super::bindings;

/// Registering calls `begin` also for the namespaces that exist already. These keep their number, since their
/// addresses and sockets are hashed by it.
static ONLY_NEW_ONES: AtomicBool = AtomicBool::new(false);

/// As long as this lives, every new namespace has the number [`Fixed::MIX`]. There is one at a time.
///
/// # Invariants
///
/// The pointer came from `KBox::into_raw`, and the operations are registered.
pub(crate) struct Fixed(NonNull<bindings::pernet_operations>);

// SAFETY: only the kernel uses the operations, under its own lock.
unsafe impl Send for Fixed {}
// SAFETY: as above.
unsafe impl Sync for Fixed {}

impl Fixed {
    /// Any number will do, as long as it is always the same.
    const MIX: u32 = 1;

    /// Sleeps.
    pub(crate) fn register() -> Result<Self> {
        let operations = KBox::<bindings::pernet_operations>::new_uninit(GFP_KERNEL)?;
        let operations = KBox::into_raw(operations).cast::<bindings::pernet_operations>();
        let operations = NonNull::new(operations).ok_or(ENOMEM)?;
        // SAFETY: the memory is valid for it; all bytes zero are a value of the C struct. It stays
        // where it is until it is unregistered, in `drop`.
        let error = unsafe {
            operations.write(core::mem::zeroed());
            (*operations.as_ptr()).init = Some(begin);
            bindings::register_pernet_subsys(operations.as_ptr())
        };
        if error != 0 {
            // SAFETY: from `KBox::into_raw`; the kernel has not kept it.
            drop(unsafe { KBox::from_raw(operations.as_ptr()) });
            return Err(Error::from_errno(error));
        }
        ONLY_NEW_ONES.store(true, Ordering::Relaxed);
        Ok(Self(operations))
    }
}

impl Drop for Fixed {
    fn drop(&mut self) {
        // SAFETY: by the type's invariant it is registered; when the call returns it is not used any more.
        unsafe { bindings::unregister_pernet_subsys(self.0.as_ptr()) };
        ONLY_NEW_ONES.store(false, Ordering::Relaxed);
        // SAFETY: from `KBox::into_raw`, and not used any more.
        drop(unsafe { KBox::from_raw(self.0.as_ptr()) });
    }
}

unsafe extern "C" fn begin(net: *mut bindings::net) -> c_int {
    if ONLY_NEW_ONES.load(Ordering::Relaxed) {
        // SAFETY: setup_net() calls this before the namespace is visible: it has no address and no
        // socket yet that could be hashed by another number. The word is a u32.
        unsafe {
            net.byte_add(bindings::MXP_NET_HASH_MIX as usize)
                .cast::<u32>()
                .write(Fixed::MIX);
        }
    }
    0
}
