// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds the kernel's complaints in a guest's console.

use mutexlab_model::complaint::{Complaint, Kind};
use mutexlab_protocol::known_lines;
use mutexlab_protocol::log_line::LogLine;

/// First match wins, so what is more special stands first. A message must start with it:
/// some boot messages mention WARNING within a line.
const PATTERNS: &[(&str, Kind)] = &[
    ("Kernel panic - not syncing", Kind::Panic),
    ("BUG: KASAN:", Kind::Kasan),
    ("BUG: KFENCE:", Kind::Kasan),
    ("UBSAN:", Kind::Ubsan),
    ("WARNING: possible ", Kind::Lockdep),
    ("WARNING: inconsistent lock state", Kind::Lockdep),
    ("WARNING: bad unlock balance", Kind::Lockdep),
    ("WARNING: held lock freed", Kind::Lockdep),
    ("WARNING: lock held when returning", Kind::Lockdep),
    ("WARNING: Nested lock was not taken", Kind::Lockdep),
    ("WARNING: suspicious RCU usage", Kind::Lockdep),
    ("WARNING: HARDIRQ-safe -> ", Kind::Lockdep),
    ("WARNING: SOFTIRQ-safe -> ", Kind::Lockdep),
    ("BUG: Invalid wait context", Kind::Lockdep),
    ("[ BUG: Invalid wait context ]", Kind::Lockdep),
    ("INFO: trying to register non-static key", Kind::Lockdep),
    ("BUG: sleeping function called", Kind::AtomicSleep),
    ("BUG: scheduling while atomic", Kind::AtomicSleep),
    ("Voluntary context switch within RCU", Kind::AtomicSleep),
    ("refcount_t:", Kind::Refcount),
    ("BUG: soft lockup", Kind::Stall),
    ("watchdog: BUG: soft lockup", Kind::Stall),
    ("watchdog: Watchdog detected hard LOCKUP", Kind::Stall),
    ("rcu: INFO: rcu_", Kind::Stall),
    ("INFO: rcu_", Kind::Stall),
    ("INFO: task ", Kind::Stall),
    ("unreferenced object 0x", Kind::Leak),
    ("kmemleak: ", Kind::Leak),
    ("unregister_netdevice: waiting for", Kind::Leak),
    ("leaked reference", Kind::Leak),
    ("Out of memory: Killed process", Kind::OutOfMemory),
    ("BUG: unable to handle", Kind::Oops),
    ("BUG: kernel NULL pointer", Kind::Oops),
    ("kernel BUG at", Kind::Oops),
    ("Oops:", Kind::Oops),
    ("Oops ", Kind::Oops),
    ("general protection fault", Kind::Oops),
    ("traps: PANIC: double fault", Kind::Oops),
    ("rust_kernel: panicked at", Kind::Oops),
    ("list_add corruption", Kind::Corruption),
    ("list_del corruption", Kind::Corruption),
    ("ODEBUG:", Kind::Corruption),
    ("BUG: ", Kind::Corruption),
    ("BUG ", Kind::Corruption),
    ("WARNING: ", Kind::Warning),
];

/// No report is followed for longer than this.
const MAX_LINES: usize = 150;
/// A message this many seconds after a report's first is no part of it.
const MAX_SECONDS: f64 = 1.0;

/// Whether complaints are told in the order of events. The agent looks at the log each time before it tells that something
/// has ended: what has ended is not what they befell.
pub fn in_step(reports: &[Complaint]) -> bool {
    reports.iter().any(|report| report.kind == Kind::Logged)
}

/// Reads a console line by line and collects the reports in it.
#[derive(Debug, Default)]
pub struct Scanner {
    reports: Vec<Complaint>,
    open: bool,
    booted: bool,
}

impl Scanner {
    /// Takes the next line; true if a new report begins with it.
    pub fn line(&mut self, line: &str) -> bool {
        let (seconds, message) = split_time(line);
        if message.starts_with("Linux version ") {
            self.booted = true;
        }
        let kind = kind_of(message);
        if self.open && self.follow(seconds, message, kind) {
            return false;
        }
        let Some(kind) = kind else {
            return false;
        };
        self.reports.push(Complaint {
            kind,
            title: message.to_owned(),
            text: vec![message.to_owned()],
            at: seconds,
        });
        self.open = true;
        true
    }

    /// Takes a line of the log that is a complaint by its level.
    pub fn logged(&mut self, line: &LogLine) {
        let title = format!("<{}>{}", line.level, line.text);
        self.reports.push(Complaint {
            kind: Kind::Logged,
            text: vec![title.clone()],
            title,
            at: Some(line.at),
        });
        self.open = false;
    }

    /// Adds the message to the report that is open; false if it is no part of it.
    fn follow(&mut self, seconds: Option<f64>, message: &str, kind: Option<Kind>) -> bool {
        let Some(report) = self.reports.last_mut() else {
            return false;
        };
        let late = match (report.at, seconds) {
            (Some(first), Some(now)) => now - first > MAX_SECONDS,
            _ => false,
        };
        // A panic is worth a report of its own, wherever it stands; so is a report behind
        // another one's end.
        let another = kind == Some(Kind::Panic) && report.kind != Kind::Panic;
        if late || another || report.text.len() >= MAX_LINES {
            self.open = false;
            return false;
        }
        report.text.push(message.to_owned());
        self.open = !message.starts_with("---[ end ");
        true
    }

    /// The reports found up to now.
    pub fn reports(&self) -> &[Complaint] {
        &self.reports
    }

    /// The reports found in all.
    pub fn into_reports(self) -> Vec<Complaint> {
        self.reports
    }

    /// The panic, if there was one.
    pub fn panic(&self) -> Option<&Complaint> {
        self.reports
            .iter()
            .find(|report| report.kind == Kind::Panic)
    }

    /// Whether a kernel has said its name.
    pub fn booted(&self) -> bool {
        self.booted
    }
}

fn kind_of(message: &str) -> Option<Kind> {
    if known_lines::is_known(message) {
        return None;
    }
    PATTERNS
        .iter()
        .find(|(start, _)| message.starts_with(start))
        .map(|&(_, kind)| kind)
}

/// Splits `[   12.345678][  T123] message` into seconds and message; a line without a time stamp
/// is all message.
fn split_time(line: &str) -> (Option<f64>, &str) {
    let Some((stamp, rest)) = bracket(line) else {
        return (None, line);
    };
    let Ok(seconds) = stamp.trim().parse() else {
        return (None, line);
    };
    // With CONFIG_PRINTK_CALLER a task or a CPU follows.
    let message = match bracket(rest) {
        Some((caller, rest)) if caller.trim().starts_with(['T', 'C']) => rest,
        _ => rest,
    };
    (Some(seconds), message.strip_prefix(' ').unwrap_or(message))
}

fn bracket(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('[')?.split_once(']')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn time_and_caller_are_taken_off() {
        assert_eq!(split_time("[    1.5] hello"), (Some(1.5), "hello"));
        assert_eq!(split_time("[    1.5][   T77] hello"), (Some(1.5), "hello"));
        assert_eq!(
            split_time("[    1.5] [ BUG: x ]"),
            (Some(1.5), "[ BUG: x ]")
        );
        assert_eq!(split_time("[ok] hello"), (None, "[ok] hello"));
        assert_eq!(split_time(""), (None, ""));
    }

    #[test]
    fn a_warning_within_a_line_is_none() {
        let line = "[    0.1] Spectre V2 : WARNING: Unprivileged eBPF is enabled";
        assert!(!Scanner::default().line(line));
    }

    #[test]
    fn a_line_of_the_log_is_a_report_of_its_own() {
        let mut scanner = Scanner::default();
        assert!(scanner.line("[    1.0] WARNING: CPU: 0 PID: 1 at a.c:1 a+0x0/0x1"));
        assert!(!in_step(scanner.reports()));
        scanner.logged(&LogLine {
            level: 3,
            at: 1.5,
            text: "something".to_owned(),
        });
        assert!(!scanner.line("[    1.6] something else"));
        let last = &scanner.reports()[1];
        assert_eq!(
            (last.kind, last.title.as_str()),
            (Kind::Logged, "<3>something")
        );
        assert!(in_step(scanner.reports()));
    }

    #[test]
    fn a_panic_within_an_oops_is_found() {
        let mut scanner = Scanner::default();
        assert!(scanner.line("[    1.0] Oops: general protection fault: 0000 [#1]"));
        assert!(!scanner.line("[    1.1] RIP: 0010:foo+0x1/0x2"));
        assert!(scanner.line("[    1.2] Kernel panic - not syncing: Fatal exception"));
        assert!(scanner.panic().is_some());
        assert_eq!(scanner.reports().len(), 2);
    }

    #[test]
    fn two_warnings_are_two_reports() {
        let mut scanner = Scanner::default();
        assert!(scanner.line("[    1.0] WARNING: CPU: 0 PID: 1 at a.c:1 a+0x0/0x1"));
        assert!(!scanner.line("[    1.0] ---[ end trace 0000000000000000 ]---"));
        assert!(scanner.line("[    1.0] WARNING: CPU: 0 PID: 1 at b.c:1 b+0x0/0x1"));
    }

    proptest! {
        // Whatever a guest prints, each line is in one report or in none.
        #[test]
        fn any_lines_are_read(
            lines in prop::collection::vec(
                prop_oneof![
                    any::<String>(),
                    "(\\[ {0,3}[0-9.]{0,9}\\]?)?(\\[ *[TCx]1?\\])? ?(BUG: |WARNING: |Kernel panic|---\\[ end |)é?",
                ],
                0..50,
            ),
        ) {
            let mut scanner = Scanner::default();
            let begun = lines.iter().filter(|line| scanner.line(line)).count();
            prop_assert_eq!(scanner.reports().len(), begun);
            let mut kept = 0;
            for report in scanner.into_reports() {
                prop_assert_eq!(&report.title, &report.text[0]);
                kept += report.text.len();
            }
            prop_assert!(kept <= lines.len());
        }
    }
}
