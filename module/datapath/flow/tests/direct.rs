// SPDX-License-Identifier: GPL-2.0

//! TCP connections that are not redirected.

use super::*;

#[test]
fn a_direct_connection_is_closed_whatever_its_numbers() {
    let direct = || {
        let mut talk = Talk::new();
        talk.flow = Flow::direct(&to_port(Protocol::Tcp, 443), 0).1;
        talk.send(Original, SYN, 0);
        talk.send(Reply, SYN | ACK, 0);
        talk.send(Original, ACK, 0);
        talk
    };
    let mut talk = direct();
    assert_eq!(
        talk.flow.timeout(&to_port(Protocol::Tcp, 443), &TIMEOUTS),
        432_000
    );
    // What passes is not followed.
    for _ in 0..100 {
        let segment = Segment::read(
            &[
                0, 0, 0, 0, 9, 9, 9, 9, 0, 0, 0, 0, 80, ACK, 0, 0, 0, 0, 0, 0,
            ],
            20,
        );
        assert!(talk.flow.is_plain_direct(Reply, Some(segment.flags)));
    }
    (talk.peers[0].at, talk.peers[1].at) = (77 << 20, 99 << 20);
    assert_eq!(talk.send(Original, FIN | ACK, 0), FlowState::Closing);
    assert_eq!(talk.send(Reply, FIN | ACK, 0), FlowState::Closed);
    assert!(talk.flow.is_direct());
}

// The answers may take another way.
#[test]
fn a_direct_connection_of_which_only_one_direction_passes_is_plain() {
    let mut talk = Talk::direct();
    let is_plain = |talk: &Talk| talk.flow.is_plain_direct(Original, Some(Flags(ACK)));
    talk.send(Original, SYN, 0);
    talk.send(Original, SYN, 0);
    assert!(!is_plain(&talk));
    talk.inject(Original, ACK, 5, 0, 99);
    assert!(is_plain(&talk));
    // But nobody has said that its client exists.
    assert_eq!(talk.timeout(), 240);
    let rank = rank_of(&talk.flow, Protocol::Tcp, false, 9);
    assert_eq!(rank, Some((3, 9)));
    talk.inject(Original, FIN | ACK, 5, 0, 99);
    assert_eq!(talk.flow.state(), FlowState::Closing);
    // A redirected one waits for its answer.
    let mut talk = Talk::new();
    talk.send(Original, SYN, 0);
    talk.inject(Original, ACK, talk.peers[0].at, 0, 99);
    assert_eq!(talk.flow.state(), FlowState::Opening);
}

#[test]
fn a_direct_connection_that_is_answered_late_is_confirmed_by_its_client() {
    for kept in [false, true] {
        let mut talk = Talk::direct();
        talk.send(Original, SYN, 0);
        // Somebody who guesses.
        talk.inject(Original, ACK, 5, 0, 99);
        assert_eq!(talk.flow.state(), FlowState::Established);
        if kept {
            talk.inject(Original, SYN, 1 << 29, 0, 0);
        }
        talk.send(Reply, SYN | ACK, 0);
        assert_eq!(talk.timeout(), 240);
        talk.inject(Original, ACK, 5, 0, 99);
        assert_eq!(talk.timeout(), 240);
        talk.send(Original, ACK, 0);
        assert_eq!(talk.timeout(), 432_000);
    }
}

// Of a direct connection the numbers are not known: a RST may be forged.
#[test]
fn a_reset_ends_a_direct_connection_only_if_its_client_is_silent() {
    for direction in Direction::ALL {
        let mut talk = Talk::direct();
        talk.send(Original, SYN, 0);
        talk.send(Reply, SYN | ACK, 0);
        talk.send(Original, ACK, 0);
        assert_eq!(talk.timeout(), 432_000);
        for _ in 0..2 {
            let state = talk.inject(direction, RST, 1 << 20, 0, 0);
            assert_eq!(state, FlowState::Established);
            assert_eq!(talk.timeout(), 240);
            talk.inject(Reply, ACK, 1 << 20, 0, 1 << 20);
            assert_eq!(talk.timeout(), 240);
            // Wherever it is meanwhile.
            talk.inject(Original, ACK, 7 << 20, 100, 9 << 20);
            assert_eq!(talk.timeout(), 432_000);
            assert!(talk.flow.is_plain_direct(Original, Some(Flags(ACK))));
        }
        // The ports are used anew.
        talk.inject(direction, RST, 1 << 20, 0, 0);
        talk.forget();
        talk.send(Original, SYN, 0);
        talk.send(Reply, SYN | ACK, 0);
        assert_eq!(talk.outcome.get(), Some(Outcome::Answered));
        talk.inject(Original, ACK, 5, 0, 99);
        assert_eq!(talk.timeout(), 240);
        talk.send(Original, ACK, 0);
        assert_eq!(talk.timeout(), 432_000);
    }
    // Who never was confirmed is not by a guess after a RST.
    let mut talk = Talk::direct();
    talk.send(Original, SYN, 0);
    talk.send(Reply, SYN | ACK, 0);
    talk.inject(Original, RST, 5, 0, 0);
    talk.inject(Original, ACK, 5, 0, 99);
    assert_eq!(talk.timeout(), 240);
}

#[test]
fn what_is_plain_of_a_direct_connection_changes_nothing() {
    for direction in [Original, Reply] {
        for flags in (0..=u8::MAX).map(Flags) {
            let mut talk = Talk::direct();
            talk.send(Original, SYN, 0);
            talk.send(Reply, SYN | ACK, 0);
            talk.send(Original, ACK, 0);
            let is_plain = talk.flow.is_plain_direct(direction, Some(flags));
            assert_eq!(is_plain, !(flags.syn() || flags.fin() || flags.rst()));
            if is_plain {
                let pace = |talk: &Talk| [Original, Reply].map(|end| talk.flow.pace(end));
                let before = (pace(&talk), talk.timeout());
                let state = talk.inject(direction, flags.0, 7, 0, 9);
                assert_eq!(state, FlowState::Established, "{flags:?}");
                assert_eq!((pace(&talk), talk.timeout()), before, "{flags:?}");
            }
        }
    }
}

#[test]
fn another_syn_may_be_of_another_socket() {
    let at = |first: u32, flags: u8| {
        let [a, b, c, d] = first.to_be_bytes();
        Segment::read(
            &[
                0, 0, 0, 0, a, b, c, d, 0, 0, 0, 0, 80, flags, 0, 0, 0, 0, 0, 0,
            ],
            20,
        )
    };
    let mut talk = Talk::direct();
    let first = talk.peers[0].at;
    talk.send(Original, SYN, 0);
    let anew = |talk: &Talk, segment| talk.flow.may_begin_anew(Original, &segment);
    // The same once more, and another one, before there is an answer.
    assert!(!anew(&talk, at(first, SYN)));
    assert!(anew(&talk, at(first.wrapping_add(77), SYN)));
    talk.send(Reply, SYN | ACK, 0);
    talk.send(Original, ACK, 0);
    assert!(anew(&talk, at(first, SYN)) && anew(&talk, at(5, SYN)));
    assert!(!anew(&talk, at(first, ACK)) && !anew(&talk, at(first, SYN | ACK)));
    assert!(!talk.flow.may_begin_anew(Reply, &at(5, SYN)));
}
