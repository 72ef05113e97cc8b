// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's side: the agent, and what it says to the host.

pub mod command;
pub mod flows;
pub mod protocol;
pub mod tests;
pub mod wire;

mod agent;
mod arrivals;
mod between_sockets;
mod bulk;
mod burst;
mod cable;
mod chains;
mod channel;
mod client;
mod closed_loop;
mod conntrack;
mod device;
mod entropy;
mod fault;
mod icmp;
mod kmod;
mod layout;
mod measure;
mod memory;
mod micro;
mod mischief;
mod monitor;
mod mutate;
mod namespace;
mod netem;
mod netlink;
mod nft;
mod offload;
mod open_loop;
mod pace;
mod payload;
mod popularity;
mod probe;
mod proxy;
pub(crate) mod random;
mod responder;
mod ruleset;
mod sabotage;
mod server;
mod sizes;
pub mod splice;
mod stack_client;
mod stack_server;
mod subject;
mod tcp;
mod traffic;
mod tsc;
mod user_proxy;
mod wire_client;
