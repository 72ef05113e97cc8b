// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line of `mutexlab`.

use clap::Parser;
use log::{LevelFilter, Log, Metadata, Record};
use mutexlab::cli::Cli;
use mutexlab::environment;
use mutexlab_draw::table::colour;
use mutexlab_host::interrupt::{self, Interrupted};

/// Says on standard error what the crates below have to tell while they work, a line each.
struct Voice;

impl Log for Voice {
    // Libraries of others have nothing to say to who uses this.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("mutexlab")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("{}", record.args());
        }
    }

    fn flush(&self) {}
}

fn main() {
    // It fails only if there is one already.
    if log::set_logger(&Voice).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
    colour(environment::colours());
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
