// SPDX-License-Identifier: MIT OR Apache-2.0

//! What kind of packets the router's devices deliver.

use anyhow::{bail, ensure, Result};

use super::rig::{rehearse, REHEARSAL};
use crate::net::layout::mac_of;
use crate::net::layout::{
    Layout, CLIENT_LINK, ROUTER_CLIENT_LINK, ROUTER_SERVER_LINK, SERVER_LINK,
};
use crate::net::offload;
use crate::net::offload::Offload;
use crate::traffic::channel::Channel;
use crate::traffic::target::{Stop, Target};
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::{Checksum, Cloned, Traffic, Way};
use mutexlab_protocol::addresses::{ROUTER_CLIENT_SIDE, ROUTER_SERVER_SIDE};

/// Sets the devices up for packets of the kind that `traffic` has.
pub fn prepare(layout: &Layout, traffic: &Traffic) -> Result<()> {
    // Else the stack would leave its checksums to a device that there is not, and who does not ask what is known
    // of a packet could not tell a wrong one from an unfinished one.
    match (traffic.way, traffic.cloned, traffic.checksum) {
        (Way::Local, _, Checksum::None) => {
            offload::set(
                &layout.router,
                &ROUTER_SERVER_LINK,
                Offload::TxChecksum,
                false,
            )?;
        }
        (Way::Forward, Cloned::Payload, Checksum::None | Checksum::Unnecessary) => {
            offload::set(&layout.client, &CLIENT_LINK, Offload::TxChecksum, false)?;
        }
        _ => {}
    }
    if traffic.checksum == Checksum::Unnecessary {
        // GRO verifies checksums and marks packets as a device does that verified them (__skb_incr_checksum_unnecessary()).
        // veth leaves it out where the other end sends whole trains of segments by itself
        // (veth_skb_is_eligible_for_gro()). Neither tun nor packet sockets take VIRTIO_NET_HDR_F_DATA_VALID from
        // user space.
        let mut links = vec![(&layout.server, &SERVER_LINK, &ROUTER_SERVER_LINK)];
        if traffic.way == Way::Forward {
            links.push((&layout.client, &CLIENT_LINK, &ROUTER_CLIENT_LINK));
        }
        for (namespace, far, near) in links {
            offload::set(namespace, far, Offload::Tso, false)?;
            offload::set(&layout.router, near, Offload::Gro, true)?;
        }
    }
    Ok(())
}

/// Fails unless packets reach the router with the checksum status that `traffic` says, in both directions;
/// no subject may be up.
pub fn ensure_status(layout: &Layout, traffic: &Traffic) -> Result<()> {
    let Traffic {
        family, checksum, ..
    } = *traffic;
    let router = &layout.router;
    let mut links = vec![(
        "server",
        Channel::for_status(router, &ROUTER_SERVER_LINK, family)?,
        mac_of(ROUTER_SERVER_SIDE),
    )];
    if traffic.way == Way::Forward {
        links.push((
            "client",
            Channel::for_status(router, &ROUTER_CLIENT_LINK, family)?,
            mac_of(ROUTER_CLIENT_SIDE),
        ));
    }
    match rehearse(layout, traffic, Target::Original, &mut Delivery::default()) {
        Ok(()) => {}
        Err(Stop::Infra(error)) => return Err(error),
        Err(Stop::Subject(reason)) => bail!("traffic fails without any subject: {reason}"),
    }
    for (end, channel, mac) in &mut links {
        let mut packets = 0;
        while let Some(status) = channel.status(&[*mac])? {
            packets += 1;
            ensure!(
                status == checksum,
                "packet {packets} from the {end} came to the router with the checksum status {} instead of {}",
                status.name(),
                checksum.name()
            );
        }
        ensure!(
            packets > REHEARSAL,
            "the router's link to the {end} showed {packets} packets only"
        );
    }
    Ok(())
}
