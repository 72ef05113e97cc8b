// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab bench`: measures what a scenario asks for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;

use crate::boot::{Boot, Deadlines};
use crate::guest::protocol::{Event, GuestCell, Order, Outcome, Work, VERSION};
use crate::image::Flavour;
use crate::interrupt::{Interrupt, Interrupted};
use crate::kernel::{Kernel, NamedTree};
use crate::plan::{Plan, PlannedBoot};
use crate::qemu::Accelerator;
use crate::results::closure::Closure;
use crate::results::file::ResultsFile;
use crate::results::metrics;
use crate::results::record::{BootRecord, CellRecord, Directions};
use crate::scenario::{Mode, ScenarioFile};
use crate::table::{Align, Table};
use crate::verdict::{Ending, Verdict};
use crate::virtme::Virtme;
use crate::{paths, summary};

/// Measure what a scenario asks for, and tell what a packet costs
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab bench                             All of scenarios/quick.toml\n  \
    mutexlab bench --plan                      Only say what would be measured\n  \
    mutexlab bench --filter module/forward     Only the cells with this in their names\n  \
    mutexlab bench --resume                    Finish the newest run that was cut short\n  \
    mutexlab bench --json | jq '.cells[].id'   The results for a program\n\n\
Exit codes: 0 if all is well, 1 if a cell ended badly, 2 if the bench could not run, 130 if interrupted.")]
pub struct BenchCommand {
    /// The question: a TOML file
    #[arg(value_name = "SCENARIO", default_value = "scenarios/quick.toml")]
    scenario: PathBuf,
    /// Print the boots and their cells, and measure nothing
    #[arg(long)]
    plan: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Only cells with this in their names
    #[arg(long, value_name = "PART")]
    filter: Option<String>,
    /// Finish a run that was cut short: the newest of the scenario, or the one in FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with_all = ["plan", "filter"])]
    resume: Option<Option<PathBuf>>,
    /// Boot a kernel tree that you have built instead of the catalog's kernel of that name
    #[arg(long, value_name = "NAME=DIRECTORY")]
    tree: Vec<NamedTree>,
}

impl BenchCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If the scenario is wrong, something is missing on this machine, the results cannot be
    /// written, or the user interrupts.
    pub fn run(&self) -> Result<i32> {
        let repository = paths::repository()?;
        let scenario = ScenarioFile::load(&self.scenario)?;
        let mut plan = Plan::new(&scenario.scenario).map_err(|fault| scenario.explain(&fault))?;
        if let Some(part) = &self.filter {
            plan.retain(|_, cell| cell.id.contains(part));
            if plan.boots.is_empty() {
                bail!(
                    "no cell of {} has {part:?} in its name: see --plan",
                    scenario.name
                );
            }
        }
        if self.plan {
            return self.print_plan(&plan);
        }
        let interrupt = Interrupt::install()?;
        let virtme = Virtme::find()?;
        let kernels = self.kernels(&plan, &repository)?;
        interrupt.check()?;
        let accelerator = match scenario.scenario.mode {
            Mode::Virtual => Accelerator::TcgIcount,
            Mode::Wall => bail!("mode \"wall\" cannot be measured yet"),
        };
        let closure = Closure::collect(
            &repository,
            kernels.values(),
            &virtme,
            accelerator,
            &scenario.text,
        )?;
        let mut results = self.open(&repository, &scenario, closure)?;
        skip_finished(&mut plan, &results);
        let mut run = Run {
            repository: &repository,
            virtme: &virtme,
            interrupt: &interrupt,
            accelerator,
            mode: scenario.scenario.mode,
            progress: progress(plan.cells()),
            results: &mut results,
            well: true,
        };
        for boot in &plan.boots {
            let kernel = kernels
                .get(&boot.kernel)
                .with_context(|| format!("kernel {} was not prepared", boot.kernel))?;
            if let Err(error) = run.boot(boot, kernel) {
                run.progress.abandon();
                if error.is::<Interrupted>() {
                    eprintln!(
                        "finished cells are in {}; `mutexlab bench --resume` measures the rest",
                        results.path().display()
                    );
                }
                return Err(error);
            }
        }
        run.progress.finish_and_clear();
        let well = run.well;
        self.report(&results)?;
        let cells = &results.results().cells;
        let well = well && cells.iter().all(|cell| cell.verdict == Verdict::Ok);
        Ok(i32::from(!well))
    }

    fn print_plan(&self, plan: &Plan) -> Result<i32> {
        if self.json {
            println!(
                "{}",
                serde_json::to_string_pretty(plan).context("cannot write JSON")?
            );
            return Ok(0);
        }
        let mut table = Table::new(&[("boot", Align::Left), ("cell", Align::Left)]);
        for boot in &plan.boots {
            for cell in &boot.cells {
                table.row([boot.id.as_str().into(), cell.id.as_str().into()]);
            }
        }
        print!("{table}");
        println!("{} cells in {} boots", plan.cells(), plan.boots.len());
        Ok(0)
    }

    /// The kernels of the plan, built if they were not, with the modules.
    fn kernels(&self, plan: &Plan, repository: &Path) -> Result<BTreeMap<String, Kernel>> {
        plan.kernels()
            .into_iter()
            .map(|name| {
                let kernel = Kernel::prepare(name, Flavour::Plain, &self.tree, repository)?;
                Ok((name.to_owned(), kernel))
            })
            .collect()
    }

    fn open(
        &self,
        repository: &Path,
        scenario: &ScenarioFile,
        closure: Closure,
    ) -> Result<ResultsFile> {
        let directory = repository.join("results");
        let Some(file) = &self.resume else {
            let filter = self.filter.as_deref();
            return ResultsFile::create(&directory, scenario, filter, closure, Timestamp::now());
        };
        let path = match file {
            Some(path) => path.clone(),
            None => ResultsFile::newest(&directory, &scenario.name)?,
        };
        let results = ResultsFile::open(&path)?;
        let differences = closure.differences(&results.results().closure)?;
        if !differences.is_empty() {
            bail!(
                "{} cannot be finished: it was begun under other conditions, and its numbers would \
                 not be comparable\n  {}\nRun `mutexlab bench` anew, or restore the conditions.",
                path.display(),
                differences.join("\n  ")
            );
        }
        Ok(results)
    }

    fn report(&self, results: &ResultsFile) -> Result<()> {
        if self.json {
            let json = serde_json::to_string_pretty(results.results());
            println!("{}", json.context("cannot write JSON")?);
        } else {
            print!("{}", summary::text(results.results()));
            println!("{}", results.path().display());
        }
        Ok(())
    }
}

/// Takes the cells out of the plan that a resumed run has, and those that it was not to have.
/// What our own machinery spoilt says nothing, and is measured again.
fn skip_finished(plan: &mut Plan, results: &ResultsFile) {
    let results = results.results();
    plan.retain(|boot, cell| {
        let wanted = results
            .filter
            .as_ref()
            .is_none_or(|part| cell.id.contains(part));
        let finished = results.cells.iter().any(|record| {
            record.id == cell.id
                && record.repetition == boot.repetition
                && record.verdict != Verdict::Infra
        });
        wanted && !finished
    });
}

/// A bar on a terminal, nothing elsewhere.
fn progress(cells: usize) -> ProgressBar {
    let length = u64::try_from(cells).unwrap_or(u64::MAX);
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    // The template is a constant; if it were wrong, indicatif's own style would do.
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} [{pos}/{len}] {bar:24} {elapsed} {msg}")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// What all boots of a run share.
struct Run<'a> {
    repository: &'a Path,
    virtme: &'a Virtme,
    interrupt: &'a Interrupt,
    accelerator: Accelerator,
    mode: Mode,
    progress: ProgressBar,
    results: &'a mut ResultsFile,
    /// Whether all boots ended well.
    well: bool,
}

impl Run<'_> {
    /// Measures the cells of one boot; each has a record afterwards.
    fn boot(&mut self, planned: &PlannedBoot, kernel: &Kernel) -> Result<()> {
        let id = self.results.boot_id(&planned.id);
        let log_name = format!("{}.console.log", id.replace('/', "-"));
        let console_log = self.results.log_directory().join(log_name);
        // Stands if this program is killed before it can tell better.
        let mut record = BootRecord {
            id: id.clone(),
            verdict: Verdict::Infra,
            reason: Some("the harness ended before the boot did".to_owned()),
            reports: Vec::new(),
            seconds: 0.0,
            qemu: Vec::new(),
            console_log: self.relative(&console_log),
        };
        self.results.put_boot(record.clone())?;
        let order = Order {
            version: VERSION,
            work: Work::Measure(planned.cells.clone()),
        };
        let boot = Boot {
            kernel: &kernel.bzimage(),
            arguments: kernel.arguments(),
            cpus: planned.cpus,
            accelerator: self.accelerator,
            order: &order,
            modules: kernel.modules.as_ref(),
            deadlines: Deadlines::PLAIN.for_flows(&order),
            console_log: &console_log,
        };
        self.announce(&format!("booting {id}"));
        let mut progress = Progress::new(planned, id);
        let (virtme, interrupt) = (self.virtme, self.interrupt);
        let booted = boot.run(virtme, interrupt, &mut |event| {
            self.take(&mut progress, event)
        })?;
        record.verdict = booted.ending.verdict;
        record.reason = (!booted.ending.is_ok()).then(|| booted.ending.reason.clone());
        record.reports = booted.reports;
        record.seconds = booted.duration.as_secs_f64();
        record.qemu = booted.qemu;
        self.results.put_boot(record)?;
        self.well &= booted.ending.is_ok();
        self.settle(progress, &booted.ending)
    }

    fn take(&mut self, progress: &mut Progress<'_>, event: &Event) -> Result<()> {
        match event {
            Event::CellStarted { id } => {
                progress.started = Instant::now();
                self.progress.set_message(id.clone());
            }
            Event::CellEnded { id, outcome } => {
                let Some(cell) = progress.end(id) else {
                    bail!("the agent measured {id:?}, which it was not asked for");
                };
                let record = record(progress, cell, outcome, self.mode);
                self.put(record, Some(progress.started.elapsed()))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Gives the cells that the boot's bad end kept from ending that verdict. A splat also spoils
    /// the last cell that ended: console and events are not in step.
    fn settle(&mut self, progress: Progress<'_>, ending: &Ending) -> Result<()> {
        let ending = match (ending, progress.left.is_empty()) {
            (ending, true) if ending.is_ok() => return Ok(()),
            (ending, false) if ending.is_ok() => {
                Ending::bad(Verdict::Infra, "the agent left the cell out")
            }
            (ending, _) => ending.clone(),
        };
        let spoilt = matches!(ending.verdict, Verdict::Splat | Verdict::Panic);
        let last = progress.last.filter(|_| spoilt);
        for cell in last.into_iter().chain(progress.left.iter().copied()) {
            self.put(empty(&progress, cell, &ending), None)?;
        }
        Ok(())
    }

    fn put(&mut self, record: CellRecord, took: Option<Duration>) -> Result<()> {
        let took = took.map_or(String::new(), |took| {
            format!(" ({:.1} s)", took.as_secs_f64())
        });
        self.announce(&format!("{:<6} {}{took}", record.verdict, record.id));
        self.results.put_cell(record)?;
        self.progress.inc(1);
        Ok(())
    }

    /// A line for whoever reads along without a terminal.
    fn announce(&self, line: &str) {
        if self.progress.is_hidden() {
            eprintln!("{line}");
        } else {
            self.progress.set_message(line.to_owned());
        }
    }

    fn relative(&self, path: &Path) -> String {
        let path = path.strip_prefix(self.repository).unwrap_or(path);
        path.to_string_lossy().into_owned()
    }
}

/// How far a boot has come with its cells.
struct Progress<'a> {
    planned: &'a PlannedBoot,
    boot_id: String,
    left: Vec<&'a GuestCell>,
    last: Option<&'a GuestCell>,
    started: Instant,
}

impl<'a> Progress<'a> {
    fn new(planned: &'a PlannedBoot, boot_id: String) -> Self {
        Self {
            planned,
            boot_id,
            left: planned.cells.iter().collect(),
            last: None,
            started: Instant::now(),
        }
    }

    /// Takes a cell that has ended out of those that are left; `None` if it is none of them.
    fn end(&mut self, id: &str) -> Option<&'a GuestCell> {
        let index = self.left.iter().position(|cell| cell.id == id)?;
        self.last = Some(self.left.remove(index));
        self.last
    }
}

/// The record of a cell that the agent ended.
fn record(progress: &Progress<'_>, cell: &GuestCell, outcome: &Outcome, mode: Mode) -> CellRecord {
    match outcome {
        Outcome::Ok(measurement) => CellRecord {
            delivery: Some(measurement.delivery),
            metrics: metrics::of(measurement, cell.traffic.flows, mode),
            hook_cost: Some(Directions {
                original: measurement.original.clone(),
                reply: measurement.reply.clone(),
            }),
            counters: measurement.counters.clone(),
            ..empty(progress, cell, &Ending::ok())
        },
        Outcome::Failed { reason, delivery } => CellRecord {
            delivery: Some(*delivery),
            ..empty(progress, cell, &Ending::bad(Verdict::Failed, reason))
        },
        Outcome::Infra { reason } => empty(progress, cell, &Ending::bad(Verdict::Infra, reason)),
    }
}

/// The record of a cell without numbers.
fn empty(progress: &Progress<'_>, cell: &GuestCell, ending: &Ending) -> CellRecord {
    let planned = progress.planned;
    CellRecord {
        id: cell.id.clone(),
        boot: progress.boot_id.clone(),
        kernel: planned.kernel.clone(),
        cpus: planned.cpus,
        repetition: planned.repetition,
        subject: cell.subject,
        parameters: cell.parameters.clone(),
        traffic: cell.traffic,
        verdict: ending.verdict,
        reason: (!ending.is_ok()).then(|| ending.reason.clone()),
        delivery: None,
        metrics: Vec::new(),
        hook_cost: None,
        counters: BTreeMap::new(),
    }
}
