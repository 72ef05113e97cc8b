// SPDX-License-Identifier: MIT OR Apache-2.0

//! The few requests of rtnetlink that lay out a network, each acknowledged before it returns.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{bail, Context, Result};
use netlink_packet_core::{
    DefaultNla, NetlinkHeader, NetlinkMessage, NetlinkPayload, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL,
    NLM_F_REQUEST,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use pnet::util::MacAddr;

use super::namespace::Namespace;

/// Index of the loopback interface in every namespace.
pub const LOOPBACK: u32 = 1;

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd {
    /// Name of the interface.
    pub name: &'static str,
    /// Index of the interface in its namespace.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

/// A socket that configures the namespace in which it was opened.
pub struct RouteSocket {
    socket: Socket,
    sequence: u32,
}

impl RouteSocket {
    /// Opens a socket in `namespace`.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        let socket = namespace.run(|| {
            let mut socket = Socket::new(NETLINK_ROUTE).context("cannot open a netlink socket")?;
            socket.bind_auto().context("cannot bind a netlink socket")?;
            socket
                .connect(&SocketAddr::new(0, 0))
                .context("cannot connect a netlink socket to the kernel")?;
            Ok(socket)
        })?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Makes a veth pair, one end here and one in `peer_namespace`. Both are down.
    pub fn add_veth(
        &mut self,
        here: &VethEnd,
        peer: &VethEnd,
        peer_namespace: &Namespace,
    ) -> Result<()> {
        let mut peer_message = veth_end(peer);
        peer_message
            .attributes
            .push(LinkAttribute::NetNsFd(peer_namespace.as_fd().as_raw_fd()));
        let mut message = veth_end(here);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer_message))),
        ]));
        self.create(RouteNetlinkMessage::NewLink(message))
            .with_context(|| format!("cannot make the veth pair {}, {}", here.name, peer.name))
    }

    /// Makes an end of a VXLAN tunnel (RFC 7348), which is down: to `remote`, at UDP port `port`. Over IPv4 its
    /// packets have no checksum of their own. Needs CONFIG_VXLAN.
    pub fn add_vxlan(&mut self, name: &str, index: u32, remote: Ipv4Addr, port: u16) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(vec![
                    InfoVxlan::Id(1),
                    InfoVxlan::Group(remote),
                    InfoVxlan::Port(port),
                    // Without the attribute they would have one.
                    InfoVxlan::UDPCsum(false),
                    // Else it would go on to whom answers come from.
                    InfoVxlan::Learning(false),
                ])),
            ]),
        ];
        self.create(RouteNetlinkMessage::NewLink(message))
            .with_context(|| format!("cannot make the tunnel {name} to {remote}"))
    }

    /// Removes an interface; the other end of a veth pair goes with it.
    pub fn delete_link(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.request(RouteNetlinkMessage::DelLink(message), 0)
            .with_context(|| format!("cannot remove interface {index}"))
    }

    /// Brings an interface up.
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(message), 0)
            .with_context(|| format!("cannot bring interface {index} up"))
    }

    /// Sets the length of the longest IP packet that an interface sends.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![LinkAttribute::Mtu(mtu)];
        self.request(RouteNetlinkMessage::SetLink(message), 0)
            .with_context(|| format!("cannot set the MTU of interface {index} to {mtu}"))
    }

    /// Gives an interface an address, without duplicate address detection.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Local(address),
            AddressAttribute::Address(address),
            AddressAttribute::Flags(AddressFlags::Nodad),
        ];
        self.create(RouteNetlinkMessage::NewAddress(message))
            .with_context(|| format!("cannot assign {address}/{prefix} to interface {index}"))
    }

    /// Makes a permanent neighbour entry, so that nobody needs to ask for `address`.
    pub fn add_neighbour(&mut self, index: u32, address: IpAddr, mac: MacAddr) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = index;
        message.header.state = NeighbourState::Permanent;
        message.attributes = vec![
            NeighbourAttribute::Destination(match address {
                IpAddr::V4(address) => NeighbourAddress::Inet(address),
                IpAddr::V6(address) => NeighbourAddress::Inet6(address),
            }),
            NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()),
        ];
        self.create(RouteNetlinkMessage::NewNeighbour(message))
            .with_context(|| format!("cannot make {mac} the neighbour {address}"))
    }

    /// Makes `gateway` the default route of its family.
    pub fn add_default_route(&mut self, gateway: IpAddr) -> Result<()> {
        self.add_gateway(family(gateway), 0, Vec::new(), gateway)
            .with_context(|| format!("cannot route by {gateway}"))
    }

    /// Makes `gateway` the way to a network of its family.
    pub fn add_route(&mut self, net: IpAddr, prefix: u8, gateway: IpAddr) -> Result<()> {
        let destination = RouteAttribute::Destination(route_address(net));
        self.add_gateway(family(net), prefix, vec![destination], gateway)
            .with_context(|| format!("cannot route {net}/{prefix} by {gateway}"))
    }

    fn add_gateway(
        &mut self,
        family: AddressFamily,
        prefix: u8,
        destination: Vec<RouteAttribute>,
        gateway: IpAddr,
    ) -> Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.destination_prefix_length = prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes = destination;
        let gateway = RouteAttribute::Gateway(route_address(gateway));
        message.attributes.push(gateway);
        self.create(RouteNetlinkMessage::NewRoute(message))
    }

    /// Gives an interface a queueing discipline, with `options` as that one expects them.
    pub fn add_queue_discipline(&mut self, index: u32, kind: &str, options: Vec<u8>) -> Result<()> {
        // TCA_OPTIONS of linux/rtnetlink.h; the library knows the options of a few kinds only.
        const OPTIONS: u16 = 2;
        let mut message = TcMessage::default();
        message.header.index = i32::try_from(index)?;
        message.header.parent = TcHandle::ROOT;
        message.attributes = vec![
            TcAttribute::Kind(kind.to_owned()),
            TcAttribute::Other(DefaultNla::new(OPTIONS, options)),
        ];
        self.create(RouteNetlinkMessage::NewQueueDiscipline(message))
            .with_context(|| format!("cannot put {kind} on interface {index}"))
    }

    fn create(&mut self, message: RouteNetlinkMessage) -> Result<()> {
        self.request(message, NLM_F_CREATE | NLM_F_EXCL)
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        self.socket
            .send(&buffer, 0)
            .context("cannot send over netlink")?;
        let (answer, _) = self
            .socket
            .recv_from_full()
            .context("cannot receive over netlink")?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .context("the kernel's answer over netlink makes no sense")?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
            NetlinkPayload::Error(error) => Err(error.to_io().into()),
            other => bail!("the kernel answered a request over netlink with {other:?}"),
        }
    }
}

fn veth_end(end: &VethEnd) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = end.index;
    message.attributes = vec![
        LinkAttribute::IfName(end.name.to_owned()),
        LinkAttribute::Address(end.mac.octets().to_vec()),
    ];
    message
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
