// SPDX-License-Identifier: MIT OR Apache-2.0

//! The module comes and goes without a trace.

use std::fs;
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context as _, Result};
use nix::errno::Errno;

use super::faults::begin_flows_from;
use super::setup::{
    all_rules, client_address, network, original, sized, upstream, Setup, FAMILIES,
};
use super::sockets::{accept, connect, listen, udp};
use mutexlab_guest::fault::{mount_debugfs, DEBUGFS};
use mutexlab_guest::kernel::module::{LoadedModule, Parameters};
use mutexlab_guest::proxy::context::Context;
use mutexlab_model::traffic::{Family, Way};
use mutexlab_protocol::PROXY_MODULE_PATH;

/// How often the module is unloaded under traffic: on a plain kernel, on a debug kernel, where each
/// time takes more than a second.
const UNLOADS: (u32, u32) = (50, 20);
/// Packets after which it is busy.
const BUSY: u64 = 50;

/// Loads and unloads, with and without a context in between.
pub fn load_and_unload() -> Result<()> {
    for turn in 0..10 {
        let setup = Setup::new().with_context(|| format!("turn {turn}"))?;
        if turn % 2 == 0 {
            drop(setup.context(&all_rules())?);
        }
        setup.finish().with_context(|| format!("turn {turn}"))?;
    }
    Ok(())
}

/// A module that is there is not loaded again, and one with an open context stays.
pub fn unload_is_refused() -> Result<()> {
    let layout = network()?;
    let mut module = LoadedModule::load(PROXY_MODULE_PATH, &Parameters::new())?;
    let again = LoadedModule::load(PROXY_MODULE_PATH, &Parameters::new());
    let cause = again.err().and_then(|error| error.downcast().ok());
    ensure!(
        cause == Some(Errno::EEXIST),
        "expected EEXIST when the module is loaded twice, got {cause:?}"
    );
    let context = Context::open(&layout.router)?;
    let refused = module.try_unload();
    ensure!(
        refused == Err(Errno::EWOULDBLOCK),
        "expected EWOULDBLOCK while a context is open, got {refused:?}"
    );
    context
        .configure(&all_rules())
        .context("after the module was to be unloaded")?;
    drop(context);
    module.unload()?;
    layout.tear_down()
}

/// Closes the context and unloads the module in the middle of traffic of both protocols.
pub fn unload_under_traffic() -> Result<()> {
    let unloads = sized(UNLOADS.0, UNLOADS.1)?;
    let layout = network()?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Whatever happens, the traffic must end, or the scope never does.
        let _stop = StopOnDrop(&stop);
        for family in FAMILIES {
            let client = udp(&layout.client, client_address(Way::Forward, family))?;
            client.connect(original(family)).context("cannot connect")?;
            let servers = [original(family), upstream(family)]
                .into_iter()
                .map(|address| udp(&layout.server, address))
                .collect::<Result<Vec<_>>>()?;
            let stop = &stop;
            scope.spawn(move || ping(&client, &servers, stop));
        }
        let from = client_address(Way::Forward, Family::V4);
        let redirected = listen(&layout.server, upstream(Family::V4))?;
        let direct = listen(&layout.server, original(Family::V4))?;
        for turn in 0..unloads {
            let module = LoadedModule::load(PROXY_MODULE_PATH, &Parameters::new())?;
            let context = Context::open(&layout.router)?;
            context.configure(&all_rules()).context("good rules")?;
            let client = connect(&layout.client, from, original(Family::V4))?;
            let (accepted, _) = accept(&redirected)?;
            let broken = AtomicBool::new(false);
            thread::scope(|turns| {
                let _broken = StopOnDrop(&broken);
                turns.spawn(|| flood(&client, &accepted, &broken));
                wait_until_busy(&context)?;
                drop(context);
                module.unload()
            })
            .with_context(|| format!("turn {turn}"))?;
        }
        // Without the module, connections arrive where they were meant to.
        let _client = connect(&layout.client, from, original(Family::V4))?;
        accept(&direct).map(drop)
    })?;
    layout.tear_down()
}

/// Waits until flows of both protocols pass packets; how soon depends on the machine.
fn wait_until_busy(context: &Context) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let stats = context.stats()?;
        if stats.packets_original > BUSY && stats.flows_current >= 3 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "expected at least three busy flows, got {stats:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends datagrams and answers those that arrive, wherever they do; losses are expected.
fn ping(client: &UdpSocket, servers: &[UdpSocket], stop: &AtomicBool) {
    let mut buffer = [0; 256];
    for server in servers.iter().chain([client]) {
        let _ = server.set_nonblocking(true);
    }
    while !stop.load(Ordering::Relaxed) {
        let _ = client.send(&[0; 100]);
        for server in servers {
            while let Ok((length, from)) = server.recv_from(&mut buffer) {
                let _ = server.send_to(&buffer[..length], from);
            }
        }
        while client.recv(&mut buffer).is_ok() {}
        // A sleep would last for a whole tick of the kernel's.
        thread::yield_now();
    }
}

/// Keeps a connection busy until it breaks, which it does when the module goes.
fn flood(client: &TcpStream, server: &TcpStream, stop: &AtomicBool) {
    use std::io::{Read, Write};
    let mut buffer = [0; 8192];
    for stream in [client, server] {
        let _ = stream.set_nonblocking(true);
    }
    let (mut client, mut server) = (client, server);
    while !stop.load(Ordering::Relaxed) {
        let _ = client.write(&buffer);
        let _ = server.read(&mut buffer);
        thread::yield_now();
    }
}

/// The module goes at once, or a moment later, when its last context has closed: while memory of
/// flows is being reclaimed, which on a debug kernel lasts until well after it said it was done.
pub fn unload_at_once() -> Result<()> {
    const FLOWS: u16 = 100;
    // So that one turn at least unloads in that time, however long grace periods take.
    const STEP: Duration = Duration::from_millis(250);
    let (turns, windows) = sized((30, None), (12, Some("0,1500,0")))?;
    let parameters: Parameters = windows
        .map(|windows| ("debug_windows".to_owned(), windows.to_owned()))
        .into_iter()
        .collect();
    let layout = network()?;
    for turn in 0..turns {
        let module = LoadedModule::load(PROXY_MODULE_PATH, &parameters)?;
        let context = Context::open(&layout.router)?;
        context.configure(&all_rules()).context("good rules")?;
        for family in FAMILIES {
            begin_flows_from(&layout.client, family, 10_000..10_000 + FLOWS)?;
        }
        let stats = context.stats()?;
        ensure!(
            stats.flows_created == 2 * u64::from(FLOWS),
            "turn {turn}: expected {FLOWS} flows of each IP version, got {stats:?}"
        );
        drop(context);
        if windows.is_some() {
            thread::sleep(turn * STEP);
        }
        module.unload().with_context(|| format!("turn {turn}"))?;
    }
    layout.tear_down()
}

/// Where nothing is left to be waited for when the context closes, since the flows have expired, the work that has
/// reclaimed their memory has just said that it is done. It sleeps for a while before it returns through the module.
pub fn unload_after_expiry() -> Result<()> {
    const FLOWS: u16 = 10;
    const TURNS: u32 = 8;
    // So that most turns unload while the work sleeps, however long the grace period before takes.
    const STEP: Duration = Duration::from_millis(150);
    const EXPIRED: Duration = Duration::from_secs(20);
    let parameters: Parameters = [
        ("debug_windows", "0,1500,0"),
        ("udp_unreplied_timeout", "1"),
        ("udp_transient_timeout", "1"),
        ("gc_interval", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let layout = network()?;
    for turn in 0..TURNS {
        let module = LoadedModule::load(PROXY_MODULE_PATH, &parameters)?;
        let context = Context::open(&layout.router)?;
        context.configure(&all_rules()).context("good rules")?;
        begin_flows_from(&layout.client, Family::V4, 10_000..10_000 + FLOWS)?;
        let deadline = Instant::now() + EXPIRED;
        while context.stats()?.flows_current > 0 {
            ensure!(
                Instant::now() < deadline,
                "turn {turn}: flows do not expire"
            );
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(turn * STEP);
        drop(context);
        module.unload().with_context(|| format!("turn {turn}"))?;
    }
    // Whatever was still to return has returned by then.
    thread::sleep(2 * Duration::from_millis(1500));
    layout.tear_down()
}

/// The kernel says once in its log that a work queue should not be used any more.
pub fn no_deprecated_queue() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&all_rules())?;
    for family in FAMILIES {
        begin_flows_from(&setup.layout.client, family, 10_000..10_010)?;
    }
    drop(context);
    // Waits until the memory of those flows was reclaimed, by work.
    setup.finish()?;
    let log = klogctl_all()?;
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("deprecated workqueue"))
        .collect();
    ensure!(
        !told.iter().any(|line| line.contains("mutex_")),
        "the kernel does not want this work queue to be used: {told:?}"
    );
    Ok(())
}

/// What the kernel has logged since it booted, as far as it kept it.
fn klogctl_all() -> Result<String> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let path = "/dev/kmsg";
    let mut file = fs::File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .with_context(|| format!("cannot open {path}"))?;
    let (mut all, mut record) = (String::new(), [0; 8192]);
    loop {
        match file.read(&mut record) {
            Ok(length) => all.push_str(&String::from_utf8_lossy(&record[..length])),
            // A record was overwritten before it was read: the next read gives the one after it.
            Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => return Ok(all),
            Err(error) => return Err(error).with_context(|| format!("cannot read {path}")),
        }
    }
}

/// Two scans find no memory that nobody refers to.
pub fn no_leaks() -> Result<()> {
    mount_debugfs()?;
    let path = Path::new(DEBUGFS).join("kmemleak");
    let scan = || {
        fs::write(&path, "scan").with_context(|| {
            format!(
                "cannot scan by {}; the kernel needs CONFIG_DEBUG_KMEMLEAK",
                path.display()
            )
        })
    };
    scan()?;
    // A block is not reported until it is five seconds old and two scans agree.
    thread::sleep(Duration::from_secs(6));
    scan()?;
    let report =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if report.trim().is_empty() {
        return Ok(());
    }
    Err(anyhow!("the kernel leaks memory:\n{report}"))
}
