// SPDX-License-Identifier: MIT OR Apache-2.0

//! The self check: it holds, and it fails when the agent measures wrong.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

use mutexlab_host::parent;
use mutexlab_host::paths;
use mutexlab_model::verdict::{Ending, Verdict};

/// A self check of an instrument that may be sabotaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Its name as a test.
    pub name: &'static str,
    /// What the agent does wrong.
    sabotage: Option<&'static str>,
    /// The checks that must fail, and no others.
    failing: &'static [&'static str],
}

/// All of them.
pub const ALL: [Trial; 4] = [
    Trial {
        name: "selfcheck-holds",
        sabotage: None,
        failing: &[],
    },
    Trial {
        name: "selfcheck-notices-numbers-that-differ-by-boot",
        sabotage: Some("skew"),
        failing: &["repeatable", "silent"],
    },
    Trial {
        name: "selfcheck-notices-rounded-numbers",
        sabotage: Some("coarse"),
        failing: &["exact"],
    },
    Trial {
        name: "selfcheck-notices-packets-that-are-not-missed",
        sabotage: Some("credulous"),
        failing: &["told"],
    },
];

/// What `selfcheck --json` says, as far as it matters.
#[derive(Deserialize)]
struct Report {
    trusted: bool,
    checks: Vec<Finding>,
}

#[derive(Deserialize)]
struct Finding {
    check: String,
    compared: usize,
    faults: Vec<String>,
}

impl Trial {
    /// Runs it, on the kernel of its scenario.
    ///
    /// # Errors
    /// If this program cannot be started.
    pub fn run(self) -> Result<Ending> {
        let mut command = Command::new(paths::this_program());
        command.args(["selfcheck", "--json", "--filter", "forward-v4-udp"]);
        if let Some(sabotage) = self.sabotage {
            command.args(["--sabotage", sabotage]);
        }
        parent::ends_it(&mut command).context("cannot prepare the self check")?;
        let output = command
            .stdin(Stdio::null())
            .output()
            .context("cannot start the self check")?;
        let Ok(report) = serde_json::from_slice::<Report>(&output.stdout) else {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or_default();
            let reason = format!("the self check ended with {}: {last}", output.status);
            return Ok(Ending::bad(Verdict::Infra, reason));
        };
        Ok(self.judge(&report))
    }

    fn judge(self, report: &Report) -> Ending {
        for finding in &report.checks {
            let failed = !finding.faults.is_empty();
            if finding.compared == 0 {
                let reason = format!("the check {:?} looked at nothing", finding.check);
                return Ending::bad(Verdict::Failed, reason);
            }
            if failed != self.failing.contains(&finding.check.as_str()) {
                let first = finding.faults.first();
                let reason = match first {
                    Some(fault) => format!("the check {:?} failed: {fault}", finding.check),
                    None => format!("the check {:?} noticed nothing", finding.check),
                };
                return Ending::bad(Verdict::Failed, reason);
            }
        }
        if report.trusted != self.failing.is_empty() {
            return Ending::bad(Verdict::Failed, "the checks and the whole do not agree");
        }
        Ending::ok()
    }
}
