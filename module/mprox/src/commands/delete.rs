// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox delete`.

use anyhow::Result;
use clap::Args;
use mprox_client::ContextName;

use super::{explain, open, parse_name};

/// Redirect no more what a context redirects
///
/// Its rules go, and the connections that they redirected end.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox delete home    End what `mprox apply home.toml` began")]
pub struct DeleteCommand {
    /// The context's name
    #[arg(value_parser = parse_name)]
    name: ContextName,
}

impl DeleteCommand {
    pub fn run(&self) -> Result<()> {
        let mut client = open()?;
        let deleted = client.delete(&self.name);
        deleted.map_err(|error| explain(error, &self.name))
    }
}
