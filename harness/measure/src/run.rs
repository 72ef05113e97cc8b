// SPDX-License-Identifier: MIT OR Apache-2.0

//! A run: the boots of a plan, as many side by side as there shall be, into a results file.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};

use super::lab::Lab;
use super::look::look;
use super::progress::Progress;
use mutexlab_lens_analysis::analysis::Origin;
use mutexlab_lens_analysis::looker::Looker;
use mutexlab_machine::boot::{Boot, Deadlines};
use mutexlab_machine::console;
use mutexlab_model::verdict::{Ending, Verdict};
use mutexlab_protocol::{Event, GuestCell, Order, Outcome, Work, VERSION};
use mutexlab_results::file::ResultsFile;
use mutexlab_results::metric::{Clock, Kind, HOOK_MEAN};
use mutexlab_results::metrics;
use mutexlab_results::record::{BootRecord, CellRecord, Directions};
use mutexlab_scenario::plan::{Plan, PlannedBoot};
use mutexlab_subjects::Subjects;

/// How long a boot may take. The lens makes it slower; at most four times, it is meant to.
fn deadlines(debug: bool, order: &Order, cpus: u32, lens: bool) -> Deadlines {
    let deadlines = Deadlines::of(debug)
        .for_flows(order)
        .for_bursts(order)
        .for_cpus(cpus);
    if lens {
        deadlines.times(4)
    } else {
        deadlines
    }
}

/// Measures all of a plan with `jobs` guests side by side. Returns whether all boots ended well.
///
/// # Errors
/// If a guest cannot be started, the results cannot be written, or the user interrupts. What has
/// ended until then is in `results`.
pub fn measure(lab: &Lab<'_>, plan: &Plan, jobs: usize, results: &mut ResultsFile) -> Result<bool> {
    let run = Run {
        lab,
        progress: Progress::new(plan.cells()),
        queue: Mutex::new(plan.boots.iter().collect()),
        state: Mutex::new(State {
            results,
            well: true,
            failure: None,
        }),
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(plan.boots.len()) {
            scope.spawn(|| run.work());
        }
    });
    let Run {
        progress, state, ..
    } = run;
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.failure {
        Some(error) => {
            progress.abandon();
            Err(error)
        }
        None => {
            progress.clear();
            let places: HashMap<&str, usize> = plan
                .boots
                .iter()
                .flat_map(|boot| &boot.cells)
                .enumerate()
                .map(|(place, cell)| (cell.id.as_str(), place))
                .collect();
            state
                .results
                .finish(|cell| places.get(cell.id.as_str()).copied().unwrap_or(usize::MAX))?;
            Ok(state.well)
        }
    }
}

/// What all guests of a run share.
struct Run<'a> {
    lab: &'a Lab<'a>,
    progress: Progress,
    queue: Mutex<VecDeque<&'a PlannedBoot>>,
    state: Mutex<State<'a>>,
}

/// How one try of a boot went.
struct Attempt {
    /// The name of its record.
    boot: String,
    /// Whether the boot ended well.
    well: bool,
    /// The cells that ended as `infra`.
    spoilt: Vec<String>,
    /// Why the first of them did.
    reason: String,
}

/// What has come out until now.
struct State<'a> {
    results: &'a mut ResultsFile,
    /// Whether all boots ended well.
    well: bool,
    /// The first error, after which no boot goes on.
    failure: Option<anyhow::Error>,
}

/// The error of a boot that was ended because another one failed.
#[derive(Debug)]
struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("stopped, since another guest failed")
    }
}

impl std::error::Error for Stopped {}

impl<'a> Run<'a> {
    /// Boots one after another until there is none left.
    fn work(&self) {
        loop {
            let next = self.queue().pop_front();
            let Some(planned) = next else { return };
            if let Err(error) = self.boot(planned) {
                self.queue().clear();
                let mut state = self.state();
                if state.failure.is_none() {
                    state.failure = Some(error);
                }
                return;
            }
        }
    }

    // A thread that panicked takes the program down with it when the scope ends: what it left
    // behind a lock is of no interest.
    fn queue(&self) -> MutexGuard<'_, VecDeque<&'a PlannedBoot>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures the cells of one boot; each has a record afterwards. What our own machinery spoilt is
    /// tried once more: it says nothing about the subject. Any other verdict does, and stands.
    fn boot(&self, planned: &PlannedBoot) -> Result<()> {
        let first = self.attempt(planned, None)?;
        let spoilt: Vec<GuestCell> = planned
            .cells
            .iter()
            .filter(|cell| first.spoilt.contains(&cell.id))
            .cloned()
            .collect();
        let last = if spoilt.is_empty() {
            first
        } else {
            self.progress.more(spoilt.len());
            self.progress.announce(&format!(
                "trying {} cells of {} once more: {}",
                spoilt.len(),
                first.boot,
                first.reason
            ));
            let again = PlannedBoot {
                cells: spoilt,
                ..planned.clone()
            };
            self.attempt(&again, Some(first.boot))?
        };
        self.state().well &= last.well;
        Ok(())
    }

    /// Boots once for the cells of `planned`; each has a record afterwards.
    fn attempt(&self, planned: &PlannedBoot, retry_of: Option<String>) -> Result<Attempt> {
        let lab = self.lab;
        let kernel = lab
            .kernels
            .get(&planned.kernel)
            .with_context(|| format!("kernel {} was not prepared", planned.kernel))?;
        let (mut record, console_log) = self.begin(planned, retry_of)?;
        let order = Order {
            version: VERSION,
            work: Work::Measure {
                mode: lab.mode,
                tasks: lab.subjects.tasks(planned)?,
            },
        };
        let machine = lab.machine.as_ref();
        let looks = machine
            .map(|machine| look(machine, kernel, lab.baggage(&planned.kernel)?))
            .transpose()?;
        let (looker, lens) = looks.unzip();
        let boot = Boot {
            cpus: planned.cpus,
            seed: planned.seed,
            accelerator: lab.accelerator,
            baggage: lab.baggage(&planned.kernel)?,
            deadlines: deadlines(kernel.debug, &order, planned.cpus, lens.is_some()),
            lens: lens.as_ref(),
            ..Boot::of(kernel, &order, &console_log)
        };
        self.progress.announce(&format!("booting {}", record.id));
        let mut cells = BootProgress::new(lab, planned, record.id.clone(), looker);
        let booted = boot.run(&lab.tools, lab.interrupt, &mut |event| {
            self.take(&mut cells, event)
        })?;
        record.verdict = booted.ending.verdict;
        record.reason = (!booted.ending.is_ok()).then(|| booted.ending.reason.clone());
        record.reports = booted.reports;
        record.seconds = booted.duration.as_secs_f64();
        record.qemu = booted.qemu;
        let boot = record.id.clone();
        let in_step = console::in_step(&record.reports);
        self.state().results.put_boot(record)?;
        self.settle(cells, &booted.ending, in_step)?;
        let state = self.state();
        let of_this = state.results.results().cells.iter();
        let infra = of_this.filter(|cell| cell.boot == boot && cell.verdict == Verdict::Infra);
        let reason = infra.clone().find_map(|cell| cell.reason.clone());
        Ok(Attempt {
            well: booted.ending.is_ok(),
            spoilt: infra.map(|cell| cell.id.clone()).collect(),
            reason: reason.unwrap_or_default(),
            boot,
        })
    }

    /// The record of a boot that begins, and where its console goes.
    fn begin(
        &self,
        planned: &PlannedBoot,
        retry_of: Option<String>,
    ) -> Result<(BootRecord, PathBuf)> {
        let mut state = self.state();
        let id = state.results.boot_id(&planned.id);
        let log_name = format!("{}.console.log", id.replace('/', "-"));
        let console_log = state.results.log_directory().join(log_name);
        // Stands if this program is killed before it can tell better.
        let record = BootRecord {
            id,
            verdict: Verdict::Infra,
            reason: Some("the harness ended before the boot did".to_owned()),
            reports: Vec::new(),
            seconds: 0.0,
            qemu: Vec::new(),
            console_log: self.lab.relative(&console_log),
            retry_of,
        };
        state.results.put_boot(record.clone())?;
        Ok((record, console_log))
    }

    fn take(&self, cells: &mut BootProgress<'_>, event: &Event) -> Result<()> {
        if self.state().failure.is_some() {
            return Err(Stopped.into());
        }
        match event {
            Event::Up { tsc_khz, .. } => cells.clock.khz = *tsc_khz,
            Event::CellStarted { id } => {
                cells.started = Instant::now();
                self.progress.doing(id);
            }
            Event::CellEnded { id, outcome } => {
                let Some(cell) = cells.end(id) else {
                    bail!("the agent measured {id:?}, which it was not asked for");
                };
                let mut record = cells.record(cell, outcome)?;
                self.look(cells, outcome, &mut record)?;
                self.put(record, Some(cells.started.elapsed()))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds what the lens saw of a cell to its record, and keeps the whole of it beside the logs.
    fn look(
        &self,
        cells: &mut BootProgress<'_>,
        outcome: &Outcome,
        record: &mut CellRecord,
    ) -> Result<()> {
        let Some(looker) = &mut cells.looker else {
            return Ok(());
        };
        let Outcome::Ok(measurement) = outcome else {
            looker.skip();
            return Ok(());
        };
        let closure = &self.lab.closure;
        let commit = closure.short_commit();
        let origin = Origin {
            cell: &record.id,
            commit: &commit,
        };
        let map = measurement.memory_map.as_deref();
        let map = map.context("the agent has told nothing of the guest's memory");
        let analysis = match map.and_then(|map| looker.take(map, origin)) {
            Ok(analysis) => analysis,
            Err(error) => {
                let ending = Ending::bad(Verdict::Infra, format!("the lens: {error:#}"));
                let cell = cells.last.context("no cell has ended")?;
                *record = cells.empty(cell, &ending);
                return Ok(());
            }
        };
        // What is not exact by the clock is not so for the lens either.
        let mut metrics = record.metrics.iter();
        let mean = metrics.find(|metric| metric.name == HOOK_MEAN);
        let exact = mean.map_or(Kind::Repeatable, |mean| mean.kind);
        record
            .metrics
            .extend(mutexlab_lens_analysis::metrics::of(&analysis, exact));
        let directory = self.state().results.log_directory();
        let path = directory.join(mutexlab_lens_analysis::file_name(
            &record.id,
            record.repetition,
        ));
        analysis.write(&path)
    }

    /// Gives the cells that the boot's bad end kept from ending that verdict. A splat also spoils
    /// the last cell that ended, unless they are `in_step`: console and events are not.
    fn settle(&self, cells: BootProgress<'_>, ending: &Ending, in_step: bool) -> Result<()> {
        let ending = match (ending, cells.left.is_empty()) {
            (ending, true) if ending.is_ok() => return Ok(()),
            (ending, false) if ending.is_ok() => {
                Ending::bad(Verdict::Infra, "the agent left the cell out")
            }
            (ending, _) => ending.clone(),
        };
        let spoilt = !in_step && matches!(ending.verdict, Verdict::Splat | Verdict::Panic);
        let last = cells.last.filter(|_| spoilt);
        for cell in last.into_iter().chain(cells.left.iter().copied()) {
            self.put(cells.empty(cell, &ending), None)?;
        }
        Ok(())
    }

    fn put(&self, record: CellRecord, took: Option<Duration>) -> Result<()> {
        let took = took.map_or(String::new(), |took| {
            format!(" ({:.1} s)", took.as_secs_f64())
        });
        let told = format!("{:<6} {}{took}", record.verdict, record.id);
        // What is told is on the disk, whatever happens next.
        self.state().results.put_cell(record)?;
        self.progress.announce(&told);
        self.progress.cell_done();
        Ok(())
    }
}

/// How far a boot has come with its cells.
struct BootProgress<'a> {
    subjects: &'a Subjects,
    planned: &'a PlannedBoot,
    boot_id: String,
    clock: Clock,
    left: Vec<&'a GuestCell>,
    last: Option<&'a GuestCell>,
    started: Instant,
    looker: Option<Looker>,
}

impl<'a> BootProgress<'a> {
    fn new(
        lab: &'a Lab<'_>,
        planned: &'a PlannedBoot,
        boot_id: String,
        looker: Option<Looker>,
    ) -> Self {
        Self {
            subjects: &lab.subjects,
            planned,
            boot_id,
            clock: Clock {
                mode: lab.mode,
                khz: 0,
            },
            left: planned.cells.iter().collect(),
            last: None,
            started: Instant::now(),
            looker,
        }
    }

    /// Takes a cell that has ended out of those that are left; `None` if it is none of them.
    fn end(&mut self, id: &str) -> Option<&'a GuestCell> {
        let index = self.left.iter().position(|cell| cell.id == id)?;
        self.last = Some(self.left.remove(index));
        self.last
    }

    /// The record of a cell that the agent ended.
    fn record(&self, cell: &GuestCell, outcome: &Outcome) -> Result<CellRecord> {
        Ok(match outcome {
            Outcome::Ok(measurement) => CellRecord {
                delivery: Some(measurement.delivery),
                metrics: metrics::of(
                    measurement,
                    &self.subjects.facts(&cell.subject)?,
                    &cell.traffic,
                    self.clock,
                ),
                hook_cost: Some(Directions {
                    original: measurement.original.clone(),
                    reply: measurement.reply.clone(),
                }),
                latency: measurement.latency().cloned(),
                counters: measurement.counters.clone(),
                ..self.empty(cell, &Ending::ok())
            },
            Outcome::Failed { reason, delivery } => CellRecord {
                delivery: Some(*delivery),
                ..self.empty(cell, &Ending::bad(Verdict::Failed, reason))
            },
            Outcome::Infra { reason } => self.empty(cell, &Ending::bad(Verdict::Infra, reason)),
        })
    }

    /// The record of a cell without numbers.
    fn empty(&self, cell: &GuestCell, ending: &Ending) -> CellRecord {
        let planned = self.planned;
        CellRecord {
            id: cell.id.clone(),
            boot: self.boot_id.clone(),
            kernel: planned.kernel.clone(),
            cpus: planned.cpus,
            repetition: planned.repetition,
            subject: cell.subject.clone(),
            parameters: cell.parameters.clone(),
            traffic: cell.traffic,
            verdict: ending.verdict,
            reason: (!ending.is_ok()).then(|| ending.reason.clone()),
            delivery: None,
            metrics: Vec::new(),
            hook_cost: None,
            latency: None,
            counters: BTreeMap::new(),
        }
    }
}
