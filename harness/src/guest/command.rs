// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab agent`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{agent, tests};
use crate::protocol::ORDER_PATH;

/// Does a guest's work; the other commands start it there.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab agent --list-tests   What `mutexlab test` can run in a guest.\n  \
    mutexlab agent                In a guest: carry out the order, then power off.")]
pub struct AgentCommand {
    /// What to do, as JSON.
    #[arg(long, value_name = "FILE", default_value = ORDER_PATH)]
    order: PathBuf,
    /// Print the functional tests' names with a line about each, and exit.
    #[arg(long)]
    list_tests: bool,
    /// Tell the host what the kernel's log complains of, and exit.
    #[arg(long, hide = true)]
    look_at_log: bool,
}

impl AgentCommand {
    /// Runs the command. In a guest it does not return unless powering off fails.
    pub fn run(self) -> Result<()> {
        if self.list_tests {
            for test in tests::all() {
                println!("{:<40} {}", test.name, test.about);
            }
            return Ok(());
        }
        if self.look_at_log {
            return agent::look_at_log();
        }
        match agent::run(&self.order)? {}
    }
}
