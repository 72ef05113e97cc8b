// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Why a message is refused: what an extended acknowledgement says (NLMSGERR_ATTR_MSG and NLMSGERR_ATTR_OFFS of
//! include/uapi/linux/netlink.h).

use core::ffi::CStr;

use super::attribute::{Attribute, Flaw, Malformed};

/// What is wrong with a message, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Bytes from the beginning of the message's attributes to the one that is wrong, or that lacks something.
    pub offset: usize,
    /// A sentence for people.
    pub message: &'static CStr,
}

impl Refusal {
    /// Of this attribute.
    pub const fn of(attribute: &Attribute<'_>, message: &'static CStr) -> Self {
        Self {
            offset: attribute.offset,
            message,
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        let message = match malformed.what {
            Flaw::Short => c"bytes are left over that are no attribute",
            Flaw::Length => c"the attribute is longer than the message, or shorter than its header",
            Flaw::Size => c"the attribute's value has not the length of its type",
            Flaw::Nesting => c"the attribute is nested and should not be, or the other way round",
            Flaw::String => c"the text does not end with its only zero byte",
        };
        Self {
            offset: malformed.offset,
            message,
        }
    }
}
