// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line of `mutexlab-agent`, the guest's program. Only guests and the harness run it.

use mutexlab_agent::command::Command;

fn main() {
    let done = Command::parse(lexopt::Parser::from_env()).and_then(Command::run);
    if let Err(error) = done {
        eprintln!("mutexlab-agent: {error:#}");
        std::process::exit(2);
    }
}
