// SPDX-License-Identifier: MIT OR Apache-2.0

//! /proc/net/mutex_proxy/: what it says, where it is, and that it goes.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context as _, Result};
use mutex_abi::proxy::Stats;
use nix::errno::Errno;

use super::conversation::Servers;
use super::netns::{has_link, wait_until_alone};
use super::setup::{all_rules, client_address, original, upstream, Setup, FAMILIES};
use super::sockets::{self, udp};
use mutexlab_guest::kernel::module::{LoadedModule, Parameters};
use mutexlab_guest::net::layout::{CLIENT_LINK, ROUTER_CLIENT_LINK};
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::net::netlink::RouteSocket;
use mutexlab_guest::proxy::context::Context;
use mutexlab_guest::proxy::monitor;
use mutexlab_guest::traffic::payload::Label;
use mutexlab_guest::traffic::placement;
use mutexlab_model::traffic::{Protocol, Way};
use mutexlab_protocol::PROXY_MODULE_PATH;

const STATS: &str = "stats";

/// So rarely does the search for idle flows lock tables that no test sees it.
const QUIET: [(&str, &str); 1] = [("gc_interval", "3600")];

/// The file says what the module says over netlink, of the namespaces that have a context, and nothing of others.
pub fn stats_by_cpu() -> Result<()> {
    let setup = Setup::with_parameters(&QUIET)?;
    let layout = &setup.layout;
    ensure_files(&setup, [false, false, false]).context("without a context")?;
    let context = setup.context(&all_rules())?;
    ensure_files(&setup, [false, true, false]).context("with a context in the router")?;
    ensure_told(&layout.router, &context.stats()?).context("before all packets")?;
    send_some(&setup)?;
    let stats = context.stats()?;
    ensure!(
        stats.packets_original != 0 && stats.packets_reply != 0 && stats.flows_current != 0,
        "expected packets both ways and flows, got {stats:?}"
    );
    ensure_told(&layout.router, &stats).context("after some packets")?;

    let other = Context::open(&layout.client)?;
    ensure_files(&setup, [true, true, false]).context("with another context in the client")?;
    ensure_told(&layout.client, &other.stats()?).context("client")?;
    ensure_told(&layout.router, &stats).context("router, with a context in the client")?;
    drop(other);
    ensure_files(&setup, [false, true, false]).context("with the client's context closed")?;

    // While one is left, there is something to tell.
    let second = Context::open(&layout.router)?;
    drop(context);
    ensure_files(&setup, [false, true, false]).context("with one of two contexts closed")?;
    drop(second);
    ensure_files(&setup, [false, false, false]).context("with all contexts closed")?;
    setup.finish()
}

/// Datagrams of several sizes and both IP versions, there and back.
fn send_some(setup: &Setup) -> Result<()> {
    for family in FAMILIES {
        let way = Way::Forward;
        let client = udp(setup.client(way), client_address(way, family))?;
        let server = udp(&setup.layout.server, upstream(family))?;
        for sequence in 0..5 {
            let label = Label { flow: 1, sequence };
            let length = 64 << sequence;
            let to = original(family);
            let seen = sockets::send(&client, to, &server, label, length)?;
            sockets::answer(&server, seen, &client, to, label, length)?;
        }
    }
    Ok(())
}

/// Fails unless the file says something in client, router and server as `expected`; each has it.
fn ensure_files(setup: &Setup, expected: [bool; 3]) -> Result<()> {
    let layout = &setup.layout;
    for (namespace, expected) in [&layout.client, &layout.router, &layout.server]
        .into_iter()
        .zip(expected)
    {
        let file = monitor::open(namespace, STATS)?;
        let name = namespace.name();
        ensure!(
            file.is_some() == expected,
            "expected something to read in {name}: {expected}, found it: {}",
            file.is_some()
        );
        let directory = namespace.run(|| Ok(std::fs::exists(monitor::DIRECTORY)?))?;
        ensure!(directory, "there is no directory in {name}");
        if let Some(file) = file {
            let mode = file.metadata()?.permissions().mode() & 0o7777;
            ensure!(mode == 0o444, "expected mode 444 in {name}, got {mode:o}");
        }
    }
    Ok(())
}

/// Fails unless the file says `expected`, line by line. Nothing may be counted meanwhile.
fn ensure_told(namespace: &Namespace, expected: &Stats) -> Result<()> {
    let file = open(namespace)?;
    let text = read(&file).context("cannot read")?;
    let told = monitor::Stats::parse(&text).with_context(|| format!("in {text:?}"))?;
    let online = thread::available_parallelism()?.get();
    ensure!(
        told.cpus.len() >= online,
        "expected at least {online} CPUs, got {:?}",
        told.cpus
    );
    let got: Vec<(&str, u64)> = told
        .counters
        .iter()
        .map(|counter| (counter.name.as_str(), counter.total))
        .collect();
    let values = expected.values();
    let expected: Vec<(&str, u64)> = Stats::NAMES.iter().copied().zip(values).collect();
    ensure!(got == expected, "expected {expected:?}, got {got:?}");
    for counter in &told.counters {
        // The parser has compared the sums.
        ensure!(
            counter.by_cpu.is_some() == (counter.name != "flows_current"),
            "expected all but flows_current for each CPU, got {counter:?}"
        );
    }
    // From anywhere, and again on the same descriptor.
    for offset in [0, 1, text.len() / 2, text.len() - 1, text.len()] {
        let mut rest = vec![0; text.len()];
        let length = file.read_at(&mut rest, offset as u64)?;
        ensure!(
            rest[..length] == text.as_bytes()[offset..],
            "reading from byte {offset} gives other bytes"
        );
    }
    Ok(())
}

/// To make a flow locks its table once, and a packet of it locks nothing; but without RCU each does.
pub fn locks_are_counted() -> Result<()> {
    let setup = Setup::with_parameters(&QUIET)?;
    let context = setup.context(&all_rules())?;
    let servers = Servers::of_both(&setup.layout)?;
    let mut before = context.stats()?;
    // What happened since the last call: flows made, packets translated, locks taken.
    let mut since = || -> Result<[u64; 3]> {
        let now = context.stats()?;
        ensure!(
            now.lock_contentions <= now.lock_acquisitions,
            "more waited than came: {now:?}"
        );
        let counted = [
            |stats: &Stats| stats.flows_created,
            |stats: &Stats| stats.packets_original + stats.packets_reply,
            |stats: &Stats| stats.lock_acquisitions,
        ]
        .map(|count| count(&now) - count(&before));
        before = now;
        Ok(counted)
    };
    let mut conversations = Vec::new();
    let flows = servers.len() as u64;
    for servers in &servers {
        conversations.push(servers.converse(Protocol::Udp, Way::Forward)?);
    }
    let counted = since()?;
    ensure!(
        counted == [flows, 2 * flows, flows],
        "expected {flows} flows, and that their tables were locked as often, got {counted:?}"
    );
    let packets = 2 * 20 * flows;
    for (rcu, locked) in [(1, 0), (0, packets), (1, 0)] {
        setup.set("perf_enable_rcu", rcu)?;
        for _ in 0..20 {
            conversations.iter_mut().try_for_each(|one| one.say())?;
        }
        let counted = since()?;
        ensure!(
            counted == [0, packets, locked],
            "perf_enable_rcu={rcu}: expected {packets} packets and tables locked {locked} times, \
             got {counted:?}"
        );
    }
    drop(conversations);
    drop((servers, context));
    setup.finish()
}

/// While `perf_enable_percpu` is off, what any CPU counts is told as the first one's, and no count is
/// lost by switching.
pub fn shared_counters() -> Result<()> {
    let setup = Setup::with_parameters(&QUIET)?;
    let context = setup.context(&all_rules())?;
    let router = &setup.layout.router;
    let counted = || -> Result<Vec<u64>> {
        let told = monitor::Stats::parse(&read(&open(router)?)?)?;
        let mut lines = told.counters.into_iter();
        let line = lines.find(|counter| counter.name == "packets_reply");
        let by_cpu = line.and_then(|line| line.by_cpu);
        by_cpu.context("packets_reply is not told for each CPU")
    };
    let mut before = counted()?;
    // Flows from CPU 1: what is sent there is received there.
    for (switch, column) in [(1, 1), (0, 0), (1, 1)] {
        setup.set("perf_enable_percpu", switch)?;
        thread::scope(|scope| {
            let sent = scope.spawn(|| placement::stay_on(1).and_then(|()| send_some(&setup)));
            sent.join().expect("no panic in sending")
        })?;
        let now = counted()?;
        let new: Vec<u64> = now
            .iter()
            .zip(&before)
            .map(|(now, before)| now - before)
            .collect();
        let all: u64 = new.iter().sum();
        ensure!(
            all >= 10 && new.get(column) == Some(&all),
            "perf_enable_percpu={switch}: expected all as CPU {column}'s, got {new:?}"
        );
        before = now;
    }
    let stats = context.stats()?;
    let all = before.iter().sum::<u64>();
    ensure!(
        stats.packets_reply == all,
        "the device counts {}, the file {all}",
        stats.packets_reply
    );
    drop(context);
    setup.finish()
}

fn open(namespace: &Namespace) -> Result<File> {
    monitor::open(namespace, STATS)?
        .with_context(|| format!("there is no file in {}", namespace.name()))
}

fn read(mut file: &File) -> std::io::Result<String> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Descriptors outlive the context, and tell of the next one; they outlive the module, but cannot be read any more.
pub fn open_file_outlives() -> Result<()> {
    let setup = Setup::with_parameters(&QUIET)?;
    let router = &setup.layout.router;
    let context = setup.context(&all_rules())?;
    let unread = open(router)?;
    let begun = open(router)?;
    let mut some = [0; 10];
    (&begun)
        .read_exact(&mut some)
        .context("cannot begin to read")?;
    drop(context);
    for (what, file) in [("unread", &unread), ("begun", &begun)] {
        let result = file.read_at(&mut [0; 100], 0);
        ensure!(
            failed_with(&result, Errno::ENOENT),
            "{what} file, with the context closed: expected ENOENT, got {result:?}"
        );
    }
    let context = setup.context(&all_rules())?;
    ensure_told(router, &context.stats()?)?;
    for (what, mut file) in [("unread", &unread), ("begun", &begun)] {
        file.rewind()?;
        let text = read(file).with_context(|| format!("{what} file, with a new context"))?;
        monitor::Stats::parse(&text).with_context(|| format!("{what} file, in {text:?}"))?;
    }
    drop(context);
    setup.finish()?;
    for (what, mut file) in [("unread", &unread), ("begun", &begun)] {
        let result = file.read_at(&mut [0; 100], 0);
        ensure!(
            failed_with(&result, Errno::EIO),
            "{what} file, without the module: expected EIO, got {result:?}"
        );
        let result = file.rewind();
        ensure!(
            result.is_err(),
            "{what} file, without the module: expected no way to rewind"
        );
    }
    Ok(())
}

/// Who reads slowly holds up neither the close of a namespace's last context nor the next one. The reader has begun before the close,
/// and reads on of a table whose flows are gone.
pub fn readers_hold_up_nobody() -> Result<()> {
    const SLOW: Duration = Duration::from_secs(6);
    const BEGUN: Duration = Duration::from_secs(1);
    let windows = format!("0,0,0,0,{}", SLOW.as_millis());
    let setup = Setup::with_parameters(&[("debug_windows", &windows)])?;
    let router = &setup.layout.router;
    let context = setup.context(&all_rules())?;
    send_some(&setup)?;
    let paths = [STATS, "batch", "hash", "pool", "latency"]
        .map(|name| (name, format!("{}/{name}", monitor::DIRECTORY)));
    thread::scope(|scope| -> Result<()> {
        let began = Instant::now();
        let readers = paths.map(|(name, path)| {
            let reader = scope.spawn(move || -> Result<String> {
                router.run(|| Ok(std::fs::read_to_string(path)?))
            });
            (name, reader)
        });
        thread::sleep(BEGUN);
        drop(context);
        let context = setup.context(&all_rules())?;
        drop(context);
        let took = began.elapsed();
        for (name, reader) in readers {
            let text = reader.join().map_err(|_| anyhow!("a reader panicked"))?;
            let text = text.with_context(|| format!("cannot read {name}"))?;
            ensure!(!text.is_empty(), "{name} is empty");
        }
        let read = began.elapsed();
        ensure!(
            read >= SLOW,
            "the readers took {read:?}: nothing held them up"
        );
        ensure!(
            took < SLOW,
            "contexts were closed after {took:?}, while others read for {read:?}"
        );
        Ok(())
    })?;
    setup.finish()
}

/// The end of all namespaces is one thread's work: it must not find a reader who takes their time. An open file keeps its namespace
/// instead, as any file of /proc/net does.
pub fn readers_hold_up_no_end() -> Result<()> {
    const SLOW: Duration = Duration::from_secs(6);
    const BEGUN: Duration = Duration::from_secs(1);
    let windows = format!("0,0,0,0,{}", SLOW.as_millis());
    let parameters = Parameters::from([("debug_windows".to_owned(), windows)]);
    let module = LoadedModule::load(PROXY_MODULE_PATH, &parameters)?;
    let with_link = || -> Result<(Namespace, Namespace)> {
        let (home, dying) = (Namespace::new("home")?, Namespace::new("dying")?);
        RouteSocket::open(&dying)?.add_veth(&ROUTER_CLIENT_LINK, &CLIENT_LINK, &home)?;
        Ok((home, dying))
    };
    let ((read_home, read), (home, dying)) = (with_link()?, with_link()?);
    let context = Context::open(&read)?;
    let path = format!("{}/{STATS}", monitor::DIRECTORY);
    let file = read.run(|| Ok(File::open(path)?))?;
    thread::scope(|scope| -> Result<()> {
        let began = Instant::now();
        let reader = scope.spawn(|| -> Result<usize> { Ok(file.read_at(&mut [0; 100], 0)?) });
        thread::sleep(BEGUN);
        // First the one that is read.
        drop((context, read));
        thread::sleep(BEGUN);
        drop(dying);
        wait_until_alone(&home).context("while a file of another one is read")?;
        let took = began.elapsed();
        let length = reader.join().map_err(|_| anyhow!("the reader panicked"))?;
        ensure!(length? != 0, "the file is empty");
        let read_for = began.elapsed();
        ensure!(
            read_for >= SLOW,
            "the reader took {read_for:?}: nothing held it up"
        );
        ensure!(
            took < SLOW,
            "a namespace ended after {took:?}, while a file of another one was read for {read_for:?}"
        );
        Ok(())
    })?;
    ensure!(
        has_link(&read_home)?,
        "a namespace has ended of which a file is open"
    );
    drop(file);
    wait_until_alone(&read_home).context("with its file closed")?;
    module.unload()
}

fn failed_with<T>(result: &std::io::Result<T>, expected: Errno) -> bool {
    let errno = result.as_ref().err().and_then(std::io::Error::raw_os_error);
    errno == Some(expected as i32)
}

/// Contexts of two threads come and go under readers, who see whole files or none.
pub fn files_come_and_go() -> Result<()> {
    const TURNS: usize = 40;
    const READS: usize = 40;
    let setup = Setup::new()?;
    let router = &setup.layout.router;
    let (stop, turns, reads) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let come_and_go = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let context = Context::open(router)?;
            thread::yield_now();
            drop(context);
            turns.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let look = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let Some(file) = monitor::open(router, STATS)? else {
                thread::yield_now();
                continue;
            };
            match read(&file) {
                Ok(text) => {
                    let told =
                        monitor::Stats::parse(&text).with_context(|| format!("in {text:?}"))?;
                    ensure!(
                        told.counters.len() == Stats::NAMES.len(),
                        "cut short: {text:?}"
                    );
                    reads.fetch_add(1, Ordering::Relaxed);
                }
                result if failed_with(&result, Errno::ENOENT) => {}
                Err(error) => return Err(error).context("cannot read"),
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let tasks = [
            scope.spawn(come_and_go),
            scope.spawn(come_and_go),
            scope.spawn(look),
            scope.spawn(look),
        ];
        let deadline = Instant::now() + Duration::from_secs(60);
        let enough =
            || turns.load(Ordering::Relaxed) >= TURNS && reads.load(Ordering::Relaxed) >= READS;
        while !enough() && Instant::now() < deadline && !tasks.iter().any(|task| task.is_finished())
        {
            thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        ensure!(
            enough(),
            "expected {TURNS} contexts and {READS} files read, got {turns:?} and {reads:?}"
        );
        Ok(())
    })?;
    ensure_files(&setup, [false, false, false])?;
    setup.finish()
}
