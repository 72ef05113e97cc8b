// SPDX-License-Identifier: MIT OR Apache-2.0

//! Contexts: who may have one, what it takes, and what closing it undoes.

use std::io;
use std::net::UdpSocket;

use anyhow::{bail, ensure, Context as _, Result};
use mprox_client::{Configuration, Error};
use mutex_abi::netlink::attribute::{NoRoom, Writer};
use mutex_abi::netlink::message::kind;
use mutex_abi::proxy::{Selection, Stats, MAX_GROUPS, MAX_MEMBERS, MAX_RULES};
use nix::errno::Errno;
use nix::libc;

use super::setup::{all_rules, client_address, original, rule, upstream, wait_for_flows, Setup};
use super::sockets::{self, udp};
use mutexlab_guest::proxy::context::{self, configuration, Context, Rule};
use mutexlab_guest::traffic::payload::Label;
use mutexlab_model::traffic::{Family, Protocol, Way};

const FAMILY: Family = Family::V4;
const LENGTH: usize = 64;

/// A client, and both places where its datagrams can arrive.
struct Peers {
    client: UdpSocket,
    original: UdpSocket,
    upstream: UdpSocket,
    sequence: u32,
}

impl Peers {
    fn new(setup: &Setup) -> Result<Self> {
        let server = &setup.layout.server;
        Ok(Self {
            client: udp(
                setup.client(Way::Forward),
                client_address(Way::Forward, FAMILY),
            )?,
            original: udp(server, original(FAMILY))?,
            upstream: udp(server, upstream(FAMILY))?,
            sequence: 0,
        })
    }

    /// One round trip, which must be redirected or must not.
    fn ensure_redirected(&mut self, redirected: bool) -> Result<()> {
        let label = Label {
            flow: 1,
            sequence: self.sequence,
        };
        self.sequence += 1;
        let server = if redirected {
            &self.upstream
        } else {
            &self.original
        };
        let to = original(FAMILY);
        let seen = sockets::send(&self.client, to, server, label, LENGTH)?;
        sockets::answer(server, seen, &self.client, to, label, LENGTH)
    }
}

/// Configurations that make no sense are refused and change nothing.
pub fn bad_rules_are_refused() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&[rule(Protocol::Udp, FAMILY)])?;
    let before = context.read()?;
    let mut peers = Peers::new(&setup)?;
    peers.ensure_redirected(true)?;
    for (what, staged, item, message) in bad_configurations() {
        let refused = match &staged {
            Staged::Whole(configuration) => context.put(configuration),
            Staged::Attributes(bytes) => context.client().stage_attributes(bytes),
        };
        let Err(Error::Refused(refused)) = refused else {
            bail!("{what}: expected it to be refused, got {refused:?}");
        };
        ensure!(
            [Errno::EINVAL, Errno::ERANGE].contains(&Errno::from_raw(refused.errno))
                && refused.message.as_deref() == Some(message)
                && refused.offset.is_some()
                && (refused.item == item || matches!(staged, Staged::Attributes(_))),
            "{what}: expected {message:?} about {item:?}, got {refused:?}"
        );
        // What was refused is not what is committed next.
        let next = context.client().commit(&mprox_client::Commit::default());
        ensure!(
            next.as_ref().err().and_then(Error::errno) == Some(Errno::ENODATA as i32),
            "{what}: was refused, and then committed: {next:?}"
        );
        ensure!(
            context.read()? == before,
            "{what}: was refused, yet the configuration is another one"
        );
    }
    peers.ensure_redirected(true)?;
    drop(context);
    setup.finish()
}

/// What is sent.
enum Staged {
    /// By the library, in as many messages as it takes.
    Whole(Configuration),
    /// One message's attributes.
    Attributes(Vec<u8>),
}

fn attributes(write: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>) -> Staged {
    let mut bytes = vec![0; 1024];
    let mut writer = Writer::new(&mut bytes);
    let fits = writer.flag(kind::BEGIN).and_then(|()| write(&mut writer));
    let length = writer.written();
    bytes.truncate(if fits.is_ok() { length } else { 0 });
    Staged::Attributes(bytes)
}

/// A bad configuration: what is wrong with it, in which item, and what the kernel says.
type Bad = (
    &'static str,
    Staged,
    Option<mprox_client::Item>,
    &'static str,
);

fn bad_configurations() -> Vec<Bad> {
    use mprox_client::Item::{Group, Rule as OfRule};
    let good = rule(Protocol::Udp, FAMILY);
    let whole = |rules: &[Rule]| Staged::Whole(configuration(Selection::RoundRobin, rules));
    let changed = |change: &dyn Fn(&mut Configuration)| {
        let mut all = configuration(Selection::RoundRobin, std::slice::from_ref(&good));
        change(&mut all);
        Staged::Whole(all)
    };
    let to_port = |port: usize| {
        let mut to = upstream(FAMILY);
        to.set_port(1 + port as u16);
        context::redirect(Protocol::Udp, original(FAMILY), to)
    };
    let many = |count: usize| (0..=count).map(to_port).collect::<Vec<_>>();
    let crowd = Rule {
        upstreams: many(MAX_MEMBERS)
            .into_iter()
            .flat_map(|rule| rule.upstreams)
            .collect(),
        ..good.clone()
    };
    // By the kernel's own tables.
    let by_policy = [
        (
            "unknown attribute",
            attributes(|to| to.flag(99)),
            None,
            "Unknown attribute type",
        ),
        (
            "an attribute of another message",
            attributes(|to| to.u32(kind::GENERATION, 1)),
            None,
            "Unsupported attribute",
        ),
        (
            "a number in the place of a group",
            attributes(|to| to.u32(kind::GROUP, 1)),
            None,
            "NLA_F_NESTED is missing",
        ),
        (
            "unknown selection",
            attributes(|to| to.nest(kind::GROUP, |to| to.u32(1, u32::MAX))),
            None,
            "integer out of range",
        ),
        (
            "unknown action",
            attributes(|to| to.nest(kind::RULE, |to| to.u32(8, u32::MAX))),
            None,
            "integer out of range",
        ),
        (
            "unknown direction",
            attributes(|to| to.nest(kind::RULE, |to| to.u32(3, u32::MAX))),
            None,
            "reserved bit set",
        ),
    ];
    let by_us = [
        (
            "an action is missing",
            attributes(|to| to.nest(kind::RULE, |to| to.u32(1, 4))),
            None,
            "a rule needs an action",
        ),
        (
            "unknown IP version",
            attributes(|to| to.nest(kind::RULE, |to| to.u32(1, 5))),
            None,
            "an IP version is 4 or 6",
        ),
        (
            "too many rules",
            whole(&vec![good.clone(); MAX_RULES + 1]),
            Some(OfRule(MAX_RULES)),
            "there are 4096 rules already",
        ),
        (
            "too many groups",
            whole(&many(MAX_GROUPS)),
            Some(Group(MAX_GROUPS)),
            "there are 256 groups already",
        ),
        (
            "too many upstreams of a group",
            whole(&[crowd]),
            Some(Group(0)),
            "a group has 256 upstreams at most",
        ),
        (
            "no direction",
            changed(&|all| all.rules[0].hooks = 0),
            Some(OfRule(0)),
            "directions are a sum of forwarded (1) and local (2)",
        ),
        (
            "prefix too long",
            changed(&|all| all.rules[0].destination_prefix = 33),
            Some(OfRule(0)),
            "the prefix is longer than the address",
        ),
        (
            "a group that is not there",
            changed(&|all| all.rules[0].group = 1),
            Some(OfRule(0)),
            "the rule's group is not staged, at least not yet",
        ),
        (
            "a name that no interface can have",
            changed(&|all| all.rules[0].interface[..3].copy_from_slice(b"a/b")),
            Some(OfRule(0)),
            "no interface can have this name",
        ),
        (
            "ports in the wrong order",
            whole(&[good.clone().ports(2, 1)]),
            Some(OfRule(0)),
            "the last port is less than the first",
        ),
        (
            "an upstream of the other IP version",
            whole(&[Rule {
                upstreams: vec![context::upstream(upstream(Family::V6), 0)],
                ..good.clone()
            }]),
            Some(OfRule(0)),
            "the rule's group has no upstream of its IP version",
        ),
        (
            "an upstream that is nowhere",
            changed(&|all| all.groups[0].upstreams[0].address = [0; 16]),
            Some(Group(0)),
            "an upstream cannot be at the unspecified address",
        ),
        (
            "a bad rule after a good one",
            whole(&[good.clone(), good.clone().at(0)]),
            Some(OfRule(1)),
            "directions are a sum of forwarded (1) and local (2)",
        ),
    ];
    by_policy.into_iter().chain(by_us).collect()
}

/// What is written is read back, and replaces what was there.
pub fn rules_are_replaced() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&all_rules())?;
    let mut peers = Peers::new(&setup)?;
    for rules in [all_rules(), vec![rule(Protocol::Tcp, FAMILY)], Vec::new()] {
        context.configure(&rules).context("good rules")?;
        let expected = configuration(Selection::RoundRobin, &rules);
        let read = context.read()?;
        ensure!(
            read == expected,
            "expected to read back {expected:?}, got {read:?}"
        );
    }
    // No rule speaks of UDP any more.
    peers.ensure_redirected(false)?;
    drop(context);
    setup.finish()
}

/// Root without CAP_NET_ADMIN may not have a context.
pub fn capability_is_needed() -> Result<()> {
    let setup = Setup::new()?;
    let result = setup.layout.router.run_apart(|| {
        keep_capabilities(|kept| kept & !CAP_NET_ADMIN).context("cannot drop CAP_NET_ADMIN")?;
        Ok(Context::open_here().map(drop))
    })?;
    let error = match result {
        Ok(()) => bail!("expected EPERM without CAP_NET_ADMIN, but a context opened"),
        Err(error) => error,
    };
    let cause = error.downcast_ref::<Error>().and_then(Error::errno);
    ensure!(
        cause == Some(Errno::EPERM as i32),
        "expected EPERM without CAP_NET_ADMIN, got {error:#}"
    );
    setup.finish()
}

/// The same thread with no other capability may: it was that one that was missed.
pub fn capability_is_enough() -> Result<()> {
    let setup = Setup::new()?;
    setup.layout.router.run_apart(|| {
        keep_capabilities(|_| CAP_NET_ADMIN).context("cannot drop the other capabilities")?;
        Context::open_here()
            .map(drop)
            .context("with CAP_NET_ADMIN alone")
    })?;
    setup.finish()
}

/// As a bit of the first 32.
pub const CAP_NET_ADMIN: u32 = 1 << 12;

/// Changes the first 32 effective capabilities of the calling thread, which is about to end, and
/// drops the others.
pub fn keep_capabilities(kept: impl Fn(u32) -> u32) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    // struct __user_cap_header_struct: version, pid (0: the caller).
    let header = [VERSION_3, 0];
    // Two of struct __user_cap_data_struct: effective, permitted, inheritable.
    let mut data = [0_u32; 6];
    // SAFETY: Both arrays have the size and layout that version 3 of the call demands.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    data[0] = kept(data[0]);
    data[3] = 0;
    // SAFETY: As above.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Two contexts have rules of their own, and closing one leaves the other's.
pub fn two_contexts() -> Result<()> {
    let setup = Setup::new()?;
    let mut peers = Peers::new(&setup)?;
    let mut elsewhere = original(FAMILY);
    elsewhere.set_port(9);
    let first = setup.context(&[rule(Protocol::Udp, FAMILY)])?;
    let second = setup.context(&[context::redirect(
        Protocol::Udp,
        elsewhere,
        upstream(FAMILY),
    )])?;
    peers.ensure_redirected(true)?;
    let label = Label {
        flow: 2,
        sequence: 0,
    };
    let second_works = || {
        let seen = sockets::send(&peers.client, elsewhere, &peers.upstream, label, LENGTH)?;
        sockets::answer(
            &peers.upstream,
            seen,
            &peers.client,
            elsewhere,
            label,
            LENGTH,
        )
    };
    second_works().context("second context")?;
    drop(first);
    second_works().context("second context after the first has closed")?;
    peers
        .ensure_redirected(false)
        .context("rule of the first context after it has closed")?;
    drop(second);
    setup.finish()
}

/// Closing a context takes its rules and the flows that they made with it.
pub fn close_removes_flows() -> Result<()> {
    let setup = Setup::new()?;
    let observer = setup.context(&[])?;
    let mut peers = Peers::new(&setup)?;
    let context = setup.context(&[rule(Protocol::Udp, FAMILY)])?;
    peers.ensure_redirected(true)?;
    ensure_flows(&observer.stats()?, 1, 0)?;
    drop(context);
    wait_for_flows(&observer, 0)?;
    ensure_flows(&observer.stats()?, 1, 1)?;
    peers.ensure_redirected(false)?;
    drop(observer);
    setup.finish()
}

/// A flow that is idle is collected; the next packet makes a new one.
pub fn flows_time_out() -> Result<()> {
    let setup = Setup::with_parameters(&[
        ("udp_timeout", "1"),
        ("udp_unreplied_timeout", "1"),
        ("gc_interval", "1"),
    ])?;
    let mut peers = Peers::new(&setup)?;
    let context = setup.context(&[rule(Protocol::Udp, FAMILY)])?;
    for flows in 0..2 {
        peers.ensure_redirected(true)?;
        ensure_flows(&context.stats()?, flows + 1, flows)?;
        wait_for_flows(&context, 0)?;
    }
    drop(context);
    setup.finish()
}

fn ensure_flows(stats: &Stats, created: u64, removed: u64) -> Result<()> {
    ensure!(
        (stats.flows_created, stats.flows_removed) == (created, removed)
            && stats.flows_current == created - removed,
        "expected {created} flows created and {removed} removed, got {stats:?}"
    );
    Ok(())
}
