// SPDX-License-Identifier: MIT OR Apache-2.0

//! Controls `mutex_proxy.ko` by its Generic Netlink family, `mutex-proxy` (`module/abi/mutex_proxy.yaml`).
//!
//! ```no_run
//! use mprox_client::{Client, Configuration};
//!
//! # fn main() -> Result<(), mprox_client::Error> {
//! let mut client = Client::open()?;
//! client.stage(&Configuration::default())?;
//! // The context is the client's: it is gone when that is dropped.
//! client.commit(&mprox_client::Commit::default())?;
//! # Ok(())
//! # }
//! ```
//!
//! Must not know: files, the command line, the lab.

mod client;
mod configuration;
mod error;
mod generic;
mod monitor;

pub use client::Client;
pub use configuration::{Configuration, Counted, Group, Set};
pub use error::{Error, Item, Refused};
pub use monitor::Monitor;
pub use mutex_abi::netlink::configuration::ToldRule;
pub use mutex_abi::netlink::context::{Commit, ContextInfo, ContextName};
pub use mutex_abi::netlink::event::Event;
pub use mutex_abi::netlink::flow::{FlowsMeant, ToldFlow};
pub use mutex_abi::proxy::flow::{Flow, FlowFilter, FlowState, Prefix, Redirection};
pub use mutex_abi::proxy::{
    set::Element, Action, Condition, Conditions, Connection, Endpoint, Family, Field, Label,
    Protocol, Rule, Selection, Stats, Upstream, ValueKind, Values, HOOK_LOCAL_OUT,
    HOOK_PRE_ROUTING,
};
