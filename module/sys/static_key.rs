// SPDX-License-Identifier: GPL-2.0

//! Branches that are patched into the code: one that is not taken costs a no-op. This is C's
//! `static_branch_unlikely()` (include/linux/jump_label.h); the kernel crate has it only in
//! later versions.

use super::bindings;

/// A key that is off until C switches it on.
#[repr(transparent)]
pub(crate) struct StaticKey(pub(super) bindings::static_key_false);

// SAFETY: only C changes a key, under its own lock; Rust code only puts its address into a table.
unsafe impl Sync for StaticKey {}

#[allow(unused_imports)] // Each module uses its own share of sys/.
pub(crate) use super::arch::is_on;
