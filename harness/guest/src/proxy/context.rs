// SPDX-License-Identifier: MIT OR Apache-2.0

//! The other end of `/dev/mutex_proxy`.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use mutex_abi::proxy::{
    self, Action, ConfigHeader, Connection, Endpoint, Group, Selection, Stats, Upstream, DEVICE,
    HOOK_LOCAL_OUT, HOOK_PRE_ROUTING, NAME_SIZE,
};

use crate::kernel::device;
use crate::net::namespace::Namespace;
use mutexlab_model::traffic::{Family, Protocol};

/// An open context: its rules hold until it is dropped.
pub struct Context {
    file: File,
}

impl Context {
    /// Opens a context for `namespace`.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        namespace.run(Self::open_here)
    }

    /// Opens a context for the namespace of the calling thread.
    pub fn open_here() -> Result<Self> {
        let file = device::open(DEVICE)?;
        Ok(Self { file })
    }

    /// Puts `rules` in the place of the former ones; their upstreams take turns.
    pub fn configure(&self, rules: &[Rule]) -> io::Result<()> {
        self.write(&encode(Selection::RoundRobin, rules))
    }

    /// Writes a configuration as it is, right or wrong, in one call.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let written = (&self.file).write(bytes)?;
        if written != bytes.len() {
            return Err(io::Error::other(format!(
                "{written} of {} bytes were taken",
                bytes.len()
            )));
        }
        Ok(())
    }

    /// Reads the configuration back.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        device::read(&self.file)
    }

    /// Where a connection of TCP was meant to go that `remote` has with `local`.
    pub fn original(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<SocketAddr> {
        let end = |at: SocketAddr| Endpoint {
            address: match at.ip() {
                IpAddr::V4(address) => {
                    let mut bytes = [0; 16];
                    bytes[..4].copy_from_slice(&address.octets());
                    bytes
                }
                IpAddr::V6(address) => address.octets(),
            },
            port: at.port(),
        };
        let asked = Connection {
            family: if local.is_ipv4() {
                proxy::Family::V4
            } else {
                proxy::Family::V6
            },
            protocol: proxy::Protocol::Tcp,
            local: end(local),
            remote: end(remote),
        };
        let told = device::ask_about(&self.file, proxy::IOC_ORIGINAL, asked.encode())?;
        let told = Connection::decode(&told).ok_or(io::ErrorKind::InvalidData)?;
        let [a, b, c, d, ..] = told.local.address;
        let address = match told.family {
            proxy::Family::V4 => Ipv4Addr::new(a, b, c, d).into(),
            proxy::Family::V6 => IpAddr::from(told.local.address),
        };
        Ok((address, told.local.port).into())
    }

    /// The namespace's counters.
    pub fn stats(&self) -> Result<Stats> {
        let told = || format!("cannot read the counters of {DEVICE}");
        let bytes = match device::ask::<{ Stats::SIZE }>(&self.file, proxy::IOC_STATS) {
            Ok(bytes) => bytes,
            // A module of before there were direct flows.
            Err(_) => {
                let command = proxy::ioc_stats(BEFORE_DIRECT);
                let first = device::ask::<BEFORE_DIRECT>(&self.file, command).with_context(told)?;
                let mut bytes = [0; Stats::SIZE];
                bytes[..BEFORE_DIRECT].copy_from_slice(&first);
                bytes
            }
        };
        Stats::decode(&bytes).context("the counters are cut short")
    }
}

/// How many bytes of counters there were before direct flows were counted.
const BEFORE_DIRECT: usize = Stats::SIZE - 24;

/// A rule together with its upstreams, of which [`encode`] makes a group of the configuration's.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The rule; which group is its own is not said here yet.
    pub record: proxy::Rule,
    /// Its upstreams; none if it lets connections by.
    pub upstreams: Vec<Upstream>,
}

impl Rule {
    /// A rule for everything of an IP version, passing through or the machine's own, over any
    /// protocol, with `upstreams` to send it to, or to let by.
    pub fn any(family: Family, upstreams: &[Upstream]) -> Self {
        let record = proxy::Rule {
            family: abi_family(family),
            protocol: None,
            hooks: HOOK_PRE_ROUTING | HOOK_LOCAL_OUT,
            action: if upstreams.is_empty() {
                Action::Bypass
            } else {
                Action::Redirect
            },
            destination_prefix: 0,
            source_prefix: 0,
            group: 0,
            port_first: 0,
            port_last: u16::MAX,
            destination: [0; 16],
            source: [0; 16],
            interface: [0; NAME_SIZE],
        };
        Self {
            record,
            upstreams: upstreams.to_vec(),
        }
    }

    /// The same of `protocol` only.
    #[must_use]
    pub fn over(mut self, protocol: Protocol) -> Self {
        self.record.protocol = Some(abi_protocol(protocol));
        self
    }

    /// The same of what goes to one address and port only.
    #[must_use]
    pub fn to(mut self, destination: SocketAddr) -> Self {
        self.record.destination = octets(destination.ip());
        self.record.destination_prefix = self.record.family.bits();
        self.ports(destination.port(), destination.port())
    }

    /// The same of what goes to some ports only.
    #[must_use]
    pub fn ports(mut self, first: u16, last: u16) -> Self {
        (self.record.port_first, self.record.port_last) = (first, last);
        self
    }

    /// The same of what goes to one network only.
    #[must_use]
    pub fn towards(mut self, destination: IpAddr, prefix: u8) -> Self {
        self.record.destination = octets(destination);
        self.record.destination_prefix = prefix;
        self
    }

    /// The same of what comes from one network only.
    #[must_use]
    pub fn from(mut self, source: IpAddr, prefix: u8) -> Self {
        self.record.source = octets(source);
        self.record.source_prefix = prefix;
        self
    }

    /// The same of what comes in, or goes out, through one interface only. Panics if no
    /// interface can have such a name.
    #[must_use]
    pub fn through(mut self, interface: &str) -> Self {
        self.record.interface[..interface.len()].copy_from_slice(interface.as_bytes());
        self
    }

    /// The same at the hooks of the set only.
    #[must_use]
    pub fn at(mut self, hooks: u8) -> Self {
        self.record.hooks = hooks;
        self
    }
}

/// A rule that sends what goes to `original` to `upstream`, for packets passing through and the
/// machine's own. Both have the same IP version.
pub fn redirect(protocol: Protocol, original: SocketAddr, upstream: SocketAddr) -> Rule {
    let family = match original {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(_) => Family::V6,
    };
    Rule::any(family, &[self::upstream(upstream, 0)])
        .over(protocol)
        .to(original)
}

/// An upstream; a port of 0 keeps the destination's.
pub fn upstream(address: SocketAddr, priority: u8) -> Upstream {
    Upstream {
        family: match address {
            SocketAddr::V4(_) => proxy::Family::V4,
            SocketAddr::V6(_) => proxy::Family::V6,
        },
        priority,
        port: address.port(),
        group: 0,
        address: octets(address.ip()),
    }
}

/// The configuration of `rules` and all upstreams that they name. More of either than a
/// configuration may have are what the module has to refuse.
pub fn encode(selection: Selection, rules: &[Rule]) -> Vec<u8> {
    let mut groups: Vec<&[Upstream]> = Vec::new();
    let mut records = Vec::new();
    for Rule { record, upstreams } in rules {
        let mut group = 0;
        if !upstreams.is_empty() {
            let known = groups.iter().position(|other| other == upstreams);
            group = known.unwrap_or_else(|| {
                groups.push(upstreams);
                groups.len() - 1
            });
        }
        let group = group as u8;
        records.push(proxy::Rule { group, ..*record });
    }
    let members = (0..).zip(&groups).flat_map(|(group, upstreams)| {
        let upstreams = upstreams.iter();
        upstreams.map(move |upstream| Upstream { group, ..*upstream })
    });
    let members: Vec<Upstream> = members.collect();
    let header = ConfigHeader {
        groups: groups.len() as u16,
        upstreams: members.len() as u16,
        rules: records.len() as u16,
    };
    let mut bytes = header.encode().to_vec();
    let group = Group { selection };
    bytes.extend(groups.iter().flat_map(|_| group.encode()));
    bytes.extend(members.iter().flat_map(Upstream::encode));
    bytes.extend(records.iter().flat_map(proxy::Rule::encode));
    bytes
}

/// The protocol as the modules' interface knows it.
pub fn abi_protocol(protocol: Protocol) -> proxy::Protocol {
    match protocol {
        Protocol::Tcp => proxy::Protocol::Tcp,
        Protocol::Udp => proxy::Protocol::Udp,
    }
}

/// The IP version as the modules' interface knows it.
pub fn abi_family(family: Family) -> proxy::Family {
    match family {
        Family::V4 => proxy::Family::V4,
        Family::V6 => proxy::Family::V6,
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    let mut octets = [0; 16];
    match address {
        IpAddr::V4(address) => octets[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => octets = address.octets(),
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutex_abi::proxy::Config;

    #[test]
    fn rules_share_groups() {
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let rules = [(1, 10), (2, 20), (3, 10)]
            .map(|(from, to)| redirect(Protocol::Tcp, address(from), address(to)));
        let bytes = encode(Selection::Failover, &rules);
        let config = Config::decode(&bytes).unwrap();
        let groups: Vec<_> = config
            .members()
            .map(|(group, members)| (group.selection, members.map(|one| one.port).collect()))
            .collect();
        assert_eq!(
            groups,
            [vec![10], vec![20]].map(|ports| (Selection::Failover, ports))
        );
        let of_rules: Vec<_> = config.rules().map(|rule| rule.group).collect();
        assert_eq!(of_rules, [0, 1, 0]);
    }
}
