// SPDX-License-Identifier: MIT OR Apache-2.0

//! How far a run is: a bar on a terminal, lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Told to whoever waits.
pub struct Progress(ProgressBar);

impl Progress {
    /// For so many cells.
    pub fn new(cells: usize) -> Self {
        let length = u64::try_from(cells).unwrap_or(u64::MAX);
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        // The template is a constant; if it were wrong, indicatif's own style would do.
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} [{pos}/{len}] {bar:24} {elapsed} {msg}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// What is being done now; only where it can be taken back.
    pub fn doing(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    /// A line that also whoever reads along without a terminal gets.
    pub fn announce(&self, line: &str) {
        if self.0.is_hidden() {
            log::info!("{line}");
        } else {
            self.0.set_message(line.to_owned());
        }
    }

    /// A cell more is done.
    pub fn cell_done(&self) {
        self.0.inc(1);
    }

    /// So many cells more are to be done.
    pub fn more(&self, cells: usize) {
        self.0.inc_length(u64::try_from(cells).unwrap_or(0));
    }

    /// Nothing is left of the bar.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }

    /// The bar stays as it is.
    pub fn abandon(&self) {
        self.0.abandon();
    }
}
