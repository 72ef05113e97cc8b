// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox`: the proxy's command line.
//!
//! Must not know: the lab, and what messages to the kernel look like.

use std::process::ExitCode;

use clap::Parser;

mod cgroup;
mod cli;
mod commands;
mod difference;
mod doctor;
mod program;
mod reference;
mod service;
mod told;
mod told_flow;
mod verdict;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mprox: {error:#}");
            ExitCode::FAILURE
        }
    }
}
