// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The binary interface of `/dev/mutex_proxy` and `/dev/mutex_probe`, and the text of the files
//! below /proc/net/mutex_proxy/.
//!
//! The kernel modules and the harness compile these very files. Every record is encoded and
//! decoded field by field from bytes, so that neither side needs `unsafe`, padding cannot leak
//! kernel memory, and a record of another version is refused instead of misread. Integers are
//! little-endian; addresses and nothing else are in network byte order; an IPv4 address takes
//! the first four of its sixteen bytes and leaves the rest zero.

pub mod bytes;
pub mod histogram;
pub mod marks;
pub mod memory;
pub mod micro;
pub mod monitor;
pub mod netlink;
pub mod probe;
pub mod proxy;
