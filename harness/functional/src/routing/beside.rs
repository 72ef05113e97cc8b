// SPDX-License-Identifier: MIT OR Apache-2.0

//! Redirected packets that pass what else a kernel has: VLANs, tunnels, VRFs, bridges whose packets
//! netfilter sees, IPsec, and zones of connection tracking.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};

use super::super::conversation::Servers;
use super::super::redirector::Redirector;
use super::super::setup::original;
use super::super::GuestTest;
use super::by_family;
use super::fate::{Outcome, Trace};
use super::lab::{beside_nft, each, Datagram, Lab, Redirect, FIRST_PORT};
use super::places::frame_from;
use super::policy::{answer, send, FIRST};
use mutexlab_guest::net::iproute2;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{
    Host, CLIENT, NEIGHBOUR, ORIGINAL, ROUTER_CLIENT_SIDE, ROUTER_SERVER_SIDE, UPSTREAM,
};

/// Datagrams, each answered.
const ROUNDS: usize = 5;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    let mut tests = by_family(
        "beside-vlan",
        "connections that come in by a VLAN are redirected, as with nft",
        |family| over(family, "vlan", |_, _| "type vlan id 10".to_owned()),
    );
    tests.extend(by_family(
        "beside-vxlan",
        "connections that come in by VXLAN are redirected, as with nft",
        |family| over(family, "vxlan", vxlan),
    ));
    tests.extend(by_family(
        "beside-vrf",
        "connections within a VRF are redirected, as with nft",
        vrf,
    ));
    tests.extend(by_family(
        "beside-bridge",
        "connections that come in by a bridge whose packets netfilter sees are redirected, as with nft",
        bridge,
    ));
    tests.extend(by_family(
        "beside-ipsec",
        "connections that come in by an IPsec tunnel are redirected, as with nft",
        ipsec,
    ));
    tests.extend(by_family(
        "beside-zones",
        "connections to which the raw table gave a zone pass a firewall with state, as with nft",
        zones,
    ));
    // Long, since where it fails it takes the guest and the tests behind it along.
    let last = GuestTest::single(
        "beside-segment-routing",
        "packets that come out of segment routing to a next hop pass the module",
        segment_routing,
    );
    tests.push(last.long());
    tests.into_iter().map(GuestTest::on_debug).collect()
}

/// Sends datagrams, and has them answered, when `prepare` has put something in their way.
fn beside(family: Family, prepare: impl Fn(&mut Lab, &Datagram) -> Result<()>) -> Result<()> {
    beside_nft(
        family,
        &[Redirect::usual(family)],
        |lab, trace| {
            let datagram = Datagram::of(Way::Forward, 0);
            prepare(lab, &datagram)?;
            // What devices say when they come up is not of the test.
            let none = lab.label(datagram.flow);
            lab.seen_of(none)?;
            rounds(lab, trace, &datagram)
        },
        |trace| trace.ensure(&[FIRST, Outcome::Answered].repeat(ROUNDS)),
    )
}

fn rounds(lab: &mut Lab, trace: &mut Trace, datagram: &Datagram) -> Result<()> {
    for _ in 0..ROUNDS {
        send(lab, trace, datagram, 1)?;
        answer(lab, trace, datagram)?;
    }
    Ok(())
}

const fn prefix(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

/// Addresses of a net that lies upon another.
fn upper(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, 10, number).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 10, 0, 0, 0, 0, number.into()).into(),
    }
}

fn vxlan(own: IpAddr, other: IpAddr) -> String {
    format!("type vxlan id 10 local {own} remote {other} dstport 4789")
}

/// Connections from an address upon the client's link: `device` tells by the addresses below, its own
/// and the other end's, what device that is upon.
fn over(family: Family, name: &str, device: impl Fn(IpAddr, IpAddr) -> String) -> Result<()> {
    beside(family, |lab, datagram| {
        let prefix = prefix(family);
        let (client, router) = (CLIENT.address(family), ROUTER_CLIENT_SIDE.address(family));
        for (on_router, link, below, number) in [
            (true, "clients", (router, client), 1),
            (false, "lan", (client, router), 2),
        ] {
            let script = format!(
                "link add link {link} name {name} {}\nlink set {name} up\naddr add {}/{prefix} dev {name} nodad\n",
                device(below.0, below.1),
                upper(family, number)
            );
            // `nodad` is of IPv6 only.
            let script = match family {
                Family::V4 => script.replace(" nodad", ""),
                Family::V6 => script,
            };
            let namespace = if on_router {
                &lab.layout().router
            } else {
                &lab.layout().client
            };
            iproute2::run(namespace, family, &script)?;
        }
        let way = format!(
            "rule add from {} lookup 60\nroute add default via {} dev {name} table 60\n",
            upper(family, 2),
            upper(family, 1)
        );
        iproute2::run(&lab.layout().client, family, &way)?;
        let from = SocketAddr::new(upper(family, 2), FIRST_PORT + datagram.flow);
        lab.client_at(datagram.way, datagram.flow, from).map(drop)
    })
}

/// Tells the router who its neighbours are on a device that came up anew: without link-local addresses
/// it cannot ask.
fn neighbours(family: Family, device: &str, hosts: &[Host]) -> String {
    let entry = |host: &Host| {
        let (address, mac) = (host.address(family), mac_of(*host));
        format!("neigh replace {address} lladdr {mac} dev {device} nud permanent\n")
    };
    hosts.iter().map(entry).collect()
}

fn vrf(family: Family) -> Result<()> {
    beside(family, |lab, _| {
        lab.ip("link add red type vrf table 20\nlink set red up\n\
             link set clients master red\nlink set servers master red\n")?;
        if family == Family::V6 {
            // They went when the links got a master.
            let prefix = prefix(family);
            lab.ip(&format!(
                "addr add {}/{prefix} dev clients nodad\naddr add {}/{prefix} dev servers nodad\n",
                ROUTER_CLIENT_SIDE.address(family),
                ROUTER_SERVER_SIDE.address(family)
            ))?;
        }
        lab.ip(&neighbours(family, "clients", &[CLIENT, NEIGHBOUR]))?;
        lab.ip(&neighbours(family, "servers", &[UPSTREAM, ORIGINAL]))?;
        lab.warm_up().context("nothing passes the VRF")
    })
}

fn bridge(family: Family) -> Result<()> {
    beside(family, |lab, _| put_into_bridge(lab))
}

/// Makes the clients' link a port of a bridge whose packets netfilter sees.
pub fn put_into_bridge(lab: &mut Lab) -> Result<()> {
    let (family, own) = (lab.family(), ROUTER_CLIENT_SIDE);
    let nodad = match family {
        Family::V4 => "",
        Family::V6 => " nodad",
    };
    let prefix = prefix(family);
    lab.ip(&format!(
        "link add bridge address {mac} type bridge\naddr del {address}/{prefix} dev clients\n\
         link set clients master bridge\nlink set bridge up\n\
         addr add {address}/{prefix} dev bridge{nodad}\n",
        mac = mac_of(own),
        address = own.address(family)
    ))?;
    let variable = match family {
        Family::V4 => "bridge/bridge-nf-call-iptables",
        Family::V6 => "bridge/bridge-nf-call-ip6tables",
    };
    lab.layout().router.set_sysctl(variable, "1")?;
    lab.ip(&neighbours(family, "bridge", &[CLIENT, NEIGHBOUR]))?;
    lab.warm_up().context("nothing passes the bridge")
}

fn ipsec(family: Family) -> Result<()> {
    beside(family, |lab, _| {
        let (client, router) = (CLIENT.address(family), ROUTER_CLIENT_SIDE.address(family));
        // Netfilter's NAT has a packet checked as what it was, and the module as what it has become.
        let servers = match family {
            Family::V4 => "198.51.100.0/24",
            Family::V6 => "2001:db8:2::/64",
        };
        let algorithms = "auth digest_null \"\" enc cipher_null \"\"";
        let states = format!(
            "xfrm state add src {client} dst {router} proto esp spi 0x101 reqid 1 mode tunnel {algorithms}\n\
             xfrm state add src {router} dst {client} proto esp spi 0x102 reqid 1 mode tunnel {algorithms}\n"
        );
        let policy = |direction, from: &str, to: &str, outer_from, outer_to| {
            format!(
                "xfrm policy add src {from} dst {to} dir {direction} \
                 tmpl src {outer_from} dst {outer_to} proto esp reqid 1 mode tunnel\n"
            )
        };
        let one = client.to_string();
        let at_client = policy("out", &one, servers, client, router)
            + &policy("in", servers, &one, router, client);
        let at_router = policy("fwd", &one, servers, client, router)
            + &policy("out", servers, &one, router, client);
        iproute2::run(&lab.layout().client, family, &(states.clone() + &at_client))?;
        lab.ip(&(states + &at_router))
    })
}

/// Gives what comes in a zone before the module sees it, and lets nothing pass that connection tracking
/// does not understand.
const ZONES: &str = "
table inet zones {
    chain incoming {
        type filter hook prerouting priority raw;
        ct zone set 7
    }
    chain own {
        type filter hook output priority raw;
        ct zone set 7
    }
    chain passing {
        type filter hook forward priority filter;
        ct state invalid drop
    }
}
";

fn zones(family: Family) -> Result<()> {
    each(
        [Protocol::Tcp, Protocol::Udp],
        |protocol| format!("{protocol:?}"),
        |&protocol| {
            beside_nft(
                family,
                &[Redirect::usual(family)],
                |lab, trace| {
                    lab.nft(ZONES)?;
                    if protocol == Protocol::Udp {
                        return rounds(lab, trace, &Datagram::of(Way::Forward, 0));
                    }
                    lab.stop_serving();
                    let servers = Servers::new(lab.layout(), family)?;
                    let mut conversation = servers.converse(protocol, Way::Forward)?;
                    (0..ROUNDS).try_for_each(|_| conversation.say())
                },
                |trace| match protocol {
                    // What the conversation itself does not find wrong is right.
                    Protocol::Tcp => Ok(()),
                    Protocol::Udp => trace.ensure(&[FIRST, Outcome::Answered].repeat(ROUNDS)),
                },
            )
        },
    )
}

/// Where the router takes packets out of segment routing (End.DX4, RFC 8986).
const SEGMENT: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 1);

/// A frame whose packet of IPv4 is carried to [`SEGMENT`].
fn carried(frame: &[u8]) -> Result<Vec<u8>> {
    const ETHERNET: usize = 14;
    const IPV4_IN_IPV6: u8 = 4;
    const HOPS: u8 = 64;
    let (ethernet, packet) = frame.split_at(ETHERNET);
    let mut outer = vec![0x60, 0, 0, 0];
    outer.extend(u16::try_from(packet.len())?.to_be_bytes());
    outer.extend([IPV4_IN_IPV6, HOPS]);
    let IpAddr::V6(from) = CLIENT.address(Family::V6) else {
        anyhow::bail!("an address of another IP version");
    };
    outer.extend(from.octets());
    outer.extend(SEGMENT.octets());
    let ether_type = 0x86dd_u16.to_be_bytes();
    let addresses = &ethernet[..ETHERNET - ether_type.len()];
    Ok([addresses, &ether_type, &outer, packet].concat())
}

/// Under the module alone: nft's NAT takes the route away that the kernel's End.DX4 reads behind it, and the
/// kernel panics.
fn segment_routing() -> Result<()> {
    let family = Family::V4;
    let mut lab = Lab::new(Redirector::Module, family, &[Redirect::usual(family)])?;
    let router = &lab.layout().router;
    // Only then does netfilter see what is inside.
    router.set_sysctl("netfilter/nf_hooks_lwtunnel", "1")?;
    for scope in ["all", "clients"] {
        router.set_sysctl(&format!("ipv6/conf/{scope}/seg6_enabled"), "1")?;
    }
    let next = original(family).ip();
    let route =
        format!("route add {SEGMENT} encap seg6local action End.DX4 nh4 {next} dev servers\n");
    iproute2::run(router, Family::V6, &route)?;
    let mut trace = Trace::default();
    for _ in 0..ROUNDS {
        let label = lab.label(0);
        let frame = carried(&frame_from(CLIENT, original(family), label)?)?;
        trace.saw("carried", lab.send_frame(&frame, label)?);
    }
    lab.finish()?;
    trace.ensure(&[FIRST; ROUNDS])
}
