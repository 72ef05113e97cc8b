// SPDX-License-Identifier: MIT OR Apache-2.0

//! A router with two links to the servers, and the same packets under the module and under nft.
//!
//! ```text
//!  client            router                 server
//!  .2, .3 ────── .1        .1 ──────── .2, .3   198.51.100.0/24   first
//!  192.0.2.0/24            .1 ──────── .2       203.0.113.0/24    second
//!  2001:db8:1::/64                     2001:db8:2::/64 and 2001:db8:3::/64
//! ```

mod ground;
mod packets;
mod settling;

pub use ground::{
    beside_nft, each, router_on_second, server_on_second, version, Lab, Redirect, FIRST_PORT,
};
pub use packets::Datagram;
