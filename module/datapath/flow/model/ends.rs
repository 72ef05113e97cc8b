// SPDX-License-Identifier: GPL-2.0

//! An end of the model: what it sends, and what it makes of what it receives.

use super::super::tests::{ACK, FIN, RST, SYN};
use super::super::Direction;

// What an end can receive, without a scale; and with a scale that both have, up to so many times as much.
pub(super) const WINDOW: i64 = 60_000;
pub(super) const MOST_WINDOWS: i64 = 8;
// How often an end begins a connection: so often their numbers, and a forger's, stay far from each
// other in 32 bits.
pub(super) const MOST: i64 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tcp {
    Closed,
    Listen,
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) direction: Direction,
    pub(super) flags: u8,
    pub(super) seq: i64,
    pub(super) data: i64,
    pub(super) ack: i64,
    pub(super) forged: bool,
    // The connection of the flow in which it passed.
    pub(super) passed: u32,
    // Of a RST or FIN: whether the flow could know that it is real when it passed.
    pub(super) known: bool,
}

impl Sent {
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    // SEG.LEN
    pub(super) fn length(&self) -> i64 {
        self.data + i64::from(self.has(SYN)) + i64::from(self.has(FIN))
    }
}

// A TCB (RFC 9293, section 3.3.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) direction: Direction,
    pub(super) tcp: Tcp,
    // Opened by itself.
    pub(super) active: bool,
    // How often it has begun.
    pub(super) begun: i64,
    pub(super) iss: i64,
    pub(super) una: i64,
    pub(super) nxt: i64,
    // After its data, where the FIN is.
    pub(super) fin: Option<i64>,
    // The peer's first number, and the next that is expected.
    pub(super) irs: i64,
    pub(super) rcv: i64,
    // Whether the data of a SYN are taken.
    pub(super) fast_open: bool,
    pub(super) window: i64,
    // Whether the peer's FIN came, and in which connection of the flow, if that could know it.
    pub(super) finished: bool,
    pub(super) got_fin: Option<u32>,
}

// Which one of its end a number is of.
pub(super) fn connection(number: i64) -> i64 {
    number >> 40
}

impl End {
    pub(super) fn new(direction: Direction, tcp: Tcp) -> Self {
        Self {
            direction,
            tcp,
            active: false,
            begun: 0,
            iss: 0,
            una: 0,
            nxt: 0,
            fin: None,
            irs: 0,
            rcv: 0,
            fast_open: false,
            window: WINDOW,
            finished: false,
            got_fin: None,
        }
    }

    pub(super) fn segment(&self, flags: u8, seq: i64, data: i64, ack: i64) -> Sent {
        Sent {
            direction: self.direction,
            flags,
            seq,
            data,
            ack,
            forged: false,
            passed: 0,
            known: false,
        }
    }

    fn acknowledge(&self) -> Option<Sent> {
        Some(self.segment(ACK, self.nxt, 0, self.rcv))
    }

    pub(super) fn begin(&mut self, tcp: Tcp) {
        self.begun += 1;
        let iss = (self.begun << 40) + self.begun * 0x1300_0000;
        *self = Self {
            active: tcp == Tcp::SynSent,
            begun: self.begun,
            iss,
            una: iss,
            nxt: iss + 1,
            fast_open: self.fast_open,
            window: self.window,
            ..Self::new(self.direction, tcp)
        };
    }

    pub(super) fn forget(&mut self, tcp: Tcp) {
        *self = Self {
            begun: self.begun,
            fast_open: self.fast_open,
            window: self.window,
            ..Self::new(self.direction, tcp)
        };
    }

    pub(super) fn is_synchronized(&self) -> bool {
        !matches!(
            self.tcp,
            Tcp::Closed | Tcp::Listen | Tcp::SynSent | Tcp::SynReceived
        )
    }

    // Section 3.10.7. What it answers; and whether it accepted a RST.
    pub(super) fn receive(&mut self, sent: &Sent) -> (Option<Sent>, bool) {
        match self.tcp {
            Tcp::Closed => (self.refuse(sent), false),
            Tcp::Listen if sent.has(RST) => (None, false),
            Tcp::Listen if sent.has(ACK) => (Some(self.segment(RST, sent.ack, 0, 0)), false),
            Tcp::Listen if sent.has(SYN) && self.begun < MOST => {
                self.begin(Tcp::SynReceived);
                self.irs = sent.seq;
                self.rcv = sent.seq + 1 + if self.fast_open { sent.data } else { 0 };
                (Some(self.syn_ack()), false)
            }
            Tcp::Listen => (None, false),
            Tcp::SynSent => self.receive_in_syn_sent(sent),
            _ => self.receive_otherwise(sent),
        }
    }

    fn syn_ack(&self) -> Sent {
        self.segment(SYN | ACK, self.iss, 0, self.rcv)
    }

    // 3.10.7.1
    fn refuse(&self, sent: &Sent) -> Option<Sent> {
        if sent.has(RST) {
            None
        } else if sent.has(ACK) {
            Some(self.segment(RST, sent.ack, 0, 0))
        } else {
            Some(self.segment(RST | ACK, 0, 0, sent.seq + sent.length()))
        }
    }

    // 3.10.7.3
    fn receive_in_syn_sent(&mut self, sent: &Sent) -> (Option<Sent>, bool) {
        let acceptable = sent.has(ACK) && sent.ack > self.iss && sent.ack <= self.nxt;
        if sent.has(ACK) && !acceptable {
            let reset = self.segment(RST, sent.ack, 0, 0);
            return ((!sent.has(RST)).then_some(reset), false);
        }
        if sent.has(RST) {
            if acceptable {
                self.forget(Tcp::Closed);
            }
            return (None, acceptable);
        }
        if !sent.has(SYN) {
            return (None, false);
        }
        self.irs = sent.seq;
        self.rcv = sent.seq + 1;
        if acceptable {
            self.una = sent.ack;
            self.tcp = Tcp::Established;
            return (self.acknowledge(), false);
        }
        self.tcp = Tcp::SynReceived;
        (Some(self.syn_ack()), false)
    }

    // 3.10.7.4
    fn receive_otherwise(&mut self, sent: &Sent) -> (Option<Sent>, bool) {
        let inside = |number: i64| (self.rcv..self.rcv + self.window).contains(&number);
        let length = sent.length();
        if !inside(sent.seq) && (length == 0 || !inside(sent.seq + length - 1)) {
            let answer = self.acknowledge().filter(|_| !sent.has(RST));
            return (answer, false);
        }
        if sent.has(RST) {
            if sent.seq != self.rcv {
                return (self.acknowledge(), false);
            }
            let passive = self.tcp == Tcp::SynReceived && !self.active;
            self.forget(if passive { Tcp::Listen } else { Tcp::Closed });
            return (None, true);
        }
        if sent.has(SYN) {
            if self.tcp == Tcp::SynReceived && !self.active && !sent.has(ACK) {
                self.forget(Tcp::Listen);
                return (None, false);
            }
            // The answer to one's own SYN, when both are sent at once.
            if self.tcp != Tcp::SynReceived || sent.seq != self.irs {
                return (self.acknowledge(), false);
            }
        }
        if !sent.has(ACK) {
            return (None, false);
        }
        if self.tcp == Tcp::SynReceived {
            if sent.ack <= self.una || sent.ack > self.nxt {
                return (Some(self.segment(RST, sent.ack, 0, 0)), false);
            }
            self.tcp = match self.fin {
                Some(_) => Tcp::FinWait1,
                None => Tcp::Established,
            };
        }
        if sent.ack > self.nxt || sent.ack < self.una - self.window {
            return (self.acknowledge(), false);
        }
        self.una = self.una.max(sent.ack);
        let finished = self.fin.is_some_and(|fin| self.una > fin);
        match self.tcp {
            Tcp::FinWait1 if finished => self.tcp = Tcp::FinWait2,
            Tcp::Closing if finished => self.tcp = Tcp::TimeWait,
            Tcp::LastAck if finished => {
                self.tcp = Tcp::Closed;
                return (None, false);
            }
            _ => {}
        }
        (self.receive_data(sent), false)
    }

    fn receive_data(&mut self, sent: &Sent) -> Option<Sent> {
        let data = sent.seq + i64::from(sent.has(SYN));
        let end = data + sent.data;
        if sent.length() == 0 {
            return None;
        }
        // What is not next is not kept.
        if data > self.rcv {
            return self.acknowledge();
        }
        if !self.finished {
            self.rcv = self.rcv.max(end);
            if sent.has(FIN) && self.rcv == end {
                self.rcv += 1;
                self.got_fin = sent.known.then_some(sent.passed);
                self.finished = true;
                self.tcp = match self.tcp {
                    Tcp::Established => Tcp::CloseWait,
                    Tcp::FinWait1 => Tcp::Closing,
                    Tcp::FinWait2 => Tcp::TimeWait,
                    other => other,
                };
            }
        }
        self.acknowledge()
    }

    // The first of what is not acknowledged.
    pub(super) fn repeat(&self, most: i64) -> Option<Sent> {
        match self.tcp {
            Tcp::SynSent => Some(self.segment(SYN, self.iss, 0, 0)),
            Tcp::SynReceived if self.fin.is_none() => Some(self.syn_ack()),
            Tcp::Closed | Tcp::Listen | Tcp::TimeWait => None,
            _ => {
                let from = self.una.max(self.iss + 1);
                let data = self.fin.unwrap_or(self.nxt) - from;
                if from >= self.nxt {
                    return None;
                }
                let now = data.min(most);
                let flags = match self.fin {
                    Some(_) if now == data => FIN | ACK,
                    _ => ACK,
                };
                Some(self.segment(flags, from, now, self.rcv))
            }
        }
    }
}
