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

/// Tests of a kernel that share a guest.
pub struct Guest<'a> {
    kernel: &'a Kernel,
    /// Which of the kernel's guests, from 1.
    number: usize,
    cpus: u32,
    tests: Vec<TestInfo>,
}

impl<'a> Guest<'a> {
    /// Deals those of `tests` that `kernel` can run to guests. It is the same guests whatever machine this is: what a test finds
    /// depends on what was before it.
    pub fn deal(
        kernel: &'a Kernel,
        tests: &[TestInfo],
        cpus: Cpus,
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
        let (several, one): (Vec<_>, Vec<_>) = run
            .into_iter()
            .partition(|test| test.needs_cpus || cpus == Cpus::Two);
        let several = parts(&several).map(|tests| (CPUS, tests));
        let one = parts(&one).map(|tests| (1, tests));
        // Those that take longest come first.
        (1..)
            .zip(several.chain(one))
            .map(|(number, (cpus, tests))| Self {
                kernel,
                number,
                cpus,
                tests: tests.into_iter().cloned().collect(),
            })
            .collect()
    }

    /// The kernel's name with the guest's number, such as `7.3:debug/2`.
    pub fn name(&self) -> String {
        format!("{}/{}", label(self.kernel), self.number)
    }

    /// Says in the outcomes that its tests shall run.
    pub fn plan(&self, outcomes: &mut Outcomes) {
        for test in &self.tests {
            outcomes.plan(&label(self.kernel), &test.name);
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

/// Parts of about the same size, of which none has more than [`MOST`].
fn parts<'t>(tests: &[&'t TestInfo]) -> impl Iterator<Item = Vec<&'t TestInfo>> {
    let parts = tests.len().div_ceil(MOST).max(1);
    let each = tests.len().div_ceil(parts).max(1);
    let parts: Vec<_> = tests.chunks(each).map(<[_]>::to_vec).collect();
    parts.into_iter()
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
                    last = Some(name.clone());
                    outcomes.lock().ended(Ended {
                        suite: &suite,
                        test: name,
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
                outcomes.lock().not_run(&suite, &test.name, why);
            }
            return Ok(Vec::new());
        } else if ending.verdict == Verdict::Infra && which == Try::First && !left.is_empty() {
            log::info!("trying {} tests once more: {}", left.len(), ending.reason);
            for test in &left {
                let mut outcomes = outcomes.lock();
                outcomes.retry(&suite, &test.name, &ending, &console_log);
            }
            return Ok(left);
        }
        // Whatever ended the guest befell the test that was next, or it while it went down.
        let (next, rest) = match left.split_first() {
            Some((next, rest)) => (next.name.as_str(), rest),
            None => ("going-down", &[][..]),
        };
        let mut outcomes = outcomes.lock();
        outcomes.ended(Ended {
            suite: &suite,
            test: next,
            ending,
            took: None,
            console_log: Some(&console_log),
        })?;
        self.tell_again(bench, accelerator, which);
        for test in rest {
            outcomes.not_run(&suite, &test.name, &format!("the guest ended with {next}"));
        }
        Ok(Vec::new())
    }
}
