// SPDX-License-Identifier: MIT OR Apache-2.0

//! The flows of an exchange of packets: which addresses and ports they have, and which of them is
//! next. Both follow from a flow's number, so that nothing has to be kept for each.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use super::placement::Homes;
use super::popularity::Picks;
use mutexlab_model::limits::{MAX_FLOWS, MAX_FURTHER_FLOWS, MAX_OTHER_FLOWS};
use mutexlab_model::traffic::{Family, Popularity, Traffic, Way};
use mutexlab_protocol::addresses::{
    Host, CLIENT, CLIENT_PORT, CROWD_MEMBERS_MAX, ROUTER_SERVER_SIDE, UNMEASURED_PORT, WIRE_CLIENT,
};

/// From how many first packets a median is taken: some of them refill a slab or grow a table.
const FURTHER: RangeInclusive<u32> = 31..=MAX_FURTHER_FLOWS;
/// On each CPU, where they are spread: the first of them is for what a CPU has to fetch memory for.
const FURTHER_PER_CPU: u32 = 4;
/// How many ports each client of the crowd uses.
const PORTS_EACH: u32 = 1_024;
const _: () = assert!((MAX_FLOWS + MAX_OTHER_FLOWS) / PORTS_EACH < CROWD_MEMBERS_MAX);

/// Flows with one destination, numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flows {
    family: Family,
    clients: Clients,
    count: u32,
    homes: Homes,
    popularity: Popularity,
}

/// Where flows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clients {
    /// One machine, with a port for each flow from this one on.
    One(Host, u16),
    /// The crowd, from its flow of this number on.
    Crowd(u32),
}

impl Flows {
    /// Those that are measured, without those that take the place of others meanwhile.
    pub fn measured(traffic: &Traffic) -> Self {
        Self {
            family: traffic.family,
            clients: if is_single(traffic) {
                Clients::One(host(traffic), CLIENT_PORT)
            } else {
                Clients::Crowd(0)
            },
            count: traffic.flows,
            homes: Homes::of(traffic),
            popularity: traffic.popularity,
        }
    }

    /// Those that are measured, and those that take the place of others meanwhile.
    pub fn in_all(traffic: &Traffic) -> Self {
        Self {
            count: traffic.flows_in_all(),
            ..Self::measured(traffic)
        }
    }

    /// One that goes before them.
    pub fn rehearsal(traffic: &Traffic) -> Self {
        Self {
            family: traffic.family,
            clients: Clients::One(host(traffic), UNMEASURED_PORT),
            count: 1,
            homes: Homes::ONE,
            popularity: Popularity::Uniform,
        }
    }

    /// Those whose first packets are measured, while the others are there: as many, but at least
    /// 31, or four on each of the CPUs over which they are spread, and at most 1,000.
    pub fn further(traffic: &Traffic) -> Self {
        Self {
            family: traffic.family,
            clients: if is_single(traffic) {
                Clients::One(host(traffic), UNMEASURED_PORT + 1)
            } else {
                Clients::Crowd(traffic.flows_in_all())
            },
            count: traffic
                .flows
                .max(traffic.spread.map_or(0, NonZeroU32::get) * FURTHER_PER_CPU)
                .clamp(*FURTHER.start(), *FURTHER.end()),
            homes: Homes::of(traffic),
            popularity: Popularity::Uniform,
        }
    }

    /// How many there are.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether they come from the crowd.
    pub const fn are_of_the_crowd(&self) -> bool {
        matches!(self.clients, Clients::Crowd(_))
    }

    /// Address and port of a flow's client.
    pub fn client(&self, flow: u32) -> SocketAddr {
        match self.clients {
            Clients::One(host, first) => host.socket(self.family, first + flow as u16),
            Clients::Crowd(first) => {
                let number = first + flow;
                let address = Host::crowd(self.family, number / PORTS_EACH);
                (address, CLIENT_PORT + (number % PORTS_EACH) as u16).into()
            }
        }
    }

    /// The flow with this client; `None` if it is none of them.
    pub fn of(&self, client: SocketAddr) -> Option<u32> {
        let port = client.port();
        let flow = match self.clients {
            Clients::One(host, first) => {
                let from_host = client.ip() == host.address(self.family);
                u32::from(port.checked_sub(first).filter(|_| from_host)?)
            }
            Clients::Crowd(first) => {
                let member = self.member(client.ip())?;
                let port = u32::from(port.checked_sub(CLIENT_PORT)?);
                let number = (port < PORTS_EACH).then(|| member * PORTS_EACH + port)?;
                number.checked_sub(first)?
            }
        };
        (flow < self.count).then_some(flow)
    }

    fn member(&self, address: IpAddr) -> Option<u32> {
        let member = Host::crowd_member(address)?;
        // It may be of the other IP version.
        (Host::crowd(self.family, member) == address).then_some(member)
    }

    /// The ports of all clients.
    pub fn ports(&self) -> RangeInclusive<u16> {
        match self.clients {
            Clients::One(_, first) => first..=first + (self.count - 1) as u16,
            Clients::Crowd(_) => CLIENT_PORT..=CLIENT_PORT + (PORTS_EACH - 1) as u16,
        }
    }

    /// The CPUs that their packets are for.
    pub const fn homes(&self) -> Homes {
        self.homes
    }

    /// Flows as packets are of them, for ever, and always in the same order; those of the CPUs in turn,
    /// if they are spread.
    pub fn picks(&self) -> impl Iterator<Item = u32> + Clone {
        let cpus = self.homes.spread().map_or(1, NonZeroU32::get);
        let among_a_cpus = Picks::new(self.popularity, self.count.div_ceil(cpus));
        (0..cpus)
            .cycle()
            .zip(among_a_cpus)
            .map(move |(cpu, pick)| pick * cpus + cpu)
    }

    /// All of them, a CPU's one after another.
    pub fn by_cpu(&self) -> impl Iterator<Item = u32> {
        let (cpus, count) = (self.homes.spread().map_or(1, NonZeroU32::get), self.count);
        (0..cpus).flat_map(move |cpu| (cpu..count).step_by(cpus as usize))
    }
}

/// Whether its one flow is of the net's only machine. Where flows are spread over CPUs, one must not
/// be unlike several.
fn is_single(traffic: &Traffic) -> bool {
    traffic.flows_in_all() == 1 && traffic.spread.is_none()
}

/// The machine that a single flow comes from.
fn host(traffic: &Traffic) -> Host {
    match traffic.way {
        Way::Forward if traffic.has_stack_client() => CLIENT,
        Way::Forward => WIRE_CLIENT,
        Way::Local => ROUTER_SERVER_SIDE,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use mutexlab_model::traffic::Steering;
    use proptest::prelude::*;

    fn traffic(way: Way, family: Family, flows: u32) -> Traffic {
        Traffic {
            way,
            family,
            flows,
            ..Traffic::USUAL
        }
    }

    fn family() -> impl Strategy<Value = Family> {
        prop_oneof![Just(Family::V4), Just(Family::V6)]
    }

    proptest! {
        #[test]
        fn a_client_leads_back_to_its_flow(family in family(), count in 2..=MAX_FLOWS, flow: u32) {
            let traffic = traffic(Way::Forward, family, count);
            for flows in [Flows::measured(&traffic), Flows::further(&traffic)] {
                let flow = flow % flows.count();
                let client = flows.client(flow);
                prop_assert_eq!(flows.of(client), Some(flow));
                prop_assert!(flows.ports().contains(&client.port()));
                prop_assert_eq!(client.is_ipv4(), family == Family::V4);
            }
        }

        #[test]
        fn no_stranger_is_a_client(address: [u8; 4], port: u16, count in 2..=MAX_FLOWS) {
            let flows = Flows::measured(&traffic(Way::Forward, Family::V4, count));
            let stranger = SocketAddr::from((address, port));
            if let Some(flow) = flows.of(stranger) {
                prop_assert_eq!(flows.client(flow), stranger);
            }
        }
    }

    #[test]
    fn flows_are_distinct_and_end_where_they_should() {
        for family in [Family::V4, Family::V6] {
            let traffic = traffic(Way::Forward, family, 5_000);
            let (measured, further) = (Flows::measured(&traffic), Flows::further(&traffic));
            let clients: BTreeSet<SocketAddr> = [measured, further]
                .iter()
                .flat_map(|flows| (0..flows.count()).map(|flow| flows.client(flow)))
                .collect();
            assert_eq!(clients.len(), 6_000);
            // Neither has those of the other.
            assert_eq!(measured.of(further.client(0)), None);
            assert_eq!(further.of(measured.client(4_999)), None);
            let addresses: BTreeSet<_> = clients.iter().map(SocketAddr::ip).collect();
            assert_eq!(addresses.len(), 6);
        }
    }

    #[test]
    fn neighbours_of_the_crowd_are_not_in_it() {
        for family in [Family::V4, Family::V6] {
            let flows = Flows::measured(&traffic(Way::Forward, family, 2_000));
            let first = flows.client(0);
            for (member, port) in [
                (0, CLIENT_PORT - 1),
                (0, CLIENT_PORT + PORTS_EACH as u16),
                // 2,000 flows are one client's ports and 976 of the next one's.
                (1, CLIENT_PORT + 976),
                (2, CLIENT_PORT),
                (CROWD_MEMBERS_MAX, CLIENT_PORT),
            ] {
                let address = Host::crowd(family, member);
                assert_eq!(flows.of((address, port).into()), None, "{address} {port}");
            }
            assert_eq!(flows.of(first), Some(0));
            let host = WIRE_CLIENT.socket(family, CLIENT_PORT);
            assert_eq!(flows.of(host), None);
        }
    }

    #[test]
    fn packets_of_spread_flows_go_round_the_cpus() {
        let cpus = NonZeroU32::new(4).unwrap();
        for per_cpu in [1, 5] {
            let traffic = Traffic {
                flows: per_cpu * 4,
                spread: Some(cpus),
                steering: Steering::Symmetric,
                ..traffic(Way::Forward, Family::V4, 1)
            };
            let flows = Flows::measured(&traffic);
            assert!(flows.are_of_the_crowd());
            let picks: Vec<u32> = flows.picks().take(400).collect();
            assert!(picks
                .iter()
                .enumerate()
                .all(|(at, pick)| pick % 4 == at as u32 % 4));
            let picked: BTreeSet<u32> = picks.into_iter().collect();
            assert!(picked.into_iter().eq(0..per_cpu * 4));
            let mut all: Vec<u32> = flows.by_cpu().collect();
            assert!(all.is_sorted_by_key(|flow| flow % 4));
            all.sort_unstable();
            assert!(all.into_iter().eq(0..per_cpu * 4));
        }
        // Also on one CPU, so that machines differ in nothing but their CPUs.
        let alone = Traffic {
            spread: NonZeroU32::new(1),
            ..traffic(Way::Forward, Family::V4, 1)
        };
        assert!(Flows::measured(&alone).are_of_the_crowd());
        assert!(Flows::further(&alone).are_of_the_crowd());
    }

    #[test]
    fn a_single_flow_is_the_host_s() {
        for way in [Way::Forward, Way::Local] {
            let traffic = traffic(way, Family::V4, 1);
            let (flows, further) = (Flows::measured(&traffic), Flows::further(&traffic));
            assert!(!flows.are_of_the_crowd());
            assert_eq!(
                flows.client(0),
                host(&traffic).socket(Family::V4, CLIENT_PORT)
            );
            assert_eq!(flows.of(flows.client(0)), Some(0));
            assert_eq!(flows.ports(), CLIENT_PORT..=CLIENT_PORT);
            // The median of an odd number of packets is one of theirs.
            assert_eq!(further.count(), 31);
            assert_eq!(further.of(further.client(30)), Some(30));
            let rehearsal = Flows::rehearsal(&traffic).client(0);
            for others in [flows, further] {
                assert_eq!(others.of(rehearsal), None);
            }
            assert_eq!(flows.of(further.client(0)), None);
        }
    }
}
