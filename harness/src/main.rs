// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line of `mutexlab`.

use anyhow::Result;
use clap::Parser;
use mutexlab::guest::command::AgentCommand;

/// Reproducible performance engineering for in-kernel networking.
#[derive(Parser)]
#[command(version)]
enum Command {
    Agent(AgentCommand),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Agent(command) => command.run(),
    }
}
