// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lens on cells: it finds a line that CPUs share, sees the same twice, and changes nothing by looking.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{bail, ensure, Context, Result};

use super::bench::{Bench, INSTRUMENT};
use super::outcome::{Ended, Shared};
use mutexlab_images::prepared::Kernel;
use mutexlab_images::Cache;
use mutexlab_lens_analysis::analysis::{Analysis, Object, Origin};
use mutexlab_lens_analysis::metrics;
use mutexlab_machine::baggage::Baggage;
use mutexlab_machine::boot::Boot;
use mutexlab_measure::look::look;
use mutexlab_model::mode::Mode;
use mutexlab_model::subject::ModuleRules;
use mutexlab_model::verdict::{Ending, Verdict};
use mutexlab_protocol::datapath::Datapath;
use mutexlab_protocol::measurement::Measurement;
use mutexlab_protocol::{Event, GuestCell, Order, Outcome, Task, Work, VERSION};
use mutexlab_results::metric::Kind;
use mutexlab_results::metric::{MIN_EFFECT, MIN_MODELLED};
use mutexlab_scenario::caches::Machine;
use mutexlab_scenario::plan::Plan;
use mutexlab_scenario::ScenarioFile;

/// What the lens is tested with on cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// A counter of all CPUs, in a build of the proxy for this, shows; the proxy as it is has none such.
    SharedCounter,
    /// Two runs are alike, and one without the lens has the same counts.
    Repeated,
}

/// Round trips of each cell.
const ROUND_TRIPS: u32 = 240;
/// CPUs of the cell with the shared counter. From three on no packet is of the CPU of the one before it.
const CPUS: u32 = 4;
/// What makes a build with the counter, for module/Kbuild.
const WITH_COUNTER: &str = "RUSTFLAGS_proxy/proxy.o += --cfg shared_counter\n";
/// The counter's name there, without that of the crate.
const COUNTER: &str = "shared_counter::PACKETS";

/// How the cells of a trial end: what is wrong with them, or with the guest.
type Checked = Result<Result<(), Ending>>;

impl Trial {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::SharedCounter, Self::Repeated];

    /// Its name as a test.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SharedCounter => "lens-finds-a-shared-counter",
            Self::Repeated => "lens-sees-the-same-again",
        }
    }

    /// Boots what it takes.
    ///
    /// # Errors
    /// If a guest cannot be started, a module does not build, or the user interrupts.
    pub fn run(self, bench: &Bench<'_>, kernel: &Kernel, outcomes: &Shared) -> Result<()> {
        let started = Instant::now();
        let mut guests = Guests {
            bench,
            trial: self,
            booted: 0,
        };
        let checked = match self {
            Self::SharedCounter => guests.shared_counter(kernel)?,
            Self::Repeated => guests.repeated(kernel)?,
        };
        outcomes.lock().ended(Ended {
            suite: INSTRUMENT,
            test: self.name(),
            ending: checked.err().unwrap_or_else(Ending::ok),
            took: Some(started.elapsed()),
            console_log: Some(&bench.shown(&guests.console_log())),
        })
    }
}

/// What one boot of a cell showed.
struct Seen {
    measurement: Measurement,
    /// None without the lens.
    analysis: Option<Analysis>,
}

/// The guests of a trial, one after the other.
struct Guests<'a> {
    bench: &'a Bench<'a>,
    trial: Trial,
    booted: u32,
}

impl Guests<'_> {
    /// Of the guest that was booted last.
    fn console_log(&self) -> std::path::PathBuf {
        let name = format!("{}-{}.console.log", self.trial.name(), self.booted);
        self.bench.logs.join(name)
    }

    fn shared_counter(&mut self, kernel: &Kernel) -> Checked {
        let mut with_counter = kernel.clone();
        let sources = tempfile::tempdir().context("cannot create a temporary directory")?;
        add_counter(&self.bench.repository, sources.path())?;
        let cache = Cache::of(&self.bench.tools.surroundings);
        with_counter.take_proxy_of(sources.path(), &cache, self.bench.interrupt)?;
        let mut analyses = Vec::new();
        for kernel in [kernel, &with_counter] {
            match self.boot(kernel, CPUS, true)?.map(|seen| seen.analysis) {
                Ok(analysis) => analyses.extend(analysis),
                Err(ending) => return Ok(Err(ending)),
            }
        }
        let [without, with] = analyses.as_slice() else {
            bail!("the lens looked at {} cells instead of 2", analyses.len());
        };
        Ok(failed(check_counter(without, with)))
    }

    fn repeated(&mut self, kernel: &Kernel) -> Checked {
        for cpus in [1, CPUS] {
            let mut all = Vec::new();
            for lens in [true, true, false] {
                match self.boot(kernel, cpus, lens)? {
                    Ok(seen) => all.push(seen),
                    Err(ending) => return Ok(Err(ending)),
                }
            }
            let checked = check_repeated(&all).with_context(|| format!("{cpus} CPUs"));
            if checked.is_err() {
                return Ok(failed(checked));
            }
        }
        Ok(Ok(()))
    }

    /// Measures one cell in a guest of its own.
    fn boot(&mut self, kernel: &Kernel, cpus: u32, lens: bool) -> Result<Result<Seen, Ending>> {
        self.bench.interrupt.check()?;
        self.booted += 1;
        let cell = cell(kernel, cpus, lens)?;
        let order = Order {
            version: VERSION,
            work: Work::Measure {
                mode: Mode::Virtual,
                tasks: vec![Task {
                    cell: cell.clone(),
                    datapath: Datapath::module(ModuleRules::Redirect),
                }],
            },
        };
        let looks = lens
            .then(|| look(&Machine::default(), kernel, &Baggage::default()))
            .transpose()?;
        let (mut looker, lens) = looks.unzip();
        let mut outcome = None;
        let log = self.console_log();
        let boot = Boot {
            cpus,
            lens: lens.as_ref(),
            ..Boot::of(kernel, &order, &log)
        };
        let booted = boot.run(self.bench.tools, self.bench.interrupt, &mut |event| {
            if let Event::CellEnded { outcome: ended, .. } = event {
                outcome = Some(ended.clone());
            }
            Ok(())
        })?;
        if !booted.ending.is_ok() {
            return Ok(Err(booted.ending));
        }
        let measurement = match outcome {
            Some(Outcome::Ok(measurement)) => *measurement,
            Some(Outcome::Failed { reason, .. }) => {
                return Ok(Err(Ending::bad(Verdict::Failed, reason)))
            }
            Some(Outcome::Infra { reason }) => return Ok(Err(Ending::bad(Verdict::Infra, reason))),
            None => return Ok(Err(Ending::bad(Verdict::Infra, "no cell has ended"))),
        };
        let analysis = match (&mut looker, &measurement.memory_map) {
            (None, _) => None,
            (Some(_), None) => bail!("the agent told nothing of the guest's memory"),
            (Some(looker), Some(map)) => Some(looker.take(
                map,
                Origin {
                    cell: &cell.id,
                    commit: "this one",
                },
            )?),
        };
        Ok(Ok(Seen {
            measurement,
            analysis,
        }))
    }
}

/// One cell of the module: a flow of each CPU, whose answers come to another one.
fn cell(kernel: &Kernel, cpus: u32, lens: bool) -> Result<GuestCell> {
    let text = format!(
        r#"question = "What does the lens see of a cell?"
mode = "virtual"
kernels = ["{}"]
cpus = [{cpus}]
subjects = ["module"]
{}
[traffic]
ways = ["forward"]
families = ["v4"]
protocols = ["udp"]
payloads = [64]
flows-per-cpu = [1]
steering = ["asymmetric"]
round-trips = {ROUND_TRIPS}
warm-up = 48
"#,
        kernel.name,
        if lens { "[lens]" } else { "" },
    );
    let file = ScenarioFile::parse("lens".into(), "lens".into(), text)?;
    let plan = Plan::new(&file.scenario).map_err(|fault| file.explain(&fault))?;
    let cell = plan.boots.into_iter().flat_map(|boot| boot.cells).next();
    cell.context("the plan of one cell has none")
}

/// Copies the modules' sources, and has the proxy in the copy be built with the counter.
fn add_counter(repository: &Path, to: &Path) -> Result<()> {
    let (from, to) = (repository.join("module"), to.join("module"));
    copy(&from, &to)?;
    let path = to.join("Kbuild");
    let read = fs::read_to_string(&path);
    let text = read.with_context(|| format!("cannot read {}", path.display()))?;
    fs::write(&path, text + WITH_COUNTER)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}

fn failed(checked: Result<()>) -> Result<(), Ending> {
    checked.map_err(|error| Ending::bad(Verdict::Failed, format!("{error:#}")))
}

/// The counter of one of the two analyses is found, and nothing of that kind in the other.
fn check_counter(without: &Analysis, with: &Analysis) -> Result<()> {
    let transfers = |analysis: &Analysis| analysis.per_packet(analysis.span().transfers);
    let shared = |analysis: &Analysis| {
        let ours = analysis.ours().map(|object| object.shared_written);
        analysis.per_packet(ours.sum())
    };
    ensure!(
        shared(without) == 0.0,
        "the proxy as it is writes {} lines a packet that another CPU uses: {}",
        shared(without),
        names(without.ours().filter(|object| object.shared_written > 0))
    );
    ensure!(
        shared(with) >= 1.0,
        "with a counter of all CPUs the proxy writes {} lines a packet that another CPU uses",
        shared(with)
    );
    let (before, after) = (transfers(without), transfers(with));
    ensure!(
        after - before >= 1.0,
        "with a counter of all CPUs there are {after} transfers a packet, and {before} without"
    );
    let transferred = with.transferred();
    let first = transferred.first();
    ensure!(
        first.is_some_and(|object| object.identity.name.contains(COUNTER)),
        "of all that is transferred the counter does not come first, but {}",
        names(first.into_iter().copied())
    );
    Ok(())
}

fn names<'a>(objects: impl Iterator<Item = &'a Object>) -> String {
    let names: Vec<&str> = objects
        .map(|object| object.identity.name.as_str())
        .collect();
    match names.is_empty() {
        true => "nothing".to_owned(),
        false => names.join("; "),
    }
}

/// The counters that are not the same in both, for people.
fn differing(a: &BTreeMap<String, u64>, b: &BTreeMap<String, u64>) -> String {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let names = names
        .into_iter()
        .filter(|name| a.get(*name) != b.get(*name));
    let told = |counters: &BTreeMap<String, u64>, name| match counters.get(name) {
        Some(count) => count.to_string(),
        None => "none".to_owned(),
    };
    let all: Vec<String> = names
        .map(|name| format!("{name} {} instead of {}", told(b, name), told(a, name)))
        .collect();
    all.join(", ")
}

/// All have the same counts, and those with the lens also the same metrics.
fn check_repeated(all: &[Seen]) -> Result<()> {
    let Some((first, others)) = all.split_first() else {
        bail!("nothing was measured");
    };
    for other in others {
        let (a, b) = (&first.measurement, &other.measurement);
        let with = if other.analysis.is_some() {
            "again"
        } else {
            "without the lens"
        };
        ensure!(
            a.original == b.original && a.reply == b.reply,
            "hook costs are others {with}: {:?} and {:?} instead of {:?} and {:?}",
            b.original.by_hook,
            b.reply.by_hook,
            a.original.by_hook,
            a.reply.by_hook
        );
        ensure!(
            a.delivery == b.delivery,
            "packets went elsewhere {with}: {:?} instead of {:?}",
            b.delivery,
            a.delivery
        );
        ensure!(
            a.counters == b.counters,
            "the proxy has counted otherwise {with}: {}",
            differing(&a.counters, &b.counters)
        );
    }
    let mut analyses = all.iter().filter_map(|seen| seen.analysis.as_ref());
    let (Some(a), Some(b)) = (analyses.next(), analyses.next()) else {
        bail!("the lens has not looked twice");
    };
    let (a, b) = (metrics::of(a, Kind::Exact), metrics::of(b, Kind::Exact));
    ensure!(
        !a.is_empty() && a.len() == b.len(),
        "the lens has {} metrics, and then {}",
        a.len(),
        b.len()
    );
    for (a, b) in a.iter().zip(&b) {
        let difference = (a.value - b.value).abs();
        let close = difference < MIN_MODELLED || difference < MIN_EFFECT * a.value.max(b.value);
        ensure!(
            a.name == b.name && (difference == 0.0 || a.kind == Kind::Modelled && close),
            "{} is {}, and then {} is {}",
            a.name,
            a.value,
            b.name,
            b.value
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_lens_analysis::sample::example;

    #[test]
    fn a_build_with_the_counter_is_another() {
        let copy = tempfile::tempdir().unwrap();
        let repository =
            mutexlab_host::paths::repository_above(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        add_counter(&repository, copy.path()).unwrap();
        let kbuild = fs::read_to_string(copy.path().join("module/Kbuild")).unwrap();
        assert!(kbuild.contains("\n# ") && kbuild.ends_with(WITH_COUNTER));
        let counter = fs::read_to_string(copy.path().join("module/proxy/shared_counter.rs"));
        let (_, name) = COUNTER.split_once("::").unwrap();
        assert!(counter.unwrap().contains(&format!("static {name}:")));
    }

    #[test]
    fn a_proxy_with_a_shared_line_is_not_taken_for_one_without() {
        // One of its lines is written by each packet and used by another CPU.
        let shared = example(|_| ());
        let error = check_counter(&shared, &shared).unwrap_err().to_string();
        assert!(error.contains("as it is writes 1 lines"), "{error}");
        let mut without = example(|_| ());
        for object in &mut without.objects {
            object.shared_written = 0;
        }
        let error = check_counter(&without, &without).unwrap_err().to_string();
        assert!(error.contains("the proxy writes 0 lines"), "{error}");
        let error = check_counter(&without, &shared).unwrap_err().to_string();
        assert!(error.contains("transfers a packet"), "{error}");
        let mut with = shared;
        with.frames[1].span.transfers += with.packets + without.span().transfers;
        let error = check_counter(&without, &with).unwrap_err().to_string();
        assert!(error.contains("does not come first"), "{error}");
        let last = with.objects.len() - 1;
        with.objects[last].identity.name = format!("{COUNTER} [mutex_proxy]");
        with.objects[last].span.transfers = u64::MAX;
        check_counter(&without, &with).unwrap();
    }
}
