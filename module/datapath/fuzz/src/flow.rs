// SPDX-License-Identifier: GPL-2.0

//! Any segments from both directions of a flow, of which a model says what becomes of it.

mod model;

use mutex_abi::proxy::Protocol;
use mutex_datapath::flow::{Direction, Flow, Owner};
use mutex_datapath::packet::TCP_HEADER;
use mutex_datapath::reopenings::Reopenings;
use mutex_datapath::state::{FlowState, Timeouts};
use mutex_datapath::tcp::Segment;
use mutex_datapath::tuple::{Ports, Tuple, V4};
use mutex_datapath::upstream::Outcome;

use super::input::Input;
use model::{Model, Sent, ACK, FIN, RST, SYN};

// How long an established connection may be idle.
const LASTS: u32 = 9;
const TIMEOUTS: Timeouts = Timeouts {
    hz: 1,
    udp: [1; 3],
    tcp: [1, LASTS, 1, 1],
};

const HASH: u32 = 0xdead_beef;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let tuple = Tuple::new(Protocol::Tcp, V4(1), V4(2), Ports::new(1, 2));
    let owner = Owner {
        context: 0,
        upstream: Owner::NOBODY.upstream,
    };
    let (_, flow) = Flow::<()>::new(&tuple, &tuple.to(V4(3), 4), owner, 0);
    let reopenings = Reopenings::new();
    let mut model = Model::new();
    // A flow is made for a SYN.
    let mut how = 0;
    loop {
        let direction = Direction::from_index(usize::from(how & 1));
        let sent = next(&mut input, how >> 1, &model, direction);
        let expected = model.see(direction, &sent);
        assert_eq!(
            pass(&flow, &reopenings, direction, &sent),
            expected,
            "{sent:?} {model:?}"
        );
        assert_eq!(flow.state(), model.state, "{sent:?} {model:?}");
        let established = model.state == FlowState::Established && !model.half_open;
        let lasts = flow.timeout(&tuple, &TIMEOUTS) == LASTS;
        assert_eq!(lasts, established, "{sent:?} {model:?}");
        if input.is_empty() {
            break;
        }
        how = input.u8();
    }
}

// A segment that goes on where its direction is, or nearly, or begins anywhere.
fn next(input: &mut Input<'_>, how: u8, model: &Model, direction: Direction) -> Sent {
    let (mine, other) = (
        model.peers[direction as usize],
        model.peers[direction.other() as usize],
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
    let start = mine.end + off();
    // What acknowledges the SYN that is kept beside the flow.
    let kept = model.kept.filter(|_| how & 0x40 != 0);
    let known = kept.map_or(other.end, |syn| i64::from(syn.first));
    let ack = known + off();
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

fn pass(
    flow: &Flow<()>,
    reopenings: &Reopenings,
    direction: Direction,
    sent: &Sent,
) -> Option<Outcome> {
    let mut header = [0; TCP_HEADER];
    header[4..8].copy_from_slice(&sent.start.to_be_bytes());
    header[8..12].copy_from_slice(&sent.ack.to_be_bytes());
    header[12] = 6 << 4;
    header[13] = sent.flags;
    let segment = Segment::read(&header, sent.length + 24);
    if flow.is_plain(direction, Some(&segment)) {
        return None;
    }
    let options = match sent.shift {
        Some(shift) => [3, 3, shift, 0],
        None => [1, 1, 1, 0],
    };
    flow.advance_tcp(direction, &segment, &options, reopenings, HASH)
}
