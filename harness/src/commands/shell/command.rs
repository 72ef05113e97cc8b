// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command `shell`.

use crate::environment;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use jiff::Timestamp;

use super::banner::Banner;
use super::bridge::{told, Bridge, Port};
use super::debugger::Debugger;
use super::parameter::{self, Parameter};
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::terminal::{Raw, Saved, TIDY};
use mutexlab_images::modules;
use mutexlab_images::prepared::{Kernel, NamedTree};
use mutexlab_images::{Cache, Catalog, Flavour, KernelName};
use mutexlab_machine::attended::Attended;
use mutexlab_machine::boot::{Boot, Booted, Deadlines};
use mutexlab_machine::kvm;
use mutexlab_machine::stub::Stub;
use mutexlab_machine::tools::Tools;
use mutexlab_model::accelerator::Accelerator;
use mutexlab_model::verdict::Verdict;
use mutexlab_protocol::visit::{Visit, HOST_FILES};
use mutexlab_protocol::{Event, Order, Work, VERSION};

/// Exit code if it is not the command's, but the guest's own end that is told: as env(1) has it.
const GUEST_FAILED: i32 = 125;
/// Where logs go, in the repository.
const LOGS: &str = "results/logs";
const CONSOLE: &str = "console.log";
/// Variables of the environment that matter to programs on a terminal.
const PASSED_ON: [&str; 4] = ["TERM", "COLORTERM", "LANG", "LC_ALL"];

/// Look around in a guest with the module at work
///
/// Boots a kernel, loads the module, lays out the namespaces client, router and server with rules that
/// redirect, and starts a shell in the router's namespace, in the host's files (read-only). The guest
/// goes down when the shell ends. docs/shell.md tells more.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab shell                                  A shell with the default kernel\n  \
    mutexlab shell 7.3:debug                        With KASAN, lockdep and kmemleak\n  \
    mutexlab shell 6.12 --param max_flows=100       With a parameter of the module's\n  \
    mutexlab shell --no-rules                       To try your own: mprox apply FILE\n  \
    mutexlab shell -- client ask                    One command, whose exit code it passes on\n  \
    mutexlab shell --cpus 4 < script.sh             Commands from a file\n  \
    mutexlab shell --gdb                            With a way in for gdb, which it tells\n  \
    mutexlab shell --gdb=1234 --wait                At port 1234, before the first instruction\n\n\
Exit codes: the shell's or command's; 125 if the guest did not come up or went down by itself, or if its\n\
kernel complained and the command ended with 0; 2 if it could not be started, 130 if interrupted.")]
pub struct ShellCommand {
    /// The kernel: 7.3, or 7.3:debug [default: the catalog's]
    #[arg(value_name = "KERNEL")]
    kernel: Option<KernelName>,
    /// Load the module with this parameter; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    param: Vec<Parameter>,
    /// Load the module without rules that redirect, so that it is for you to write some, with mprox
    #[arg(long)]
    no_rules: bool,
    /// Number of CPUs
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(256..))]
    memory: u32,
    /// Let a debugger attach: at a socket of the guest's own, at a port of TCP, or at the socket of that
    /// path
    #[arg(long, value_name = "PORT|PATH", num_args = 0..=1, require_equals = true)]
    gdb: Option<Option<Stub>>,
    /// Wait for the debugger before the first instruction
    #[arg(long, requires = "gdb")]
    wait: bool,
    /// Boot a kernel tree that you have built instead of the catalog's kernel of that name
    #[arg(long, value_name = "NAME=DIRECTORY")]
    tree: Vec<NamedTree>,
    /// The command and its arguments; without one, a shell, which reads its commands from standard input
    /// if that is no terminal
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// All that a guest is booted with.
struct Guest<'a> {
    kernel: Kernel,
    accelerator: Accelerator,
    parameters: BTreeMap<String, String>,
    terminal: Option<&'a Saved>,
    port: Port,
    debugger: Option<Debugger>,
    /// Of its sockets.
    directory: PathBuf,
    console_log: PathBuf,
    /// The same as people are told it: from the repository on.
    shown_log: PathBuf,
}

/// What there is once the guest has let somebody in.
struct Inside<'a> {
    bridge: Bridge,
    /// Dropped when all is over.
    raw: Option<Raw<'a>>,
}

impl ShellCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If there is no such kernel or parameter, something is missing on this machine, or the user
    /// interrupts.
    pub fn run(&self) -> Result<i32> {
        let repository = environment::repository()?;
        let interrupt = Interrupt::install()?;
        let tools = Tools::find(&environment::surroundings()?)?;
        let terminal = Saved::of_standard_streams()?;
        let kernel = self.prepare(&repository, &tools, &interrupt)?;
        let there = match &kernel.modules {
            Some(files) => modules::parameters(&files.proxy)?,
            None => Vec::new(),
        };
        let parameters = parameter::by_name(&self.param, &there)?;
        let probe = kvm::probe(&kernel, &tools, &interrupt)?;
        let run = Timestamp::now()
            .strftime("%Y%m%dT%H%M%SZ-shell")
            .to_string();
        let logs = repository.join(LOGS).join(&run);
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        let sockets = tempfile::Builder::new()
            .prefix("mutexlab-shell-")
            .tempdir()
            .context("cannot create a temporary directory")?;
        let debugger = self.gdb.clone().map(|stub| {
            let stub = stub.unwrap_or_else(|| Stub::Socket(sockets.path().join("gdb")));
            Debugger::new(stub, self.wait, &kernel, &logs)
        });
        let guest = Guest {
            accelerator: probe.accelerator(),
            parameters,
            terminal: terminal.as_ref(),
            port: Port::new(sockets.path())?,
            debugger,
            directory: sockets.path().to_owned(),
            shown_log: Path::new(LOGS).join(&run).join(CONSOLE),
            console_log: logs.join(CONSOLE),
            kernel,
        };
        self.visit(&guest, &tools, &interrupt)
    }

    fn prepare(&self, repository: &Path, tools: &Tools, interrupt: &Interrupt) -> Result<Kernel> {
        let (name, flavour) = match &self.kernel {
            Some(name) => (name.kernel.clone(), name.flavour),
            None => {
                let catalog = Catalog::load(repository)?;
                (catalog.default_kernel().to_owned(), Flavour::Plain)
            }
        };
        let cache = Cache::of(&tools.surroundings);
        Kernel::prepare(&name, flavour, &self.tree, repository, &cache, interrupt)
    }

    fn visit(&self, guest: &Guest<'_>, tools: &Tools, interrupt: &Interrupt) -> Result<i32> {
        let order = Order {
            version: VERSION,
            work: Work::Shell(self.wishes(guest)?),
        };
        let attended = self.attended(guest);
        let mut deadlines = Deadlines::of(guest.kernel.debug)
            .for_cpus(self.cpus)
            .without_end();
        if self.wait {
            deadlines.up = Deadlines::NEVER;
        }
        let boot = Boot {
            cpus: self.cpus,
            accelerator: guest.accelerator,
            deadlines,
            attended: Some(&attended),
            ..Boot::of(&guest.kernel, &order, &guest.console_log)
        };
        if let Some(debugger) = guest.debugger.as_ref().filter(|debugger| debugger.waits) {
            eprintln!("waiting for {}", debugger.command());
        }
        let mut inside = None;
        let booted = boot.run(tools, interrupt, &mut |event| {
            if let Event::LaidOut { modules } = event {
                inside = Some(self.enter(guest, modules, interrupt)?);
            }
            Ok(())
        });
        let mut code = None;
        let mut written = Ok(());
        if let Some(Inside { bridge, raw }) = inside {
            match bridge.finish() {
                Ok(told) => code = told,
                Err(error) => written = Err(error),
            }
            if raw.is_some() && code.is_none() {
                // It goes with its window.
                let _ = io::stdout().write_all(TIDY.as_bytes());
            }
            // What is told from here on goes to a terminal as it was.
            drop(raw);
        }
        // An output that broke is why there was an interrupt.
        written?;
        Ok(conclude(&booted?, code, &guest.shown_log))
    }

    /// Lets somebody into the guest, which has the modules' sections at these addresses.
    fn enter<'a>(
        &self,
        guest: &Guest<'a>,
        modules: &BTreeMap<String, BTreeMap<String, u64>>,
        interrupt: &Interrupt,
    ) -> Result<Inside<'a>> {
        let mut debugger = Vec::new();
        if let Some(gdb) = &guest.debugger {
            let lines = gdb.write_script(modules)?;
            debugger.push(gdb.hint());
            debugger.extend(lines);
        }
        let Kernel {
            name,
            release,
            debug,
            ..
        } = &guest.kernel;
        let flavour = if *debug {
            Flavour::Debug
        } else {
            Flavour::Plain
        };
        if self.command.is_empty() && guest.terminal.is_some() {
            eprint!(
                "{}",
                Banner {
                    kernel: &format!("{name}:{flavour}"),
                    release,
                    cpus: self.cpus,
                    accelerator: match guest.accelerator {
                        Accelerator::Kvm => "under KVM",
                        Accelerator::Tcg | Accelerator::TcgIcount => "emulated",
                    },
                    parameters: &guest.parameters,
                    rules: !self.no_rules,
                    debugger: &debugger,
                    console_log: &guest.shown_log,
                }
            );
        } else {
            debugger.iter().for_each(|line| eprintln!("{line}"));
        }
        let raw = guest.terminal.map(Saved::make_raw).transpose()?;
        let bridge = guest.port.connect(guest.terminal, interrupt)?;
        Ok(Inside { bridge, raw })
    }

    /// What the guest is asked for.
    fn wishes(&self, guest: &Guest<'_>) -> Result<Visit> {
        let variables = PASSED_ON.iter().filter_map(|&name| {
            let value = environment::text(name)?;
            Some((name.to_owned(), value))
        });
        Ok(Visit {
            parameters: guest.parameters.clone(),
            rules: !self.no_rules,
            command: self.command.clone(),
            terminal: guest.terminal.map(Saved::size).transpose()?.map(told),
            environment: variables.collect(),
        })
    }

    fn attended(&self, guest: &Guest<'_>) -> Attended {
        let mut qemu = guest.port.qemu_arguments().to_vec();
        qemu.extend([
            "-fsdev".to_owned(),
            format!("local,id={HOST_FILES},path=/,security_model=none,readonly=on,multidevs=remap"),
            "-device".to_owned(),
            format!("virtio-9p-pci,fsdev={HOST_FILES},mount_tag={HOST_FILES}"),
        ]);
        let mut kernel = Vec::new();
        if let Some(debugger) = &guest.debugger {
            qemu.extend(debugger.qemu_arguments());
            // The catalog's do not move themselves; one's own may.
            kernel.push("nokaslr".to_owned());
        }
        Attended {
            qemu,
            kernel,
            memory_mib: Some(self.memory),
            directory: guest.directory.clone(),
            terminal: guest.terminal.and_then(Saved::path).map(Path::to_owned),
        }
    }
}

/// Tells what the user cannot have seen; the exit code.
fn conclude(booted: &Booted, code: Option<i32>, console_log: &Path) -> i32 {
    let ending = &booted.ending;
    if let (Some(code), Verdict::Ok) = (code, ending.verdict) {
        return code;
    }
    eprintln!(
        "mutexlab: the guest ended as {}: {}\nconsole log: {}",
        ending.verdict,
        ending.reason,
        console_log.display()
    );
    match code {
        Some(code) if code != 0 => code,
        _ => GUEST_FAILED,
    }
}
