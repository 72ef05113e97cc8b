// SPDX-License-Identifier: MIT OR Apache-2.0

//! How far a long task is: a bar on a terminal, else a line now and then.

use std::{
    cell::Cell,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How long a log that nobody watches may be silent.
const LINE_EVERY: Duration = Duration::from_secs(30);

const STEPS: &str = "{spinner} {prefix} {wide_bar} {pos}/{len}  {elapsed} {msg:30!}";
const BYTES: &str = "{spinner} {prefix} {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}";

/// A task with a known, or at least estimated, number of steps. Dropped before
/// [`Progress::done`], it leaves nothing behind.
pub struct Progress {
    title: String,
    bar: Option<ProgressBar>,
    total: u64,
    started: Instant,
    last_line: Cell<Instant>,
}

impl Progress {
    /// A task that is counted in steps.
    pub fn steps(title: &str, total: u64) -> Progress {
        Self::new(title, total, STEPS)
    }

    /// A task that is counted in bytes.
    pub fn bytes(title: &str, total: u64) -> Progress {
        Self::new(title, total, BYTES)
    }

    fn new(title: &str, total: u64, template: &str) -> Progress {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(total)
                .with_style(style)
                .with_prefix(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        if bar.is_none() {
            log::info!("{title} …");
        }
        let now = Instant::now();
        Progress {
            title: title.to_owned(),
            bar,
            total,
            started: now,
            last_line: Cell::new(now),
        }
    }

    /// `position` of the total is done. An estimate that was too low grows.
    pub fn set(&self, position: u64) {
        match &self.bar {
            Some(bar) => {
                if position > bar.length().unwrap_or(0) {
                    bar.set_length(position);
                }
                bar.set_position(position);
            }
            None if self.last_line.get().elapsed() >= LINE_EVERY => {
                self.last_line.set(Instant::now());
                let percent = (100 * position / self.total.max(1)).min(99);
                log::info!(
                    "{} … {percent} %, {} s",
                    self.title,
                    self.started.elapsed().as_secs()
                );
            }
            None => {}
        }
    }

    /// Says which part is being worked on, where there is room for that.
    pub fn message(&self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(message.to_owned());
        }
    }

    /// The task is finished: leaves one line with how long it took.
    pub fn done(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        log::info!(
            "{}: done in {} s",
            self.title,
            self.started.elapsed().as_secs()
        );
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_understood() {
        for template in [STEPS, BYTES] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
