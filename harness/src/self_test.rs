// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab test`
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use crate::boot::*;
use crate::guest::protocol::*;
use crate::interrupt::Interrupt;
use crate::kernel::*;
use crate::qemu::Accelerator;
use crate::virtme::Virtme;
/// x
#[derive(Args, Debug)]
pub struct TestCommand {
    /// x
    #[arg(long, value_name = "NAME=DIRECTORY")]
    tree: NamedTree,
    #[arg(long)]
    work: String,
    #[arg(long, default_value = "1")]
    cpus: u32,
    #[arg(long)]
    notcg: bool,
}
impl TestCommand {
    /// x
    pub fn run(self) -> Result<i32> {
        let kernel = Kernel::in_tree(&self.tree)?;
        let order = Order { version: VERSION, work: serde_json::from_str(&self.work)? };
        let boot = Boot { kernel: &kernel.bzimage(), cpus: self.cpus, accelerator: if self.notcg { Accelerator::Tcg } else { Accelerator::TcgIcount }, order: &order, modules: None,
            deadlines: Deadlines { up: std::time::Duration::from_secs(60), silence: std::time::Duration::from_secs(8), ..Deadlines::PLAIN }, console_log: &PathBuf::from("/tmp/w/hostx/c.log") };
        let b = boot.run(&Virtme::find()?, &Interrupt::install()?, &mut |e| { println!("{e:?}"); Ok(()) })?;
        println!("{b:?}");
        Ok(0)
    }
}
