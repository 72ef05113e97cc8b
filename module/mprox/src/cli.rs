// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line: every command there is.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::commands::apply::ApplyCommand;
use crate::commands::check::CheckCommand;
use crate::commands::completions::CompletionsCommand;
use crate::commands::delete::DeleteCommand;
use crate::commands::diff::DiffCommand;
use crate::commands::doctor::DoctorCommand;
use crate::commands::exec::ExecCommand;
use crate::commands::flows::FlowsCommand;
use crate::commands::man::ManCommand;
use crate::commands::monitor::MonitorCommand;
use crate::commands::run::RunCommand;
use crate::commands::schema::SchemaCommand;
use crate::commands::show::ShowCommand;
use crate::commands::stats::StatsCommand;
use crate::commands::sysdump::SysdumpCommand;
use crate::commands::top::TopCommand;
use crate::commands::why::WhyCommand;

/// Redirects connections in the kernel, transparently.
///
/// Controls mutex_proxy.ko in this network namespace. What asks the kernel needs CAP_NET_ADMIN.
#[derive(Debug, Parser)]
#[command(
    name = "mprox",
    version,
    after_help = "Examples:\n  \
        mprox check /etc/mprox/home.toml    Say what is wrong with a file, by line and column\n  \
        mprox diff /etc/mprox/home.toml     What would `mprox apply` change?\n  \
        mprox run /etc/mprox/home.toml      Redirect until Ctrl-C; SIGHUP reads the file again\n  \
        mprox apply /etc/mprox/home.toml    Redirect from now on, until `mprox delete home`\n  \
        mprox exec --via 192.0.2.10 -- curl http://example.org   One command\n  \
        mprox show                          What is redirected where\n  \
        mprox flows --port 443              Connections, as they are now\n  \
        mprox why 192.0.2.2 203.0.113.7:443 Which rule decides about such a connection\n  \
        mprox stats                         Packets, flows, and what was dropped\n  \
        mprox doctor                        What on this machine hinders it"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(CheckCommand),
    Diff(DiffCommand),
    Run(RunCommand),
    Apply(ApplyCommand),
    Exec(ExecCommand),
    Show(ShowCommand),
    Flows(FlowsCommand),
    Top(TopCommand),
    Monitor(MonitorCommand),
    Delete(DeleteCommand),
    Why(WhyCommand),
    Stats(StatsCommand),
    Doctor(DoctorCommand),
    Sysdump(SysdumpCommand),
    Schema(SchemaCommand),
    Completions(CompletionsCommand),
    Man(ManCommand),
}

impl Cli {
    /// Runs the command; its exit code.
    pub fn run(&self) -> Result<ExitCode> {
        match &self.command {
            Command::Check(command) => command.run(),
            Command::Diff(command) => return Ok(command.run()),
            Command::Run(command) => command.run(),
            Command::Apply(command) => command.run(),
            Command::Exec(command) => return command.run(),
            Command::Show(command) => command.run(),
            Command::Flows(command) => command.run(),
            Command::Top(command) => command.run(),
            Command::Monitor(command) => command.run(),
            Command::Sysdump(command) => command.run(),
            Command::Delete(command) => command.run(),
            Command::Why(command) => command.run(),
            Command::Stats(command) => command.run(),
            Command::Doctor(command) => return command.run(),
            Command::Schema(command) => command.run(),
            Command::Completions(command) => command.run(),
            Command::Man(command) => command.run(),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_has_a_help_with_examples() {
        let mut all = Cli::command();
        all.build();
        all.clone().debug_assert();
        for command in all.get_subcommands_mut() {
            if command.get_name() == "help" {
                continue;
            }
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            assert!(help.contains("Examples:\n  mprox "), "{name}: {help}");
        }
    }
}
