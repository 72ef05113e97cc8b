// SPDX-License-Identifier: GPL-2.0

//! The ends and the network between them, with the flow in it.

use super::super::super::packet::TCP_HEADER;
use super::super::super::reopenings::Reopenings;
use super::super::super::state::FlowState;
use super::super::super::tcp::Segment;
use super::super::tests::{ACK, FIN, RST, SYN};
use super::super::{Direction, Flow};
use super::ends::{connection, End, Sent, Tcp, MOST, MOST_WINDOWS, WINDOW};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::collections::{BTreeMap, BTreeSet};
use Direction::{Original, Reply};

// Where the numbers of a forger begin.
pub(super) const FORGED: i64 = 1 << 60;

// What has happened, for those who want to know whether anything did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) established: u32,
    pub(super) anew: u32,
    pub(super) at_once: u32,
    pub(super) without_data: u32,
    pub(super) reset: u32,
    pub(super) refused: u32,
    pub(super) finished: u32,
    pub(super) challenged: u32,
    pub(super) forged: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    // Opens, with so much data in the SYN.
    Connect(Direction, i64),
    // Whether it takes data of a SYN.
    Listen(bool),
    Send(Direction, i64),
    Close(Direction),
    Abort(Direction),
    Crash(Direction),
    Repeat(Direction, i64),
    // Of the segments under way, counted from the oldest.
    Deliver(usize),
    Duplicate(usize),
    Lose(usize),
    Forge(Direction, u8, u32, u32, i64),
    // Beside what an end sends next, and would acknowledge.
    ForgeNear(Direction, u8, i64, bool),
}

pub(super) struct World {
    pub(super) flow: Option<Flow<()>>,
    pub(super) reopenings: Reopenings,
    pub(super) base: [u32; 2],
    pub(super) options: [Option<u8>; 2],
    pub(super) ends: [End; 2],
    // With whether the flow is behind it.
    pub(super) under_way: Vec<(Sent, bool)>,
    // Counts the connections that the flow began with, or was begun anew for.
    pub(super) connection: u32,
    // The SYN of which the flow knows by itself.
    pub(super) own: Option<i64>,
    // The flow cannot know the answer to the client's SYN: it was pushed out by others, or refused and
    // met nevertheless. Until the client opens again nothing is demanded.
    pub(super) pushed_out: bool,
    pub(super) answered: Option<i64>,
    // The connections of the client's that the server has refused.
    pub(super) refused: BTreeSet<i64>,
    // Of each end and each of its connections, the highest number that passed the flow.
    pub(super) sent_to: BTreeMap<(usize, i64), i64>,
    // And that its peer acknowledged there.
    pub(super) acked_to: [i64; 2],
    // That of the server's whose SYN met the client's.
    pub(super) met: Option<i64>,
    // Which connection of the client's the flow is of.
    pub(super) client: Option<i64>,
    // And of the server's, if that has answered.
    pub(super) server: Option<i64>,
    pub(super) seen: Seen,
    pub(super) history: Vec<String>,
}

pub(super) type Check = Result<(), TestCaseError>;

impl World {
    pub(super) fn new(base: [u32; 2], options: [Option<u8>; 2], fast_open: bool) -> Self {
        let windows = match options {
            [Some(one), Some(other)] => MOST_WINDOWS.min(1 << one.max(other)),
            _ => 1,
        };
        let end = |direction, tcp| End {
            window: windows * WINDOW,
            ..End::new(direction, tcp)
        };
        let server = End {
            fast_open,
            ..end(Reply, Tcp::Listen)
        };
        Self {
            flow: None,
            reopenings: Reopenings::new(),
            base,
            options,
            ends: [end(Original, Tcp::Closed), server],
            under_way: Vec::new(),
            connection: 0,
            own: None,
            pushed_out: false,
            answered: None,
            refused: BTreeSet::new(),
            sent_to: BTreeMap::new(),
            acked_to: [0; 2],
            met: None,
            client: None,
            server: None,
            seen: Seen::default(),
            history: Vec::new(),
        }
    }

    pub(super) fn state(&self) -> Option<FlowState> {
        self.flow.as_ref().map(Flow::state)
    }

    fn wire(&self, direction: Direction, number: i64) -> u32 {
        self.base[direction as usize].wrapping_add(number as u32)
    }

    pub(super) fn segment(&self, sent: &Sent) -> Segment {
        let mut header = [0; TCP_HEADER];
        let seq = match sent.flags {
            // Of one that has no number.
            flags if flags == RST | ACK && sent.seq == 0 => 0,
            _ => self.wire(sent.direction, sent.seq),
        };
        header[4..8].copy_from_slice(&seq.to_be_bytes());
        if sent.has(ACK) {
            header[8..12]
                .copy_from_slice(&self.wire(sent.direction.other(), sent.ack).to_be_bytes());
        }
        header[12] = 6 << 4;
        header[13] = sent.flags;
        Segment::read(&header, sent.data as u32 + 24)
    }

    fn send(&mut self, sent: Option<Sent>) {
        self.under_way.extend(sent.map(|sent| (sent, false)));
    }

    fn deliver(&mut self, at: usize) -> Check {
        let (mut sent, passed) = self.under_way.remove(at);
        if !passed {
            if self.pass(&mut sent)? {
                self.under_way.push((sent, true));
            }
            return Ok(());
        }
        let end = &mut self.ends[sent.direction.other() as usize];
        let before = *end;
        let (answer, reset) = end.receive(&sent);
        let (was, is) = (before.tcp, end.tcp);
        self.history.push(format!(
            "    received {:x} {:x}: {was:?} -> {is:?}",
            sent.flags, sent.seq
        ));
        let challenges = before.is_synchronized() && sent.has(SYN);
        self.seen.challenged += u32::from(challenges && answer.is_some());
        let at_once = (before.tcp, end.tcp) == (Tcp::SynSent, Tcp::SynReceived);
        self.seen.at_once += u32::from(at_once);
        let part =
            end.una < end.nxt && before.tcp == Tcp::SynSent && sent.has(ACK) && sent.has(SYN);
        self.seen.without_data += u32::from(part && end.tcp == Tcp::Established);
        self.send(answer);
        if reset {
            self.seen.reset += 1;
            prop_assert!(!sent.forged, "the model lets itself be reset by a forger");
            // An end that takes a forger's SYN for its peer's is lost, with or without a flow.
            let deceived = before.irs >= FORGED;
            // Nor does the flow know an end that has outlived its peer, when another one has answered
            // a late SYN of it.
            let mut ends = [before.iss, before.irs].map(connection);
            if before.direction == Reply {
                ends.reverse();
            }
            let pair = (before.tcp != Tcp::SynSent).then_some(ends[1]);
            let of_flow = self.client == Some(ends[0])
                && (pair.is_none() || self.server.is_none() || pair == self.server);
            let demanded = sent.known && of_flow && !self.pushed_out && !deceived;
            if sent.passed == self.connection && demanded {
                prop_assert_eq!(self.state(), Some(FlowState::Closed), "after {:?}", sent);
            }
        }
        Ok(())
    }

    fn act(&mut self, op: &Op) -> Check {
        let count = self.under_way.len();
        match *op {
            Op::Connect(direction, data) => {
                let end = &mut self.ends[direction as usize];
                let idle = matches!(end.tcp, Tcp::Closed | Tcp::Listen);
                if !idle || end.begun >= MOST {
                    return Ok(());
                }
                end.begin(Tcp::SynSent);
                end.nxt += data;
                let sent = end.segment(SYN, end.iss, data, 0);
                if direction == Original {
                    self.pushed_out = false;
                }
                self.send(Some(sent));
            }
            Op::Listen(fast_open) => {
                let [_, server] = &mut self.ends;
                server.fast_open = fast_open;
                if matches!(server.tcp, Tcp::Closed | Tcp::TimeWait) && server.begun < MOST {
                    server.forget(Tcp::Listen);
                }
            }
            Op::Send(direction, data) => {
                let end = &mut self.ends[direction as usize];
                let open = matches!(end.tcp, Tcp::Established | Tcp::CloseWait);
                // Altogether less than a window: what is late is known as such.
                if open && end.nxt - end.iss + data < end.window {
                    let sent = end.segment(ACK, end.nxt, data, end.rcv);
                    end.nxt += data;
                    self.send(Some(sent));
                }
            }
            Op::Close(direction) => {
                let end = &mut self.ends[direction as usize];
                end.tcp = match end.tcp {
                    Tcp::SynSent => return end.forget_now(),
                    Tcp::SynReceived if end.fin.is_none() => Tcp::SynReceived,
                    Tcp::Established => Tcp::FinWait1,
                    Tcp::CloseWait => Tcp::LastAck,
                    _ => return Ok(()),
                };
                end.fin = Some(end.nxt);
                let sent = end.segment(FIN | ACK, end.nxt, 0, end.rcv);
                end.nxt += 1;
                self.send(Some(sent));
            }
            Op::Abort(direction) => {
                let end = &mut self.ends[direction as usize];
                let sent = end.segment(RST, end.nxt, 0, 0);
                let tells = end.is_synchronized() && end.tcp != Tcp::TimeWait;
                if tells || end.tcp == Tcp::SynReceived {
                    self.under_way.push((sent, false));
                }
                end.forget(Tcp::Closed);
            }
            Op::Crash(direction) => self.ends[direction as usize].forget(Tcp::Closed),
            Op::Repeat(direction, most) => {
                let sent = self.ends[direction as usize].repeat(most);
                self.send(sent);
            }
            Op::Deliver(at) if count > 0 => self.deliver(at % count)?,
            Op::Duplicate(at) if (1..40).contains(&count) => {
                let twice = self.under_way[at % count];
                self.under_way.push(twice);
            }
            Op::Lose(at) if count > 0 => {
                self.under_way.remove(at % count);
            }
            Op::Deliver(_) | Op::Duplicate(_) | Op::Lose(_) => {}
            Op::Forge(direction, flags, seq, ack, data) => {
                // Below all that the ends have, and neither acknowledges the other.
                let far = |number: u32, at: i64| FORGED + at + i64::from(number % 0x0400_0000);
                let mut sent = End::new(direction, Tcp::Closed).segment(
                    flags,
                    far(seq, 0xf200_0000),
                    data,
                    far(ack, 0xfa00_0000),
                );
                sent.forged = true;
                self.send(Some(sent));
            }
            Op::ForgeNear(direction, flags, off, behind) => {
                let end = self.ends[direction as usize];
                if !self.ends.iter().all(End::is_synchronized) {
                    return Ok(());
                }
                // Beyond the window, or of a FIN and a RST beyond all that was sent.
                let reach = match (flags, self.options) {
                    (ACK, [Some(one), Some(other)]) => 65_536 << one.max(other),
                    _ => 65_536,
                };
                let off = reach + MOST_WINDOWS * WINDOW + off;
                let off = if behind { -off } else { off };
                let mut sent = end.segment(flags, end.nxt + off, 0, end.rcv);
                sent.forged = true;
                self.send(Some(sent));
            }
        }
        self.check()
    }

    pub(super) fn run(mut self, ops: &[Op]) -> Result<Seen, TestCaseError> {
        let result = ops.iter().try_for_each(|op| self.act(op));
        let history = || self.history.join("\n");
        match result {
            Err(TestCaseError::Fail(reason)) => Err(TestCaseError::fail(format!(
                "{reason}, after\n{}",
                history()
            ))),
            result => result.map(|()| self.seen),
        }
    }
}

impl End {
    fn forget_now(&mut self) -> Check {
        self.forget(Tcp::Closed);
        Ok(())
    }
}
