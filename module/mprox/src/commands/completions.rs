// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox completions`.

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::{generate, Shell};

use super::say;
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
        let mut text = Vec::new();
        generate(self.shell, &mut Cli::command(), "mprox", &mut text);
        say(&String::from_utf8_lossy(&text).trim_end())
    }
}
