// SPDX-License-Identifier: MIT OR Apache-2.0

//! A proxy on the router itself asks the kernel where a connection was meant to go.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, TcpStream};

use anyhow::{ensure, Context as _, Result};
use mutex_abi::proxy::HOOK_PRE_ROUTING;
use nix::sys::socket::{getsockopt, sockopt, SockaddrIn, SockaddrIn6};

use super::conversation::pass;
use super::redirector::{beside_nft, Redirection, Redirector};
use super::setup::{client_address, original, Setup, FAMILIES};
use super::sockets::{accept, connect, listen};
use super::GuestTest;
use mutexlab_guest::proxy::context;
use mutexlab_guest::traffic::payload::{Kind, Label};
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{ROUTER_CLIENT_SIDE, WIRE_ORIGINAL};

/// Where the proxy listens.
const PROXY_PORT: u16 = 3129;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    beside_nft(
        "original-destination",
        "a proxy on the router learns where redirected connections were meant to go (nft: by SO_ORIGINAL_DST)",
        run,
    )
    .into()
}

fn run(redirector: Redirector) -> Result<()> {
    let setup = Setup::new()?;
    for family in FAMILIES {
        let proxy = ROUTER_CLIENT_SIDE.socket(family, PROXY_PORT);
        let originals = [original(family), WIRE_ORIGINAL.socket(family, 443)];
        let rules =
            originals.map(|to| context::redirect(Protocol::Tcp, to, proxy).at(HOOK_PRE_ROUTING));
        let redirection = redirector.redirect(&setup, &rules)?;
        let listener = listen(&setup.layout.router, proxy)?;
        let mut kept = Vec::new();
        for to in originals {
            let from = client_address(Way::Forward, family);
            let client = connect(setup.client(Way::Forward), from, to)?;
            let (accepted, _) = accept(&listener)?;
            kept.push((client, accepted, to));
        }
        for turn in 0..2 {
            for (client, accepted, to) in &kept {
                let asked = match &redirection {
                    Redirection::Module(context) => context
                        .original(accepted.local_addr()?, accepted.peer_addr()?)
                        .context("original-get"),
                    Redirection::Nft => ask(accepted, family),
                }
                .with_context(|| format!("{family:?}"))?;
                ensure!(
                    asked == *to,
                    "the connection to {to} is said to have been meant for {asked}"
                );
                let label = Label {
                    flow: 1,
                    sequence: turn,
                };
                pass(client, accepted, Kind::Request, label)?;
                pass(accepted, client, Kind::Answer, label)?;
            }
        }
        drop(redirection);
    }
    setup.finish()
}

fn ask(stream: &TcpStream, family: Family) -> Result<SocketAddr> {
    Ok(match family {
        Family::V4 => {
            let address = getsockopt(stream, sockopt::OriginalDst).context("SO_ORIGINAL_DST")?;
            SocketAddrV4::from(SockaddrIn::from(address)).into()
        }
        Family::V6 => {
            let address =
                getsockopt(stream, sockopt::Ip6tOriginalDst).context("IP6T_SO_ORIGINAL_DST")?;
            SocketAddrV6::from(SockaddrIn6::from(address)).into()
        }
    })
}
