// SPDX-License-Identifier: GPL-2.0

//! The numbers of an open connection: which segments its ends could send, and which are forged.

use super::*;
use proptest::prelude::*;

#[test]
fn a_connection_opens_and_closes() {
    let mut talk = Talk::open();
    talk.send(Original, ACK, 1000);
    talk.send(Reply, ACK, 60_000);
    assert_eq!(talk.send(Reply, FIN | ACK, 10), FlowState::Closing);
    assert_eq!(talk.send(Original, ACK, 7), FlowState::Closing);
    assert_eq!(talk.send(Original, FIN | ACK, 0), FlowState::Closed);
    assert_eq!(talk.send(Reply, ACK, 0), FlowState::Closed);
}

#[test]
fn who_only_acknowledges_is_followed_over_the_wrap() {
    let mut talk = Talk::open();
    for _ in 0..200 {
        talk.send(Original, ACK, 1000);
        talk.send(Reply, ACK, 0);
    }
    assert_eq!(talk.send(Reply, FIN | ACK, 0), FlowState::Closing);
}

#[test]
fn a_repeated_fin_closes_nothing_more() {
    let mut talk = Talk::open();
    let at = talk.peers[1].at;
    talk.send(Reply, FIN | ACK, 0);
    assert_eq!(
        talk.inject(Reply, FIN | ACK, at, 0, talk.peers[1].seen),
        FlowState::Closing
    );
}

#[test]
fn an_end_can_reset() {
    for direction in Direction::ALL {
        let mut talk = Talk::open();
        talk.send(Original, ACK, 100);
        talk.send(Reply, ACK, 100);
        talk.send(direction, ACK, 50);
        assert_eq!(
            talk.send(direction, RST | ACK, 0),
            FlowState::Closed,
            "{direction:?}"
        );
    }
}

#[test]
fn nobody_who_guesses_closes_or_opens() {
    let mut talk = Talk::open();
    talk.send(Original, ACK, 100);
    let (at, seen) = (talk.peers[0].at, talk.peers[0].seen);
    for off in [1, 1000, 70_000, 1 << 20, 1 << 31, u32::MAX - 70_000] {
        let seq = at.wrapping_add(off);
        assert_eq!(
            talk.inject(Original, RST, seq, 0, 0),
            FlowState::Established
        );
        // Data that pretends to be next, far off or with an acknowledgement of nothing.
        let ack = seen.wrapping_add(1 << 30);
        talk.inject(Original, ACK, seq, 10, ack);
        assert_eq!(
            talk.inject(Original, FIN | ACK, seq, 0, ack),
            FlowState::Established
        );
        assert_eq!(
            talk.inject(Reply, SYN | ACK, seq, 0, 5),
            FlowState::Established
        );
    }
    assert_eq!(talk.send(Original, RST, 0), FlowState::Closed);
    let waiting = Talk::new();
    assert_eq!(waiting.inject(Reply, ACK, 5, 0, 5), FlowState::Opening);
    assert_eq!(
        waiting.inject(Reply, SYN | ACK, 5, 0, 5),
        FlowState::Opening
    );
}

// Of two segments under way the first is sent again, and acknowledges more than it did.
#[test]
fn a_repeated_segment_acknowledges_what_is_new() {
    let mut talk = Talk::open();
    let at = talk.peers[1].at;
    talk.send(Reply, ACK, 1000);
    talk.send(Reply, ACK, 1000);
    talk.send(Original, ACK, 100);
    let seen = talk.peers[1].seen;
    talk.inject(Reply, ACK, at, 1000, seen);
    // What comes after is lost, and the client with it.
    talk.send(Original, ACK, 100);
    assert_eq!(talk.inject(Original, RST, seen, 0, 0), FlowState::Closed);
}

// Whoever guesses chooses the window, which is the larger of both, in its own SYN.
#[test]
fn guesses_confirm_no_half_open_connection() {
    let tuple = to_port(Protocol::Tcp, 443);
    let mut state = 1_u64;
    let mut confirmed = 0;
    for _ in 0..500 {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let server = (state >> 32) as u32;
        for direct in [false, true] {
            let mut talk = Talk::new();
            if direct {
                talk.flow = Flow::direct(&tuple, 0).1;
            }
            talk.scales = [Some(14); 2];
            talk.inject(Original, SYN, 1000, 0, 0);
            talk.inject(Reply, SYN | ACK, server, 0, 1001);
            for ack in [0, 1 << 31, 1 << 30, 3 << 30] {
                talk.inject(Original, ACK, 1001, 0, ack);
                talk.inject(Original, 0, 1001, 0, server.wrapping_add(1));
            }
            confirmed += u32::from(talk.flow.timeout(&tuple, &TIMEOUTS) != 240);
            talk.inject(Original, ACK, 1001, 0, server.wrapping_add(1));
            assert_eq!(talk.flow.timeout(&tuple, &TIMEOUTS), 432_000);
        }
    }
    assert_eq!(confirmed, 0);
}

// RFC 9293, section 3.10.7.4; RFC 5961, section 5.
#[test]
fn a_fin_is_near_and_acknowledges_what_was_sent() {
    let open = || {
        let mut talk = Talk::new();
        talk.scales = [Some(14); 2];
        talk.send(Original, SYN, 0);
        talk.send(Reply, SYN | ACK, 0);
        talk.send(Original, ACK, 1 << 20);
        talk.send(Reply, ACK, 1 << 20);
        talk
    };
    for (flags, off, beyond, state) in [
        (FIN | ACK, 0, 0, FlowState::Closing),
        (FIN | ACK, 65_535, 0, FlowState::Closing),
        (FIN | ACK, -65_535, -100_000, FlowState::Closing),
        (FIN | ACK, 65_536, 0, FlowState::Established),
        (FIN | ACK, -65_536, 0, FlowState::Established),
        (FIN | ACK, 0, 1, FlowState::Established),
        (FIN, 0, 0, FlowState::Established),
    ] {
        for direction in Direction::ALL {
            let mut talk = open();
            let peer = &talk.peers[direction as usize];
            let (at, seen) = (
                peer.at.wrapping_add_signed(off),
                peer.seen.wrapping_add_signed(beyond),
            );
            let got = talk.inject(direction, flags, at, 0, seen);
            assert_eq!(got, state, "{flags:x} {off} {beyond}");
            // What is refused leaves nothing behind.
            if state == FlowState::Established {
                assert_eq!(talk.send(direction, RST, 0), FlowState::Closed);
            }
        }
    }
}

// RFC 7323, section 2.2: both must have sent the option.
#[test]
fn windows_are_scaled_only_if_both_ends_scale() {
    for (scales, farthest) in [
        ([None, None], 65_535),
        ([Some(14), None], 65_535),
        ([None, Some(14)], 65_535),
        ([Some(0), Some(0)], 65_535),
        ([Some(3), Some(0)], (65_536 << 3) - 1),
        ([Some(8), Some(14)], (65_536 << 14) - 1),
    ] {
        // As the flow knows the client's SYN, or as one that was kept.
        for anew in [false, true] {
            for (off, state) in [
                (farthest, FlowState::Closed),
                (farthest + 1, FlowState::Established),
            ] {
                let mut talk = Talk::new();
                talk.scales = scales;
                if anew {
                    talk.inject(Original, SYN, 1 << 30, 0, 0);
                }
                talk.send(Original, SYN, 0);
                talk.send(Reply, SYN | ACK, 0);
                talk.send(Original, ACK, 0);
                let at = talk.peers[1].at.wrapping_add(off);
                talk.inject(Reply, ACK, at, 0, talk.peers[1].seen);
                let got = talk.inject(Reply, RST, at, 0, 0);
                assert_eq!(got, state, "{scales:?} {off}");
            }
        }
    }
}

proptest! {
    // A transfer of many windows, whatever their scale; and somebody who is near, but never right.
    #[test]
    fn a_forger_near_the_window_moves_nothing(
        scales in [8..15_u8, 8..15_u8],
        start in any::<[u32; 2]>(),
        steps in prop::collection::vec((any::<bool>(), 0..60_000_u32, any::<[u32; 2]>()), 1..80),
        last in any::<bool>(),
    ) {
        let mut talk = Talk::new();
        talk.scales = scales.map(Some);
        for (peer, at) in talk.peers.iter_mut().zip(start) {
            peer.at = at;
        }
        talk.send(Original, SYN, 0);
        talk.send(Reply, SYN | ACK, 0);
        talk.send(Original, ACK, 0);
        let reach = (65_536 << scales[0].max(scales[1])) - 1;
        for (reply, length, [some, other]) in steps {
            let direction = Direction::from_index(usize::from(reply));
            // More than a window that is not scaled is under way.
            for _ in 0..some % 8 {
                talk.send(direction, ACK, length);
            }
            let Peer { at, seen } = talk.peers[direction as usize];
            // Beyond the window on either side, by one number or the other.
            let off = reach + 2 + some % (u32::MAX - 2 * reach - 3);
            let within = other % 50_000;
            talk.inject(direction, ACK, at.wrapping_add(off), 0, seen);
            talk.inject(direction, ACK, at.wrapping_add(within), 0, seen.wrapping_add(off));
            // Within it a FIN has to be near, and a RST exact.
            let off = 65_536 + other % (u32::MAX - 2 * 65_536);
            talk.inject(direction, FIN | ACK, at.wrapping_add(off), 0, seen);
            let off = 1 + other % (u32::MAX - 2 * 65_536);
            talk.inject(direction, FIN | ACK, at, 0, seen.wrapping_add(off % (1 << 31)));
            let off = 1 + other % (u32::MAX - 1);
            let expected = talk.peers[1 - direction as usize].seen;
            if at.wrapping_add(off) != expected {
                talk.inject(direction, RST, at.wrapping_add(off), 0, seen);
            }
            prop_assert_eq!(talk.flow.state(), FlowState::Established);
            prop_assert_eq!(talk.timeout(), 432_000);
        }
        let direction = Direction::from_index(usize::from(last));
        let talked = talk.send(direction, RST, 0);
        prop_assert_eq!(talked, FlowState::Closed);
    }
}

// Up to a gigabyte is under way, and its last segment comes first; one byte more is too far.
#[test]
fn a_scaled_transfer_is_followed_over_its_whole_window() {
    for shift in 0..15_u8 {
        let reach = (65_536 << shift) - 1;
        for (off, state) in [
            (reach, FlowState::Closed),
            (reach + 1, FlowState::Established),
        ] {
            let mut talk = Talk::new();
            talk.scales = [Some(shift); 2];
            talk.send(Original, SYN, 0);
            talk.send(Reply, SYN | ACK, 0);
            talk.send(Original, ACK, 0);
            let Peer { at, seen } = talk.peers[1];
            let end = at.wrapping_add(off);
            talk.inject(Reply, ACK, end.wrapping_sub(1000), 1000, seen);
            talk.inject(Reply, ACK, at, 1000, seen);
            assert_eq!(talk.inject(Reply, RST, end, 0, 0), state, "{shift}");
        }
    }
}
