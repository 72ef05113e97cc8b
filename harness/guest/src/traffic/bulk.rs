// SPDX-License-Identifier: MIT OR Apache-2.0

//! One stream of TCP, as fast as it goes. Client and server take turns in one thread: each does
//! what it can without waiting.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{setsockopt, sockopt};

use super::client::Client;
use super::flows::Flows;
use super::payload::{self, Kind, Label};
use super::server::{Served, Server};
use super::stack_client::StackClient;
use super::stack_server::StackServer;
use crate::kernel::cpu::Workers;
use crate::kernel::tsc;
use crate::net::layout::{Layout, SERVER_LINK};
use crate::net::namespace::Namespace;
use crate::traffic::target::{Stop, Target, PATIENCE};
use mutexlab_model::facts::Arrival;
use mutexlab_model::measured::{BulkCost, Delivery};
use mutexlab_model::traffic::Traffic;

/// Bytes that the server answers with one message. They are made before and checked after the
/// time that is measured.
const PART: usize = 1 << 20;
/// Fixed, since the kernel would let them grow by the time that packets take, which is another in each
/// boot. The kernel takes them twice: the second half is for its own use (socket(7)).
const SEND_BUFFER: usize = 512 << 10;
/// See [`SEND_BUFFER`].
const RECEIVE_BUFFER: usize = 1 << 20;
/// Bytes of the answer.
const ANSWER: usize = 64;
/// Parts that go before what is measured: until the windows are open.
const WARM_UP: u64 = 2;

/// What a part took.
#[derive(Default)]
struct Took {
    ticks: u64,
    // Of this process, and of softirqs.
    work: Duration,
}

/// An open stream.
pub struct BulkStream {
    client: TcpStream,
    server: TcpStream,
    target: Target,
    workers: Workers,
    parts: u32,
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl BulkStream {
    /// Opens a stream of the flow that is measured.
    pub fn open(
        layout: &Layout,
        traffic: &Traffic,
        arrival: Arrival,
        delivery: &mut Delivery,
    ) -> Result<Self, Stop> {
        let flows = Flows::measured(traffic);
        let mut client = StackClient::new(layout, traffic, flows)?;
        let mut server = StackServer::new(layout, traffic, flows, arrival)?;
        server.set_receive_buffer(RECEIVE_BUFFER)?;
        client.open(0, delivery)?;
        client.establish(0, delivery)?;
        server.serve_until(0, Served::Acknowledged, delivery)?;
        let streams = client.into_stream().zip(server.into_stream());
        let (client, server) = streams.context("a bulk stream needs TCP")?;
        setsockopt(&client, sockopt::SndBufForce, &SEND_BUFFER)
            .context("cannot set the size of a send buffer")?;
        for stream in [&client, &server] {
            stream
                .set_nonblocking(true)
                .context("cannot have a stream not wait")?;
        }
        Ok(Self {
            client,
            server,
            target: Target::from(arrival.at),
            workers: Workers::find()?,
            parts: 0,
            sent: vec![0; PART],
            received: vec![0; PART],
        })
    }

    /// Sends what goes before.
    pub fn warm_up(&mut self, delivery: &mut Delivery) -> Result<(), Stop> {
        (0..WARM_UP).try_for_each(|_| self.part(PART, delivery).map(drop))
    }

    /// Sends `bytes`.
    pub fn measure(
        &mut self,
        layout: &Layout,
        bytes: u64,
        delivery: &mut Delivery,
    ) -> Result<BulkCost, Stop> {
        let before = Received::read(&layout.server)?;
        let mut took = Took::default();
        let mut left = bytes;
        while left != 0 {
            let length = usize::try_from(left).map_or(PART, |left| left.min(PART));
            let part = self.part(length, delivery)?;
            took.ticks += part.ticks;
            took.work += part.work;
            left -= length as u64;
        }
        let after = Received::read(&layout.server)?;
        Ok(BulkCost {
            bytes,
            ticks: took.ticks,
            nanoseconds: tsc::nanoseconds(took.ticks),
            work: u64::try_from(took.work.as_nanos()).context("a stream took years")?,
            frames: after.frames - before.frames,
            frame_bytes: after.bytes - before.bytes,
        })
    }

    /// Sends a part of the stream, and its answer back.
    fn part(&mut self, length: usize, delivery: &mut Delivery) -> Result<Took, Stop> {
        let label = Label {
            flow: 0,
            sequence: self.parts,
        };
        self.parts += 1;
        payload::fill(&mut self.sent[..length], Kind::Request, label);
        let mut answer = [0; ANSWER];
        payload::fill(&mut answer, Kind::Answer, label);
        self.received.fill(0);
        let mut heard = [0; ANSWER];

        delivery.sent += 1;
        let work = self.workers.time()?;
        let start = tsc::now();
        pass(
            &mut self.client,
            &self.sent[..length],
            &mut self.server,
            &mut self.received[..length],
        )?;
        pass(&mut self.server, &answer, &mut self.client, &mut heard)?;
        let ticks = tsc::now() - start;
        let work = self.workers.time()?.saturating_sub(work);

        *self.target.count(delivery) += 1;
        delivery.replies += 1;
        // A connection has one peer.
        delivery.replies_from_original += 1;
        let intact = payload::is_intact(&self.received[..length], Kind::Request, label);
        if !intact || heard != answer {
            delivery.bad_payload += 1;
            return Err(Stop::Subject(format!(
                "part {} of the stream, {length} bytes, or its answer has other bytes than were sent",
                label.sequence
            )));
        }
        Ok(Took { ticks, work })
    }
}

/// Has all of `message` go `from` one end `to` the other.
fn pass(
    from: &mut TcpStream,
    message: &[u8],
    to: &mut TcpStream,
    buffer: &mut [u8],
) -> Result<(), Stop> {
    let (mut sent, mut received) = (0, 0);
    while received < message.len() {
        let mut moved = 0;
        if sent < message.len() {
            let written = unless_waiting(from.write(&message[sent..]), "send")?;
            sent += written;
            moved += written;
        }
        match to.read(&mut buffer[received..]) {
            Ok(0) => return Err(Stop::Subject("the stream ended before its time".to_owned())),
            result => {
                let read = unless_waiting(result, "receive")?;
                received += read;
                moved += read;
            }
        }
        if moved == 0 {
            wait(from, sent < message.len(), to)?;
        }
    }
    Ok(())
}

fn unless_waiting(result: io::Result<usize>, what: &str) -> Result<usize, Stop> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => {
            result.map_err(|error| Stop::Subject(format!("cannot {what} on the stream: {error}")))
        }
    }
}

/// Waits until there is something to do.
fn wait(from: &TcpStream, sends: bool, to: &TcpStream) -> Result<(), Stop> {
    let writable = if sends {
        PollFlags::POLLOUT
    } else {
        PollFlags::empty()
    };
    let mut ready = [
        PollFd::new(to.as_fd(), PollFlags::POLLIN),
        PollFd::new(from.as_fd(), writable),
    ];
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    if poll(&mut ready, patience).context("cannot wait for a stream")? == 0 {
        return Err(Stop::lost("the rest of the stream"));
    }
    Ok(())
}

/// What the server's link has received.
pub struct Received {
    /// Frames.
    pub frames: u64,
    /// Their bytes, without their checksums.
    pub bytes: u64,
}

impl Received {
    /// Until now.
    pub fn read(server: &Namespace) -> Result<Self> {
        // Not /proc/net: that is the main thread's.
        let path = "/proc/thread-self/net/dev";
        let text = server
            .run(|| fs::read_to_string(path).with_context(|| format!("cannot read {path}")))?;
        Self::parse(&text, SERVER_LINK.name).with_context(|| format!("{path} says {text:?}"))
    }

    fn parse(text: &str, link: &str) -> Option<Self> {
        let mut numbers = text
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(link)?.strip_prefix(':'))?
            .split_whitespace();
        Some(Self {
            bytes: numbers.next()?.parse().ok()?,
            frames: numbers.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_nonblocking(true).unwrap();
        }
        (client, server)
    }

    fn stream() -> BulkStream {
        let (client, server) = pair();
        BulkStream {
            client,
            server,
            target: Target::Upstream,
            workers: Workers::find().unwrap(),
            parts: 0,
            sent: vec![0; PART],
            received: vec![0; PART],
        }
    }

    #[test]
    fn parts_arrive_whole() {
        let mut stream = stream();
        let mut delivery = Delivery::default();
        stream.warm_up(&mut delivery).unwrap();
        stream.part(1_000, &mut delivery).unwrap();
        assert_eq!((delivery.sent, delivery.at_upstream), (3, 3));
        assert_eq!((delivery.replies, delivery.at_original), (3, 0));
    }

    #[test]
    fn what_is_in_the_stream_already_is_noticed() {
        let mut stream = stream();
        stream.client.write_all(b"x").unwrap();
        let mut delivery = Delivery::default();
        assert!(stream.part(1_000, &mut delivery).is_err());
        assert_eq!(delivery.bad_payload, 1);
    }

    #[test]
    fn a_link_s_counters_are_read() {
        let text = "Inter-|   Receive\n face |bytes    packets errs\n\
                    \x20   lo:       1       2    0\n   lan: 3000 40 0 0\n";
        let received = Received::parse(text, "lan").unwrap();
        assert_eq!((received.bytes, received.frames), (3000, 40));
        assert!(Received::parse(text, "wan").is_none());
    }
}
