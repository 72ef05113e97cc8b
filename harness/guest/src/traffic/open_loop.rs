// SPDX-License-Identifier: MIT OR Apache-2.0

//! Traffic in an open loop: packets are sent at times that were fixed before, whatever comes back.
//! One thread is client and server, and never waits for either: it sends what is due, answers what
//! has come, and takes what has come back, one of each in turn. If that is more than the CPU does,
//! packets are sent late, which is counted, and which their latency includes: it counts from the time
//! at which they should have been sent (no coordinated omission).

mod book;
mod received;
mod schedule;
mod sink;
mod source;
mod tally;

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use nix::poll::{ppoll, PollFd, PollFlags};
use nix::sys::time::TimeSpec;
use nix::time::{clock_getres, ClockId};

use super::arrivals::Arrival;
use super::closed_loop::Connections;
use super::flows::Flows;
use super::pace::Pace;
use super::tcp::Numbers;
use crate::kernel::tsc;
use crate::net::cable::{Cable, Wire};
use crate::traffic::target::{Stop, PATIENCE};
use mutexlab_model::histogram::Recorder;
use mutexlab_model::measured::{Delivery, OpenLoop};
use mutexlab_model::traffic::{Protocol, Traffic};
use mutexlab_protocol::Mischief;
use received::Received;
use schedule::Schedule;
use sink::Sink;
use source::Source;
use tally::Tally;

/// How long before a packet is to be sent the generator stops sleeping, if the kernel's timers are of
/// high resolution, and if it wakes sleepers at ticks only.
const MARGIN: Duration = Duration::from_millis(1);
/// See [`MARGIN`].
const MARGIN_OF_TICKS: Duration = Duration::from_millis(50);
/// What the kernel calls the resolution of clocks that are as exact as they can be, at the most: of others
/// it is a tick (`hrtimer_resolution`).
const HIGH_RESOLUTION: Duration = Duration::from_micros(1);
/// How long copies may come after their packets.
const GRACE: Duration = Duration::from_millis(20);
/// Packets from which the generator's own limit is taken.
const LIMIT_PACKETS: u32 = 2_000;

/// Packets to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// How many.
    pub packets: u32,
    /// How many a second.
    pub rate: u32,
    /// New flows a second.
    pub churn: u32,
}

/// A client and its server.
pub struct Generator {
    source: Source,
    sink: Sink,
    flows: Flows,
    pace: Pace,
    margin: Duration,
}

impl Generator {
    /// Both are ready afterwards, with the connections that are established; nothing is sent yet.
    pub fn new(
        wire: &Wire<'_>,
        traffic: &Traffic,
        connections: Connections,
        mischief: Option<Mischief>,
        pace: Pace,
    ) -> Result<Self> {
        Ok(Self {
            pace,
            margin: margin()?,
            source: Source::new(wire, traffic, connections.client)?,
            sink: Sink::new(wire, traffic, connections.server, mischief)?,
            flows: Flows::measured(traffic),
        })
    }

    /// Sends the packets of `stream` and waits until the last answer has come, or would have. The
    /// limit is not among what is counted.
    ///
    /// # Errors
    /// If a packet comes where it should not, or the machine does not do its part.
    pub fn run(&mut self, stream: &Stream, delivery: &mut Delivery) -> Result<OpenLoop, Stop> {
        let picks: Vec<u32> = self.flows.picks().take(stream.packets as usize).collect();
        let churned = self.source.churned();
        let mut run = Run::new(stream, self.pace)?;
        loop {
            let sent = self.send(&mut run, &picks, delivery)?;
            let served = self.serve(&mut run, delivery)?;
            let taken = self.take(&mut run, delivery)?;
            if sent || served || taken {
                continue;
            }
            let now = tsc::now();
            let next = run.next();
            if next <= now && run.all_sent() {
                break;
            }
            let until = self.sink.due().map_or(next, |due| due.min(next));
            self.wait(now, until, run.all_returned())?;
        }
        Ok(OpenLoop {
            rate: stream.rate,
            churned: (self.source.churned() - churned).into(),
            ..run.result()
        })
    }

    /// Sends the next packet if it is due.
    fn send(&mut self, run: &mut Run, picks: &[u32], delivery: &mut Delivery) -> Result<bool> {
        let Some(&place) = picks.get(run.sent as usize) else {
            return Ok(false);
        };
        let due = run.schedule.packet(run.sent);
        if due > tsc::now() {
            return Ok(false);
        }
        while run.schedule.flow(run.asked).is_some_and(|at| at <= due) {
            self.source.replace()?;
            run.asked += 1;
        }
        let late = tsc::now() - due;
        self.source.send(place, run.sent, delivery)?;
        run.lateness.record(tsc::nanoseconds(late));
        run.sent += 1;
        Ok(true)
    }

    /// Answers the next request if one is there.
    fn serve(&mut self, run: &mut Run, delivery: &mut Delivery) -> Result<bool, Stop> {
        if self.sink.due().is_some() {
            self.sink.release(tsc::now())?;
        }
        match self.sink.receive(run.sent, delivery)? {
            Received::Nothing => return Ok(false),
            Received::Packet { number, time, .. } => {
                run.forward.take(number, run.schedule.packet(number), time);
            }
            Received::Other => {}
        }
        Ok(true)
    }

    /// Takes the next answer if one is there.
    fn take(&mut self, run: &mut Run, delivery: &mut Delivery) -> Result<bool, Stop> {
        match self.source.receive(run.sent, delivery)? {
            Received::Nothing => return Ok(false),
            Received::Packet {
                number,
                time,
                bytes,
            } => {
                let due = run.schedule.packet(number);
                if run.round_trip.take(number, due, time) != Arrival::Again {
                    run.bytes += bytes as u64;
                }
                run.last = time;
            }
            Received::Other => {}
        }
        Ok(true)
    }

    /// Waits until the time `until`, or until a frame comes, or not at all.
    fn wait(&self, now: u64, until: u64, all_returned: bool) -> Result<()> {
        let left = tsc::nanoseconds(until.saturating_sub(now));
        let sleep = Duration::from_nanos(left).saturating_sub(self.margin);
        if !sleep.is_zero() {
            let mut ends = [
                PollFd::new(self.sink.channel.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.source.channel.as_fd(), PollFlags::POLLIN),
            ];
            ppoll(&mut ends, Some(TimeSpec::from_duration(sleep)), None)
                .context("cannot wait for a frame")?;
        } else if all_returned {
            tsc::spin_until(until);
        }
        Ok(())
    }
}

/// How long before a packet is to be sent not to sleep any more.
fn margin() -> Result<Duration> {
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC);
    let resolution: Duration = resolution
        .context("cannot ask for a clock's resolution")?
        .into();
    Ok(if resolution <= HIGH_RESOLUTION {
        MARGIN
    } else {
        MARGIN_OF_TICKS
    })
}

/// How far a stream has come.
struct Run {
    schedule: Schedule,
    packets: u32,
    sent: u32,
    // New flows that were begun.
    asked: u32,
    lateness: Recorder,
    forward: Tally,
    round_trip: Tally,
    // Of answers.
    bytes: u64,
    // When the last packet was to be sent, or the last answer came.
    last: u64,
}

impl Run {
    fn new(stream: &Stream, pace: Pace) -> Result<Self> {
        let packets = stream.packets;
        // Before the time is set: they take a while to make.
        let lateness = Recorder::with_capacity(packets as usize);
        let (forward, round_trip) = (Tally::new(packets), Tally::new(packets));
        // Half a period behind the pace's time: if that is the middle between two ticks of the kernel's
        // clock, no packet is sent on a tick at whole rates.
        let half = Duration::from_secs(1) / stream.rate.max(1) / 2;
        let ahead = pace.ahead()? + half;
        let start = tsc::now() + tsc::ticks(ahead.as_nanos() as u64);
        let schedule = Schedule::new(start, stream.rate, stream.churn);
        Ok(Self {
            schedule,
            packets,
            sent: 0,
            asked: 0,
            lateness,
            forward,
            round_trip,
            bytes: 0,
            last: schedule.packet(packets.saturating_sub(1)),
        })
    }

    fn all_sent(&self) -> bool {
        self.sent == self.packets
    }

    fn all_returned(&self) -> bool {
        self.round_trip.distinct() == self.sent
    }

    /// When there is something to do again by itself: a packet to send, or nothing more to wait for.
    fn next(&self) -> u64 {
        let patience = match (self.all_sent(), self.all_returned()) {
            (false, _) => return self.schedule.packet(self.sent),
            (true, true) => GRACE,
            (true, false) => PATIENCE,
        };
        self.last + tsc::ticks(patience.as_nanos() as u64)
    }

    fn result(&self) -> OpenLoop {
        OpenLoop {
            rate: 0,
            sent: self.sent.into(),
            forward: self.forward.transit(self.sent),
            round_trip: self.round_trip.transit(self.sent),
            lateness: self.lateness.histogram(),
            span: self.round_trip.span(),
            bytes: self.bytes,
            churned: 0,
            limit: 0,
            searched: None,
            back_to_back: None,
        }
    }
}

/// Packets a second that the generator sends, answers and takes back at the most, over a link with
/// nothing in between.
pub fn limit(traffic: &Traffic, pace: Pace) -> Result<u64> {
    let cable = Cable::new()?;
    let pairs = (0..traffic.flows).map(Numbers::pair);
    let (client, server) = match traffic.protocol {
        Protocol::Tcp => pairs.unzip(),
        Protocol::Udp => Default::default(),
    };
    let connections = Connections { client, server };
    let mut generator = Generator::new(&cable.wire(), traffic, connections, None, pace)?;
    let stream = Stream {
        packets: LIMIT_PACKETS,
        // All at once, so that each is sent as soon as it can be.
        rate: u32::MAX,
        churn: 0,
    };
    let run = generator.run(&stream, &mut Delivery::default());
    let run = run.map_err(Stop::into_error).context(
        "cannot find the generator's own limit: packets do not even get over a single link",
    )?;
    drop(generator);
    cable.tear_down()?;
    let transit = &run.round_trip;
    ensure!(
        transit.lost == 0 && run.span > 0,
        "the generator lost {} of {} of its own packets on a link with nothing in between",
        transit.lost,
        run.sent
    );
    Ok((transit.arrived - 1) * 1_000_000_000 / run.span)
}
