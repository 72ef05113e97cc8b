// SPDX-License-Identifier: MIT OR Apache-2.0

//! A bench that loses its guests, or its life: what is tried once more, what is not, and what is gone on
//! with.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::bench::Bench;
use super::gone::all_gone;
use mutexlab_host::guard;
use mutexlab_host::interrupt;
use mutexlab_host::paths;
use mutexlab_images::prepared::Kernel;
use mutexlab_machine::qemu;
use mutexlab_model::verdict::{Ending, Verdict};
use mutexlab_results::file::ResultsFile;
use mutexlab_results::record::Results;

/// What stands at the begin of the line that tells of a good cell.
const CELL_IS_OK: &str = "ok ";

/// A way in which a bench goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBench {
    /// QEMU dies once.
    LosesOneGuest,
    /// QEMU dies twice.
    LosesTwoGuests,
    /// The module does something wrong.
    WrongResult,
    /// It is killed.
    Killed,
    /// The user interrupts it.
    Interrupted,
}

/// All of them.
pub const ALL: [BadBench; 5] = [
    BadBench::LosesOneGuest,
    BadBench::LosesTwoGuests,
    BadBench::WrongResult,
    BadBench::Killed,
    BadBench::Interrupted,
];

impl BadBench {
    /// Its name as a test.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LosesOneGuest => "infra-is-tried-once-more",
            Self::LosesTwoGuests => "infra-is-not-tried-a-third-time",
            Self::WrongResult => "a-wrong-result-is-not-tried-again",
            Self::Killed => "killed-bench-is-gone-on-with",
            Self::Interrupted => "interrupted-bench-is-gone-on-with",
        }
    }

    /// Has it happen on `kernel`.
    ///
    /// # Errors
    /// If another harness cannot be started, or the scenario not be written.
    pub fn run(self, bench: &Bench<'_>, kernel: &Kernel) -> Result<Ending> {
        let directory = bench.logs.join(self.name());
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let trial = Trial {
            scenario: directory.join("trial.toml"),
            tree: format!("{}={}", kernel.name, kernel.directory.display()),
            directory,
        };
        let parameters = match self {
            Self::WrongResult => "[parameters]\nperf_cache_size = [1000000000]\n",
            _ => "",
        };
        let scenario = format!(
            "question = \"What is left of a bench that goes wrong?\"\nmode = \"virtual\"\n\
             kernels = [{:?}]\ncpus = [1]\nsubjects = [\"none\", \"nft-dnat\", \"module\"]\n\
             {parameters}[traffic]\nways = [\"forward\"]\nfamilies = [\"v4\"]\nprotocols = [\"udp\"]\n\
             payloads = [64]\nround-trips = 100\nwarm-up = 10\n",
            kernel.name
        );
        fs::write(&trial.scenario, scenario)
            .with_context(|| format!("cannot write {}", trial.scenario.display()))?;
        let judged = match self {
            Self::LosesOneGuest => trial.lose_guests(1)?,
            Self::LosesTwoGuests => trial.lose_guests(2)?,
            Self::WrongResult => trial.wrong_result()?,
            Self::Killed => trial.cut_short(Signal::SIGKILL, None)?,
            Self::Interrupted => trial.cut_short(Signal::SIGINT, Some(interrupt::EXIT_CODE))?,
        };
        Ok(match judged {
            Ok(()) => Ending::ok(),
            Err(reason) => Ending::bad(Verdict::Failed, reason),
        })
    }
}

/// A bench of three cells in one boot, with results of its own.
struct Trial {
    scenario: PathBuf,
    tree: String,
    directory: PathBuf,
}

/// What is wrong, unless nothing is.
type Judged = std::result::Result<(), String>;

impl Trial {
    fn start(&self, more: &[&str]) -> Result<(Child, BufReader<ChildStderr>)> {
        let harness = paths::this_program();
        let mut child = Command::new(&harness)
            .arg("bench")
            .arg(&self.scenario)
            .args(["--jobs", "1", "--json", "--tree", &self.tree, "--results"])
            .arg(&self.directory)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", harness.display()))?;
        let said = child.stderr.take().context("the bench has no stderr")?;
        Ok((child, BufReader::new(said)))
    }

    /// Waits for the end of a bench, and returns what it has written.
    fn end(&self, mut child: Child, said: BufReader<ChildStderr>) -> Result<(ExitStatus, Results)> {
        // Else it would wait for somebody who reads.
        std::io::copy(&mut { said }, &mut std::io::sink()).context("cannot read from the bench")?;
        let status = child.wait().context("cannot wait for the other bench")?;
        Ok((status, self.results()?))
    }

    fn results(&self) -> Result<Results> {
        let path = ResultsFile::newest(&self.directory, "trial")?;
        Ok(ResultsFile::open(&path)?.into_results())
    }

    /// QEMU is killed after each of the first `deaths` good cells.
    fn lose_guests(&self, deaths: usize) -> Result<Judged> {
        let (child, mut said) = self.start(&[])?;
        for _ in 0..deaths {
            wait_for_a_good_cell(&mut said)?;
            let qemu = qemu::process_below(child.id()).context("the bench's QEMU is gone")?;
            send(Signal::SIGKILL, qemu)?;
        }
        let (status, results) = self.end(child, said)?;
        let first = results.boots.first().context("the bench booted nothing")?;
        let bad = results
            .cells
            .iter()
            .filter(|cell| cell.verdict != Verdict::Ok);
        let bad: Vec<_> = bad.map(|cell| (&cell.id, cell.verdict)).collect();
        let ended_well = if deaths == 1 {
            status.code() == Some(0) && bad.is_empty()
        } else {
            status.code() == Some(1) && matches!(bad[..], [(_, Verdict::Infra)])
        };
        Ok(if results.boots.len() != 2 {
            Err(format!("{} boots instead of 2", results.boots.len()))
        } else if first.verdict != Verdict::Infra || first.reason.is_none() {
            Err(format!("the first boot is {}", first.verdict))
        } else if results.boots[1].retry_of.as_ref() != Some(&first.id) {
            Err("the second boot does not say that it is a second try".to_owned())
        } else if !ended_well {
            Err(format!("the bench ended as {status}, with {bad:?}"))
        } else {
            Ok(())
        })
    }

    /// The module refuses a parameter, which is its own fault.
    fn wrong_result(&self) -> Result<Judged> {
        let (child, said) = self.start(&[])?;
        let (status, results) = self.end(child, said)?;
        let failed = results
            .cells
            .iter()
            .filter(|cell| cell.verdict == Verdict::Failed);
        let failed = failed.count();
        Ok(
            if (status.code(), failed, results.boots.len()) == (Some(1), 1, 1) {
                Ok(())
            } else {
                let boots = results.boots.len();
                Err(format!(
                    "the bench ended as {status}, with {failed} failed cells in {boots} boots"
                ))
            },
        )
    }

    /// The bench gets a signal after its first cell, at which it has to end with `exit_code` and all its
    /// processes; another one goes on with it.
    fn cut_short(&self, signal: Signal, exit_code: Option<i32>) -> Result<Judged> {
        let (mut child, mut said) = self.start(&[])?;
        wait_for_a_good_cell(&mut said)?;
        let processes = guard::descendants(child.id());
        send(signal, child.id())?;
        let ended = child.wait().context("cannot wait for the other bench")?;
        if ended.code() != exit_code {
            return Ok(Err(format!("after {signal} the bench ended as {ended}")));
        }
        if let Err(fault) = all_gone(&processes) {
            return Ok(Err(format!("after {signal} {fault}")));
        }
        let before = self.results()?;
        let (child, said) = self.start(&["--resume"])?;
        let (status, after) = self.end(child, said)?;
        let kept = before.cells.iter().all(|cell| after.cells.contains(cell));
        let well = after.cells.iter().all(|cell| cell.verdict == Verdict::Ok);
        Ok(if !(1..3).contains(&before.cells.len()) {
            Err(format!(
                "{} cells were there when it was cut short",
                before.cells.len()
            ))
        } else if !status.success() || after.cells.len() != 3 || !well {
            Err(format!(
                "the second bench ended as {status}, with {} cells",
                after.cells.len()
            ))
        } else if !kept {
            Err("a cell that was there was measured again".to_owned())
        } else {
            Ok(())
        })
    }
}

fn wait_for_a_good_cell(said: &mut impl BufRead) -> Result<()> {
    let mut line = String::new();
    while said
        .read_line(&mut line)
        .context("cannot read what the bench says")?
        > 0
    {
        if line.starts_with(CELL_IS_OK) {
            return Ok(());
        }
        line.clear();
    }
    anyhow::bail!("the bench ended before a cell did")
}

fn send(signal: Signal, pid: u32) -> Result<()> {
    signal::kill(Pid::from_raw(pid.cast_signed()), signal)
        .with_context(|| format!("cannot send {signal} to process {pid}"))
}
