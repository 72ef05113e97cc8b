// SPDX-License-Identifier: MIT OR Apache-2.0

//! Traffic in a closed loop: a client and its server, who take turns.

use std::ops::Range;

use anyhow::Result;

use super::client::Client;
use super::flows::Flows;
use super::pace::{Pace, Pacer};
use super::placement::Placement;
use super::server::{Served, Server};
use super::stack_client::StackClient;
use super::stack_server::StackServer;
use super::tcp::Numbers;
use super::wire_client::WireClient;
use crate::kernel::marks;
use crate::kernel::tsc;
use crate::net::layout::Layout;
use crate::traffic::target::{Stop, Target};
use crate::traffic::wire_server::Responder;
use mutexlab_model::facts::Arrival;
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::{Ends, Protocol, Traffic};
use mutexlab_protocol::Mischief;

/// Connections that are established, flow by flow; empty if flows are none.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    /// The client's ends.
    pub client: Vec<Numbers>,
    /// The server's.
    pub server: Vec<Numbers>,
}

/// A client and its server.
pub struct ClosedLoop {
    protocol: Protocol,
    client: Box<dyn Client>,
    server: Box<dyn Server>,
    placement: Placement,
    burst: u32,
}

impl ClosedLoop {
    /// Both are ready afterwards; nothing is sent yet.
    pub fn new(
        layout: &Layout,
        traffic: &Traffic,
        flows: Flows,
        arrival: impl Into<Arrival>,
    ) -> Result<Self> {
        let arrival = arrival.into();
        Ok(Self {
            protocol: traffic.protocol,
            client: if traffic.has_stack_client() {
                Box::new(StackClient::new(layout, traffic, flows)?)
            } else {
                Box::new(WireClient::new(layout, traffic, flows)?)
            },
            server: match traffic.ends {
                Ends::Wire => Box::new(Responder::new(
                    layout,
                    traffic,
                    flows,
                    Target::from(arrival.at),
                )?),
                Ends::Stack => Box::new(StackServer::new(layout, traffic, flows, arrival)?),
            },
            placement: Placement::new(flows.homes()),
            burst: traffic.load.burst(),
        })
    }

    /// The server treats its answers so from now on.
    pub fn misbehave(&mut self, mischief: Option<Mischief>) {
        self.server.misbehave(mischief);
    }

    /// Sends the first packet of each of `flows`, which wait at the server: they may not be more
    /// than there is room for. Between two ticks of the kernel's clock where it goes to another CPU.
    pub fn open(&mut self, flows: Range<u32>, delivery: &mut Delivery) -> Result<(), Stop> {
        for flow in flows {
            if self.placement.go_there(flow)? {
                Pace::BetweenTicks.wait()?;
            }
            self.client.open(flow, delivery)?;
        }
        Ok(())
    }

    /// Goes on with `flows` until they are established.
    pub fn establish(&mut self, flows: Range<u32>, delivery: &mut Delivery) -> Result<(), Stop> {
        let first = match self.protocol {
            Protocol::Udp => Served::Answered,
            Protocol::Tcp => Served::Opened,
        };
        for flow in flows.clone() {
            self.placement.go_back(flow)?;
            self.server.serve_until(flow, first, delivery)?;
        }
        for flow in flows.clone() {
            self.placement.go_there(flow)?;
            self.client.establish(flow, delivery)?;
        }
        if self.protocol == Protocol::Tcp {
            for flow in flows {
                self.server
                    .serve_until(flow, Served::Acknowledged, delivery)?;
            }
        }
        Ok(())
    }

    /// One round trip on each of `flows`, as they come.
    pub fn round_trips(
        &mut self,
        flows: impl IntoIterator<Item = u32>,
        delivery: &mut Delivery,
    ) -> Result<(), Stop> {
        flows
            .into_iter()
            .try_for_each(|flow| self.round_trip(flow, delivery))
    }

    /// One round trip of a burst for each of `flows`; tells `each` how many ticks of the time-stamp
    /// counter it took. So many are made between two ticks of the kernel's clock that what the kernel does once a tick only, such
    /// as renewing a time-out, is done by one packet of as many, and not by as many
    /// packets as ticks happen to fall into the run. Where flows have CPUs of their own, each has a period of its own, too: it goes
    /// to its CPU before. The lens counts round trips and nothing between them.
    pub fn paced_round_trips(
        &mut self,
        pace: Pace,
        flows: impl IntoIterator<Item = u32>,
        delivery: &mut Delivery,
        each: &mut dyn FnMut(u64),
    ) -> Result<(), Stop> {
        if self.placement.homes().are_apart() {
            return self.paced_ways(pace, flows, delivery, each);
        }
        let mut pacer = match self.placement.homes().spread() {
            Some(_) => Pacer::one_a_period(pace),
            None => Pacer::of_bursts(pace, self.burst),
        };
        marks::pause();
        for flow in flows {
            // Before, so that the migration's last work is done when the packet is sent.
            self.placement.go_there(flow)?;
            each(paced(&mut pacer, || self.burst(flow, delivery))?);
        }
        Ok(())
    }

    /// The same where answers are of other CPUs: the way there and the way back have a time of their own each,
    /// and going from one CPU to the other is no part of either.
    fn paced_ways(
        &mut self,
        pace: Pace,
        flows: impl IntoIterator<Item = u32>,
        delivery: &mut Delivery,
        each: &mut dyn FnMut(u64),
    ) -> Result<(), Stop> {
        let mut pacer = Pacer::one_a_period(pace);
        marks::pause();
        for flow in flows {
            self.placement.go_there(flow)?;
            let there = paced(&mut pacer, || self.there(flow, delivery))?;
            self.placement.go_back(flow)?;
            let back = paced(&mut pacer, || self.back(flow, delivery))?;
            each(there + back);
        }
        Ok(())
    }

    fn there(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        self.client.send(flow, delivery)
    }

    fn back(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        self.server.serve_until(flow, Served::Answered, delivery)?;
        self.client.receive(flow, delivery)
    }

    fn round_trip(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        self.placement.go_there(flow)?;
        self.there(flow, delivery)?;
        self.placement.go_back(flow)?;
        self.back(flow, delivery)
    }

    fn burst(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        if self.burst == 1 {
            return self.round_trip(flow, delivery);
        }
        self.client.send_at_once(flow, self.burst, delivery)?;
        for _ in 0..self.burst {
            self.server.serve_until(flow, Served::Answered, delivery)?;
        }
        (0..self.burst).try_for_each(|_| self.client.receive(flow, delivery))
    }

    /// Ends a flow, if its protocol knows an end.
    pub fn close(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        self.server.finish(flow, delivery)?;
        self.client.close(flow, delivery)?;
        match self.protocol {
            Protocol::Udp => Ok(()),
            Protocol::Tcp => self.server.serve_until(flow, Served::Closed, delivery),
        }
    }

    /// Ends both, and leaves the connections that they have.
    pub fn hand_over(self) -> Connections {
        Connections {
            client: self.client.hand_over(),
            server: self.server.hand_over(),
        }
    }

    /// Bytes of the client's frames that reached a server on the wire until now.
    pub fn bytes(&self) -> u64 {
        self.server.bytes()
    }

    /// Packets that passed the server until now, both ways.
    pub fn packets(&self) -> u64 {
        self.server.packets()
    }
}

/// What `send` takes when it may begin, in ticks. The lens counts that and no more.
fn paced(pacer: &mut Pacer, send: impl FnOnce() -> Result<(), Stop>) -> Result<u64, Stop> {
    pacer.wait()?;
    marks::resume();
    let start = tsc::now();
    let result = send();
    let took = tsc::now() - start;
    marks::pause();
    result.map(|()| took)
}
