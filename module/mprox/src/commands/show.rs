// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox show`.

use anyhow::Result;
use clap::Args;
use mprox_client::ContextName;

use super::{explain, open, parse_name, say, without_right};
use crate::told::Told;

/// What is redirected where
///
/// Contexts with names, as the kernel has them. What `mprox run` does belongs to it alone, and is not among them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox show                                  All contexts\n  \
    mprox show home                             One\n  \
    mprox show --json | jq '.[].rules | length' For a program")]
pub struct ShowCommand {
    /// The context's name [default: all]
    #[arg(value_parser = parse_name)]
    name: Option<ContextName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ShowCommand {
    pub fn run(&self) -> Result<()> {
        let mut client = open()?;
        let names = match self.name {
            Some(name) => vec![name],
            None => {
                let infos = client.contexts().map_err(without_right)?;
                infos.into_iter().filter_map(|info| info.name).collect()
            }
        };
        let mut all = Vec::new();
        for name in names {
            let told = client.context(Some(&name)).and_then(|info| {
                let counted = client.counted(Some(&name))?;
                Ok(Told::new(&info, &counted))
            });
            match told {
                Ok(told) => all.push(told),
                // It went while the others were asked for.
                Err(error) if self.name.is_none() && error.errno() == Some(nix::libc::ENOENT) => {}
                Err(error) => return Err(explain(error, &name)),
            }
        }
        if self.json {
            say(&format_args!("{}", serde_json::to_string(&all)?))?;
            return Ok(());
        }
        if all.is_empty() {
            say(&format_args!(
                "no context has a name in this network namespace"
            ))?;
        }
        for told in all {
            say(&told.to_string().trim_end())?;
        }
        Ok(())
    }
}
