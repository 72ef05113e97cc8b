// SPDX-License-Identifier: MIT OR Apache-2.0

//! Files that configure the proxy.
//!
//! ```toml
//! [upstreams.web]
//! servers = ["192.0.2.10:8080", "192.0.2.11:8080"]
//! select = "failover"
//!
//! [[rule]]
//! name = "lan"
//! to = ["local", "private"]
//! action = "direct"
//!
//! [[rule]]
//! name = "web"
//! ip = 4
//! protocol = "tcp"
//! ports = [80, 443]
//! via = "web"
//! ```
//!
//! Must not know: sockets, the command line, the lab.

mod conditions;
mod file;
mod groups;
mod lowering;
mod networks;
mod rules;
mod schema;
mod sets;
mod shadow;
mod system;
mod text;
mod values;

pub use file::ProxyFile;
pub use groups::server;
pub use networks::{class, Network};
pub use schema::schema;
pub use system::{control_group_directory, control_group_path, process_of, Machine, System};
pub use text::FileText;

#[cfg(test)]
mod tests;
