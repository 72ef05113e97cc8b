// SPDX-License-Identifier: MIT OR Apache-2.0

//! A context of the proxy, as tests and measurements use it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU8;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use mprox_client::{Client, Commit, Configuration, Group};
use mutex_abi::proxy::{self, Action, Connection, Endpoint, Label, Selection, Stats, Upstream};

use crate::net::namespace::Namespace;
use mutexlab_model::traffic::{Family, Protocol};

/// An open context: its rules hold until it is dropped.
#[derive(Debug)]
pub struct Context {
    // Of which one thread at a time awaits an answer.
    client: Mutex<Client>,
}

impl Context {
    /// Opens a context for `namespace`.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        namespace.run(Self::open_here)
    }

    /// Opens a context for the namespace of the calling thread.
    pub fn open_here() -> Result<Self> {
        let context = Self {
            client: Mutex::new(Client::open()?),
        };
        context.configure(&[])?;
        Ok(context)
    }

    /// Its socket.
    pub fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `rules` in the place of the former ones; their upstreams take turns.
    pub fn configure(&self, rules: &[Rule]) -> Result<(), mprox_client::Error> {
        self.put(&configuration(Selection::RoundRobin, rules))
    }

    /// Puts a configuration in the place of the former one.
    pub fn put(&self, configuration: &Configuration) -> Result<(), mprox_client::Error> {
        let mut client = self.client();
        client.stage(configuration)?;
        client.commit(&Commit::default())?;
        Ok(())
    }

    /// Reads the configuration back.
    pub fn read(&self) -> Result<Configuration, mprox_client::Error> {
        self.client().configuration(None)
    }

    /// Where a connection of TCP was meant to go that `remote` has with `local`.
    pub fn original(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<SocketAddr, mprox_client::Error> {
        let end = |at: SocketAddr| Endpoint {
            address: octets(at.ip()),
            port: at.port(),
        };
        let asked = Connection {
            family: ip_version(local),
            protocol: proxy::Protocol::Tcp,
            local: end(local),
            remote: end(remote),
        };
        let told = self.client().original(&asked)?;
        let [a, b, c, d, ..] = told.local.address;
        let address = match told.family {
            proxy::Family::V4 => Ipv4Addr::new(a, b, c, d).into(),
            proxy::Family::V6 => IpAddr::from(told.local.address),
        };
        Ok((address, told.local.port).into())
    }

    /// The namespace's counters.
    pub fn stats(&self) -> Result<Stats> {
        Ok(self.client().statistics()?)
    }
}

fn ip_version(address: SocketAddr) -> proxy::Family {
    match address {
        SocketAddr::V4(_) => proxy::Family::V4,
        SocketAddr::V6(_) => proxy::Family::V6,
    }
}

/// A rule together with its upstreams, of which [`configuration`] makes a group of the configuration's.
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
            action: if upstreams.is_empty() {
                Action::Direct
            } else {
                Action::Redirect
            },
            ..proxy::Rule::any(abi_family(family))
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
        weight: NonZeroU8::MIN,
        family: ip_version(address),
        priority,
        port: address.port(),
        group: 0,
        address: octets(address.ip()),
    }
}

/// The configuration of `rules` and all upstreams that they name. More of either than a
/// configuration may have are what the module has to refuse.
pub fn configuration(selection: Selection, rules: &[Rule]) -> Configuration {
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
    let member = |group| move |upstream: &Upstream| Upstream { group, ..*upstream };
    let groups = (0..=u8::MAX).cycle().zip(groups);
    Configuration {
        groups: groups
            .map(|(number, upstreams)| Group {
                label: Label::NONE,
                selection,
                upstreams: upstreams.iter().map(member(number)).collect(),
            })
            .collect(),
        sets: Vec::new(),
        rules: records,
    }
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

    #[test]
    fn rules_share_groups() {
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let rules = [(1, 10), (2, 20), (3, 10)]
            .map(|(from, to)| redirect(Protocol::Tcp, address(from), address(to)));
        let configuration = configuration(Selection::Failover, &rules);
        let groups: Vec<_> = configuration
            .groups
            .iter()
            .map(|group| {
                let ports = group.upstreams.iter().map(|one| one.port);
                (group.selection, ports.collect())
            })
            .collect();
        assert_eq!(
            groups,
            [vec![10], vec![20]].map(|ports| (Selection::Failover, ports))
        );
        let of_rules = configuration.rules.iter().map(|rule| rule.group);
        assert_eq!(of_rules.collect::<Vec<_>>(), [0, 1, 0]);
    }
}
