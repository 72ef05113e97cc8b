// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox stats`.

use anyhow::{bail, Result};
use clap::Args;
use mprox_client::Stats;
use serde_json::{Map, Value};

use super::{open, say, without_right};

/// Packets, flows, and what was dropped
///
/// Counters of the network namespace, since its first context opened.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox stats                                 A table\n  \
    mprox stats --json | jq .flows_current      For a program")]
pub struct StatsCommand {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl StatsCommand {
    pub fn run(&self) -> Result<()> {
        let stats = match open()?.statistics() {
            Ok(stats) => stats,
            Err(error) if error.errno() == Some(nix::libc::ENOENT) => {
                bail!("nothing is redirected in this network namespace: it has no context")
            }
            Err(error) => return Err(without_right(error)),
        };
        let all = Stats::NAMES.iter().zip(stats.values());
        if self.json {
            let all = all.map(|(name, value)| ((*name).to_owned(), Value::from(value)));
            say(&format_args!(
                "{}",
                Value::Object(all.collect::<Map<_, _>>())
            ))?;
            return Ok(());
        }
        for (name, value) in all {
            say(&format_args!("{name:20} {value:>12}"))?;
        }
        Ok(())
    }
}
