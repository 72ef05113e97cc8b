// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lab in the guest: network, subjects, generators, probe, and the measurement of one cell.
//!
//! Must not know: the host; scenarios, results and machines.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod flows;
pub mod kernel_log;
pub mod patterns;

mod arrivals;
pub mod between_sockets;
pub mod buckets;
pub mod bulk;
pub mod burst;
mod cable;
pub mod channel;
mod client;
pub mod closed_loop;
pub mod conntrack;
mod cpu;
mod device;
pub mod direct;
pub mod entropy;
pub mod fault;
pub mod icmp;
pub mod iproute2;
pub mod kmod;
pub mod layout;
mod marks;
pub mod measure;
pub mod memory;
pub mod memory_map;
pub mod micro;
mod mischief;
pub mod monitor;
pub mod namespace;
pub mod netem;
pub mod netlink;
pub mod nft;
pub mod offload;
pub mod open_loop;
pub mod pace;
pub mod payload;
pub mod placement;
mod popularity;
mod probe;
pub mod proxy;
mod resident;
mod responder;
mod ruleset;
mod sabotage;
mod server;
mod sizes;
pub mod softnet;
mod stack_client;
mod stack_server;
pub mod subject;
mod tap;
pub mod tcp;
pub mod traffic;
pub mod tsc;
mod user_proxy;
mod vnet;
pub mod vnet_socket;
mod wire_client;
