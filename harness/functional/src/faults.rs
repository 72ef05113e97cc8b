// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory that is not to be had: the kernel's fault injection fails allocations on purpose.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context as _, Result};
use mprox_client::{Client, Commit};
use mutex_abi::proxy::Selection;
use nix::errno::Errno;

use super::conversation::{of_every_sort, Servers};
use super::setup::{all_rules, original, upstream, Setup, FAMILIES};
use super::sockets::udp;
use super::GuestTest;
use mutexlab_guest::fault::{mount_debugfs, DEBUGFS};
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::CLIENT_LINK;
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::proxy::context::configuration;
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_model::traffic::Family;
use mutexlab_protocol::addresses::{ROUTER_CLIENT_SIDE, WIRE_CLIENT};
use mutexlab_wire::frame::{Header, Hop, Transport};

/// Flows that are begun without memory for half of them.
const FLOWS: u16 = 2_000;
/// How many allocations of pages fail: a slab cache asks for several, and then for one.
const PAGES_PERCENT: u8 = 75;
/// More allocations than opening and configuring a context makes.
const MOST_ALLOCATIONS: u32 = 500;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    [
        GuestTest::single(
            "no-memory-for-flows",
            "flows for which there is no memory are dropped and counted, and the next ones work",
            flows_without_memory,
        ),
        GuestTest::single(
            "no-pages-for-flows",
            "flows begin or are dropped, and share no memory, when the allocator runs dry half way",
            flows_without_pages,
        ),
        GuestTest::single(
            "no-memory-anywhere",
            "packets pass or not, but nothing breaks, when allocations fail everywhere",
            packets_without_memory,
        ),
        GuestTest::single(
            "no-memory-for-context",
            "opening and configuring a context fails cleanly at each of its allocations",
            contexts_without_memory,
        ),
        GuestTest::single(
            "no-memory-for-close",
            "closing a context takes its rules and flows away, whichever of its allocations fails",
            closes_without_memory,
        ),
    ]
    .map(GuestTest::on_debug)
    .into()
}

/// Allocations fail until this is dropped, of the sort that a directory of debugfs is about.
struct Failing(&'static str);

const SLABS: &str = "failslab";

impl Failing {
    /// Of allocations from slabs that must not wait, `percent` fail: all of them, or those from caches whose
    /// own `failslab` is set.
    fn slabs(percent: u8, chosen_caches_only: bool) -> Result<Self> {
        let filter = if chosen_caches_only { "Y" } else { "N" };
        Self::new(SLABS, percent, ("cache-filter", filter))
    }

    /// Of allocations of whole pages that must not wait, `percent` fail: so a slab cache has what is left of its
    /// last page, and then no more. Those that may wait are processes' own, which would only be slow.
    fn pages(percent: u8) -> Result<Self> {
        Self::new("fail_page_alloc", percent, ("min-order", "0"))
    }

    fn new(sort: &'static str, percent: u8, own: (&str, &str)) -> Result<Self> {
        mount_debugfs()?;
        let failing = Self(sort);
        for (name, value) in [
            ("ignore-gfp-wait", "Y"),
            own,
            ("task-filter", "N"),
            ("interval", "1"),
            ("times", "-1"),
            ("space", "0"),
            // A stack for each failure is for those who look for a bug.
            ("verbose", "0"),
            ("probability", &percent.to_string()),
        ] {
            set(sort, name, value)?;
        }
        Ok(failing)
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        let _ = set(self.0, "probability", "0");
        let _ = set(self.0, "ignore-gfp-wait", "Y");
    }
}

/// Sets a value of a sort's.
fn set(sort: &str, name: &str, value: &str) -> Result<()> {
    let path = Path::new(DEBUGFS).join(sort).join(name);
    fs::write(&path, value).with_context(|| {
        format!(
            "cannot write {}; the kernel needs CONFIG_{}",
            path.display(),
            sort.to_uppercase()
        )
    })
}

/// The module's own caches, which are there while it is loaded.
fn module_caches() -> Result<Vec<PathBuf>> {
    let directory = "/sys/kernel/slab";
    let mut caches = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {directory}"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("mutex_") {
            caches.push(entry.path());
        }
    }
    ensure!(
        !caches.is_empty(),
        "no cache in {directory} is called mutex_…: where are the module's flows?"
    );
    Ok(caches)
}

/// Sends the first packet of each of `ports` from the client.
fn begin_flows(setup: &Setup, family: Family, ports: std::ops::Range<u16>) -> Result<()> {
    begin_flows_from(&setup.layout.client, family, ports)
}

/// The same, for who has but the client's namespace.
pub(super) fn begin_flows_from(
    client: &Namespace,
    family: Family,
    ports: std::ops::Range<u16>,
) -> Result<()> {
    let hop = Hop {
        source: mac_of(WIRE_CLIENT),
        destination: mac_of(ROUTER_CLIENT_SIDE),
    };
    let mut channel = Channel::open(client, &CLIENT_LINK, family)?;
    for port in ports {
        let header = Header {
            source: WIRE_CLIENT.socket(family, port),
            destination: original(family),
            transport: Transport::Udp,
        };
        // The packet socket itself may get no memory.
        let sent = channel.send(hop, &header, &[0; 64]);
        if let Err(error) = sent {
            let cause = error.downcast_ref::<std::io::Error>();
            let errno = cause.and_then(std::io::Error::raw_os_error);
            if !matches!(
                errno.map(Errno::from_raw),
                Some(Errno::ENOBUFS | Errno::ENOMEM)
            ) {
                return Err(error);
            }
        }
    }
    Ok(())
}

fn flows_without_memory() -> Result<()> {
    let setup = Setup::new()?;
    for cache in module_caches()? {
        let path = cache.join("failslab");
        fs::write(&path, "1").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let failing = || Failing::slabs(50, true);
    begin_while(setup, failing, |created, dropped| {
        ensure!(
            created + dropped == u64::from(FLOWS),
            "{created} of {FLOWS} flows were made and {dropped} dropped, the rest got lost"
        );
        // A module that keeps memory in reserve may drop far fewer than half.
        ensure!(dropped > 0, "no allocation failed");
        Ok(())
    })
}

fn flows_without_pages() -> Result<()> {
    let failing = || Failing::pages(PAGES_PERCENT);
    begin_while(Setup::new()?, failing, |created, dropped| {
        // Some packets may get no memory before they come to the module.
        ensure!(
            created + dropped <= u64::from(FLOWS) && created > 0 && dropped > 0,
            "of {FLOWS} flows {created} were made and {dropped} dropped"
        );
        Ok(())
    })
}

/// Begins flows while allocations fail, of which `judge` gets how many were made and how many dropped; and then the
/// same again, when those that were dropped must be made.
fn begin_while(
    setup: Setup,
    failing: impl Fn() -> Result<Failing>,
    judge: impl Fn(u64, u64) -> Result<()>,
) -> Result<()> {
    let context = setup.context(&all_rules())?;
    // Takes what the server would complain of.
    let sinks = FAMILIES
        .into_iter()
        .map(|family| udp(&setup.layout.server, upstream(family)))
        .collect::<Result<Vec<_>>>()?;
    for family in FAMILIES {
        let before = context.stats()?;
        let failing = failing()?;
        begin_flows(&setup, family, 10_000..10_000 + FLOWS)?;
        drop(failing);
        let after = context.stats()?;
        let created = after.flows_created - before.flows_created;
        let dropped = after.dropped_no_memory - before.dropped_no_memory;
        judge(created, dropped).with_context(|| format!("{family:?}: {after:?}"))?;
        // Whoever has memory that is another's, too, is found by its own packet now, or not.
        begin_flows(&setup, family, 10_000..10_000 + FLOWS)?;
        let healed = context.stats()?;
        // The stack, too, may have had no memory for a first packet: its flow has gone, and was made again.
        let created = healed.flows_created - before.flows_created;
        let gone = healed.flows_removed - before.flows_removed;
        ensure!(
            created - gone == u64::from(FLOWS)
                && healed.flows_current - before.flows_current == u64::from(FLOWS)
                && healed.dropped_no_memory == after.dropped_no_memory,
            "{family:?}: expected the other flows to be made, got {healed:?}"
        );
    }
    drop(sinks);
    let servers = Servers::of_both(&setup.layout)?;
    of_every_sort(&servers)?;
    drop((servers, context));
    setup.finish()
}

fn packets_without_memory() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&all_rules())?;
    let servers = Servers::of_both(&setup.layout)?;
    let mut beside = of_every_sort(&servers)?;
    let failing = Failing::slabs(20, false)?;
    for family in FAMILIES {
        begin_flows(&setup, family, 10_000..10_000 + FLOWS)?;
    }
    drop(failing);
    for conversation in &mut beside {
        conversation
            .say()
            .context("a connection from before the faults")?;
    }
    of_every_sort(&servers).context("afterwards")?;
    let stats = context.stats()?;
    ensure!(
        stats.flows_created > u64::from(FLOWS) / 2,
        "hardly anything passed: {stats:?}"
    );
    drop(beside);
    drop((servers, context));
    setup.finish()
}

/// What came of one attempt.
enum Attempt {
    /// It was over before the allocation that was to fail.
    Untouched,
    /// The allocation failed, and it went without.
    Survived,
    /// The allocation failed, and it said so.
    Refused,
}

fn contexts_without_memory() -> Result<()> {
    mount_debugfs()?;
    let setup = Setup::new()?;
    // Allocations of the context's sort may wait.
    let _back = Failing(SLABS);
    set(SLABS, "ignore-gfp-wait", "N")?;
    set(SLABS, "cache-filter", "N")?;
    let mut refused = 0;
    for nth in 1.. {
        ensure!(
            nth < MOST_ALLOCATIONS,
            "the allocations of a context do not end"
        );
        let attempt = setup.layout.router.run_apart(|| {
            let fault = FailNth::of_this_thread()?;
            let mut client = Client::open()?;
            let everything = configuration(Selection::RoundRobin, &all_rules());
            fault.arm(nth)?;
            let result = client
                .stage(&everything)
                .and_then(|()| client.commit(&Commit::default()));
            // Closing it again is part of the attempt.
            drop(client);
            let left = fault.left()?;
            fault.arm(0)?;
            match result {
                Ok(_) if left > 0 => Ok(Attempt::Untouched),
                Ok(_) => Ok(Attempt::Survived),
                Err(error) if left > 0 => Err(error).context("without a fault"),
                Err(error) => {
                    let errno = error.errno();
                    // Netlink itself says the second.
                    ensure!(
                        [Errno::ENOMEM, Errno::ENOBUFS]
                            .map(|one| Some(one as i32))
                            .contains(&errno),
                        "expected ENOMEM or ENOBUFS, got {error}"
                    );
                    Ok(Attempt::Refused)
                }
            }
        });
        match attempt.with_context(|| format!("allocation {nth} fails"))? {
            Attempt::Untouched => break,
            Attempt::Survived => {}
            Attempt::Refused => refused += 1,
        }
    }
    ensure!(refused > 1, "no allocation of a context's failed");
    let context = setup.context(&all_rules())?;
    let servers = Servers::of_both(&setup.layout)?;
    of_every_sort(&servers).context("afterwards")?;
    drop((servers, context));
    setup.finish()
}

/// The context is not its namespace's last: then the rules of the others are put together anew.
fn closes_without_memory() -> Result<()> {
    const FEW: u16 = 20;
    mount_debugfs()?;
    let setup = Setup::new()?;
    let observer = setup.context(&[])?;
    let other = setup.context(&all_rules()[..1])?;
    // Allocations of the close's sort may wait.
    let _back = Failing(SLABS);
    set(SLABS, "ignore-gfp-wait", "N")?;
    set(SLABS, "cache-filter", "N")?;
    let begin = |first: u16| {
        FAMILIES
            .into_iter()
            .try_for_each(|family| begin_flows(&setup, family, first..first + FEW))
    };
    let mut failed = 0;
    for nth in 1.. {
        ensure!(
            nth < MOST_ALLOCATIONS,
            "the allocations of a close do not end"
        );
        let what = || format!("allocation {nth} fails");
        let context = setup.context(&all_rules()[1..])?;
        begin(10_000).with_context(what)?;
        let before = observer.stats()?;
        ensure!(
            before.flows_current > 0,
            "{}: no flow began: {before:?}",
            what()
        );
        let fault = FailNth::of_this_thread()?;
        fault.arm(nth)?;
        drop(context);
        let left = fault.left()?;
        fault.arm(0)?;
        let closed = observer.stats()?;
        ensure!(
            closed.flows_current <= closed.flows_direct,
            "{}: flows are left: {closed:?}",
            what()
        );
        begin(20_000).with_context(what)?;
        let after = observer.stats()?;
        ensure!(
            after.flows_created - after.flows_direct == closed.flows_created - closed.flows_direct,
            "{}: rules still hold: {after:?}",
            what()
        );
        if left > 0 {
            break;
        }
        failed += 1;
    }
    ensure!(failed > 0, "no allocation of a close's failed");
    drop((other, observer));
    setup.finish()
}

/// Which of a thread's allocations fails.
struct FailNth {
    // Kept open: to open it would count.
    file: File,
}

impl FailNth {
    const PATH: &str = "/proc/thread-self/fail-nth";

    fn of_this_thread() -> Result<Self> {
        mount_debugfs()?;
        set(SLABS, "verbose", "0")?;
        let file = File::options()
            .read(true)
            .write(true)
            .open(Self::PATH)
            .with_context(|| {
                format!(
                    "cannot open {}; the kernel needs CONFIG_FAULT_INJECTION",
                    Self::PATH
                )
            })?;
        Ok(Self { file })
    }

    /// Has the `nth` allocation from now on fail; 0: none.
    fn arm(&self, nth: u32) -> Result<()> {
        self.file
            .write_all_at(nth.to_string().as_bytes(), 0)
            .with_context(|| format!("cannot write {}", Self::PATH))
    }

    /// How many allocations are left before that one; 0: it has failed.
    fn left(&self) -> Result<u32> {
        let mut bytes = [0; 16];
        let length = self
            .file
            .read_at(&mut bytes, 0)
            .with_context(|| format!("cannot read {}", Self::PATH))?;
        let text = std::str::from_utf8(&bytes[..length])?.trim();
        text.parse()
            .with_context(|| format!("{} is no number: {text:?}", Self::PATH))
    }
}
