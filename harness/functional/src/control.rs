// SPDX-License-Identifier: MIT OR Apache-2.0

//! Transactions, contexts with names, and whose a context is.

use std::fmt::Debug;
use std::os::fd::AsFd;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context as _, Result};
use mprox_client::{Client, Commit, Configuration, ContextName, Error};
use mutex_abi::proxy::{Selection, MAX_CONTEXTS};
use nix::errno::Errno;

use super::netns::{has_link, wait_until_alone};
use super::setup::{all_rules, original, rule, upstream, Setup, FAMILIES};
use super::sockets::{answer, send, udp};
use super::GuestTest;
use mutexlab_guest::kernel::module::{LoadedModule, Parameters};
use mutexlab_guest::net::layout::{CLIENT_LINK, ROUTER_CLIENT_LINK};
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::net::netlink::RouteSocket;
use mutexlab_guest::proxy::context::{configuration, Context};
use mutexlab_guest::traffic::payload::Label;
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::PROXY_MODULE_PATH;

/// All of this file.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "commit-is-whole",
            "what is staged is committed once and as a whole, by trial, or if nobody was faster",
            commits,
        ),
        GuestTest::single(
            "context-has-a-name",
            "a context with a name outlives its socket, is anybody's, and is deleted with its flows",
            names,
        ),
        GuestTest::single(
            "names-go-with-namespace",
            "a context with a name does not keep its namespace, and goes with it and its flows",
            names_end,
        ),
        GuestTest::single(
            "first-context-twice",
            "two that configure the first context of a namespace at once, by one name or each its own, both do",
            twice,
        )
        .on_two_cpus(),
        GuestTest::single(
            "socket-is-passed-on",
            "a context lives as long as any descriptor of its socket",
            passed_on,
        ),
        GuestTest::single(
            "socket-address-again",
            "a socket at the address of one that closes has a context of its own",
            same_address,
        )
        .on_debug(),
        GuestTest::single(
            "socket-address-closed-twice",
            "who closes a socket finds its flows gone, even if the close of another one at its address removes them",
            closed_twice,
        )
        .on_debug(),
        GuestTest::single(
            "names-go-at-once",
            "all contexts of a namespace that ends go at once, and not one after the other",
            names_end_at_once,
        )
        .on_debug(),
        GuestTest::single(
            "stages-are-limited",
            "no more sockets of a namespace stage than may, and one that closes makes room",
            stages_are_limited,
        ),
    ]
}

fn everything() -> Configuration {
    configuration(Selection::RoundRobin, &all_rules())
}

fn name(text: &str) -> Result<ContextName> {
    ContextName::new(text.as_bytes()).with_context(|| format!("{text} is no name"))
}

fn named(text: &str) -> Result<Commit> {
    Ok(Commit {
        context: Some(name(text)?),
        ..Commit::default()
    })
}

fn ensure_refused<T: Debug>(result: Result<T, Error>, errno: Errno, what: &str) -> Result<()> {
    match &result {
        Err(error) if error.errno() == Some(errno as i32) => Ok(()),
        other => bail!("{what}: expected {errno}, got {other:?}"),
    }
}

fn commits() -> Result<()> {
    let setup = Setup::new()?;
    let mut client = setup.layout.router.run(|| Ok(Client::open()?))?;
    let commit = Commit::default();
    let trial = Commit {
        dry_run: true,
        ..commit
    };
    let at = |generation| Commit {
        generation: Some(generation),
        ..commit
    };
    ensure_refused(client.commit(&commit), Errno::ENODATA, "nothing was staged")?;
    ensure_refused(client.context(None), Errno::ENOENT, "without a context")?;
    ensure_refused(client.statistics(), Errno::ENOENT, "without any context")?;
    client.stage(&everything())?;
    ensure!(client.commit(&trial)? == 0, "a trial counted");
    ensure_refused(client.context(None), Errno::ENOENT, "after a trial")?;
    ensure_refused(client.statistics(), Errno::ENOENT, "after a trial")?;
    ensure_refused(client.commit(&at(1)), Errno::ESTALE, "never configured")?;
    ensure_refused(client.context(None), Errno::ENOENT, "after a refusal")?;
    // All of that left what was staged.
    ensure!(client.commit(&at(0))? == 1, "the first commit");
    ensure!(client.configuration(None)? == everything(), "read back");
    ensure_refused(client.commit(&commit), Errno::ENODATA, "committed before")?;
    client.stage(&Configuration::default())?;
    ensure!(client.commit(&trial)? == 1, "a trial counted");
    ensure!(
        client.configuration(None)? == everything(),
        "a trial changed something"
    );
    ensure_refused(client.commit(&at(0)), Errno::ESTALE, "once configured")?;
    ensure!(client.commit(&at(1))? == 2, "the second commit");
    let info = client.context(None)?;
    ensure!(
        (info.generation, info.rules, info.groups, info.upstreams) == (2, 0, 0, 0),
        "expected an empty context that was configured twice, got {info:?}"
    );
    client.stage(&everything())?;
    client.stage(&Configuration::default())?;
    client.commit(&commit)?;
    let left = client.configuration(None)?;
    ensure!(
        left == Configuration::default(),
        "what is staged first is forgotten, yet there is {left:?}"
    );
    drop(client);
    setup.finish()
}

/// A round trip of a datagram to the original destination, which must be redirected or must not.
pub fn ensure_redirected(setup: &Setup, redirected: bool, sequence: u32) -> Result<()> {
    const LENGTH: usize = 64;
    for family in FAMILIES {
        let server = if redirected { upstream } else { original }(family);
        let server = udp(&setup.layout.server, server)?;
        let client = super::setup::client_address(Way::Forward, family);
        let client = udp(setup.client(Way::Forward), client)?;
        let label = Label { flow: 1, sequence };
        let seen = send(&client, original(family), &server, label, LENGTH)?;
        answer(&server, seen, &client, original(family), label, LENGTH)?;
    }
    Ok(())
}

fn names() -> Result<()> {
    let setup = Setup::new()?;
    let open = || setup.layout.router.run(|| Ok(Client::open()?));
    let mut first = open()?;
    first.stage(&everything())?;
    ensure!(first.commit(&named("one")?)? == 1, "the first commit");
    drop(first);
    ensure_redirected(&setup, true, 0).context("after the socket has closed")?;
    let mut second = open()?;
    ensure_refused(
        second.context(None),
        Errno::ENOENT,
        "it has none of its own",
    )?;
    let one = name("one")?;
    ensure!(
        second.configuration(Some(&one))? == everything(),
        "read back by another socket"
    );
    for text in ["two", "three"] {
        second.stage(&Configuration::default())?;
        second.commit(&named(text)?)?;
    }
    let told = second.contexts()?;
    let told: Vec<_> = told
        .iter()
        .map(|info| (format!("{:?}", info.name), info.rules))
        .collect();
    let rules = all_rules().len() as u32;
    let expected = [("one", rules), ("two", 0), ("three", 0)]
        .map(|(text, rules)| (format!("Some({text})"), rules));
    ensure!(told == expected, "expected {expected:?}, got {told:?}");
    // Another's configuration is replaced by whoever may.
    second.stage(&everything())?;
    ensure!(second.commit(&named("one")?)? == 2, "the second commit");
    ensure_redirected(&setup, true, 1).context("after the second commit")?;
    let before = second.statistics()?;
    ensure!(before.flows_current > 0, "no flow is left to be removed");
    second.delete(&one)?;
    let after = second.statistics()?;
    ensure!(
        after.flows_current == 0,
        "flows of a deleted context: {after:?}"
    );
    ensure_refused(second.delete(&one), Errno::ENOENT, "deleted twice")?;
    ensure_refused(second.context(Some(&one)), Errno::ENOENT, "deleted")?;
    ensure_redirected(&setup, false, 2).context("after its deletion")?;
    // Whatever two do at once, each context is whole.
    thread::scope(|scope| -> Result<()> {
        let both = [(); 2].map(|()| {
            scope.spawn(|| -> Result<()> {
                let mut client = open()?;
                for _ in 0..50 {
                    client.stage(&everything())?;
                    // While the other deletes it.
                    match client.commit(&named("shared")?) {
                        Err(error) if error.errno() == Some(Errno::ENOENT as i32) => continue,
                        other => other?,
                    };
                    match client.configuration(Some(&name("shared")?)) {
                        Ok(there) => ensure!(there == everything(), "not whole"),
                        Err(error) if error.errno() == Some(Errno::ENOENT as i32) => {}
                        Err(error) => return Err(error.into()),
                    }
                    let _ = client.delete(&name("shared")?);
                }
                Ok(())
            })
        });
        for one in both {
            one.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(())
    })?;
    ensure_refused(
        second.context(Some(&name("shared")?)),
        Errno::ENOENT,
        "shared",
    )?;
    for text in ["two", "three"] {
        second.delete(&name(text)?)?;
    }
    ensure_refused(second.statistics(), Errno::ENOENT, "after the last one")?;
    ensure!(second.contexts()?.is_empty(), "a context is left");
    drop(second);
    setup.finish()
}

fn twice() -> Result<()> {
    const TURNS: usize = 20;
    let setup = Setup::new()?;
    let names = [
        [Some("one"), Some("one")],
        [Some("one"), Some("two")],
        [Some("one"), None],
        [None, None],
    ];
    for turn in 0..TURNS {
        let names = names[turn % names.len()];
        // One of them may only try.
        let tries = turn / names.len() % 2 == 1;
        let begin = Barrier::new(2);
        let both = names.map(|text| -> Result<_> {
            let mut client = setup.layout.router.run(|| Ok(Client::open()?))?;
            client.stage(&everything())?;
            let context = text.map(name).transpose()?;
            Ok((client, context))
        });
        let [first, second] = both;
        let both = [(first?, false), (second?, tries)];
        let left = thread::scope(|scope| -> Result<Vec<_>> {
            let all = both.map(|((mut client, context), dry_run)| {
                let begin = &begin;
                scope.spawn(move || -> Result<_> {
                    begin.wait();
                    client.commit(&Commit {
                        context,
                        dry_run,
                        ..Commit::default()
                    })?;
                    if !dry_run {
                        let there = client.configuration(context.as_ref())?;
                        ensure!(there == everything(), "not whole");
                    }
                    Ok((client, context))
                })
            });
            let all = all.map(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?);
            all.into_iter().collect()
        })
        .with_context(|| format!("turn {turn}: {names:?}, the second tries: {tries}"))?;
        let mut last = setup.layout.router.run(|| Ok(Client::open()?))?;
        for info in last.contexts()? {
            last.delete(&info.name.context("a name")?)?;
        }
        drop(left);
        ensure_refused(last.statistics(), Errno::ENOENT, "after all are gone")?;
    }
    setup.finish()
}

/// Namespaces with a context that has a name, a socket's, both, or flows of the former, are let go.
fn names_end() -> Result<()> {
    let module = LoadedModule::load(PROXY_MODULE_PATH, &Parameters::new())?;
    for turn in 0..6 {
        let (home, dying) = (Namespace::new("home")?, Namespace::new("dying")?);
        RouteSocket::open(&dying)?.add_veth(&ROUTER_CLIENT_LINK, &CLIENT_LINK, &home)?;
        let mut client = dying.run(|| Ok(Client::open()?))?;
        for text in ["one", "two"] {
            client.stage(&everything())?;
            client.commit(&named(text)?)?;
        }
        if turn % 2 == 0 {
            client.stage(&everything())?;
            client.commit(&Commit::default())?;
        }
        ensure!(has_link(&home)?, "the link is gone already");
        drop((dying, client));
        wait_until_alone(&home).with_context(|| format!("turn {turn}"))?;
    }
    // With flows, which have routes of both IP versions.
    let layout = super::setup::network()?;
    let mut client = layout.router.run(|| Ok(Client::open()?))?;
    client.stage(&everything())?;
    client.commit(&named("one")?)?;
    drop(client);
    for family in FAMILIES {
        super::faults::begin_flows_from(&layout.client, family, 10_000..10_500)?;
    }
    let home = layout.client;
    drop((layout.router, layout.server));
    wait_until_alone(&home).context("with flows")?;
    // It is not in use any more: the exit of a namespace with flows may still be at work.
    module.unload()
}

fn passed_on() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&[
        rule(Protocol::Udp, Family::V4),
        rule(Protocol::Udp, Family::V6),
    ])?;
    let copy = context.client().as_fd().try_clone_to_owned()?;
    drop(context);
    ensure_redirected(&setup, true, 0).context("one of two descriptors has closed")?;
    let mut heir = Client::adopt(copy)?;
    let info = heir.context(None)?;
    ensure!(info.rules == 2, "expected two rules, got {info:?}");
    heir.stage(&everything())?;
    ensure!(heir.commit(&Commit::default())? == 3, "the heir's commit");
    ensure_redirected(&setup, true, 1).context("after the heir's commit")?;
    drop(heir);
    ensure_redirected(&setup, false, 2).context("both have closed")?;
    setup.finish()
}

/// The kernel gives the first socket of a process the process's number for an address, and the next one that comes after that has
/// closed, too. Netlink takes a closing socket off its table before it tells of it: here half a second before.
fn same_address() -> Result<()> {
    const LATE: Duration = Duration::from_millis(500);
    let setup = Setup::with_parameters(&[("debug_windows", "0,0,0,500")])?;
    let open = || -> Result<Client> { setup.layout.router.run(|| Ok(Client::open()?)) };
    for turn in 0..4 {
        let mut first = open()?;
        first.stage(&everything())?;
        first.commit(&Commit::default())?;
        thread::scope(|scope| -> Result<()> {
            let closing = scope.spawn(|| {
                let began = Instant::now();
                drop(first);
                began.elapsed()
            });
            thread::sleep(LATE / 4);
            let mut second = open()?;
            ensure_refused(second.context(None), Errno::ENOENT, "of the first one's")?;
            second.stage(&everything())?;
            second.commit(&Commit::default())?;
            let took = closing.join().map_err(|_| anyhow!("the close panicked"))?;
            ensure!(took >= LATE, "the close took {took:?}: nothing held it up");
            let there = second.configuration(None).context("after the close")?;
            ensure!(there == everything(), "of another");
            ensure_redirected(&setup, true, turn)
        })
        .with_context(|| format!("turn {turn}"))?;
    }
    ensure_redirected(&setup, false, 4)?;
    setup.finish()
}

/// The first close comes to the second socket's context while that waits in its own close, and takes its time to remove the flows:
///
/// ```text
/// first    close ── 500 ms ──► its context: 2 * 400 ms ──► the second one's: 2 * 400 ms ──►
/// second         open, flows ──────────────► close ── 500 ms ──►
/// ```
fn closed_twice() -> Result<()> {
    const FLOWS: Duration = Duration::from_millis(600);
    const CLOSE: Duration = Duration::from_millis(1_000);
    let setup = Setup::with_parameters(&[("debug_windows", "0,0,400,500")])?;
    let open = || -> Result<Client> { setup.layout.router.run(|| Ok(Client::open()?)) };
    // So that neither is the namespace's last.
    let mut stays = open()?;
    stays.stage(&Configuration::default())?;
    stays.commit(&named("stays")?)?;
    drop(stays);
    for turn in 0..3 {
        let mut first = open()?;
        first.stage(&Configuration::default())?;
        first.commit(&Commit::default())?;
        thread::scope(|scope| -> Result<()> {
            let began = Instant::now();
            let closing = scope.spawn(|| drop(first));
            thread::sleep(FLOWS / 4);
            let mut second = open()?;
            second.stage(&everything())?;
            second.commit(&Commit::default())?;
            thread::sleep(FLOWS.saturating_sub(began.elapsed()));
            ensure_redirected(&setup, true, turn)?;
            let mut other = open()?;
            ensure!(other.statistics()?.flows_current > 0, "there are no flows");
            thread::sleep(CLOSE.saturating_sub(began.elapsed()));
            drop(second);
            let stats = other.statistics()?;
            ensure!(
                stats.flows_current == 0,
                "flows of a socket that has closed: {stats:?}"
            );
            closing.join().map_err(|_| anyhow!("the close panicked"))
        })
        .with_context(|| format!("turn {turn}"))?;
    }
    let mut last = open()?;
    last.delete(&name("stays")?)?;
    drop(last);
    setup.finish()
}

/// To remove the flows of one context takes its time here.
fn names_end_at_once() -> Result<()> {
    const SLOW: Duration = Duration::from_millis(200);
    let windows = format!("0,0,{}", SLOW.as_millis());
    let parameters = Parameters::from([("debug_windows".to_owned(), windows)]);
    let module = LoadedModule::load(PROXY_MODULE_PATH, &parameters)?;
    let (home, dying) = (Namespace::new("home")?, Namespace::new("dying")?);
    RouteSocket::open(&dying)?.add_veth(&ROUTER_CLIENT_LINK, &CLIENT_LINK, &home)?;
    let mut client = dying.run(|| Ok(Client::open()?))?;
    for number in 0..MAX_CONTEXTS {
        client.stage(&Configuration::default())?;
        client.commit(&named(&number.to_string())?)?;
    }
    let began = Instant::now();
    drop((dying, client));
    wait_until_alone(&home)?;
    let (took, each) = (began.elapsed(), SLOW * MAX_CONTEXTS as u32);
    ensure!(
        took < each,
        "the namespace took {took:?} to end, as if its contexts had gone one after the other"
    );
    module.unload()
}

fn stages_are_limited() -> Result<()> {
    let setup = Setup::new()?;
    let open = || -> Result<Client> { setup.layout.router.run(|| Ok(Client::open()?)) };
    let mut all = Vec::new();
    for _ in 0..MAX_CONTEXTS {
        let mut client = open()?;
        client.stage(&everything())?;
        all.push(client);
    }
    let mut beyond = open()?;
    ensure_refused(beyond.stage(&everything()), Errno::ENOSPC, "beyond")?;
    // Elsewhere there are others.
    drop(Context::open(&setup.layout.client)?);
    drop(all.swap_remove(MAX_CONTEXTS / 2));
    beyond.stage(&everything())?;
    drop((all, beyond));
    setup.finish()
}
