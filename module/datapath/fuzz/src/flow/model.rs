// SPDX-License-Identifier: GPL-2.0

//! What becomes of a connection: a model that counts bytes from its beginning on, in numbers that do not wrap.

use mutex_datapath::flow::Direction;
use mutex_datapath::state::FlowState;
use mutex_datapath::upstream::Outcome;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

// A segment, and the shift of its window scale option.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub flags: u8,
    pub start: u32,
    pub length: u32,
    pub ack: u32,
    pub shift: Option<u8>,
}

impl Sent {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    // How many numbers it takes.
    fn span(&self) -> i64 {
        i64::from(self.length) + i64::from(self.has(SYN)) + i64::from(self.has(FIN))
    }
}

// What a direction is known to have sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer {
    // Its SYN, as long as the other direction has not answered it.
    pub syn: Option<Syn>,
    // Who has no answer yet may have acknowledged the other's SYN.
    pub is_syn_acked: bool,
    pub end: i64,
    pub ack: i64,
    // By how much a segment may be ahead.
    pub reach: i64,
}

// The numbers that acknowledge a SYN: after it, and after each byte of its data.
#[derive(Clone, Copy, Debug)]
pub struct Syn {
    pub first: u32,
    pub data: u32,
    pub shift: Option<u8>,
}

impl Syn {
    fn of(sent: &Sent) -> Self {
        // No packet has more.
        let data = sent.length + u32::from(sent.has(FIN));
        Self {
            first: sent.start.wrapping_add(1),
            data: if data > 65_535 { 0 } else { data },
            shift: sent.shift.map(|shift| shift.min(14)),
        }
    }

    fn has(&self, number: u32) -> bool {
        let number = i64::from(number);
        let first = i64::from(self.first);
        let numbers = first..=first + i64::from(self.data);
        numbers.contains(&number) || numbers.contains(&(number + (1 << 32)))
    }

    fn and(self, before: Self) -> Self {
        Self {
            data: self.data.max(before.data),
            shift: self.shift.max(before.shift),
            ..self
        }
    }

    fn is_acked_by(&self, sent: &Sent) -> bool {
        sent.has(ACK) && self.has(sent.ack)
    }

    fn reach(&self) -> i64 {
        (65_536 << self.shift.unwrap_or(0)) - 1
    }
}

// What a number of 32 bits stands for, near to one of those that do not wrap.
fn near(number: u32, reference: i64) -> i64 {
    const ROUND: i64 = 1 << 32;
    let lap = reference - reference.rem_euclid(ROUND) + i64::from(number);
    [lap - ROUND, lap, lap + ROUND]
        .into_iter()
        .min_by_key(|candidate| (candidate - reference).abs())
        .unwrap_or(lap)
}

#[derive(Debug)]
pub struct Model {
    pub state: FlowState,
    pub fins: [bool; 2],
    pub peers: [Peer; 2],
    // Of the original direction, another than that of its peer.
    pub kept: Option<Syn>,
    // The client has said nothing since it was answered.
    pub half_open: bool,
}

impl Peer {
    fn begin(syn: Syn) -> Self {
        Self {
            syn: Some(syn),
            end: i64::from(syn.first) + i64::from(syn.data),
            reach: syn.reach(),
            ..Self::default()
        }
    }

    // Whether the direction could have sent it, after what it has sent or once more. What is new is
    // noted. A `plain` segment whose acknowledgement wraps may be one further ahead: that saves
    // instructions.
    fn takes(&mut self, sent: &Sent, plain: bool) -> bool {
        let (start, ack) = (near(sent.start, self.end), near(sent.ack, self.ack));
        let end = start + sent.span();
        let (ahead, acked) = (end - self.end, ack - self.ack);
        let possible = |by: i64| by.abs() <= self.reach;
        let further = plain
            && sent.ack < self.ack as u32
            && ahead == self.reach + 1
            && (0..=self.reach).contains(&acked);
        if further {
            (self.end, self.ack) = (end, ack);
            return true;
        }
        let takes = possible(ahead) && possible(acked);
        if takes {
            (self.end, self.ack) = (self.end.max(end), self.ack.max(ack));
        }
        takes
    }
}

impl Model {
    pub fn new() -> Self {
        Self {
            state: FlowState::Opening,
            fins: [false; 2],
            peers: [Peer::default(); 2],
            kept: None,
            half_open: false,
        }
    }

    pub fn see(&mut self, direction: Direction, sent: &Sent) -> Option<Outcome> {
        if sent.has(RST) {
            return self.reset(direction, sent);
        }
        let opening = self.state == FlowState::Opening;
        match (direction, sent.has(SYN)) {
            (Direction::Reply, true) if sent.has(ACK) => return self.answer(sent),
            (Direction::Original, true) if opening => self.open(sent),
            (Direction::Reply, true) if opening => {
                let (syn, peer) = (Syn::of(sent), self.peers[1]);
                match peer.syn {
                    Some(before) if before.first == syn.first => self.repeat(1, syn),
                    _ if peer.is_syn_acked => {}
                    _ => self.peers[1] = Peer::begin(syn),
                }
            }
            (Direction::Original, true) if !sent.has(ACK | FIN) => self.keep(Syn::of(sent)),
            (_, true) => {}
            (Direction::Original, false) if opening => {
                if !sent.has(ACK) || sent.start != self.peers[0].end as u32 {
                    return None;
                }
                self.acknowledge(sent);
                if sent.has(FIN) {
                    let client = &mut self.peers[0];
                    let syn = client.syn.as_mut().expect("a flow begins with it");
                    syn.data += sent.length + 1;
                    client.end += sent.span();
                    self.fins[0] = true;
                }
            }
            (Direction::Reply, false) if opening => {
                let [client, server] = self.peers;
                let confirms = client.syn.is_some_and(|syn| syn.is_acked_by(sent));
                if server.syn.is_none() || !confirms {
                    return None;
                }
                let expected = match server.is_syn_acked {
                    true => server.end as u32,
                    false => sent.start,
                };
                self.agree(
                    expected,
                    sent.start.wrapping_add(sent.span() as u32),
                    sent.ack,
                );
                self.fins[1] |= sent.has(FIN);
                self.settle();
                return Some(Outcome::Answered);
            }
            (_, false) => {
                let [mine, other] =
                    [direction, direction.other()].map(|at| self.peers[at as usize]);
                let near = i64::from(sent.start.wrapping_sub(mine.end as u32) as i32);
                let unsent = ((other.end as u32).wrapping_sub(sent.ack) as i32) < 0;
                let ends = sent.has(ACK) && near.abs() <= 65_535 && !unsent;
                if sent.has(FIN) && !ends {
                    return None;
                }
                let confirms = self.half_open && direction == Direction::Original;
                if confirms && !self.confirms(sent) {
                    return None;
                }
                let established = self.state == FlowState::Established && !self.half_open;
                let plain = established && sent.has(ACK) && !sent.has(FIN);
                if self.peers[direction as usize].takes(sent, plain) {
                    self.half_open &= direction == Direction::Reply;
                    self.fins[direction as usize] |= sent.has(FIN);
                    self.settle();
                }
            }
        }
        None
    }

    // Whether the client acknowledges something of what the server has sent, or nothing new.
    fn confirms(&self, sent: &Sent) -> bool {
        let [client, server] = self.peers;
        let acked = client.ack as u32;
        let sent_to = (server.end as u32).wrapping_sub(acked);
        sent.has(ACK) && sent.ack.wrapping_sub(acked) <= sent_to
    }

    // By the FINs: what is closed stays so.
    fn settle(&mut self) {
        self.state = match self.fins {
            _ if self.state == FlowState::Closed => FlowState::Closed,
            [true, true] => FlowState::Closed,
            [false, false] => FlowState::Established,
            _ => FlowState::Closing,
        };
    }

    // Both directions are open, the reply direction after a SYN before `first`.
    fn agree(&mut self, first: u32, end: u32, ack: u32) {
        let [client, server] = &mut self.peers;
        let scaled = |peer: &Peer| peer.syn.is_some_and(|syn| syn.shift.is_some());
        // The larger window counts for both, as it is if one of them does not scale it.
        client.reach = match scaled(client) && scaled(server) {
            true => client.reach.max(server.reach),
            false => 65_535,
        };
        server.reach = client.reach;
        (client.syn, server.syn) = (None, None);
        client.ack = i64::from(first);
        (server.end, server.ack) = (i64::from(end), i64::from(ack));
    }

    // The same SYN: whatever it had before may be answered.
    fn repeat(&mut self, direction: usize, syn: Syn) {
        let peer = &mut self.peers[direction];
        let before = peer.syn.expect("it is repeated");
        let syn = syn.and(before);
        let is_syn_acked = peer.is_syn_acked;
        *peer = Peer {
            is_syn_acked,
            ..Peer::begin(syn)
        };
    }

    fn open(&mut self, sent: &Sent) {
        let syn = Syn::of(sent);
        match self.peers[0].syn {
            Some(before) if before.first != syn.first => {
                if !sent.has(ACK | FIN) {
                    self.keep(syn);
                }
                return;
            }
            Some(_) => self.repeat(0, syn),
            None => self.peers[0] = Peer::begin(syn),
        }
        self.acknowledge(sent);
    }

    // The client has the SYN that it acknowledges.
    fn acknowledge(&mut self, sent: &Sent) {
        if !sent.has(ACK) {
            return;
        }
        let server = &mut self.peers[1];
        if !server.syn.is_some_and(|syn| syn.is_acked_by(sent)) {
            *server = Peer::begin(Syn {
                first: sent.ack,
                data: 0,
                shift: server.syn.map_or(Some(0), |syn| syn.shift),
            });
        }
        server.is_syn_acked = true;
    }

    fn keep(&mut self, mut syn: Syn) {
        // An early FIN, with what it brought, counts as data of the SYN, of which 16 bits are kept.
        syn.data = syn.data.min(65_535);
        self.kept = Some(match self.kept {
            Some(before) if before.first == syn.first => syn.and(before),
            _ => syn,
        });
    }

    // The SYN that was kept, if it is what the segment is about.
    fn take(&mut self, sent: &Sent) -> Option<Syn> {
        self.kept.take_if(|syn| syn.is_acked_by(sent))
    }

    fn answer(&mut self, sent: &Sent) -> Option<Outcome> {
        let end = sent.start.wrapping_add(sent.span() as u32);
        let opening = self.state == FlowState::Opening;
        let own = self.peers[0].syn.filter(|_| opening);
        if !own.is_some_and(|syn| syn.is_acked_by(sent)) {
            let anew = self.take(sent)?;
            let [client, _] = self.peers;
            let late = |peer: Peer, number: u32| {
                let behind = (peer.end as u32).wrapping_sub(number);
                i64::from(behind) <= peer.reach
            };
            if opening {
                own.into_iter().for_each(|own| self.keep(own));
            } else if client.syn.is_none()
                && (!self.half_open || client.ack as u32 == end)
                && late(client, sent.ack)
            {
                return None;
            }
            self.peers[0] = Peer::begin(Syn {
                first: sent.ack,
                data: 0,
                ..anew
            });
            self.fins = [false; 2];
        }
        self.peers[1] = Peer::begin(Syn::of(sent));
        self.agree(end, end, sent.ack);
        self.state = FlowState::Established;
        self.half_open = true;
        self.settle();
        Some(Outcome::Answered)
    }

    fn reset(&mut self, direction: Direction, sent: &Sent) -> Option<Outcome> {
        let [client, server] = self.peers;
        let opening = self.state == FlowState::Opening;
        let refusal = opening && direction == Direction::Reply;
        let real = if refusal {
            let gives_up = server.is_syn_acked && server.end as u32 == sent.start;
            gives_up || client.syn.is_some_and(|syn| syn.is_acked_by(sent))
        } else if opening {
            client.syn.is_some_and(|syn| syn.has(sent.start))
        } else if self.state == FlowState::Closed {
            false
        } else {
            let (mine, other) = (direction as usize, direction.other() as usize);
            let expected = [self.peers[other].ack, self.peers[mine].end];
            expected.iter().any(|&number| number as u32 == sent.start)
        };
        if real {
            self.state = FlowState::Closed;
            return refusal.then_some(Outcome::Refused);
        }
        if direction == Direction::Reply && self.take(sent).is_some() {
            if opening {
                client.syn.into_iter().for_each(|own| self.keep(own));
                self.state = FlowState::Closed;
                return Some(Outcome::Refused);
            }
            self.half_open |= self.state != FlowState::Closed;
        }
        None
    }
}
