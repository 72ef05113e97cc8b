// SPDX-License-Identifier: MIT OR Apache-2.0

//! `/dev/mutex_proxy`: who may open it, what it takes, and what closing it undoes.

use std::io;
use std::net::UdpSocket;

use anyhow::{bail, ensure, Context as _, Result};
use mutex_abi::proxy::{
    Config, ConfigHeader, Group, Selection, Stats, Upstream, MAX_GROUPS, MAX_MEMBERS, MAX_RULES,
    MAX_UPSTREAMS,
};
use nix::errno::Errno;
use nix::libc;

use super::setup::{all_rules, client_address, original, rule, upstream, wait_for_flows, Setup};
use super::sockets::{self, udp};
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::context::{encode, Context, Rule};
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
    let before = context
        .read()
        .context("cannot read the configuration back")?;
    let mut peers = Peers::new(&setup)?;
    peers.ensure_redirected(true)?;
    for (what, bytes) in bad_configurations() {
        let expected = if bytes.len() > Config::size(MAX_GROUPS, MAX_UPSTREAMS, MAX_RULES) {
            Errno::E2BIG
        } else {
            Errno::EINVAL
        };
        match context.write(&bytes) {
            Err(error) if error.raw_os_error() == Some(expected as i32) => {}
            other => bail!("{what}: expected {expected}, got {other:?}"),
        }
        ensure!(
            context.read()? == before,
            "{what}: was refused, yet the configuration is another one"
        );
    }
    peers.ensure_redirected(true)?;
    drop(context);
    setup.finish()
}

fn bad_configurations() -> Vec<(&'static str, Vec<u8>)> {
    let good = rule(Protocol::Udp, FAMILY);
    let configuration = |rules: &[Rule]| encode(Selection::RoundRobin, rules);
    let with = |at: usize, value: u8| {
        let mut bytes = configuration(std::slice::from_ref(&good));
        bytes[at] = value;
        bytes
    };
    let in_group = |at: usize| ConfigHeader::SIZE + at;
    let in_upstream = |at: usize| in_group(Group::SIZE) + at;
    let in_rule = |at: usize| in_upstream(Upstream::SIZE) + at;
    let mut short = with(0, b'M');
    short.pop();
    let mut long = with(0, b'M');
    long.push(0);
    let to_port = |port: usize| {
        let mut to = upstream(FAMILY);
        to.set_port(1 + port as u16);
        context::redirect(Protocol::Udp, original(FAMILY), to)
    };
    let many = |count: usize| {
        let rules = (0..=count).map(to_port);
        rules.collect::<Vec<_>>()
    };
    let crowd = Rule {
        upstreams: many(MAX_MEMBERS)
            .into_iter()
            .flat_map(|rule| rule.upstreams)
            .collect(),
        ..good.clone()
    };
    let mut let_by = with(in_rule(3), 2);
    let_by[in_rule(6)] = 1;
    vec![
        ("one byte", vec![0]),
        ("a byte too few", short),
        ("a byte too many", long),
        ("wrong magic", with(0, 0)),
        ("unknown version", with(4, 0xff)),
        (
            "too many rules",
            configuration(&vec![good.clone(); MAX_RULES + 1]),
        ),
        ("too many groups", configuration(&many(MAX_GROUPS))),
        ("too many upstreams of a group", configuration(&[crowd])),
        ("reserved bytes of the header set", with(12, 1)),
        ("unknown selection", with(in_group(0), 3)),
        ("reserved bytes of a group set", with(in_group(1), 1)),
        ("unknown IP version of an upstream", with(in_upstream(0), 5)),
        (
            "an upstream's group that is not there",
            with(in_upstream(4), 1),
        ),
        ("reserved bytes of an upstream set", with(in_upstream(5), 1)),
        ("unknown IP version", with(in_rule(0), 5)),
        ("unknown protocol", with(in_rule(1), 1)),
        ("no hook", with(in_rule(2), 0)),
        ("unknown hook", with(in_rule(2), 0x80)),
        ("unknown action", with(in_rule(3), 3)),
        ("prefix too long", with(in_rule(4), 33)),
        ("prefix of the source too long", with(in_rule(5), 33)),
        ("a group that is not there", with(in_rule(6), 1)),
        ("a bypass with a group", let_by),
        ("reserved bytes set", with(in_rule(12), 1)),
        ("bytes after an interface's name", with(in_rule(63), 1)),
        (
            "ports in the wrong order",
            configuration(&[good.clone().ports(2, 1)]),
        ),
        (
            "an upstream of the other IP version",
            configuration(&[Rule {
                upstreams: vec![context::upstream(upstream(Family::V6), 0)],
                ..good.clone()
            }]),
        ),
        (
            "a bad rule after a good one",
            configuration(&[good.clone(), good.at(0)]),
        ),
    ]
}

/// What is written is read back, and replaces what was there.
pub fn rules_are_replaced() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&all_rules())?;
    let mut peers = Peers::new(&setup)?;
    for rules in [all_rules(), vec![rule(Protocol::Tcp, FAMILY)], Vec::new()] {
        context.configure(&rules).context("good rules")?;
        let expected = encode(Selection::RoundRobin, &rules);
        let read = context.read()?;
        ensure!(
            read == expected,
            "expected to read back the {} bytes written, got {} others",
            expected.len(),
            read.len()
        );
    }
    // No rule speaks of UDP any more.
    peers.ensure_redirected(false)?;
    drop(context);
    setup.finish()
}

/// Root without CAP_NET_ADMIN may not open the device.
pub fn capability_is_needed() -> Result<()> {
    let setup = Setup::new()?;
    let result = setup.layout.router.run_apart(|| {
        keep_capabilities(|kept| kept & !CAP_NET_ADMIN).context("cannot drop CAP_NET_ADMIN")?;
        Ok(Context::open_here().map(drop))
    })?;
    let error = match result {
        Ok(()) => bail!("expected EPERM without CAP_NET_ADMIN, but the device opened"),
        Err(error) => error,
    };
    let cause = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error);
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
