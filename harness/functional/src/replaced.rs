// SPDX-License-Identifier: MIT OR Apache-2.0

//! One configuration takes the place of another, again and again, beside connections that each must notice nothing of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use mprox_client::{Configuration, Set};
use mutex_abi::proxy::{
    set::Element, Action, Condition, Field, Label, Selection, ValueKind, Values,
};

use super::conversation::{of_every_sort, Servers};
use super::setup::{all_rules, ensure_no_loss, sized, Setup, FAMILIES, PROTOCOLS};
use super::GuestTest;
use mutexlab_guest::proxy::context::{configuration, Context, Rule};
use mutexlab_model::traffic::Way;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "replaced-beside-streams",
            "100 commits lose and mistranslate no packet of old and new connections",
            || beside_streams(100),
        ),
        GuestTest::single(
            "replaced-ten-thousand-times",
            "10,000 commits (1,000 on a debug kernel) lose and mistranslate no packet of old and new connections",
            || beside_streams(sized(10_000, 1000)?),
        )
        .nightly()
        .lasting(Duration::from_secs(3600)),
    ]
}

/// Connections that were there before, and new ones all the time, while `commits` configurations follow each other.
fn beside_streams(commits: u32) -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&all_rules())?;
    let choices = configurations()?;
    let servers = Servers::of_both(&setup.layout)?;
    let over = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        let talking = scope.spawn(|| talk(&servers, &over));
        let committed = commit(&context, &choices, commits, &|| talking.is_finished());
        over.store(true, Ordering::Relaxed);
        let talked = talking.join();
        committed?;
        talked.unwrap_or_else(|_| anyhow::bail!("the thread panicked"))
    })?;
    ensure!(rounds > 10, "only {rounds} rounds were talked meanwhile");
    ensure_no_loss(&context.stats()?)?;
    drop((servers, context));
    setup.finish()
}

/// All redirect the same; what they have beside that differs.
fn configurations() -> Result<[Configuration; 3]> {
    let plain = configuration(Selection::RoundRobin, &all_rules());
    // Behind many others, which are for other ports.
    let mut many: Vec<Rule> = (0..100_u16)
        .flat_map(|number| {
            FAMILIES.map(|family| Rule::any(family, &[]).ports(20_000 + number, 30_000))
        })
        .collect();
    for rule in &mut many {
        rule.record.action = Action::Drop;
    }
    many.extend(all_rules());
    let many = configuration(Selection::RoundRobin, &many);
    // For what is not in a set.
    let mut apart = plain.clone();
    apart.sets = vec![Set {
        label: Label::NONE,
        kind: ValueKind::Addresses,
        elements: (0..1000_u32)
            .map(|number| Element::V4([number << 8, number << 8 | 7]))
            .collect(),
    }];
    for rule in &mut apart.rules {
        let condition = Condition {
            field: Field::Source,
            not: true,
            mask: u32::MAX,
            values: Values::Set(0),
        };
        ensure!(rule.conditions.push(condition), "too many conditions");
    }
    Ok([plain, many, apart])
}

/// Ends early if nobody talks any more.
fn commit(
    context: &Context,
    choices: &[Configuration],
    commits: u32,
    is_over: &dyn Fn() -> bool,
) -> Result<()> {
    for (number, configuration) in (0..commits).zip(choices.iter().cycle()) {
        if is_over() {
            break;
        }
        context
            .put(configuration)
            .with_context(|| format!("commit {number}"))?;
    }
    Ok(())
}

fn talk(servers: &[Servers<'_>], over: &AtomicBool) -> Result<u32> {
    let mut old = of_every_sort(servers)?;
    let mut rounds = 0;
    while !over.load(Ordering::Relaxed) {
        for conversation in &mut old {
            conversation
                .say()
                .with_context(|| format!("an old connection, round {rounds}"))?;
        }
        let server = &servers[rounds as usize % servers.len()];
        for protocol in PROTOCOLS {
            for way in [Way::Forward, Way::Local] {
                server
                    .converse(protocol, way)
                    .with_context(|| format!("a new connection, {way:?}, round {rounds}"))?;
            }
        }
        rounds += 1;
    }
    Ok(rounds)
}
