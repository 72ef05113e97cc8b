// SPDX-License-Identifier: MIT OR Apache-2.0

//! One boot of a guest, from its first instruction to its verdict.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use duct::Handle;
use nix::sys::signal::Signal;

use crate::attended::Attended;
use crate::console::{Report, Scanner};
use crate::decode;
use crate::guest::agent::GAVE_UP as AGENT_GAVE_UP;
use crate::guest::protocol::{Event, Order, EVENT_PREFIX, VERSION};
use crate::guest_root::{self, ModuleFiles, AGENT_ENDED};
use crate::interrupt::Interrupt;
use crate::mp_table;
use crate::paths;
use crate::pipe;
use crate::qemu::{self, Accelerator, Lens};
use crate::verdict::{Ending, Verdict};
use crate::virtme::Virtme;

/// How often flags and deadlines are looked at.
const POLL: Duration = Duration::from_millis(50);
/// A guest whose kernel has complained may take this long to print the rest of its report.
const GRACE: Duration = Duration::from_secs(3);
/// A guest that has done its order may take this long until QEMU and virtme-ng are gone. On a host with ten
/// times as much to do as it has CPUs, 3 s were seen not to be enough.
const WAY_DOWN: Duration = Duration::from_secs(20);
/// A killed guest may take this long to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How deep below its tree a kernel's image lies: arch/x86/boot/bzImage.
const BZIMAGE_DEPTH: usize = 4;

/// Stands in QEMU's command line for the boot's temporary directory, whose name is random.
const RUN_VARIABLE: &str = "$RUN";

/// How long a guest may take, in time of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the start until the agent says that it is up.
    pub up: Duration,
    /// From one event to the next.
    pub silence: Duration,
    /// The whole boot.
    pub total: Duration,
}

impl Deadlines {
    /// For a kernel with its checkers, or as it is meant to run.
    pub const fn of(debug: bool) -> Self {
        if debug {
            Self::DEBUG
        } else {
            Self::PLAIN
        }
    }

    /// For a kernel as it is meant to run.
    pub const PLAIN: Self = Self {
        up: Duration::from_secs(90),
        silence: Duration::from_secs(120),
        total: Duration::from_secs(1200),
    };
    /// As good as no deadline: 30 years, so that sums with it can be told.
    pub const NEVER: Duration = Duration::from_secs(1_000_000_000);
    /// What a flow may take until it is established. It was seen to take a tenth of a millisecond.
    const FLOW: Duration = Duration::from_millis(3);

    /// What a CPU may take to come up: with 64 of them it was seen to take half a second.
    const CPU: Duration = Duration::from_secs(2);

    /// The same with time for so many CPUs to come up.
    #[must_use]
    pub fn for_cpus(self, cpus: u32) -> Self {
        let more = Self::CPU * cpus;
        Self {
            up: self.up + more,
            total: self.total + more,
            ..self
        }
    }

    /// The same with time for the bursts that an order's cells search, and of which the agent tells
    /// nothing meanwhile.
    #[must_use]
    pub fn for_bursts(self, order: &Order) -> Self {
        let each = order.bursts().map(|goal| goal.patience_in_all());
        let (longest, all) = each.fold((Duration::ZERO, Duration::ZERO), |(longest, all), one| {
            (longest.max(one), all + one)
        });
        Self {
            silence: self.silence + longest,
            total: self.total + all,
            ..self
        }
    }

    /// The same with time to establish the flows of an order.
    #[must_use]
    pub fn for_flows(self, order: &Order) -> Self {
        let flows = order.flows();
        let total = u32::try_from(flows.total).unwrap_or(u32::MAX);
        Self {
            silence: self.silence + Self::FLOW * flows.max,
            total: self.total + Self::FLOW * total,
            ..self
        }
    }

    /// So many times as long.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self {
            up: self.up * times,
            silence: self.silence * times,
            total: self.total * times,
        }
    }

    /// The same for a guest that somebody looks around in: it may be silent, or stopped by a debugger,
    /// for as long as they like.
    #[must_use]
    pub fn without_end(self) -> Self {
        Self {
            silence: Self::NEVER,
            total: Self::NEVER,
            ..self
        }
    }

    /// For a kernel with sanitizers and validators, several times as slow.
    pub const DEBUG: Self = Self {
        up: Duration::from_secs(240),
        silence: Duration::from_secs(240),
        total: Duration::from_secs(1800),
    };
}

/// What to boot and how.
#[derive(Clone, Debug)]
pub struct Boot<'a> {
    /// The kernel, a bzImage.
    pub kernel: &'a Path,
    /// What this kernel is told beside what every kernel is.
    pub arguments: &'a [&'a str],
    /// Number of CPUs.
    pub cpus: u32,
    /// How instructions are executed.
    pub accelerator: Accelerator,
    /// What the agent is to do.
    pub order: &'a Order,
    /// Modules that the order needs.
    pub modules: Option<&'a ModuleFiles>,
    /// When to give up.
    pub deadlines: Deadlines,
    /// The plugin that watches its instructions, if one does.
    pub lens: Option<&'a Lens>,
    /// What is different if somebody sits in front of it.
    pub attended: Option<&'a Attended>,
    /// Where the console goes.
    pub console_log: &'a Path,
}

/// How a boot went.
#[derive(Clone, Debug)]
pub struct Booted {
    /// How it ended.
    pub ending: Ending,
    /// What the kernel complained of.
    pub reports: Vec<Report>,
    /// Command line of QEMU; empty if it never ran.
    pub qemu: Vec<String>,
    /// How long it took, in time of the host.
    pub duration: Duration,
}

impl Boot<'_> {
    /// Boots the guest and waits for its end, or ends it; no process of it is left afterwards.
    /// Hands each event on as it comes.
    ///
    /// # Errors
    /// If the guest cannot be started, the log cannot be written, or the user interrupts. What
    /// goes wrong in the guest is no error but a verdict.
    pub fn run(
        &self,
        virtme: &Virtme,
        interrupt: &Interrupt,
        on_event: &mut dyn FnMut(&Event) -> Result<()>,
    ) -> Result<Booted> {
        let started = Instant::now();
        if let Some(ending) = self.cannot_start() {
            return Ok(Booted {
                ending,
                reports: Vec::new(),
                qemu: Vec::new(),
                duration: started.elapsed(),
            });
        }
        let mut watch = Watch::new(self, started)?;
        let mut guest = Guest::start(self, virtme)?;
        let ending = watch.guest(&mut guest, interrupt, on_event);
        let qemu = std::mem::take(&mut guest.qemu);
        // Also when the watch was cut short: no guest survives this function.
        guest.stop()?;
        if !watch.scanner.reports().is_empty()
            && let Err(error) = decode::write(self.console_log, self.vmlinux().as_deref())
        {
            // What the guest did counts as well without.
            eprintln!("mutexlab: the console's log stays as it is: {error:#}");
        }
        Ok(Booted {
            ending: ending?,
            reports: watch.scanner.into_reports(),
            qemu,
            duration: started.elapsed(),
        })
    }
}

impl Boot<'_> {
    /// The kernel with its symbols, if the image lies in the tree that it was built in.
    fn vmlinux(&self) -> Option<PathBuf> {
        let tree = self.kernel.ancestors().nth(BZIMAGE_DEPTH)?;
        Some(tree.join("vmlinux")).filter(|file| file.is_file())
    }

    /// The ending, if it is known before anything is started.
    fn cannot_start(&self) -> Option<Ending> {
        if let Err(error) = qemu::find() {
            return Some(Ending::bad(Verdict::Infra, format!("{error:#}")));
        }
        let bad = |error: &dyn std::fmt::Display| {
            let reason = format!("{} cannot be booted: {error}", self.kernel.display());
            Some(Ending::bad(Verdict::Boot, reason))
        };
        match qemu::is_kernel(self.kernel) {
            Ok(true) => None,
            Ok(false) => bad(&"it is no kernel (a bzImage, Documentation/arch/x86/boot.rst)"),
            Err(error) => bad(&error),
        }
    }
}

/// What an exit code of a shell's stands for.
fn explain_code(text: &str) -> String {
    let signal = text
        .strip_prefix("code ")
        .and_then(|code| code.parse::<i32>().ok())
        .and_then(|code| Signal::try_from(code - 128).ok());
    match signal {
        Some(signal) => format!("{text} ({signal})"),
        None => text.to_owned(),
    }
}

/// A line from the guest.
enum Line {
    /// From the kernel, from QEMU or from virtme-ng.
    Console(String),
    /// From the agent.
    Output(String),
}

/// The processes of a running guest. Dropping it ends them: the pipe to the guard closes.
struct Guest {
    handle: Handle,
    leash: Option<PipeWriter>,
    lines: Receiver<Line>,
    qemu: Vec<String>,
    // The last field: the guest's root goes when nothing uses it any more.
    directory: tempfile::TempDir,
}

impl Guest {
    fn start(boot: &Boot<'_>, virtme: &Virtme) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("mutexlab-")
            .tempdir()
            .context("cannot create a temporary directory")?;
        let root = directory.path().join("root");
        let scratch = directory.path().join("tmp");
        for path in [&root, &scratch] {
            fs::create_dir(path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        guest_root::build(&root, boot.order, boot.modules)?;
        let table = directory.path().join("mp-table");
        let table = if boot.cpus > mp_table::FIRMWARE_MAX {
            fs::write(&table, mp_table::bytes(boot.cpus))
                .with_context(|| format!("cannot write {}", table.display()))?;
            Some(table.as_path())
        } else {
            None
        };

        let pipe = || pipe::roomy().context("cannot create a pipe");
        let (leash_end, leash) = pipe()?;
        let (output, output_end) = pipe()?;
        let (console, console_end) = pipe()?;
        let harness = paths::this_program();
        let mut command = vec!["guard".into(), "--remove".into(), directory.path().into()];
        if let Some(attended) = boot.attended {
            command.extend(["--remove".into(), attended.directory.clone().into()]);
            if let Some(terminal) = &attended.terminal {
                command.extend(["--terminal".into(), terminal.into()]);
            }
        }
        command.push("--".into());
        command.extend(virtme.command(boot, &root, table)?);
        // A home of its own keeps the user's configuration of virtme-ng out.
        let handle = duct::cmd(harness, command)
            .stdin_file(leash_end)
            .stdout_file(output_end)
            .stderr_file(console_end)
            .env("PATH", virtme.search_path())
            .env("HOME", &scratch)
            .env("TMPDIR", &scratch)
            .unchecked()
            .start()
            .context("cannot start the guest's guard")?;
        let (sender, lines) = mpsc::channel();
        forward(output, sender.clone(), Line::Output);
        forward(console, sender, Line::Console);
        Ok(Self {
            handle,
            leash: Some(leash),
            lines,
            qemu: Vec::new(),
            directory,
        })
    }

    /// Notes QEMU's command line once it runs.
    fn note_qemu(&mut self) {
        if self.qemu.is_empty() {
            let arguments = self
                .handle
                .pids()
                .into_iter()
                .find_map(qemu::command_line_below);
            let directory = self.directory.path().to_string_lossy();
            self.qemu = arguments
                .unwrap_or_default()
                .iter()
                .map(|argument| argument.replace(&*directory, RUN_VARIABLE))
                .collect();
        }
    }

    /// Lets the leash go and waits until the guard has ended everything.
    fn stop(mut self) -> Result<()> {
        self.leash = None;
        let deadline = Instant::now() + KILL_DEADLINE;
        while self
            .handle
            .try_wait()
            .context("cannot wait for the guard")?
            .is_none()
        {
            if Instant::now() > deadline {
                anyhow::bail!(
                    "the guard (process {:?}) does not end: look at it with `ps f`",
                    self.handle.pids()
                );
            }
            thread::sleep(POLL);
        }
        self.directory
            .close()
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
            .context("cannot remove the guest's root")
    }
}

/// Sends the lines of `pipe` until its end.
fn forward(pipe: PipeReader, sender: Sender<Line>, kind: fn(String) -> Line) {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while let Ok(1..) = reader.read_until(b'\n', &mut bytes) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            if sender.send(kind(line)).is_err() {
                break;
            }
        }
    });
}

/// What is known of a running guest, and what follows from it.
struct Watch {
    cpus: u32,
    deadlines: Deadlines,
    started: Instant,
    last_event: Instant,
    up: bool,
    done: Option<Instant>,
    complained: Option<Instant>,
    misunderstood: Option<String>,
    short_of_cpus: Option<String>,
    // What of the guest's doing is no cause of its own, but explains one.
    agent_ended: Option<String>,
    modules_for: Option<String>,
    attended: bool,
    wrong_kernel: Option<String>,
    scanner: Scanner,
    log: File,
    log_path: PathBuf,
    last_lines: Vec<String>,
}

impl Watch {
    /// How many of the console's last lines a reason quotes.
    const QUOTED: usize = 3;
    /// How many characters of an event it quotes.
    const QUOTED_OF_EVENT: usize = 200;

    fn new(boot: &Boot<'_>, now: Instant) -> Result<Self> {
        let log_path = boot.console_log.to_owned();
        if let Some(directory) = log_path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        let log = File::create(&log_path)
            .with_context(|| format!("cannot create {}", log_path.display()))?;
        Ok(Self {
            cpus: boot.cpus,
            deadlines: boot.deadlines,
            started: now,
            last_event: now,
            up: false,
            done: None,
            complained: None,
            misunderstood: None,
            short_of_cpus: None,
            agent_ended: None,
            modules_for: boot.modules.map(|modules| modules.release.clone()),
            attended: boot.attended.is_some(),
            wrong_kernel: None,
            scanner: Scanner::default(),
            log,
            log_path,
            last_lines: Vec::new(),
        })
    }

    /// Follows the guest to its end.
    fn guest(
        &mut self,
        guest: &mut Guest,
        interrupt: &Interrupt,
        on_event: &mut dyn FnMut(&Event) -> Result<()>,
    ) -> Result<Ending> {
        loop {
            interrupt.check()?;
            guest.note_qemu();
            let ran = !guest.qemu.is_empty();
            if let Some(ending) = self.expired(ran, Instant::now()) {
                return Ok(ending);
            }
            let line = match guest.lines.recv_timeout(POLL) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(self.gone(ran)),
            };
            if let Some(event) = self.take(&line)? {
                on_event(&event)?;
            }
        }
    }

    /// Takes in a line; the event, if it is one.
    fn take(&mut self, line: &Line) -> Result<Option<Event>> {
        let text = match line {
            Line::Console(text) | Line::Output(text) => text,
        };
        let Some(event) = text.strip_prefix(EVENT_PREFIX) else {
            self.take_console(text)?;
            return Ok(None);
        };
        self.last_event = Instant::now();
        match serde_json::from_str(event) {
            Ok(event) => {
                self.take_event(&event);
                Ok(Some(event))
            }
            Err(error) => {
                let start: String = event.chars().take(Self::QUOTED_OF_EVENT).collect();
                self.misunderstood = Some(format!(
                    "unreadable event ({error}), of {} bytes: {start}",
                    event.len()
                ));
                Ok(None)
            }
        }
    }

    fn take_event(&mut self, event: &Event) {
        match event {
            Event::Up { version, .. } if *version != VERSION => {
                self.misunderstood = Some(format!(
                    "the agent speaks version {version} of the protocol, the host {VERSION}"
                ));
            }
            Event::Up { cpus, .. } if u32::try_from(*cpus) != Ok(self.cpus) => {
                self.short_of_cpus = Some(format!(
                    "the guest came up with {cpus} CPUs instead of {}: its console says what it found",
                    self.cpus
                ));
            }
            Event::Up { kernel, .. }
                if self
                    .modules_for
                    .as_ref()
                    .is_some_and(|wanted| wanted != kernel) =>
            {
                let wanted = self.modules_for.as_deref().unwrap_or_default();
                self.wrong_kernel = Some(format!(
                    "the guest's kernel is {kernel}, but the modules were built for {wanted}: the image is \
                     of another tree"
                ));
            }
            Event::Up { .. } => self.up = true,
            Event::Done => self.done = Some(Instant::now()),
            _ => {}
        }
    }

    fn take_console(&mut self, text: &str) -> Result<()> {
        writeln!(self.log, "{text}")
            .with_context(|| format!("cannot write {}", self.log_path.display()))?;
        if let Some((_, rest)) = text.split_once(AGENT_ENDED) {
            self.agent_ended = Some(format!(
                "the agent ended with {}",
                explain_code(rest.trim())
            ));
        } else if let Some((_, rest)) = text.split_once(AGENT_GAVE_UP) {
            self.agent_ended = Some(format!("the agent gave up ({})", rest.trim()));
        }
        if self.scanner.line(text) && self.complained.is_none() {
            self.complained = Some(Instant::now());
        }
        if !text.trim().is_empty() {
            if self.last_lines.len() == Self::QUOTED {
                self.last_lines.remove(0);
            }
            self.last_lines.push(text.trim().to_owned());
        }
        Ok(())
    }

    /// The ending, if it must end now.
    fn expired(&self, ran: bool, now: Instant) -> Option<Ending> {
        let seconds = |duration: Duration| duration.as_secs();
        if let Some(text) = &self.misunderstood {
            return Some(Ending::bad(Verdict::Infra, text.clone()));
        }
        if let Some(text) = &self.short_of_cpus {
            return Some(Ending::bad(Verdict::Boot, text.clone()));
        }
        if let Some(text) = &self.wrong_kernel {
            return Some(Ending::bad(Verdict::Boot, text.clone()));
        }
        // A kernel that has complained is no longer the one that was to be looked at: lockdep has
        // switched itself off, memory may be corrupt. The rest of the order is not worth having, unless
        // somebody wants to see just that. After a panic there is nothing more to be seen.
        let is_over = !self.attended || self.scanner.panic().is_some();
        if is_over && self.complained.is_some_and(|at| now > at + GRACE) {
            return Some(self.complaint().unwrap_or_else(Ending::ok));
        }
        if let Some(at) = self.done {
            return (now > at + WAY_DOWN).then(|| {
                Ending::bad(
                    Verdict::Hang,
                    "the order is done, but the guest does not go down",
                )
            });
        }
        let deadlines = &self.deadlines;
        if !self.up && now > self.started + deadlines.up {
            let reason = format!("not up after {} s", seconds(deadlines.up));
            return Some(self.never_up(ran, &reason));
        }
        if now > self.started + deadlines.total {
            let reason = format!("not done after {} s", seconds(deadlines.total));
            return Some(Ending::bad(Verdict::Hang, reason));
        }
        if self.up && now > self.last_event + deadlines.silence {
            let reason = format!("no sign of life for {} s", seconds(deadlines.silence));
            return Some(Ending::bad(Verdict::Hang, reason));
        }
        None
    }

    /// The ending when all processes are gone.
    fn gone(&self, ran: bool) -> Ending {
        if let Some(ending) = self.complaint() {
            return ending;
        }
        if let Some(text) = &self.misunderstood {
            return Ending::bad(Verdict::Infra, text.clone());
        }
        if let Some(text) = &self.wrong_kernel {
            return Ending::bad(Verdict::Boot, text.clone());
        }
        if self.done.is_some() {
            return Ending::ok();
        }
        if self.up {
            let what = match &self.agent_ended {
                Some(text) => format!("{text} before its order was done"),
                None => "QEMU ended before the order was done, and the agent did not".to_owned(),
            };
            return Ending::bad(Verdict::Infra, format!("{what}{}", self.quote()));
        }
        self.never_up(ran, "the guest ended before it was up")
    }

    fn complaint(&self) -> Option<Ending> {
        if let Some(panic) = self.scanner.panic() {
            return Some(if self.up {
                Ending::bad(Verdict::Panic, panic.title.clone())
            } else {
                let reason = format!("before the agent was up: {}", panic.title);
                Ending::bad(Verdict::Boot, reason)
            });
        }
        let report = self.scanner.reports().first()?;
        let reason = format!("{}: {}", report.kind, report.title);
        Some(Ending::bad(Verdict::Splat, reason))
    }

    /// The ending of a guest that did not come up; whose fault it is depends on whether QEMU ran.
    fn never_up(&self, ran: bool, what: &str) -> Ending {
        if let Some(ending) = self.complaint() {
            return ending;
        }
        let verdict = if ran || self.scanner.booted() {
            Verdict::Boot
        } else {
            Verdict::Infra
        };
        Ending::bad(verdict, format!("{what}{}", self.quote()))
    }

    fn quote(&self) -> String {
        if self.last_lines.is_empty() {
            return "; the console is empty".to_owned();
        }
        format!(
            "; the console's last lines: {}",
            self.last_lines.join(" | ")
        )
    }
}
