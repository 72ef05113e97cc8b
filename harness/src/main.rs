// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line of `mutexlab`.

use clap::Parser;
use mutexlab::cli::Cli;
use mutexlab_host::interrupt;
use mutexlab_host::interrupt::Interrupted;

fn main() {
    let code = Cli::parse().run().unwrap_or_else(|error| {
        eprintln!("mutexlab: {error:#}");
        if error.is::<Interrupted>() {
            interrupt::EXIT_CODE
        } else {
            2
        }
    });
    std::process::exit(code);
}
