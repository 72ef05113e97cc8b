// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The messages of `mutex_proxy.ko`, the records of `/dev/mutex_probe`, and the text of the files below /proc/net/mutex_proxy/.
//!
//! The kernel modules and the programs compile these very files. Messages and records are encoded and
//! decoded field by field from bytes, so that neither side needs `unsafe`, padding cannot leak
//! kernel memory, and what is of another version is refused instead of misread. Integers of messages are in the machine's byte
//! order, those of records little-endian; addresses are in network byte order; an IPv4 address takes
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
