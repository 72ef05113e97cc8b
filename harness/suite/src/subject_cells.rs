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
use mutexlab_images::Flavour;
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
    /// The same, and it counts.
    Counts(&'static [(&'static str, u64)]),
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
        (
            "own-module",
            Wanted::Counts(&[("packets", 40), ("limit", 0)]),
        ),
        (
            "script-fails",
            Wanted::Fails(&["script-fails/up.sh: the script fails"]),
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
        let wider;
        let kernel = match (self.lacking(bench, kernel)?, wide) {
            (None, _) => kernel,
            (Some(option), WideKernel::LeftOut) => {
                let why = format!(
                    "needs CONFIG_{option}, which {}:wide has: --nightly",
                    kernel.name
                );
                outcomes.lock().skip(INSTRUMENT, &self.name, &why);
                return Ok(());
            }
            (Some(_), WideKernel::Built) => {
                let (repository, interrupt) = (&bench.repository, bench.interrupt);
                wider = Kernel::prepare(&kernel.name, Flavour::Wide, &[], repository, interrupt)?;
                &wider
            }
        };
        let booted = self.boot(bench, kernel);
        bench.interrupt.check()?;
        let ending = match (booted, &self.wanted) {
            (Err(error), Wanted::DoesNotBuild(parts)) => told(&format!("{error:#}"), parts),
            // Such as a program that is not there: others are tested all the same.
            (Err(error), _) => Ending::bad(Verdict::Infra, format!("{error:#}")),
            (Ok(Err(ending)), _) => ending,
            (Ok(Ok(ended)), wanted) => judge(&ended, wanted),
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
    fn boot(&self, bench: &Bench<'_>, kernel: &Kernel) -> Result<Result<Outcomes, Ending>> {
        let (boots, subjects) = self.plan(bench, kernel)?;
        let kernels = BTreeMap::from([(kernel.name.clone(), kernel.clone())]);
        let mut baggage = pack(&subjects, &kernels, bench.interrupt)?;
        let mut tasks = Vec::new();
        for boot in &boots {
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

    /// An option that the subject needs and `kernel` does not have.
    fn lacking(&self, bench: &Bench<'_>, kernel: &Kernel) -> Result<Option<String>> {
        let (_, subjects) = self.plan(bench, kernel)?;
        for (_, option) in subjects.kernel_options() {
            if !kernel.has_option(option)? {
                return Ok(Some(option.to_owned()));
            }
        }
        Ok(None)
    }

    /// The boots of all that the subject can have.
    fn plan(&self, bench: &Bench<'_>, kernel: &Kernel) -> Result<(Vec<PlannedBoot>, Subjects)> {
        let mut boots = Vec::new();
        let mut subjects = Subjects::default();
        for traffic in [
            "ends = [\"stack\"]\nprotocols = [\"udp\", \"tcp\"]\nways = [\"forward\", \"local\"]\nfamilies = [\"v4\", \"v6\"]"
                .to_owned(),
            format!("ends = [\"stack\"]\nprotocols = [\"tcp\"]\nways = [\"forward\"]\nfamilies = [\"v4\"]\nbulk = {STREAM}"),
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

fn judge(ended: &Outcomes, wanted: &Wanted) -> Ending {
    for (id, outcome) in ended {
        let ending = match (outcome, wanted) {
            (Outcome::Ok(measurement), Wanted::Arrives) => arrived(&measurement.delivery),
            (Outcome::Ok(measurement), Wanted::Counts(least)) => {
                let counters = &measurement.counters;
                let forwarded = id.contains("forward-v4");
                let mut missed = least.iter().filter(|(name, least)| {
                    let count = counters.get(*name);
                    count.is_none_or(|count| forwarded && count < least)
                });
                match missed.next() {
                    None => Ending::ok(),
                    Some((name, least)) => {
                        failed(format!("{name} is not {least}, or more: {counters:?}"))
                    }
                }
            }
            (Outcome::Failed { reason, .. }, Wanted::Fails(parts)) => told(reason, parts),
            (Outcome::Failed { reason, .. } | Outcome::Infra { reason }, _) => {
                failed(reason.clone())
            }
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
    use mutexlab_host::paths::repository_above;

    use super::*;
    use mutexlab_model::subject::Subject;

    #[test]
    fn each_subject_has_a_test() {
        let repository = repository_above(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        let all = all(&repository).unwrap();
        for subject in [Subject::NONE, Subject::NFT_DNAT, Subject::MODULE_DIRECT] {
            let named = |test: &&SubjectTest| test.named == subject.name();
            assert_eq!(all.iter().filter(named).count(), 1, "{subject}");
        }
    }
}
