// SPDX-License-Identifier: MIT OR Apache-2.0

//! Traffic: who sends and receives, which flows there are, when and how much.

pub mod arrivals;
pub mod bulk;
pub mod burst;
pub mod channel;
pub mod client;
pub mod closed_loop;
pub mod flows;
pub mod icmp;
pub mod mischief;
pub mod open_loop;
pub mod pace;
pub mod payload;
pub mod placement;
pub mod popularity;
pub mod server;
pub mod sizes;
pub mod stack_client;
pub mod stack_server;
pub mod target;
pub mod tcp;
pub mod vnet;
pub mod vnet_socket;
pub mod wire_client;
pub mod wire_server;
