// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox completions`.

use std::io;

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::{generate, Shell};

use crate::cli::Cli;

/// Print what a shell needs to complete mprox's command lines
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox completions bash > /etc/bash_completion.d/mprox\n  \
    mprox completions zsh > /usr/local/share/zsh/site-functions/_mprox\n  \
    mprox completions fish > ~/.config/fish/completions/mprox.fish")]
pub struct CompletionsCommand {
    /// The shell
    shell: Shell,
}

impl CompletionsCommand {
    pub fn run(&self) -> Result<()> {
        generate(self.shell, &mut Cli::command(), "mprox", &mut io::stdout());
        Ok(())
    }
}
