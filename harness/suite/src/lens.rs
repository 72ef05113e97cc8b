// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lens sees of known patterns what arithmetic says, and does not change what it looks at.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use mutexlab_lens_recording::recording::{Costs, Entry, Line, Recording};
use mutexlab_lens_recording::settings::{Cache, Caches, Settings};

use super::bench::Bench;
use super::outcome::{label, Ended, Shared};
use mutexlab_images::prepared::Kernel;
use mutexlab_machine::boot::Boot;
use mutexlab_machine::qemu::Lens;
use mutexlab_model::verdict::{Ending, Verdict};
use mutexlab_protocol::pattern::{Pattern, Turn, BUFFER, LINE, LINES, TURNS};
use mutexlab_protocol::{Event, Order, Work, VERSION};

/// Its name as a test.
pub const NAME: &str = "lens-counts-what-is-known";

/// Caches of 64 sets each: the place of a line in its page is the place of its set, so that it
/// does not matter which pages a program has got.
const CACHES: Caches = Caches {
    l1i: of_ways(8),
    l1d: of_ways(12),
    l2: of_ways(32),
    last: of_ways(128),
};

const fn of_ways(ways: u32) -> Cache {
    Cache {
        size: 64 * LINE * ways as u64,
        ways,
    }
}

/// Boots the kernel twice, with the lens and without.
///
/// # Errors
/// If a guest cannot be started, or the user interrupts.
pub fn run(bench: &Bench<'_>, kernel: &Kernel, outcomes: &Shared) -> Result<()> {
    let started = Instant::now();
    let ending = match watch(bench, kernel)? {
        Ok(()) => Ending::ok(),
        Err(ending) => ending,
    };
    outcomes.lock().ended(Ended {
        suite: &label(kernel),
        test: NAME,
        ending,
        took: Some(started.elapsed()),
        console_log: Some(&bench.shown(&console_log(bench, true))),
    })
}

fn console_log(bench: &Bench<'_>, with_lens: bool) -> PathBuf {
    let with = if with_lens { "with" } else { "without" };
    bench.logs.join(format!("{NAME}-{with}.console.log"))
}

/// What the patterns took, as the agent read it from the clock.
type Ticks = Vec<(Pattern, u64)>;

fn watch(bench: &Bench<'_>, kernel: &Kernel) -> Result<Result<(), Ending>> {
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let settings = Settings {
        directory: directory.path().to_owned(),
        caches: CACHES,
    };
    let path = directory.path().join("settings.json");
    let text = serde_json::to_vec(&settings).context("cannot write the lens's settings")?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let lens = Lens::new(&path)?;
    let with = match boot(bench, kernel, Some(&lens))? {
        Ok(ticks) => ticks,
        Err(ending) => return Ok(Err(ending)),
    };
    let without = match boot(bench, kernel, None)? {
        Ok(ticks) => ticks,
        Err(ending) => return Ok(Err(ending)),
    };
    let checked =
        check_all(directory.path(), &with).and_then(|()| check_undisturbed(&with, &without));
    Ok(checked.map_err(|error| Ending::bad(Verdict::Failed, format!("{error:#}"))))
}

/// Has the agent do all patterns.
fn boot(bench: &Bench<'_>, kernel: &Kernel, lens: Option<&Lens>) -> Result<Result<Ticks, Ending>> {
    let order = Order {
        version: VERSION,
        work: Work::Patterns(Pattern::ALL.to_vec()),
    };
    let log = console_log(bench, lens.is_some());
    let boot = Boot {
        cpus: 2,
        modules: None,
        lens,
        ..Boot::of(kernel, &order, &log)
    };
    let mut all = Vec::new();
    let booted = boot.run(bench.tools, bench.interrupt, &mut |event| {
        if let Event::Pattern { pattern, ticks } = event {
            all.push((*pattern, *ticks));
        }
        Ok(())
    })?;
    Ok(if booted.ending.is_ok() {
        Ok(all)
    } else {
        Err(booted.ending)
    })
}

/// What only one CPU does takes as long without the lens.
fn check_undisturbed(with: &Ticks, without: &Ticks) -> Result<()> {
    for ((pattern, with), (_, without)) in with.iter().zip(without) {
        ensure!(
            with == without || matches!(pattern, Pattern::Turns(_)),
            "{pattern:?} took {with} ticks with the lens, and {without} without"
        );
    }
    Ok(())
}

fn check_all(directory: &Path, all: &Ticks) -> Result<()> {
    let mut instructions = Vec::new();
    for (number, (pattern, ticks)) in all.iter().enumerate() {
        let path = directory.join(format!("{number}.json"));
        let text =
            fs::read(&path).with_context(|| format!("the lens has not written {number}.json"))?;
        let recording: Recording = serde_json::from_slice(&text)
            .with_context(|| format!("cannot understand {}", path.display()))?;
        let total: u64 = recording.instructions.iter().sum();
        instructions.push((*pattern, total, *ticks));
        check(*pattern, &recording).with_context(|| format!("{pattern:?}"))?;
    }
    ensure!(
        instructions.len() == Pattern::ALL.len(),
        "the agent did {} patterns of {}",
        instructions.len(),
        Pattern::ALL.len()
    );
    // What the clock says, the lens has counted.
    let of = |count| {
        instructions
            .iter()
            .find(|(pattern, ..)| *pattern == Pattern::Instructions(count))
            .with_context(|| format!("{count} instructions were not executed"))
    };
    let mut counts = instructions
        .iter()
        .filter_map(|(pattern, ..)| match pattern {
            Pattern::Instructions(count) if *count != 0 => Some(*count),
            _ => None,
        });
    counts.try_for_each(|count| {
        let (_, none, ticks_of_none) = of(0)?;
        let (_, total, ticks) = of(count)?;
        ensure!(
            total - none == count && ticks - ticks_of_none == count,
            "{count} instructions more were {} for the lens and {} for the clock",
            total - none,
            ticks - ticks_of_none
        );
        Ok(())
    })
}

fn check(pattern: Pattern, recording: &Recording) -> Result<()> {
    let total: u64 = recording.instructions.iter().sum();
    let in_tree: u64 = recording
        .code
        .iter()
        .map(|code| code.costs.instructions)
        .sum();
    ensure!(
        total == in_tree && total != 0,
        "{total} instructions, but {in_tree} in the tree"
    );
    match pattern {
        Pattern::Instructions(_) => Ok(()),
        Pattern::SystemCalls(count) => {
            let calls: u64 = recording
                .nodes
                .iter()
                .filter(|node| node.entry == Entry::SystemCall)
                .map(|node| node.calls)
                .sum();
            ensure!(calls == count, "{calls} system calls");
            Ok(())
        }
        Pattern::Sweep { lines, times } => {
            let reads = lines * times;
            // As many of each set are used as the sweep has pages; a set that is too small for a
            // sweep holds none of it when it comes again.
            let misses = |cache: Cache| {
                if lines / 64 > u64::from(cache.ways) {
                    reads
                } else {
                    0
                }
            };
            expect(
                recording,
                0..LINES,
                Costs {
                    reads,
                    l1d_misses: misses(CACHES.l1d),
                    l2_misses: misses(CACHES.l2),
                    last_misses: misses(CACHES.last),
                    ..Costs::default()
                },
            )
        }
        Pattern::Turns(turn) => check_turns(turn, recording),
    }
}

/// Both CPUs have taken turns before: the lines are where they are after each.
fn check_turns(turn: Turn, recording: &Recording) -> Result<()> {
    let both = 2 * TURNS;
    let moved = |transfers, true_sharing, invalidations| Costs {
        l1d_misses: transfers,
        l2_misses: transfers,
        transfers,
        true_sharing,
        invalidations,
        ..Costs::default()
    };
    let (lines, expected) = match turn {
        // The read already takes the line from the other CPU.
        Turn::AddToOne => (
            0..1,
            Costs {
                reads: both,
                writes: both,
                ..moved(both, both, both)
            },
        ),
        Turn::WriteBeside => (
            0..1,
            Costs {
                writes: both,
                ..moved(both, 0, both)
            },
        ),
        Turn::WriteApart => (
            0..2,
            Costs {
                writes: both,
                ..Costs::default()
            },
        ),
        // Only what has been written has to be taken from a reader.
        Turn::Tell => (
            0..1,
            Costs {
                reads: TURNS,
                writes: TURNS,
                ..moved(both, both, TURNS)
            },
        ),
        Turn::ReadOne => (
            0..1,
            Costs {
                reads: both,
                ..Costs::default()
            },
        ),
    };
    expect(recording, lines, expected)
}

/// What accesses to the lines of the buffer with these numbers cost.
fn expect(recording: &Recording, lines: std::ops::Range<u64>, expected: Costs) -> Result<()> {
    let range = BUFFER + lines.start * LINE..BUFFER + lines.end * LINE;
    let mut costs = Costs::default();
    let is_in = |line: &&Line| range.contains(&line.address);
    for line in recording.lines.iter().filter(is_in) {
        costs += line.costs;
    }
    ensure!(costs == expected, "cost {costs:?}, not {expected:?}");
    Ok(())
}
