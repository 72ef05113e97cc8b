// SPDX-License-Identifier: MIT OR Apache-2.0

//! Groups of upstreams.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU8;

use mprox_client::Group;
use mutex_abi::proxy::{Selection, Upstream, MAX_MEMBERS};
use toml_mistake::{Mistake, Place};

use crate::networks::parts;
use crate::rules::{key, label, mistake};
use crate::text::{SelectText, UpstreamsText};

/// What the kernel is told of a group.
pub(crate) fn group(
    at: &[Place],
    number: u8,
    name: &str,
    text: &UpstreamsText,
) -> Result<Group, Mistake> {
    let servers = [at, &[key("servers")]].concat();
    if text.servers.is_empty() {
        return Err(mistake(&servers, "there is no server"));
    }
    if text.servers.len() > MAX_MEMBERS {
        let message = format!("there are more than {MAX_MEMBERS} servers");
        return Err(mistake(&servers, message));
    }
    let weights = weights(at, text)?;
    let upstream = |(place, server): (usize, &crate::text::ServerText)| {
        let read = crate::groups::server(&server.0);
        let read = read.map_err(|message| mistake(&servers, message).element(place))?;
        Ok(Upstream {
            // Of a group by failover the first is preferred.
            priority: u8::try_from(place).unwrap_or(u8::MAX),
            weight: weights.get(place).copied().unwrap_or(NonZeroU8::MIN),
            group: number,
            ..read
        })
    };
    let upstreams = text.servers.iter().enumerate().map(upstream);
    Ok(Group {
        label: label(at, name)?,
        selection: match text.select {
            SelectText::RoundRobin => Selection::RoundRobin,
            SelectText::Failover => Selection::Failover,
            SelectText::Random => Selection::Random,
            SelectText::SourceHash => Selection::SourceHash,
        },
        upstreams: upstreams.collect::<Result<_, _>>()?,
    })
}

/// What the file says of them: nothing, or one for each server.
fn weights(at: &[Place], text: &UpstreamsText) -> Result<Vec<NonZeroU8>, Mistake> {
    let Some(weights) = &text.weights else {
        return Ok(Vec::new());
    };
    let at = [at, &[key("weights")]].concat();
    if matches!(text.select, SelectText::Failover) {
        let message = "by failover the first server gets all connections: leave the weights out";
        return Err(mistake(&at, message));
    }
    if weights.len() != text.servers.len() {
        let (weights, servers) = (weights.len(), text.servers.len());
        let message = format!("there are {weights} weights for {servers} servers: one for each");
        return Err(mistake(&at, message));
    }
    let weight = |(place, &weight): (usize, &u8)| {
        let message = "a weight is from 1 to 255: leave out a server that is to get nothing";
        NonZeroU8::new(weight).ok_or_else(|| mistake(&at, message).element(place))
    };
    weights.iter().enumerate().map(weight).collect()
}

/// An upstream from `192.0.2.1:80`, `[2001:db8::1]:80`, or an address alone, which keeps the destination's port.
///
/// # Errors
/// What is wrong with it.
pub fn server(text: &str) -> Result<Upstream, String> {
    let (address, port) = server_place(text)?;
    let (family, address) = parts(address);
    Ok(Upstream {
        family,
        priority: 0,
        weight: NonZeroU8::MIN,
        port,
        group: 0,
        address,
    })
}

/// Reads `192.0.2.1:80`, `[2001:db8::1]:80`, or an address alone.
fn server_place(text: &str) -> Result<(IpAddr, u16), String> {
    let (address, port) = if let Ok(place) = text.parse::<SocketAddr>() {
        if text.contains('%') {
            return Err(format!(
                "`{text}` names a link by `%`, and the kernel is not told of links: take an address that needs none"
            ));
        }
        if place.port() == 0 {
            return Err("port 0: leave the port out to keep the one that the client wanted".into());
        }
        (place.ip(), place.port())
    } else if let Ok(address) = bare(text).parse::<IpAddr>() {
        (address, 0)
    } else {
        return Err(format!(
            "`{text}` is no address with a port, such as 192.0.2.1:8080 or [2001:db8::1]:8080"
        ));
    };
    match address {
        _ if address.is_unspecified() => Err(format!("nobody is at {address}")),
        _ if address.is_multicast() => Err(format!("{address} is a group's, and no server's")),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Err(format!("{address} is everybody's, and no server's")),
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => {
            Err(format!("say {} by itself: no packet has {address}", address.to_canonical()))
        }
        IpAddr::V6(six) if six.is_unicast_link_local() => Err(format!(
            "{address} is an address on some link, and the kernel is not told on which: take another address of the server"
        )),
        _ => Ok((address, port)),
    }
}

// An address without its brackets, if it has both.
fn bare(text: &str) -> &str {
    let within = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    within
        .filter(|address| address.contains(':'))
        .unwrap_or(text)
}
