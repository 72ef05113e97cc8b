// SPDX-License-Identifier: MIT OR Apache-2.0

//! Subjects in a guest: each that the repository has leads packets as its directory says, and one that is wrong ends with a
//! verdict that says whose fault it is, and where.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{ensure, Result};

use super::bench::{Bench, INSTRUMENT};
use super::outcome::{Ended, Shared};
use mutexlab_images::prepared::Kernel;
use mutexlab_images::{Cache, Flavour};
use mutexlab_machine::boot::Boot;
use mutexlab_measure::pack::pack;
use mutexlab_model::measured::Delivery;
use mutexlab_model::mode::Mode;
use mutexlab_model::verdict::{Ending, Verdict};
use mutexlab_protocol::{Event, Order, Outcome, Work, VERSION};
use mutexlab_scenario::plan::{Plan, PlannedBoot};
use mutexlab_scenario::ScenarioFile;
use mutexlab_subjects::Subjects;

/// Where subjects are that only tests want, below the repository.
const OURS: &str = "harness/suite/subjects";
/// Messages there and back in each cell.
const ROUND_TRIPS: u32 = 20;
/// Bytes of a stream: a part and a piece of one.
const STREAM: u64 = (1 << 20) + 12_345;

/// What is wanted of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectTest {
    /// The test's name.
    pub name: String,
    /// As a scenario names it.
    named: String,
    wanted: Wanted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// All traffic that it can have arrives, between sockets and on the wire.
    Arrives,
    /// The same, and a counter of it is so much, or more, where packets of IPv4 are forwarded.
    Counts(&'static str, u64),
    /// It is told of as wrong, with one of these in the message.
    Fails(&'static [&'static str]),
    /// It does not come to a guest, with one of these in the message.
    DoesNotBuild(&'static [&'static str]),
}

/// All of them: those of the repository, and those that only tests want.
///
/// # Errors
/// If the repository's cannot be read.
pub fn all(repository: &Path) -> Result<Vec<SubjectTest>> {
    let shipped = Subjects::shipped(repository)?;
    let arrives = shipped.names().map(|subject| SubjectTest {
        name: format!("subject-{subject}"),
        named: subject.name().to_owned(),
        wanted: Wanted::Arrives,
    });
    let mut all: Vec<SubjectTest> = arrives.collect();
    // Two directions of what is sent, answered, and rehearsed: a test asks for no less.
    let ours = [
        // The weight is a parameter.
        ("own-module", Wanted::Counts("weighed", 7 * 40)),
        (
            "script-fails",
            Wanted::Fails(&["script-fails/up.sh: the script fails"]),
        ),
        (
            "counters-gone",
            Wanted::Fails(&["cannot read /proc/no-such-counters"]),
        ),
        (
            "rules-refused",
            Wanted::Fails(&["rules-refused/rules.nft: nft refuses the rules"]),
        ),
        (
            "redirects-wrongly",
            // Sockets, and the wire.
            Wanted::Fails(&["came to the original destination", "instead of from"]),
        ),
        ("module-broken", Wanted::DoesNotBuild(&["no_such_thing"])),
    ];
    all.extend(ours.into_iter().map(|(name, wanted)| SubjectTest {
        name: format!("subject-{name}"),
        named: format!("./{OURS}/{name}"),
        wanted,
    }));
    Ok(all)
}

/// What becomes of subjects that need more of a kernel than those have that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WideKernel {
    /// They are left out.
    LeftOut,
    /// Another kernel is built for them.
    Built,
}

/// How cells ended, by their ids.
type Outcomes = BTreeMap<String, Outcome>;

impl SubjectTest {
    /// Boots what it takes.
    ///
    /// # Errors
    /// If a kernel that it needs does not build, or the user interrupts.
    pub fn run(
        &self,
        bench: &Bench<'_>,
        kernel: &Kernel,
        wide: WideKernel,
        outcomes: &Shared,
    ) -> Result<()> {
        let started = Instant::now();
        let (boots, subjects) = self.plan(bench, kernel)?;
        let wider;
        let kernel = match (subjects.lacking(|option| kernel.has_option(option))?, wide) {
            (None, _) => kernel,
            (Some((_, option)), WideKernel::LeftOut) => {
                let why = format!(
                    "needs CONFIG_{option}, which {}:wide has: --nightly",
                    kernel.name
                );
                outcomes.lock().skip(INSTRUMENT, &self.name, &why);
                return Ok(());
            }
            (Some(_), WideKernel::Built) => {
                let (repository, interrupt) = (&bench.repository, bench.interrupt);
                let cache = Cache::of(&bench.tools.surroundings);
                let (name, flavour) = (&kernel.name, Flavour::Wide);
                wider = Kernel::prepare(name, flavour, &[], repository, &cache, interrupt)?;
                &wider
            }
        };
        let booted = self.boot(bench, kernel, &boots, &subjects);
        bench.interrupt.check()?;
        let ending = match (booted, &self.wanted) {
            (Err(error), Wanted::DoesNotBuild(parts)) => told(&format!("{error:#}"), parts),
            // Such as a program that is not there: others are tested all the same.
            (Err(error), _) => Ending::bad(Verdict::Infra, format!("{error:#}")),
            (Ok(Err(ending)), _) => ending,
            (Ok(Ok(ended)), wanted) => {
                let cells = boots.iter().map(|boot| boot.cells.len()).sum();
                judge(&ended, cells, wanted)
            }
        };
        outcomes.lock().ended(Ended {
            suite: INSTRUMENT,
            test: &self.name,
            ending,
            took: Some(started.elapsed()),
            console_log: Some(&bench.shown(&bench.console_log(&self.name))),
        })
    }

    /// Measures all that the subject can have, in one guest.
    fn boot(
        &self,
        bench: &Bench<'_>,
        kernel: &Kernel,
        boots: &[PlannedBoot],
        subjects: &Subjects,
    ) -> Result<Result<Outcomes, Ending>> {
        let kernels = BTreeMap::from([(kernel.name.clone(), kernel.clone())]);
        let mut baggage = pack(
            subjects,
            &kernels,
            &bench.tools.surroundings,
            bench.interrupt,
        )?;
        let mut tasks = Vec::new();
        for boot in boots {
            tasks.extend(subjects.tasks(boot)?);
        }
        ensure!(
            !tasks.is_empty(),
            "there is nothing that {} can have",
            self.named
        );
        let order = Order {
            version: VERSION,
            work: Work::Measure {
                mode: Mode::Virtual,
                tasks,
            },
        };
        let log = bench.console_log(&self.name);
        let boot = Boot {
            baggage: &baggage.remove(&kernel.name).unwrap_or_default(),
            ..Boot::of(kernel, &order, &log)
        };
        let mut ended = Outcomes::new();
        let booted = boot.run(bench.tools, bench.interrupt, &mut |event| {
            if let Event::CellEnded { id, outcome } = event {
                ended.insert(id.clone(), outcome.clone());
            }
            Ok(())
        })?;
        if !booted.ending.is_ok() {
            return Ok(Err(booted.ending));
        }
        Ok(Ok(ended))
    }

    /// The boots of all that the subject can have.
    fn plan(&self, bench: &Bench<'_>, kernel: &Kernel) -> Result<(Vec<PlannedBoot>, Subjects)> {
        let mut boots = Vec::new();
        let mut subjects = Subjects::default();
        for traffic in [
            "ends = [\"stack\"]\nprotocols = [\"udp\"]\nways = [\"forward\", \"local\"]\nfamilies = [\"v4\", \"v6\"]"
                .to_owned(),
            // Messages, and streams.
            format!("ends = [\"stack\"]\nprotocols = [\"tcp\"]\nways = [\"forward\", \"local\"]\nfamilies = [\"v4\", \"v6\"]\nbulk = {STREAM}"),
            "ends = [\"wire\"]\nprotocols = [\"udp\", \"tcp\"]\nways = [\"forward\"]\nfamilies = [\"v4\", \"v6\"]"
                .to_owned(),
        ] {
            let text = format!(
                "question = \"Do packets arrive?\"\nmode = \"virtual\"\nkernels = [\"{}\"]\ncpus = [1]\n\
                 subjects = [\"{}\"]\n[traffic]\npayloads = [500]\nround-trips = {ROUND_TRIPS}\nwarm-up = 10\n{traffic}\n",
                kernel.name, self.named
            );
            let mut file = ScenarioFile::parse("subjects".into(), "subjects".into(), text)?;
            file.directory = bench.repository.clone();
            subjects = Subjects::of(&file, &bench.repository)?;
            let mut plan = Plan::new(&file.scenario).map_err(|fault| file.explain(&fault))?;
            plan.retain(|_, cell| subjects.refusal(&cell.subject, &cell.traffic).is_none());
            boots.extend(plan.boots);
        }
        Ok((boots, subjects))
    }
}

/// How the test ends whose so many cells ended so.
fn judge(ended: &Outcomes, cells: usize, wanted: &Wanted) -> Ending {
    if ended.len() != cells {
        let reason = format!("of {cells} cells {} have ended", ended.len());
        return Ending::bad(Verdict::Infra, reason);
    }
    for (id, outcome) in ended {
        let ending = match (outcome, wanted) {
            (Outcome::Ok(measurement), Wanted::Arrives) => arrived(&measurement.delivery),
            (Outcome::Ok(measurement), Wanted::Counts(name, least)) => {
                let counters = &measurement.counters;
                let least = if id.contains("forward-v4") { *least } else { 0 };
                match counters.get(*name) {
                    Some(&count) if count >= least => arrived(&measurement.delivery),
                    _ => failed(format!("{name} is not {least}, or more: {counters:?}")),
                }
            }
            (Outcome::Failed { reason, .. }, Wanted::Fails(parts)) => told(reason, parts),
            (Outcome::Failed { reason, .. }, _) => failed(reason.clone()),
            (Outcome::Infra { reason }, _) => Ending::bad(Verdict::Infra, reason),
            (Outcome::Ok(_), _) => failed("it passed".to_owned()),
        };
        if !ending.is_ok() {
            return Ending::bad(ending.verdict, format!("{id}: {}", ending.reason));
        }
    }
    Ending::ok()
}

/// What the agent's own check let pass is looked at once more.
fn arrived(delivery: &Delivery) -> Ending {
    let all = [
        delivery.at_upstream + delivery.at_original,
        delivery.replies,
        delivery.replies_from_original,
    ];
    if delivery.sent == 0 || all != [delivery.sent; 3] {
        return failed(format!("{delivery:?}"));
    }
    Ending::ok()
}

fn told(message: &str, parts: &[&str]) -> Ending {
    if parts.iter().any(|part| message.contains(part)) {
        Ending::ok()
    } else {
        failed(format!("none of {parts:?} is told: {message}"))
    }
}

fn failed(reason: String) -> Ending {
    Ending::bad(Verdict::Failed, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_passes_if_every_cell_ended_as_is_wanted() {
        let failed = |reason: &str| Outcome::Failed {
            reason: reason.to_owned(),
            delivery: Delivery::default(),
        };
        let ended = |outcome| Outcomes::from([("a".to_owned(), outcome)]);
        let wanted = Wanted::Fails(&["up.sh"]);
        let verdict = |outcome, cells| judge(&ended(outcome), cells, &wanted).verdict;
        assert_eq!(verdict(failed("up.sh: the script fails"), 1), Verdict::Ok);
        assert_eq!(
            verdict(failed("up.sh: the script fails"), 2),
            Verdict::Infra
        );
        assert_eq!(verdict(failed("something else"), 1), Verdict::Failed);
        let infra = Outcome::Infra {
            reason: "up.sh".to_owned(),
        };
        assert_eq!(verdict(infra, 1), Verdict::Infra);
        assert_eq!(
            judge(&Outcomes::new(), 1, &Wanted::Arrives).verdict,
            Verdict::Infra
        );
        let astray = ended(failed("astray"));
        assert_eq!(judge(&astray, 1, &Wanted::Arrives).verdict, Verdict::Failed);
    }
}
