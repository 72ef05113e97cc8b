// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Messages of netlink, without the sockets that they go through.

pub mod attribute;
pub mod configuration;
pub mod refusal;
