// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab guard`: between the harness and a guest; see [`mutexlab_host::guard`].

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use mutexlab_host::guard;
use mutexlab_host::guard::Guarded;

/// Run a command, and kill it with all its descendants when standard input ends.
#[derive(Args, Debug)]
pub struct GuardCommand {
    /// Directory to remove when nothing runs any more; may be given several times.
    #[arg(long, value_name = "DIRECTORY")]
    remove: Vec<PathBuf>,
    /// Terminal to put right when nothing runs any more, if it is then still raw.
    #[arg(long, value_name = "DEVICE")]
    terminal: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl GuardCommand {
    /// Runs the command to its end, or to the end of standard input, and returns its exit code,
    /// or 128 and the signal's number if a signal ended it.
    ///
    /// # Errors
    /// If the command cannot be started, or descendants cannot be killed.
    pub fn run(self) -> Result<i32> {
        let Self {
            remove,
            terminal,
            command,
        } = self;
        guard::run(&Guarded {
            remove,
            terminal,
            command,
        })
    }
}
