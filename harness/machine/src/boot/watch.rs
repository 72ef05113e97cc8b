// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a running guest says, and what follows from it.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::deadlines::{Deadlines, POLL};
use super::processes::{Guest, Line};
use super::terms::Boot;
use crate::console::Scanner;
use crate::repeatable;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_model::verdict::{Ending, Verdict};
use mutexlab_protocol::{Event, EVENT_PREFIX, VERSION};
use mutexlab_protocol::{AGENT_ENDED, AGENT_GAVE_UP};

/// A guest whose kernel has complained may take this long to print the rest of its report.
const GRACE: Duration = Duration::from_secs(3);
/// A guest that has done its order may take this long until QEMU and virtme-ng are gone. On a host with ten
/// times as much to do as it has CPUs, 3 s were seen not to be enough.
const WAY_DOWN: Duration = Duration::from_secs(20);

/// What is known of a running guest, and what follows from it.
pub struct Watch {
    cpus: u32,
    deadlines: Deadlines,
    started: Instant,
    last_event: Instant,
    up: bool,
    done: Option<Instant>,
    complained: Option<Instant>,
    misunderstood: Option<String>,
    not_loaded: Option<String>,
    short_of_cpus: Option<String>,
    // What of the guest's doing is no cause of its own, but explains one.
    agent_ended: Option<String>,
    modules_for: Option<String>,
    attended: bool,
    wrong_kernel: Option<String>,
    /// What it has read of the console.
    pub scanner: Scanner,
    log: File,
    log_path: PathBuf,
    last_lines: Vec<String>,
}

impl Watch {
    /// How many of the console's last lines a reason quotes.
    const QUOTED: usize = 3;
    /// How many characters of an event it quotes.
    const QUOTED_OF_EVENT: usize = 200;

    /// With an empty log.
    ///
    /// # Errors
    /// If that cannot be created.
    pub fn new(boot: &Boot<'_>, now: Instant) -> Result<Self> {
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
            not_loaded: None,
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
    ///
    /// # Errors
    /// If the log cannot be written, `on_event` fails, or the user interrupts.
    pub fn guest(
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
            Event::Complaints { lines } => {
                for line in lines {
                    self.scanner.logged(line);
                }
                self.complained.get_or_insert_with(Instant::now);
            }
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
        } else if let Some(why) = repeatable::not_loaded(text) {
            self.not_loaded = Some(why);
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
        if let Some(text) = self.misunderstood.as_ref().or(self.not_loaded.as_ref()) {
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
        if let Some(text) = self.misunderstood.as_ref().or(self.not_loaded.as_ref()) {
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
