// SPDX-License-Identifier: MIT OR Apache-2.0

//! The agent's functional tests: those of a kernel in a few guests, which repeat to the instruction where there is no KVM.

use std::time::Instant;

use anyhow::Result;

use super::bench::Bench;
use super::outcome::{label, Ended, Outcomes, Shared};
use mutexlab_images::prepared::Kernel;
use mutexlab_machine::boot::{Boot, Deadlines};
use mutexlab_machine::console;
use mutexlab_machine::kvm;
use mutexlab_model::accelerator::Accelerator;
use mutexlab_model::verdict::{Ending, Verdict};
use mutexlab_protocol::test_info::TestInfo;
use mutexlab_protocol::{Event, Order, Work, VERSION};

/// How many CPUs tests have that are about more than one.
pub const CPUS: u32 = 2;

/// A guest has so many tests at most: what one of them does to the machine befalls few others, and several guests can run side
/// by side. A boot takes as long as a few tests.
const MOST: usize = 40;

/// Why a kernel as it is meant to run is not asked for some.
pub const NEEDS_DEBUG: &str = "needs a debug kernel";

/// Why a kernel that could is not asked for some: a debug kernel takes ten times as long for what goes beside nft
/// packet by packet, and what nft and routing do there is told of 7.x.
const LEFT_TO_NIGHT: &str = "takes long on a debug kernel, or tells of 7.x: --nightly";

fn can_run(kernel: &Kernel, test: &TestInfo) -> bool {
    let usual = !kernel.debug && kernel.release.starts_with("7.");
    (kernel.debug || !test.needs_debug) && (usual || !test.wants_usual_kernel)
}

/// How guests of these tests execute instructions: fast if they can, else so that waiting costs nothing and boots repeat.
pub const fn accelerator(probe: &kvm::Probe) -> Accelerator {
    match probe.accelerator() {
        Accelerator::Kvm => Accelerator::Kvm,
        Accelerator::Tcg | Accelerator::TcgIcount => Accelerator::TcgIcount,
    }
}

/// How many CPUs guests with functional tests have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cpus {
    /// One, but for tests that are about more.
    #[default]
    AsNeeded,
    /// Two.
    Two,
}

/// How tests are dealt to guests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dealing {
    /// How many CPUs they have.
    pub cpus: Cpus,
    /// Whether each guest ends with a look at what its tests left, which on a debug kernel takes as long as five of them; else only the
    /// last one does.
    pub each_looks_back: bool,
}

/// Tests of a kernel that share a guest.
pub struct Guest<'a> {
    kernel: &'a Kernel,
    /// Which of the kernel's guests, from 1.
    number: usize,
    cpus: u32,
    /// Whether no other of the kernel's guests looks back.
    is_only: bool,
    tests: Vec<TestInfo>,
}

impl<'a> Guest<'a> {
    /// Deals those of `tests` that `kernel` can run to guests. It is the same guests whatever machine this is: what a test finds
    /// depends on what was before it.
    pub fn deal(
        kernel: &'a Kernel,
        tests: &[TestInfo],
        dealing: Dealing,
        outcomes: &mut Outcomes,
    ) -> Vec<Self> {
        let (run, skip): (Vec<_>, Vec<_>) = tests.iter().partition(|test| can_run(kernel, test));
        for test in skip {
            let why = match test.wants_usual_kernel {
                true => LEFT_TO_NIGHT,
                false => NEEDS_DEBUG,
            };
            outcomes.skip(&label(kernel), &test.name, why);
        }
        let parts = dealt(&run, dealing);
        let is_only = parts.len() == 1 || !dealing.each_looks_back;
        (1..)
            .zip(parts)
            .map(|(number, (cpus, tests))| Self {
                kernel,
                number,
                cpus,
                is_only,
                tests,
            })
            .collect()
    }

    /// What a test is called in the outcomes: one that other guests of the kernel have, too, with the guest's number.
    fn row(&self, test: &str) -> String {
        let is_it = |other: &&TestInfo| other.name == test && other.ends_guests;
        match self.tests.iter().find(is_it) {
            Some(_) if !self.is_only => format!("{test}/{}", self.number),
            _ => test.to_owned(),
        }
    }

    /// The kernel's name with the guest's number, such as `7.3:debug/2`.
    pub fn name(&self) -> String {
        format!("{}/{}", label(self.kernel), self.number)
    }

    /// Says in the outcomes that its tests shall run.
    pub fn plan(&self, outcomes: &mut Outcomes) {
        for test in &self.tests {
            outcomes.plan(&label(self.kernel), &self.row(&test.name));
        }
    }

    /// Runs its tests; each has an outcome afterwards. If our own machinery ends the guest, which says
    /// nothing about the tests, those that had not ended have one guest more.
    pub fn run(
        &self,
        bench: &Bench<'_>,
        accelerator: Accelerator,
        outcomes: &Shared,
    ) -> Result<()> {
        // QEMU before 8.1 gives a CPU all instructions until the next timer: one that waits busily for another has it wait for
        // ever.
        let accelerator = match (self.cpus, accelerator) {
            (2.., Accelerator::TcgIcount) => Accelerator::Tcg,
            _ => accelerator,
        };
        let all = self.tests.clone();
        let left = self.attempt(bench, accelerator, all, Try::First, outcomes)?;
        if !left.is_empty() {
            self.attempt(bench, accelerator, left, Try::Second, outcomes)?;
        }
        Ok(())
    }

    /// Tells how a failure can be had again, if it can to the instruction. A second guest for some of the tests is none that
    /// anybody could ask for.
    fn tell_again(&self, bench: &Bench<'_>, accelerator: Accelerator, which: Try) {
        let repeats = accelerator == Accelerator::TcgIcount && which == Try::First;
        if let Some(again) = bench.again.as_ref().filter(|_| repeats) {
            let (kernel, name) = (&self.kernel.name, self.name());
            let flavour = if self.kernel.debug { "debug" } else { "plain" };
            log::info!(
                "        again, to the instruction: {again} --kernel {kernel}:{flavour} --guest {name} [--gdb 1234]"
            );
        }
    }
}

/// The tests of each guest, with how many CPUs it has. Those that take longest come first.
fn dealt(tests: &[&TestInfo], dealing: Dealing) -> Vec<(u32, Vec<TestInfo>)> {
    let (last, others): (Vec<&TestInfo>, Vec<&TestInfo>) =
        tests.iter().copied().partition(|test| test.ends_guests);
    let (several, one): (Vec<&TestInfo>, Vec<&TestInfo>) = others
        .into_iter()
        .partition(|test| test.needs_cpus || dealing.cpus == Cpus::Two);
    let several = parts(&several).map(|tests| (CPUS, tests));
    let one = parts(&one).map(|tests| (1, tests));
    let mut guests: Vec<_> = several.chain(one).collect();
    if guests.is_empty() && !last.is_empty() {
        guests.push((1, Vec::new()));
    }
    let before = match dealing.each_looks_back {
        true => 0,
        false => guests.len().saturating_sub(1),
    };
    for (_, tests) in &mut guests[before..] {
        tests.extend(last.iter().copied().cloned());
    }
    guests
}

/// Parts of about the same size, of which none has more than [`MOST`].
fn parts(tests: &[&TestInfo]) -> impl Iterator<Item = Vec<TestInfo>> {
    let parts = tests.len().div_ceil(MOST).max(1);
    let each = tests.len().div_ceil(parts).max(1);
    tests
        .chunks(each)
        .map(|part| part.iter().copied().cloned().collect())
}

fn deadlines(kernel: &Kernel, tests: &[TestInfo]) -> Deadlines {
    let longer = tests.iter().map(|test| test.lasts).max();
    let longer = longer.unwrap_or_default();
    Deadlines::of(kernel.debug).for_tests(tests.len() as u32, longer)
}

/// Which guest it is for the same tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Try {
    First,
    Second,
}

impl Guest<'_> {
    /// Boots for the tests called `left`. Returns those that shall have another guest.
    fn attempt(
        &self,
        bench: &Bench<'_>,
        accelerator: Accelerator,
        mut left: Vec<TestInfo>,
        which: Try,
        outcomes: &Shared,
    ) -> Result<Vec<TestInfo>> {
        let order = Order {
            version: VERSION,
            work: Work::Test {
                names: left.iter().map(|test| test.name.clone()).collect(),
            },
        };
        let kernel = self.kernel;
        let suite = label(kernel);
        let again = match which {
            Try::First => "",
            Try::Second => "-again",
        };
        let log_name = format!(
            "{}-functional{}{again}.console.log",
            suite.replace(':', "-"),
            self.number
        );
        let log = bench.logs.join(log_name);
        let console_log = bench.shown(&log);
        let mut deadlines = deadlines(kernel, &left);
        if let Some(stub) = &bench.stub {
            deadlines = Deadlines {
                up: Deadlines::NEVER,
                ..deadlines.without_end()
            };
            log::info!("waiting for {}", stub.command(&kernel.vmlinux()));
        }
        let boot = Boot {
            cpus: self.cpus,
            accelerator,
            seed: bench.seed,
            stub: bench.stub.as_ref(),
            deadlines,
            ..Boot::of(kernel, &order, &log)
        };
        log::info!(
            "booting {} with {} CPU{} for {} tests",
            self.name(),
            self.cpus,
            if self.cpus == 1 { "" } else { "s" },
            left.len()
        );
        let mut started = Instant::now();
        let mut last = None;
        let booted = boot.run(bench.tools, bench.interrupt, &mut |event| {
            match event {
                Event::TestStarted { .. } => started = Instant::now(),
                Event::TestEnded { name, failure } => {
                    left.retain(|other| other.name != *name);
                    let ending = match failure {
                        None => Ending::ok(),
                        Some(reason) => Ending::bad(Verdict::Failed, reason),
                    };
                    let row = self.row(name);
                    last = Some(row.clone());
                    outcomes.lock().ended(Ended {
                        suite: &suite,
                        test: &row,
                        ending,
                        took: Some(started.elapsed()),
                        console_log: Some(&console_log),
                    })?;
                    if failure.is_some() {
                        self.tell_again(bench, accelerator, which);
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        let ending = booted.ending;
        if matches!(ending.verdict, Verdict::Splat | Verdict::Panic) {
            // Console and events are not in step: it may have been the last test that ended.
            if let Some(last) = last.filter(|_| !console::in_step(&booted.reports)) {
                outcomes.lock().take_back(&suite, &last, &ending);
            }
            for report in &booted.reports {
                log::info!("{}", report.text.join("\n"));
            }
        } else if ending.is_ok() {
            for test in left {
                let why = "the agent left it out";
                outcomes.lock().not_run(&suite, &self.row(&test.name), why);
            }
            return Ok(Vec::new());
        } else if ending.verdict == Verdict::Infra && which == Try::First && !left.is_empty() {
            log::info!("trying {} tests once more: {}", left.len(), ending.reason);
            for test in &left {
                let mut outcomes = outcomes.lock();
                outcomes.retry(&suite, &self.row(&test.name), &ending, &console_log);
            }
            return Ok(left);
        }
        // Whatever ended the guest befell the test that was next, or it while it went down.
        let (next, rest) = match left.split_first() {
            Some((next, rest)) => (self.row(&next.name), rest),
            None => ("going-down".to_owned(), &[][..]),
        };
        let mut outcomes = outcomes.lock();
        outcomes.ended(Ended {
            suite: &suite,
            test: &next,
            ending,
            took: None,
            console_log: Some(&console_log),
        })?;
        self.tell_again(bench, accelerator, which);
        for test in rest {
            outcomes.not_run(
                &suite,
                &self.row(&test.name),
                &format!("the guest ended with {next}"),
            );
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: usize, change: impl FnOnce(&mut TestInfo)) -> TestInfo {
        let mut info = TestInfo {
            name: name.to_string(),
            ..TestInfo::default()
        };
        change(&mut info);
        info
    }

    fn names(tests: &[TestInfo], cpus: Cpus, each: bool) -> Vec<(u32, Vec<String>)> {
        let dealing = Dealing {
            cpus,
            each_looks_back: each,
        };
        let guests = dealt(&tests.iter().collect::<Vec<_>>(), dealing);
        let names = |tests: Vec<TestInfo>| tests.into_iter().map(|test| test.name).collect();
        let guests = guests.into_iter();
        guests.map(|(cpus, tests)| (cpus, names(tests))).collect()
    }

    #[test]
    fn each_test_is_in_one_guest_and_the_last_in_all() {
        let mut tests: Vec<_> = (0..MOST + 1).map(|name| test(name, |_| {})).collect();
        tests.push(test(900, |test| test.ends_guests = true));
        tests.push(test(901, |test| test.needs_cpus = true));
        let guests = names(&tests, Cpus::AsNeeded, true);
        let cpus: Vec<u32> = guests.iter().map(|&(cpus, _)| cpus).collect();
        assert_eq!(cpus, [2, 1, 1]);
        assert!(guests
            .iter()
            .all(|(_, tests)| tests.last().is_some_and(|last| last == "900")));
        let quick = names(&tests, Cpus::AsNeeded, false);
        let looks: Vec<bool> = (quick.iter())
            .map(|(_, tests)| tests.contains(&"900".to_owned()))
            .collect();
        assert_eq!(looks, [false, false, true]);
        let mut all: Vec<String> = guests.into_iter().flat_map(|(_, tests)| tests).collect();
        all.retain(|name| name != "900");
        all.sort_by_key(|name| name.parse::<usize>().unwrap());
        let expected: Vec<String> = (0..MOST + 1)
            .chain([901])
            .map(|name| name.to_string())
            .collect();
        assert_eq!(all, expected);
        assert!(names(&tests, Cpus::Two, true)
            .iter()
            .all(|&(cpus, _)| cpus == CPUS));
    }

    #[test]
    fn the_last_alone_has_a_guest_and_nothing_has_none() {
        let last = test(1, |test| test.ends_guests = true);
        assert_eq!(
            names(&[last], Cpus::AsNeeded, false),
            [(1, vec!["1".to_owned()])]
        );
        assert!(names(&[], Cpus::AsNeeded, true).is_empty());
    }
}
