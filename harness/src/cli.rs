// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line: every command there is.

use crate::environment;
use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::commands::bench::BenchCommand;
use crate::commands::bisect::BisectCommand;
use crate::commands::boot::BootCommand;
use crate::commands::claims::ClaimsCommand;
use crate::commands::compare::CompareCommand;
use crate::commands::doctor::DoctorCommand;
use crate::commands::golden::GoldenCommand;
use crate::commands::guard::GuardCommand;
use crate::commands::image::ImageCommand;
use crate::commands::lens::LensCommand;
use crate::commands::matrix::MatrixCommand;
use crate::commands::merge::MergeCommand;
use crate::commands::report::ReportCommand;
use crate::commands::reproduce::ReproduceCommand;
use crate::commands::schema::SchemaCommand;
use crate::commands::selfcheck::SelfcheckCommand;
use crate::commands::series::SeriesCommand;
use crate::commands::shell::ShellCommand;
use crate::commands::test::TestCommand;

/// Reproducible performance engineering for in-kernel networking.
///
/// Boots real kernels, loads mutex_proxy.ko, drives traffic through it, and tells what a packet
/// costs, beside no module and beside the kernel's own NAT.
#[derive(Debug, Parser)]
#[command(
    name = "mutexlab",
    version,
    after_help = "Examples:\n  \
        mutexlab bench              Answer the question of scenarios/quick.toml\n  \
        mutexlab bench --plan       Only say what would be measured\n  \
        mutexlab compare HEAD       What your changes cost\n  \
        mutexlab series v1..v2 --linux ../linux\n                              \
                                    Which commits of a kernel move a count, and where\n  \
        mutexlab report             Write what was measured as a page with plots\n  \
        mutexlab lens               Where the instructions and cache lines of a packet go\n  \
        mutexlab matrix             Every kernel: is it right there, and what does it cost?\n  \
        mutexlab test               Run all tests that need a guest\n  \
        mutexlab shell 7.3:debug    Look around in a guest with the module at work\n  \
        mutexlab image list         The kernels, and which are built\n  \
        mutexlab doctor             What this machine lacks, and how to mend it"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(BenchCommand),
    Compare(CompareCommand),
    Bisect(BisectCommand),
    Series(SeriesCommand),
    Golden(GoldenCommand),
    Matrix(MatrixCommand),
    Merge(MergeCommand),
    Report(ReportCommand),
    Claims(ClaimsCommand),
    Lens(LensCommand),
    Test(TestCommand),
    Reproduce(ReproduceCommand),
    Selfcheck(SelfcheckCommand),
    Shell(ShellCommand),
    Boot(BootCommand),
    Image(ImageCommand),
    Doctor(DoctorCommand),
    Schema(SchemaCommand),
    #[command(hide = true)]
    Guard(GuardCommand),
}

impl Cli {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// Whatever kept the command from doing its work; a bad verdict is no error but an exit code.
    pub fn run(self) -> Result<i32> {
        match self.command {
            Command::Bench(command) => command.run(),
            Command::Compare(command) => command.run(),
            Command::Bisect(command) => command.run(),
            Command::Series(command) => command.run(),
            Command::Golden(command) => command.run(),
            Command::Matrix(command) => command.run(),
            Command::Merge(command) => command.run(),
            Command::Report(command) => command.run().map(|()| 0),
            Command::Claims(command) => command.run(),
            Command::Lens(command) => command.run(),
            Command::Test(command) => command.run(),
            Command::Reproduce(command) => command.run(),
            Command::Selfcheck(command) => command.run(),
            Command::Shell(command) => command.run(),
            Command::Boot(command) => command.run(),
            Command::Image(command) => command.run(&environment::repository()?),
            Command::Doctor(command) => command.run(&environment::repository()?).map(|()| 0),
            Command::Schema(command) => command.run().map(|()| 0),
            Command::Guard(command) => command.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// A shell's output is that of what runs in the guest.
    const WITHOUT_JSON: [&str; 1] = ["shell"];

    fn lacking(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        let visible = |command: &&clap::Command| !command.is_hide_set();
        let mut below = command.get_subcommands().filter(visible).peekable();
        if below.peek().is_none() {
            let has_json = command.get_arguments().any(|arg| arg.get_id() == "json");
            if !has_json && !WITHOUT_JSON.contains(&command.get_name()) {
                found.push(path.to_owned());
            }
        }
        for command in below {
            lacking(command, &format!("{path} {}", command.get_name()), found);
        }
    }

    #[test]
    fn every_command_prints_json_if_asked() {
        let mut found = Vec::new();
        lacking(&Cli::command(), "mutexlab", &mut found);
        assert!(found.is_empty(), "without --json: {found:?}");
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
