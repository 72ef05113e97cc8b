// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's network: namespaces, links, routes, what spoils them, and what the kernel tells of them.

pub mod cable;
pub mod conntrack;
pub mod iproute2;
pub mod layout;
pub mod namespace;
pub mod netem;
pub mod netlink;
pub mod nft;
pub mod offload;
pub mod softnet;
pub mod tap;
