// SPDX-License-Identifier: GPL-2.0

//! SYNs and their answers: a connection opens, is refused, or takes the place of another one.

use super::*;

#[test]
fn a_server_can_refuse() {
    let mut talk = Talk::new();
    talk.send(Original, SYN, 0);
    assert_eq!(talk.inject(Reply, RST | ACK, 0, 0, 1), FlowState::Opening);
    assert_eq!(talk.outcome.get(), None);
    let ack = talk.peers[1].seen;
    assert_eq!(talk.inject(Reply, RST | ACK, 0, 0, ack), FlowState::Closed);
    assert_eq!(talk.outcome.get(), Some(Outcome::Refused));
    talk.outcome.set(None);
    talk.inject(Reply, RST | ACK, 0, 0, ack);
    assert_eq!(talk.outcome.get(), None);
}

#[test]
fn a_client_that_gives_up_says_nothing_of_the_server() {
    let mut talk = Talk::new();
    talk.send(Original, SYN, 0);
    assert_eq!(talk.send(Original, RST, 0), FlowState::Closed);
    assert_eq!(talk.outcome.get(), None);
    let mut talk = Talk::open();
    assert_eq!(talk.outcome.take(), Some(Outcome::Answered));
    talk.send(Reply, RST | ACK, 0);
    assert_eq!(talk.outcome.get(), None);
}

// Fast Open: the SYN has data, of which the server takes all or nothing (RFC 7413, section 4.2).
#[test]
fn an_answer_may_leave_the_data_of_a_syn() {
    for taken in [0, 1, 999, 1000] {
        let mut talk = Talk::new();
        let first = talk.peers[0].at.wrapping_add(1);
        talk.send(Original, SYN, 1000);
        talk.peers[1].seen = first.wrapping_add(taken);
        assert_eq!(talk.send(Reply, SYN | ACK, 0), FlowState::Established);
        assert_eq!(talk.outcome.get(), Some(Outcome::Answered), "{taken}");
        // The client sends again what was not taken.
        let (at, seen) = (talk.peers[1].seen, talk.peers[0].seen);
        talk.inject(Original, ACK, at, 1000 - taken, seen);
        talk.peers[1].seen = talk.peers[0].at;
        assert_eq!(talk.send(Original, FIN | ACK, 0), FlowState::Closing);
        assert_eq!(talk.send(Reply, FIN | ACK, 0), FlowState::Closed);
    }
}

#[test]
fn a_refusal_may_leave_the_data_of_a_syn() {
    for (taken, state) in [
        (-1, FlowState::Opening),
        (0, FlowState::Closed),
        (1000, FlowState::Closed),
        (1001, FlowState::Opening),
    ] {
        let mut talk = Talk::new();
        let first = talk.peers[0].at.wrapping_add(1);
        talk.send(Original, SYN, 1000);
        let ack = first.wrapping_add_signed(taken);
        assert_eq!(talk.inject(Reply, RST | ACK, 0, 0, ack), state, "{taken}");
    }
}

// Linux does not repeat the data of a SYN with it.
#[test]
fn a_repeated_syn_takes_no_data_back() {
    let mut talk = Talk::new();
    let at = talk.peers[0].at;
    talk.send(Original, SYN, 1000);
    talk.inject(Original, SYN, at, 0, 0);
    assert_eq!(talk.send(Reply, SYN | ACK, 0), FlowState::Established);
}

#[test]
fn nobody_who_guesses_takes_a_syn_back() {
    let mut talk = Talk::new();
    talk.send(Original, SYN, 0);
    let at = talk.peers[0].at;
    // What the reply direction has sent last is not known yet: zero is a guess like others.
    for seq in [0, 1, at.wrapping_sub(1), at.wrapping_add(1)] {
        assert_eq!(talk.inject(Original, RST, seq, 0, 0), FlowState::Opening);
    }
    // Another SYN in the client's name does not hide the first.
    talk.inject(Original, SYN, 77, 0, 0);
    assert_eq!(talk.send(Reply, SYN | ACK, 0), FlowState::Established);
}

// The client gave its first attempt up without a word, and uses the port again.
#[test]
fn a_second_attempt_is_answered_or_refused() {
    for (flags, state) in [
        (SYN | ACK, FlowState::Established),
        (RST | ACK, FlowState::Closed),
    ] {
        let mut talk = Talk::new();
        talk.send(Original, SYN, 0);
        talk.peers[0].at = 1 << 20;
        talk.send(Original, SYN, 0);
        assert_eq!(talk.send(Reply, flags, 0), state);
        assert!(talk.outcome.get().is_some());
    }
}

#[test]
fn both_ends_can_use_a_tuple_anew() {
    for last in [RST, FIN | ACK] {
        for before in [FlowState::Established, FlowState::Closing] {
            for data in [0, 700] {
                let mut talk = Talk::open();
                talk.send(Original, ACK, 100);
                if before == FlowState::Closing {
                    talk.send(Reply, FIN | ACK, 0);
                }
                talk.forget();
                let first = talk.peers[0].at.wrapping_add(1);
                assert_eq!(talk.send(Original, SYN, data), before);
                talk.peers[1].seen = first;
                assert_eq!(talk.send(Reply, SYN | ACK, 0), FlowState::Established);
                assert_eq!(talk.outcome.get(), Some(Outcome::Answered));
                talk.peers[0].at = first;
                assert_eq!(talk.send(Original, ACK, 1000), FlowState::Established);
                talk.send(Reply, ACK, 50_000);
                if last == RST {
                    assert_eq!(talk.send(Reply, RST, 0), FlowState::Closed);
                } else {
                    assert_eq!(talk.send(Reply, FIN | ACK, 0), FlowState::Closing);
                    assert_eq!(talk.send(Original, FIN | ACK, 0), FlowState::Closed);
                }
            }
        }
    }
}

// The RST may be forged, with the SYN that it refuses: a client that lives says so by its next segment.
#[test]
fn a_refused_syn_ends_a_connection_only_if_its_client_is_silent() {
    let tuple = to_port(Protocol::Tcp, 443);
    let mut talk = Talk::open();
    talk.outcome.set(None);
    let forged = 1 << 29;
    let refuse = |talk: &Talk, ack| {
        talk.inject(Original, SYN, forged, 0, 0);
        let state = talk.inject(Reply, RST | ACK, 0, 0, ack);
        assert_eq!(state, FlowState::Established);
        assert_eq!(talk.outcome.get(), None);
        talk.flow.timeout(&tuple, &TIMEOUTS)
    };
    assert_eq!(refuse(&talk, forged + 2), 432_000);
    assert_eq!(refuse(&talk, forged + 1), 240);
    // Not one more that guesses.
    talk.inject(Original, ACK, forged + 1, 0, 0);
    assert_eq!(talk.flow.timeout(&tuple, &TIMEOUTS), 240);
    talk.send(Reply, ACK, 100);
    talk.send(Original, ACK, 100);
    assert_eq!(talk.flow.timeout(&tuple, &TIMEOUTS), 432_000);
    talk.send(Original, FIN | ACK, 0);
    talk.inject(Original, SYN, forged, 0, 0);
    talk.inject(Reply, RST | ACK, 0, 0, forged + 1);
    assert_eq!(talk.flow.state(), FlowState::Closing);
    assert_eq!(talk.send(Reply, FIN | ACK, 0), FlowState::Closed);
}

// RFC 5961, section 4: a SYN in a living connection is answered by an acknowledgement; one who sent
// the SYN does not know of that connection, and resets it with the very number.
#[test]
fn a_client_that_forgot_resets_by_the_challenge() {
    let mut talk = Talk::open();
    talk.send(Original, ACK, 100);
    talk.send(Reply, ACK, 100);
    let (at, seen) = (talk.peers[1].at, talk.peers[1].seen);
    talk.forget();
    talk.inject(Original, SYN, talk.peers[0].at, 0, 0);
    assert_eq!(talk.inject(Reply, ACK, at, 0, seen), FlowState::Established);
    assert_eq!(talk.inject(Original, RST, seen, 0, 0), FlowState::Closed);
}

#[test]
fn a_forged_syn_changes_nothing() {
    let mut talk = Talk::open();
    for seq in [5, 1 << 30, talk.peers[0].at] {
        talk.inject(Original, SYN, seq, 2, 0);
        // As one who only sees his own direction would have it answered.
        for ack in [0, seq, seq.wrapping_add(4)] {
            talk.inject(Reply, SYN | ACK, 9, 0, ack);
            talk.inject(Reply, RST | ACK, 9, 0, ack);
        }
        assert_eq!(talk.flow.state(), FlowState::Established);
    }
    talk.send(Original, ACK, 1000);
    talk.send(Reply, ACK, 1000);
    talk.send(Original, FIN | ACK, 0);
    assert_eq!(talk.send(Reply, FIN | ACK, 0), FlowState::Closed);
}

// What the network delivers twice and late is no new connection.
#[test]
fn a_late_handshake_starts_nothing_anew() {
    let mut talk = Talk::new();
    let [client, server] = [talk.peers[0].at, talk.peers[1].at];
    talk.send(Original, SYN, 0);
    talk.send(Reply, SYN | ACK, 0);
    talk.send(Original, ACK, 3000);
    talk.send(Reply, FIN | ACK, 3000);
    talk.inject(Original, SYN, client, 0, 0);
    let ack = client.wrapping_add(1);
    assert_eq!(
        talk.inject(Reply, SYN | ACK, server, 0, ack),
        FlowState::Closing
    );
    assert_eq!(talk.send(Original, FIN | ACK, 0), FlowState::Closed);
    assert_eq!(
        talk.inject(Reply, SYN | ACK, server, 0, ack),
        FlowState::Closed
    );
}

// The server has crashed, and answers a late copy of the living client's SYN: the client resets it.
#[test]
fn a_late_syn_that_a_new_server_answers_starts_nothing_anew() {
    let mut talk = Talk::new();
    let client = talk.peers[0].at;
    talk.send(Original, SYN, 0);
    talk.send(Reply, SYN | ACK, 0);
    talk.send(Original, ACK, 3000);
    let expected = talk.peers[0].seen;
    talk.inject(Original, SYN, client, 0, 0);
    let ack = client.wrapping_add(1);
    talk.inject(Reply, SYN | ACK, expected.wrapping_add(1 << 29), 0, ack);
    assert_eq!(talk.inject(Reply, RST, expected, 0, 0), FlowState::Closed);
}

// RFC 9293, section 3.5, figure 8: the server answers an old SYN first.
#[test]
fn an_old_syn_is_reset_and_the_new_one_answered() {
    for old_first in [true, false] {
        let talk = Talk::new();
        let (new, old) = (talk.peers[0].at, talk.peers[0].at.wrapping_sub(1 << 28));
        for seq in if old_first { [old, new] } else { [new, old] } {
            assert_eq!(talk.inject(Original, SYN, seq, 0, 0), FlowState::Opening);
        }
        let ack = old.wrapping_add(1);
        talk.inject(Reply, SYN | ACK, 1000, 0, ack);
        assert_eq!(talk.inject(Original, RST, ack, 0, 0), FlowState::Closed);
        let ack = new.wrapping_add(1);
        let state = talk.inject(Reply, SYN | ACK, 1 << 30, 0, ack);
        assert_eq!(state, FlowState::Established, "{old_first}");
    }
}

// RFC 9293, section 3.5, figure 7.
#[test]
fn both_can_open_at_once() {
    let [client, server] = [1000, 2000];
    let begin = || {
        let talk = Talk::new();
        assert_eq!(talk.inject(Original, SYN, client, 0, 0), FlowState::Opening);
        assert_eq!(talk.inject(Reply, SYN, server, 0, 0), FlowState::Opening);
        let ack = server + 1;
        let state = talk.inject(Original, SYN | ACK, client, 0, ack);
        assert_eq!(state, FlowState::Opening);
        talk
    };
    // The SYN of the answer, the acknowledgement of the other one's, data or the end.
    for (flags, length, state) in [
        (SYN | ACK, 0, FlowState::Established),
        (ACK, 0, FlowState::Established),
        (ACK, 500, FlowState::Established),
        (FIN | ACK, 0, FlowState::Closing),
    ] {
        let talk = begin();
        let at = server + u32::from(flags & SYN == 0);
        // Not one who guesses.
        assert_eq!(
            talk.inject(Reply, flags, at, length, 77),
            FlowState::Opening
        );
        assert_eq!(talk.inject(Reply, flags, at, length, client + 1), state);
        assert_eq!(talk.outcome.get(), Some(Outcome::Answered));
        let at = server + 1 + length;
        talk.inject(Original, ACK, client + 1, 60_000, at);
        let ack = client + 60_001;
        talk.inject(Reply, FIN | ACK, at, 0, ack);
        let state = talk.inject(Original, FIN | ACK, ack, 0, at + 1);
        assert_eq!(state, FlowState::Closed);
    }
    // One gives up.
    let talk = begin();
    assert_eq!(talk.inject(Reply, RST, server, 0, 0), FlowState::Opening);
    assert_eq!(talk.inject(Reply, RST, server + 1, 0, 0), FlowState::Closed);
    assert_eq!(talk.outcome.get(), Some(Outcome::Refused));
    let talk = begin();
    assert_eq!(
        talk.inject(Original, RST, client + 1, 0, 0),
        FlowState::Closed
    );
    assert_eq!(talk.outcome.get(), None);
    // One closes before it is answered.
    let talk = begin();
    let closes = || talk.inject(Original, FIN | ACK, client + 1, 0, server + 1);
    assert_eq!(closes(), FlowState::Opening);
    assert_eq!(closes(), FlowState::Opening);
    let state = talk.inject(Reply, SYN | ACK, server, 0, client + 1);
    assert_eq!(state, FlowState::Closing);
    let state = talk.inject(Reply, FIN | ACK, server + 1, 0, client + 2);
    assert_eq!(state, FlowState::Closed);
}

// A SYN in the server's name makes the client answer; as long as it has not, nothing is known.
#[test]
fn a_forged_syn_of_the_server_opens_and_resets_nothing() {
    let mut talk = Talk::new();
    talk.send(Original, SYN, 0);
    talk.inject(Reply, SYN, u32::MAX, 0, 0);
    assert_eq!(talk.inject(Reply, RST, 0, 0, 0), FlowState::Opening);
    assert_eq!(talk.inject(Reply, ACK, 0, 0, 5), FlowState::Opening);
    assert_eq!(talk.send(Reply, SYN | ACK, 0), FlowState::Established);
}

// A SYN in the server's name hides the server's own, but not from the client, which acknowledges what it has got.
#[test]
fn the_syn_that_the_client_acknowledges_is_the_servers() {
    let [client, server] = [1000, 2000];
    for flags in [SYN | ACK, ACK] {
        let talk = Talk::new();
        talk.inject(Original, SYN, client, 0, 0);
        talk.inject(Reply, SYN, server, 0, 0);
        talk.inject(Reply, SYN, 77, 0, 0);
        let at = client + u32::from(flags & SYN == 0);
        talk.inject(Original, flags, at, 0, server + 1);
        assert_eq!(talk.inject(Reply, RST, 78, 0, 0), FlowState::Opening);
        let state = talk.inject(Reply, RST, server + 1, 0, 0);
        assert_eq!(state, FlowState::Closed, "{flags:x}");
    }
    // One who does not know the client's number acknowledges nothing.
    let talk = Talk::new();
    talk.inject(Original, SYN, client, 0, 0);
    talk.inject(Original, ACK, client + 2, 0, server + 1);
    assert_eq!(
        talk.inject(Reply, RST, server + 1, 0, 0),
        FlowState::Opening
    );
}

// The answer of a server that has crashed since never came; of the repeated SYN it knows nothing.
#[test]
fn a_new_server_answers_until_the_client_has_an_answer() {
    let talk = Talk::new();
    let client = talk.peers[0].at;
    let ack = client.wrapping_add(1);
    talk.inject(Original, SYN, client, 0, 0);
    talk.inject(Reply, SYN | ACK, 1 << 31, 0, ack);
    talk.inject(Original, SYN, client, 0, 0);
    let state = talk.inject(Reply, SYN | ACK, 5000, 0, ack);
    assert_eq!(state, FlowState::Established);
    talk.inject(Original, ACK, ack, 0, 5001);
    let tuple = to_port(Protocol::Tcp, 443);
    assert_eq!(talk.flow.timeout(&tuple, &TIMEOUTS), 432_000);
    assert_eq!(talk.inject(Reply, RST, 5001, 0, 0), FlowState::Closed);
}

// RFC 9293, section 3.10.7.4, TIME-WAIT; RFC 6191.
#[test]
fn only_a_newer_syn_replaces_a_flow_that_both_have_closed() {
    let syn = |seq: u32| segment(SYN, seq, 0, 0);
    let replaces = |talk: &Talk, off: i32| {
        let at = talk.peers[0].at.wrapping_add_signed(off);
        assert!(!talk.flow.is_replaced_by(Reply, &syn(at)));
        assert!(!talk
            .flow
            .is_replaced_by(Original, &segment(SYN | ACK, at, 0, 0)));
        talk.flow.is_replaced_by(Original, &syn(at))
    };
    let mut talk = Talk::open();
    for off in [-1, 0, 1 << 29] {
        assert!(!replaces(&talk, off));
    }
    talk.send(Original, FIN | ACK, 100);
    assert!(!replaces(&talk, 1 << 29));
    talk.send(Reply, FIN | ACK, 0);
    assert_eq!(talk.flow.state(), FlowState::Closed);
    for (off, newer) in [
        (0, true),
        (1, true),
        (1 << 29, true),
        (i32::MAX, true),
        (-1, false),
        (-100, false),
        (i32::MIN, false),
    ] {
        assert_eq!(replaces(&talk, off), newer, "{off}");
    }
    // One that is older is kept, and counts if it is answered.
    let at = talk.peers[0].at.wrapping_sub(1 << 29);
    talk.inject(Original, SYN, at, 0, 0);
    let state = talk.inject(Reply, SYN | ACK, 9, 0, at.wrapping_add(1));
    assert_eq!(state, FlowState::Established);
    // After a RST both ends have forgotten all.
    let mut talk = Talk::open();
    talk.send(Original, FIN | ACK, 100);
    talk.send(Reply, RST, 0);
    assert!(replaces(&talk, 0) && replaces(&talk, -1 << 29));
    // The numbers of a direct one are not known.
    let mut talk = Talk::new();
    talk.flow = Flow::direct(&to_port(Protocol::Tcp, 443), 0).1;
    for (direction, flags) in [
        (Original, SYN),
        (Reply, SYN | ACK),
        (Original, FIN | ACK),
        (Reply, FIN | ACK),
    ] {
        talk.send(direction, flags, 0);
    }
    assert!(replaces(&talk, 0) && replaces(&talk, -1 << 29));
}

// Of two SYNs the second is refused; the first may be answered yet.
#[test]
fn the_first_syn_is_kept_when_the_second_is_refused() {
    let talk = Talk::new();
    talk.inject(Original, SYN, 1000, 0, 0);
    talk.inject(Original, SYN, 1 << 20, 0, 0);
    let state = talk.inject(Reply, RST | ACK, 0, 0, (1 << 20) + 1);
    assert_eq!(state, FlowState::Closed);
    assert_eq!(talk.outcome.take(), Some(Outcome::Refused));
    let state = talk.inject(Reply, SYN | ACK, 9, 0, 1001);
    assert_eq!(state, FlowState::Established);
    assert_eq!(talk.outcome.take(), Some(Outcome::Answered));
}

// The server closes before its answer was confirmed, and the answer comes twice, after a repeated SYN.
#[test]
fn a_repeated_answer_takes_no_fin_back() {
    let mut talk = Talk::new();
    let client = talk.peers[0].at;
    talk.send(Original, SYN, 0);
    let server = talk.peers[1].at;
    talk.send(Reply, SYN | ACK, 0);
    talk.inject(Original, SYN, client, 0, 0);
    assert_eq!(talk.send(Reply, FIN | ACK, 0), FlowState::Closing);
    let ack = client.wrapping_add(1);
    let state = talk.inject(Reply, SYN | ACK, server, 0, ack);
    assert_eq!(state, FlowState::Closing);
    assert_eq!(talk.send(Original, FIN | ACK, 0), FlowState::Closed);
}

// What confirms the client's SYN may be sent after something that is lost.
#[test]
fn of_both_that_opened_at_once_the_client_expects_what_follows_the_syn() {
    let talk = Talk::new();
    talk.inject(Original, SYN, 1000, 0, 0);
    talk.inject(Reply, SYN, 2000, 0, 0);
    talk.inject(Original, SYN | ACK, 1000, 0, 2001);
    let state = talk.inject(Reply, ACK, 2101, 0, 1001);
    assert_eq!(state, FlowState::Established);
    assert_eq!(talk.inject(Reply, RST, 2001, 0, 0), FlowState::Closed);
}
