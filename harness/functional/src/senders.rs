// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules that ask who begins a connection, what its packets are marked with, and which sets it is in.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{ensure, Context as _, Result};
use mprox_client::{Configuration, Set};
use mprox_file::{Machine, System};
use mutex_abi::proxy::{
    set::Element, Condition, Field, Label, Selection, ValueKind, Values, NAME_SIZE,
};
use nix::mount::{mount, umount, MsFlags};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{setfsgid, setfsuid, Gid, Uid};

use super::landing::{ensure_lands, land_as, Landing};
use super::setup::{all_rules, original, Setup, FAMILIES, PROTOCOLS, WAYS};
use super::GuestTest;
use mutexlab_guest::net::layout::ROUTER_CLIENT_LINK;
use mutexlab_guest::proxy::context::{configuration, Context};
use mutexlab_model::traffic::{Protocol, Way};

/// All of this file.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "rule-user",
            "a rule is for connections of its users and groups only, or of all others",
            users,
        ),
        GuestTest::single(
            "rule-control-group",
            "a rule is for connections made in its control group or below it only",
            control_group,
        ),
        GuestTest::single(
            "rule-process",
            "a rule is for connections of its process and those that descend from it, or of its programs, only",
            process,
        ),
        GuestTest::single(
            "rule-mark",
            "a rule is for packets with its mark or its code point only",
            mark,
        ),
        GuestTest::single(
            "rule-set",
            "a rule is for what is in its sets only, or for what is not",
            sets,
        ),
    ]
}

pub(super) fn range(first: u64, last: u64) -> Values {
    Values::Range { first, last }
}

pub(super) fn condition(field: Field, values: Values) -> Condition {
    Condition {
        field,
        not: false,
        mask: u32::MAX,
        values,
    }
}

pub(super) fn not(condition: Condition) -> Condition {
    Condition {
        not: true,
        ..condition
    }
}

/// The rules that redirect everything, with this to be asked for, too.
pub(super) fn redirecting(conditions: &[Condition], sets: &[Set]) -> Result<Configuration> {
    let mut all = configuration(Selection::RoundRobin, &all_rules());
    all.sets = sets.to_vec();
    for rule in &mut all.rules {
        for condition in conditions {
            ensure!(rule.conditions.push(*condition), "too many conditions");
        }
    }
    Ok(all)
}

fn numbers(all: &[(u64, u64)]) -> Set {
    let elements = all
        .iter()
        .map(|&(first, last)| Element::Number([first, last]));
    Set {
        label: Label::NONE,
        kind: ValueKind::Numbers,
        elements: elements.collect(),
    }
}

/// A test's network with a context, whose rules it puts there one after the other.
pub(super) struct Asked {
    // Closed before the module goes, if a test fails.
    pub(super) context: Context,
    pub(super) setup: Setup,
}

impl Asked {
    pub(super) fn new() -> Result<Self> {
        let setup = Setup::new()?;
        let context = setup.context(&[])?;
        Ok(Self { setup, context })
    }

    pub(super) fn put(&self, conditions: &[Condition], sets: &[Set]) -> Result<()> {
        let configuration = redirecting(conditions, sets)?;
        self.context.put(&configuration)?;
        ensure!(
            self.context.read()? == configuration,
            "it is read back as another"
        );
        Ok(())
    }

    /// Where the machine's own connections go.
    fn lands(&self, conditions: &[Condition], expected: Landing) -> Result<()> {
        self.put(conditions, &[])?;
        self.ensure(&[Way::Local], expected)
            .with_context(|| format!("{conditions:?}"))
    }

    pub(super) fn ensure(&self, ways: &[Way], expected: Landing) -> Result<()> {
        ensure_lands(&self.setup, ways, &PROTOCOLS, expected)
    }

    pub(super) fn finish(self) -> Result<()> {
        drop(self.context);
        self.setup.finish()
    }
}

/// This thread opens sockets and files as another user and group until it is dropped.
pub(super) struct As(Uid, Gid);

impl As {
    pub(super) fn new(user: u32, group: u32) -> Self {
        // The group first: who is not root cannot change it.
        let group = setfsgid(Gid::from_raw(group));
        Self(setfsuid(Uid::from_raw(user)), group)
    }
}

impl Drop for As {
    fn drop(&mut self) {
        setfsuid(self.0);
        setfsgid(self.1);
    }
}

fn users() -> Result<()> {
    let asked = Asked::new()?;
    let alice = condition(Field::User, range(1000, 1000));
    let staff = condition(Field::Group, range(50, 59));
    for (user, group, conditions, expected) in [
        (1000, 0, vec![alice], Landing::Upstream),
        (1001, 0, vec![alice], Landing::Original),
        (0, 0, vec![alice], Landing::Original),
        (0, 0, vec![not(alice)], Landing::Upstream),
        (1000, 0, vec![not(alice)], Landing::Original),
        (0, 50, vec![staff], Landing::Upstream),
        (0, 60, vec![staff], Landing::Original),
        (1000, 59, vec![alice, staff], Landing::Upstream),
        (1000, 59, vec![alice, not(staff)], Landing::Original),
    ] {
        asked.put(&conditions, &[])?;
        let become_them = As::new(user, group);
        let landed = asked.ensure(&[Way::Local], expected);
        drop(become_them);
        landed.with_context(|| format!("user {user}, group {group}: {conditions:?}"))?;
    }
    let some = condition(Field::User, Values::Set(0));
    asked.put(&[some], &[numbers(&[(1, 4), (1000, 1000), (2000, 2999)])])?;
    for (user, expected) in [
        (1000, Landing::Upstream),
        (2500, Landing::Upstream),
        (5, Landing::Original),
    ] {
        let become_them = As::new(user, 0);
        let landed = asked.ensure(&[Way::Local], expected);
        drop(become_them);
        landed.with_context(|| format!("user {user} of a set"))?;
    }
    // Of those that pass through nobody knows whose they are, nor that they are not anybody's.
    for unknown in [alice, not(alice), staff, not(staff)] {
        asked.put(&[unknown], &[])?;
        asked.ensure(&[Way::Forward], Landing::Original)?;
    }
    asked.finish()
}

/// Control groups of version 2, until this is dropped; this process is back in the root then.
struct ControlGroups(PathBuf);

impl ControlGroups {
    fn mount(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        mount(
            Some("cgroup2"),
            directory,
            Some("cgroup2"),
            MsFlags::empty(),
            None::<&str>,
        )
        .context("cannot mount cgroup2")?;
        Ok(Self(directory.to_owned()))
    }

    /// Puts this process there.
    fn enter(&self, path: &str) -> Result<()> {
        let directory = self.0.join(path);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("cgroup.procs"), "0")
            .with_context(|| format!("cannot enter {path:?}"))
    }

    fn number(&self, path: &str) -> Result<u64> {
        Ok(fs::metadata(self.0.join(path))?.ino())
    }
}

impl Drop for ControlGroups {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.procs"), "0");
        for path in ["a/b", "a", "c"] {
            let _ = fs::remove_dir(self.0.join(path));
        }
        let _ = umount(&self.0);
    }
}

fn control_group() -> Result<()> {
    let asked = Asked::new()?;
    let groups = ControlGroups::mount(Path::new("/tmp/cgroup"))?;
    groups.enter("c")?;
    groups.enter("a/b")?;
    let of = |path| -> Result<Condition> {
        let number = groups.number(path)?;
        Ok(condition(Field::ControlGroup, range(number, number)))
    };
    let [root, a, b, c] = [of("")?, of("a")?, of("a/b")?, of("c")?];
    for (inside, conditions, expected) in [
        ("a/b", vec![b], Landing::Upstream),
        ("a/b", vec![a], Landing::Upstream),
        ("a/b", vec![root], Landing::Upstream),
        ("a/b", vec![c], Landing::Original),
        ("a/b", vec![not(c)], Landing::Upstream),
        ("a/b", vec![not(a)], Landing::Original),
        ("a", vec![b], Landing::Original),
        ("a", vec![a, not(b)], Landing::Upstream),
        ("c", vec![a], Landing::Original),
        ("", vec![a], Landing::Original),
        ("", vec![root, not(a)], Landing::Upstream),
    ] {
        groups.enter(inside)?;
        asked
            .lands(&conditions, expected)
            .with_context(|| format!("in {inside:?}"))?;
    }
    for unknown in [root, not(a)] {
        asked.put(&[unknown], &[])?;
        asked.ensure(&[Way::Forward], Landing::Original)?;
    }
    drop(groups);
    asked.finish()
}

fn name(text: &str) -> [u8; NAME_SIZE] {
    let mut bytes = [0; NAME_SIZE];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

fn process() -> Result<()> {
    let asked = Asked::new()?;
    let number = |process| Machine.process(process).map_err(anyhow::Error::msg);
    let of = |process| -> Result<Condition> {
        let number = number(process)?;
        Ok(condition(Field::Process, range(number, number)))
    };
    let own = of(std::process::id())?;
    let parent = of(std::os::unix::process::parent_id())?;
    let first = of(1)?;
    let mut child = Command::new("/bin/sh")
        .args(["-c", "read line"])
        .stdin(Stdio::piped())
        .spawn()?;
    let child_is = of(child.id())?;
    let results = [
        (own, Landing::Upstream),
        (not(own), Landing::Original),
        (parent, Landing::Upstream),
        (first, Landing::Upstream),
        (child_is, Landing::Original),
        (not(child_is), Landing::Upstream),
    ]
    .map(|(condition, expected)| asked.lands(&[condition], expected));
    child.kill()?;
    child.wait()?;
    results.into_iter().collect::<Result<()>>()?;
    let comm = fs::read_to_string("/proc/self/comm")?;
    let program = |text: &str| condition(Field::Program, Values::Name(name(text)));
    let own = program(comm.trim_end());
    asked.lands(&[own], Landing::Upstream)?;
    asked.lands(&[not(own)], Landing::Original)?;
    asked.lands(&[program("curl")], Landing::Original)?;
    asked.lands(&[not(program("curl"))], Landing::Upstream)?;
    let names = Set {
        label: Label::NONE,
        kind: ValueKind::Names,
        elements: {
            let mut names = [name(comm.trim_end()), name("curl"), name("wget")];
            names.sort_unstable();
            names.map(Element::Name).to_vec()
        },
    };
    asked.put(&[condition(Field::Program, Values::Set(0))], &[names])?;
    asked.ensure(&[Way::Local], Landing::Upstream)?;
    for unknown in [own, not(program("curl"))] {
        asked.put(&[unknown], &[])?;
        asked.ensure(&[Way::Forward], Landing::Original)?;
    }
    asked.finish()
}

fn mark() -> Result<()> {
    let asked = Asked::new()?;
    let marked = |value: u64, mask| Condition {
        mask,
        ..condition(Field::Mark, range(value, value))
    };
    for (mark, condition, expected) in [
        (0x1234, marked(0x1234, u32::MAX), Landing::Upstream),
        (0x1234, marked(0x1200, 0xff00), Landing::Upstream),
        (0x1234, marked(0x1200, u32::MAX), Landing::Original),
        (0x1234, not(marked(0x1200, 0xff00)), Landing::Original),
        (0, not(marked(0x1200, 0xff00)), Landing::Upstream),
    ] {
        asked.put(&[condition], &[])?;
        for family in FAMILIES {
            let landed = land_as(&asked.setup, Way::Local, family, Protocol::Udp, |socket| {
                Ok(setsockopt(&socket.as_fd(), sockopt::Mark, &mark)?)
            })?;
            ensure!(
                landed == expected,
                "{family:?} {mark:#x} {condition:?}: {landed:?}"
            );
        }
    }
    let point = |first, last| condition(Field::Dscp, range(first, last));
    for (condition, expected) in [
        (point(46, 46), Landing::Upstream),
        (point(40, 47), Landing::Upstream),
        (point(0, 45), Landing::Original),
        (not(point(46, 46)), Landing::Original),
    ] {
        asked.put(&[condition], &[])?;
        // With ECN's bits, which are not the code point's.
        let class = 46 << 2 | 1;
        for (way, family) in WAYS
            .into_iter()
            .flat_map(|way| FAMILIES.map(|family| (way, family)))
        {
            let landed = land_as(&asked.setup, way, family, Protocol::Udp, |socket| {
                match original(family).is_ipv4() {
                    true => setsockopt(&socket.as_fd(), sockopt::Ipv4Tos, &class)?,
                    false => setsockopt(&socket.as_fd(), sockopt::Ipv6TClass, &class)?,
                }
                Ok(())
            })?;
            ensure!(
                landed == expected,
                "{way:?} {family:?} {condition:?}: {landed:?}"
            );
        }
    }
    asked.finish()
}

fn sets() -> Result<()> {
    let asked = Asked::new()?;
    // Many networks, with the original destinations somewhere among them.
    let around = |address: std::net::IpAddr, count: u32| {
        let ranges = (0..count).map(|number| 4 * (i64::from(number) - i64::from(count / 2)));
        match address {
            std::net::IpAddr::V4(four) => ranges
                .map(|distance| {
                    let first = (i64::from(u32::from(four)) + distance) as u32;
                    Element::V4([first, first + 1])
                })
                .collect::<Vec<_>>(),
            std::net::IpAddr::V6(six) => ranges
                .map(|distance| {
                    let first = (u128::from(six) as i128 + i128::from(distance)) as u128;
                    Element::V6([first, first + 1])
                })
                .collect(),
        }
    };
    let of = |count| Set {
        label: Label::NONE,
        kind: ValueKind::Addresses,
        elements: FAMILIES
            .into_iter()
            .flat_map(|family| around(original(family).ip(), count))
            .collect(),
    };
    let ports = numbers(&[
        (1, 5),
        (u64::from(original(FAMILIES[0]).port()), 8),
        (9000, 9999),
    ]);
    let to = condition(Field::Destination, Values::Set(0));
    let port = condition(Field::DestinationPort, Values::Set(1));
    for count in [1, 5, 6000] {
        let all = [of(count), ports.clone()];
        for (conditions, expected) in [
            (vec![to], Landing::Upstream),
            (vec![not(to)], Landing::Original),
            (vec![to, port], Landing::Upstream),
            (vec![to, not(port)], Landing::Original),
            (
                vec![condition(Field::Source, Values::Set(0))],
                Landing::Original,
            ),
        ] {
            asked.put(&conditions, &all)?;
            asked
                .ensure(&WAYS, expected)
                .with_context(|| format!("{count}: {conditions:?}"))?;
        }
    }
    let interfaces = Set {
        label: Label::new(b"links").context("a label")?,
        kind: ValueKind::Names,
        elements: {
            let mut names = [name(ROUTER_CLIENT_LINK.name), name("other0")];
            names.sort_unstable();
            names.map(Element::Name).to_vec()
        },
    };
    let through = condition(Field::Interface, Values::Set(0));
    asked.put(&[through], std::slice::from_ref(&interfaces))?;
    asked.ensure(&[Way::Forward], Landing::Upstream)?;
    asked.ensure(&[Way::Local], Landing::Original)?;
    asked.put(&[not(through)], &[interfaces])?;
    asked.ensure(&[Way::Forward], Landing::Original)?;
    asked.ensure(&[Way::Local], Landing::Upstream)?;
    asked.finish()
}
