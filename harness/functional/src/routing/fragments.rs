// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fragments that connection tracking leaves in pieces: those of sockets with IP_NODEFRAG, and those that
//! a rule took out of tracking before. And those that it keeps apart: of a bridge, and of no bridge.

use std::os::fd::AsRawFd;

use anyhow::{Context as _, Result};
use nix::libc;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage,
};
use nix::{setsockopt_impl, sockopt_impl};
use pnet::packet::ipv4::{self, MutableIpv4Packet};

use super::super::setup::original;
use super::super::GuestTest;
use super::beside::put_into_bridge;
use super::fate::{Link, Outcome};
use super::lab::{beside_nft, Redirect};
use super::places::frame_from;
use mutexlab_model::traffic::Family;
use mutexlab_protocol::addresses::{CLIENT, ROUTER_SERVER_SIDE};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
/// Bytes of the first piece's payload: a multiple of eight, with the ports.
const FIRST_PIECE: usize = 32;

sockopt_impl!(
    NoDefrag,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_NODEFRAG,
    libc::c_int
);

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "fragments-nodefrag",
            "fragments of a socket that wants them left alone are left alone, as with nft",
            of_a_socket,
        ),
        GuestTest::single(
            "fragments-untracked",
            "fragments that a rule took out of tracking stay fragments, as with nft",
            untracked,
        ),
        GuestTest::single(
            "fragments-bridged",
            "a piece that comes in by a bridge is not put together with one that does not, as with nft",
            bridged,
        )
        .on_debug(),
    ]
}

/// Cuts the packet of a frame of IPv4 in two; both frames have the Ethernet header.
fn cut(frame: &[u8]) -> Result<[Vec<u8>; 2]> {
    const MORE: u8 = 1;
    let (headers, body) = frame.split_at(ETHERNET + IPV4);
    let (first, second) = body.split_at(FIRST_PIECE);
    let piece = |body: &[u8], flags, offset| -> Result<Vec<u8>> {
        let mut piece = [headers, body].concat();
        let mut ip = MutableIpv4Packet::new(&mut piece[ETHERNET..]).context("no IPv4")?;
        ip.set_identification(0x1234);
        ip.set_flags(flags);
        ip.set_fragment_offset(offset);
        ip.set_total_length(u16::try_from(IPV4 + body.len())?);
        let sum = ipv4::checksum(&ip.to_immutable());
        ip.set_checksum(sum);
        Ok(piece)
    };
    Ok([
        piece(first, MORE, 0)?,
        piece(second, 0, (FIRST_PIECE / 8) as u16)?,
    ])
}

fn of_a_socket() -> Result<()> {
    let family = Family::V4;
    beside_nft(
        family,
        &[Redirect::usual(family)],
        |lab, trace| {
            let socket = lab.layout().router.run(|| {
                let (flags, protocol) = (SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
                Ok(socket::socket(
                    AddressFamily::Inet,
                    SockType::Raw,
                    flags,
                    protocol,
                )?)
            })?;
            socket::setsockopt(&socket, NoDefrag, &1)?;
            let label = lab.label(0);
            let frame = frame_from(ROUTER_SERVER_SIDE, original(family), label)?;
            for piece in cut(&frame)? {
                let to = SockaddrStorage::from(original(family));
                let flags = MsgFlags::empty();
                socket::sendto(socket.as_raw_fd(), &piece[ETHERNET..], &to, flags)?;
            }
            trace.saw("two pieces", lab.seen_of(label)?);
            Ok(())
        },
        |trace| trace.ensure(&[Outcome::Pieces(Link::First, 2)]),
    )
}

fn untracked() -> Result<()> {
    let family = Family::V4;
    beside_nft(
        family,
        &[Redirect::usual(family)],
        |lab, trace| {
            // Before those who put fragments together.
            lab.nft(
                "table ip untracked {
    chain incoming {
        type filter hook prerouting priority -450;
        iifname \"clients\" notrack
    }
}
",
            )?;
            let label = lab.label(0);
            let [first, second] = cut(&frame_from(CLIENT, original(family), label)?)?;
            trace.saw("the first piece", lab.send_frame(&first, label)?);
            trace.saw("the second piece", lab.send_frame(&second, label)?);
            Ok(())
        },
        |trace| trace.ensure(&[Outcome::Pieces(Link::First, 1); 2]),
    )
}

fn bridged() -> Result<()> {
    let family = Family::V4;
    beside_nft(
        family,
        &[Redirect::usual(family)],
        |lab, trace| {
            put_into_bridge(lab)?;
            let label = lab.label(0);
            let [first, second] = cut(&frame_from(CLIENT, original(family), label)?)?;
            let fate = lab.send_frame_into_second(&second, label)?;
            trace.saw("the second piece, by the second link", fate);
            trace.saw(
                "the first piece, by the bridge",
                lab.send_frame(&first, label)?,
            );
            trace.saw(
                "the second piece, by the bridge",
                lab.send_frame(&second, label)?,
            );
            Ok(())
        },
        |trace| {
            trace.ensure(&[
                Outcome::Dropped,
                Outcome::Dropped,
                Outcome::Took(Link::First),
            ])
        },
    )
}
