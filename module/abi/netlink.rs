// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Messages of the Generic Netlink family `mutex-proxy`, as `mutex_proxy.yaml` specifies them, without the sockets that they go
//! through.
//!
//! Both ends read and write them by these functions: the module as the kernel hands it their attributes, and programs.

pub mod attribute;
pub mod condition;
pub mod configuration;
pub mod connection;
pub mod context;
pub mod event;
pub mod flow;
pub mod message;
pub mod refusal;
pub mod set;
pub mod statistics;
