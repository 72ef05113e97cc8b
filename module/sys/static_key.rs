// SPDX-License-Identifier: GPL-2.0

//! Branches that are patched into the code: one that is not taken costs a no-op. What
//! `static_branch_unlikely()` is in C (include/linux/jump_label.h); the kernel crate has it only in
//! later versions.

use super::bindings;

/// A key that is off until C switches it on.
#[repr(transparent)]
pub(crate) struct StaticKey(bindings::static_key_false);

// SAFETY: only C changes a key, under its own lock; Rust code only has its address in a table.
unsafe impl Sync for StaticKey {}

// Each module uses its own share of sys/.
#[allow(unused_macros)]
/// Whether a [`StaticKey`], given by its path, is on; the code for that is put out of the way.
macro_rules! is_on {
    ($key:path) => {'branch: {
        // SAFETY: five bytes of no-op, which the kernel exchanges for a jump to the label while the
        // key is on. The table says where they are, where the label is, and which key it is (struct
        // jump_entry; x86: arch/x86/include/asm/jump_label.h).
        unsafe {
            core::arch::asm!(
                "2:",
                ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00",
                ".pushsection __jump_table, \"aw\"",
                ".balign 8",
                ".long 2b - .",
                ".long {taken} - .",
                ".quad {key} - .",
                ".popsection",
                key = sym $key,
                taken = label {
                    break 'branch true;
                },
                options(nostack, preserves_flags),
            );
        }
        false
    }};
}

#[allow(unused_imports)]
pub(crate) use is_on;
