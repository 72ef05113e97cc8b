// SPDX-License-Identifier: GPL-2.0

//! Work of known cost.

use super::arch;

/// Executes `count` instructions, and as many around them whatever the count.
#[inline(always)]
pub(crate) fn execute(count: u16) {
    arch::execute(count);
}
