// SPDX-License-Identifier: GPL-2.0

//! Any segments from both sides of a flow. A model says what becomes of it: one that counts bytes
//! from the beginning of the connection on, in numbers that do not wrap.

use mutex_abi::proxy::Protocol;
use mutex_datapath::flow::{Flow, Owner, Side};
use mutex_datapath::packet::TCP_HEADER;
use mutex_datapath::state::State;
use mutex_datapath::tcp::Segment;
use mutex_datapath::tuple::{Ports, Tuple, V4};
use mutex_datapath::upstream::Outcome;

use super::input::Input;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

// A segment, and the shift of its window scale option.
#[derive(Clone, Copy, Debug)]
struct Sent {
    flags: u8,
    start: u32,
    length: u32,
    ack: u32,
    shift: Option<u8>,
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

// What a side is known to have sent: of one that has not begun it could be anything.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    begun: bool,
    end: i64,
    ack: i64,
    // By how much a segment may be ahead.
    reach: i64,
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
struct Model {
    state: State,
    fins: [bool; 2],
    peers: [Peer; 2],
}

impl Peer {
    fn begin(sent: &Sent) -> Self {
        Self {
            begun: true,
            end: i64::from(sent.start) + sent.span(),
            ack: i64::from(sent.ack),
            reach: (65_536 << sent.shift.unwrap_or(0).min(14)) - 1,
        }
    }

    // Whether the side could have sent it, after what it has sent or once more. What is new is
    // noted, unless it acknowledges less than what came before. A `plain` segment whose
    // acknowledgement wraps may be one further ahead: that saves instructions.
    fn takes(&mut self, sent: &Sent, plain: bool) -> bool {
        let (start, ack) = (near(sent.start, self.end), near(sent.ack, self.ack));
        let end = start + sent.span();
        let (ahead, acked) = (end - self.end, ack - self.ack);
        let new = |by: i64| !self.begun || (0..=self.reach).contains(&by);
        let possible = |by: i64| !self.begun || by.abs() <= self.reach;
        let takes = possible(ahead) && possible(acked);
        let further = plain && sent.ack < self.ack as u32 && ahead == self.reach + 1;
        if (new(ahead) || further) && new(acked) {
            (self.end, self.ack) = (end, ack);
        }
        takes
    }
}

impl Model {
    fn new() -> Self {
        Self {
            state: State::Opening,
            fins: [false; 2],
            peers: [Peer::default(); 2],
        }
    }

    fn see(&mut self, side: Side, sent: &Sent) -> Option<Outcome> {
        let (mine, other) = (side as usize, side.other() as usize);
        let acknowledges = sent.has(ACK) && sent.ack == self.peers[other].end as u32;
        if sent.has(RST) {
            let refusal = self.state == State::Opening && side == Side::Reply;
            let expected = [self.peers[other].ack, self.peers[mine].end];
            let real = match refusal {
                true => acknowledges,
                false => expected.iter().any(|&number| number as u32 == sent.start),
            };
            if real {
                self.state = State::Closed;
            }
            return (real && refusal).then_some(Outcome::Refused);
        }
        match (self.state, sent.has(SYN)) {
            (State::Opening, true) if side == Side::Original => {
                self.peers[mine] = Peer::begin(sent);
            }
            (State::Opening, true) if acknowledges => {
                self.peers[mine] = Peer::begin(sent);
                self.peers[other].ack = self.peers[mine].end;
                // The larger window counts for both.
                let reach = self.peers[0].reach.max(self.peers[1].reach);
                self.peers.iter_mut().for_each(|peer| peer.reach = reach);
                self.state = State::Established;
                return Some(Outcome::Answered);
            }
            (State::Opening, _) | (_, true) => {}
            (_, false) => {
                let plain = self.state == State::Established && sent.has(ACK) && !sent.has(FIN);
                let taken = self.peers[mine].takes(sent, plain);
                if taken && sent.has(FIN) {
                    self.fins[mine] = true;
                    if self.fins == [true; 2] {
                        self.state = State::Closed;
                    } else if self.state == State::Established {
                        self.state = State::Closing;
                    }
                }
            }
        }
        None
    }
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let tuple = Tuple::new(Protocol::Tcp, V4(1), V4(2), Ports::new(1, 2));
    let owner = Owner {
        context: 0,
        upstream: 0,
    };
    let (_, flow) = Flow::<()>::new(&tuple, &tuple.to(V4(3), 4), owner, 0);
    let mut model = Model::new();
    // A flow is made for a SYN.
    let mut how = 0;
    loop {
        let side = Side::from_index(usize::from(how & 1));
        let sent = next(&mut input, how >> 1, &model, side);
        let expected = model.see(side, &sent);
        assert_eq!(pass(&flow, side, &sent), expected, "{sent:?} {model:?}");
        assert_eq!(flow.state(), model.state, "{sent:?} {model:?}");
        if input.is_empty() {
            break;
        }
        how = input.u8();
    }
}

// A segment that goes on where its side is, or nearly, or begins anywhere.
fn next(input: &mut Input<'_>, how: u8, model: &Model, side: Side) -> Sent {
    let (mine, other) = (
        model.peers[side as usize],
        model.peers[side.other() as usize],
    );
    let flags = match how % 8 {
        0 => SYN,
        1 => SYN | ACK,
        2 | 3 => ACK,
        4 => FIN | ACK,
        5 => RST,
        6 => RST | ACK,
        _ => input.u8(),
    };
    let mut off = || match input.u8() {
        0..128 => 0,
        128..160 => i64::from(input.u8()) - 128,
        // At the edges of what is taken.
        160..192 => mine.reach + i64::from(input.u8()) - 128,
        192..224 => -mine.reach + i64::from(input.u8()) - 128,
        _ => i64::from(input.u32()),
    };
    let (start, ack) = (mine.end + off(), other.end + off());
    let length = match how >> 3 & 3 {
        0 => 0,
        1 => u32::from(input.u8()),
        _ => u32::from(input.u16()),
    };
    let shift = (flags & SYN != 0 && how & 0x20 != 0).then(|| input.u8() % 16);
    Sent {
        flags,
        start: start as u32,
        length,
        ack: ack as u32,
        shift,
    }
}

fn pass(flow: &Flow<()>, side: Side, sent: &Sent) -> Option<Outcome> {
    let mut header = [0; TCP_HEADER];
    header[4..8].copy_from_slice(&sent.start.to_be_bytes());
    header[8..12].copy_from_slice(&sent.ack.to_be_bytes());
    header[12] = 6 << 4;
    header[13] = sent.flags;
    let segment = Segment::read(&header, sent.length + 24);
    if flow.is_plain(side, Some(&segment)) {
        return None;
    }
    match sent.shift {
        Some(shift) => flow.advance_tcp(side, &segment, &[3, 3, shift, 0]),
        None => flow.advance_tcp(side, &segment, &[1, 1, 1, 0]),
    }
}
