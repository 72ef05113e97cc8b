// SPDX-License-Identifier: GPL-2.0

//! A branch that is patched into the code: while it is not taken it costs a no-op.

// Each module uses its own share of sys/.
#[allow(unused_macros)]
/// Whether a [`StaticKey`](crate::sys::static_key::StaticKey), given by its path, is on; the code for
/// that is put out of the way.
macro_rules! is_on {
    ($key:path) => {'branch: {
        // SAFETY: five bytes of no-op, which the kernel exchanges for a jump to the label while the
        // key is on. The table says where they are, where the label is, and which key it is (struct
        // jump_entry, of which arch.c sees to the layout; x86: arch/x86/include/asm/jump_label.h).
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
