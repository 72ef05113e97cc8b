// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line of `mutexlab`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use mutexlab::doctor::DoctorCommand;
use mutexlab::guest::command::AgentCommand;
use mutexlab::image::command::ImageCommand;

/// Reproducible performance engineering for in-kernel networking
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The repository
    #[arg(long, global = true, default_value = ".")]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Doctor(DoctorCommand),
    Image(ImageCommand),
    Agent(AgentCommand),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Doctor(command) => command.run(&arguments.root),
        Command::Image(command) => command.run(&arguments.root),
        Command::Agent(command) => command.run(),
    }
}
