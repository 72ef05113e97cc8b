// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab test`: what can be shown only with a guest.

use crate::environment;
use std::num::NonZeroUsize;

use super::json;
use anyhow::Result;
use clap::Args;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_images::prepared::NamedTree;
use mutexlab_machine::stub::Stub;
use mutexlab_suite::{Cpus, Place, Reports, Wanted};

/// Run the tests that need a guest
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab test                           What takes a few minutes, on every kernel\n  \
    mutexlab test --all                     The long tests, too\n  \
    mutexlab test --kernel 6.12             On one kernel only\n  \
    mutexlab test --kernel 6.12:debug       With KASAN, lockdep and their like\n  \
    mutexlab test --filter redirect-udp     Only the tests with this in their names\n  \
    mutexlab test --list                    What there is\n  \
    mutexlab test --guest 7.3:debug/2       What was in this guest, again\n  \
    mutexlab test --guest 7.3:debug/2 --gdb 1234  The same, waiting for gdb\n  \
    mutexlab test --junit tests.xml         And a report for a CI system\n  \
    mutexlab test --ktap - | kunit.py parse The outcomes for the kernel's tools\n\n\
Exit codes: 0 if all passed, 1 if not, 2 if the tests could not run, 130 if interrupted.")]
pub struct TestCommand {
    /// Only this kernel, with its checkers if it is the default one, or in the flavour that is named; may be
    /// given several times
    #[arg(long, value_name = "NAME[:FLAVOUR]")]
    kernel: Vec<String>,
    /// Only tests with this in their names; may be given several times
    #[arg(long, value_name = "PART")]
    filter: Vec<String>,
    /// Also the tests that take long: floods, thousands of flows, bad links, faults
    #[arg(long)]
    all: bool,
    /// And those that are left to the night: nft alone with the packets of other tests, and random ones by the dozen
    #[arg(long)]
    nightly: bool,
    /// Give all functional tests two CPUs; else only those have them that are about more than one, since guests of one CPU
    /// repeat to the instruction, and wait for nothing
    #[arg(long)]
    two_cpus: bool,
    /// Only the functional tests of this guest, such as 7.3:debug/2: where guests repeat, all that was in it happens again
    #[arg(long, value_name = "NAME")]
    guest: Option<String>,
    /// What random numbers of guests with functional tests come from; another seed is another boot [default: 1]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u32>,
    /// Have that guest wait for gdb, at a port of this machine's loopback or at a path with a /
    #[arg(long, value_name = "WHERE", requires = "guest")]
    gdb: Option<Stub>,
    /// Print the tests' names, and run none
    #[arg(long)]
    list: bool,
    /// How many guests run side by side [default: one a core, or under KVM one for two cores]
    #[arg(long, short, value_name = "GUESTS")]
    jobs: Option<NonZeroUsize>,
    /// Boot a kernel tree that you have built instead of the catalog's kernel of that name
    #[arg(long, value_name = "NAME=DIRECTORY")]
    tree: Vec<NamedTree>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Write the outcomes as KTAP, too: to a file, or to standard output (-)
    #[arg(long, value_name = "FILE")]
    ktap: Option<Place>,
    /// Write the outcomes as JUnit's XML, too: to a file, or to standard output (-)
    #[arg(long, value_name = "FILE")]
    junit: Option<Place>,
}

impl TestCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If something is missing on this machine, an image does not build, a report cannot be
    /// written, or the user interrupts. Reports tell then what was not run.
    pub fn run(self) -> Result<i32> {
        let wanted = Wanted {
            kernels: self.kernel,
            filters: self.filter,
            all: self.all,
            nightly: self.nightly,
            cpus: match self.two_cpus {
                true => Cpus::Two,
                false => Cpus::AsNeeded,
            },
            guest: self.guest,
            seed: self.seed,
            stub: self.gdb,
            jobs: self.jobs,
            trees: self.tree,
            reports: Reports {
                json: self.json,
                ktap: self.ktap,
                junit: self.junit,
            },
        };
        if self.list {
            wanted.reports.check()?;
            let listed = wanted.list(&environment::repository()?, &environment::surroundings()?)?;
            if self.json {
                json::print(&listed)?;
            } else {
                listed.iter().for_each(|listed| println!("{}", listed.test));
            }
            return Ok(0);
        }
        let ran = wanted.run(
            &environment::repository()?,
            &environment::surroundings()?,
            &Interrupt::install()?,
        )?;
        if let Some(output) = &ran.output {
            print!("{output}");
            eprint!("\n{}", ran.table);
        } else {
            print!("\n{}", ran.table);
        }
        Ok(i32::from(!ran.well))
    }
}
