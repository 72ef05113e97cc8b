// SPDX-License-Identifier: GPL-2.0

//! How long a flow may be idle, and which go first.

use super::*;

#[test]
fn idle_time_wraps_never_is_negative_and_counts_both_sides() {
    let flow = flow(Protocol::Udp);
    assert_eq!(flow.idle(u32::MAX), 1);
    assert_eq!(flow.idle(3), 5);
    assert_eq!(flow.idle(u32::MAX - 2), 0);
    flow.count(Reply, 100, 2);
    assert_eq!(flow.idle(3), 1);
    assert_eq!(flow.counted(Reply), (1, 100));
}

#[test]
fn datagrams_last_once_they_go_on_for_two_seconds() {
    for (port, before) in [(53, 30), (1023, 30), (1024, 120), (40_000, 120)] {
        let tuple = to_port(Protocol::Udp, port);
        let start = u32::MAX - 500;
        let (_, flow) = Flow::<()>::direct(&tuple, start);
        let timeout = || flow.timeout(&tuple, &TIMEOUTS);
        assert_eq!(timeout(), before);
        // Nobody answers.
        flow.count(Original, 1, start.wrapping_add(10 * HZ));
        assert_eq!(timeout(), before);
        let (_, flow) = Flow::<()>::direct(&tuple, start);
        let timeout = || flow.timeout(&tuple, &TIMEOUTS);
        flow.advance_udp(Reply);
        flow.count(Original, 1, start.wrapping_add(2 * HZ - 1));
        assert_eq!(timeout(), before, "too soon");
        flow.count(
            Original,
            1,
            start.wrapping_add(2 * HZ + 2 * (1 << BIRTH_UNIT)),
        );
        assert_eq!(timeout(), 180);
        // However long ago it began.
        for hours in [1, 5, 24, 500] {
            flow.count(Original, 1, start.wrapping_add(hours * 3600 * HZ));
            assert_eq!(timeout(), 180, "{hours} hours");
        }
    }
}

#[test]
fn a_connection_that_its_client_does_not_confirm_counts_as_unanswered() {
    let mut talk = Talk::new();
    let tuple = to_port(Protocol::Tcp, 443);
    talk.send(Original, SYN, 0);
    assert_eq!(talk.send(Reply, SYN | ACK, 0), FlowState::Established);
    assert_eq!(talk.flow.timeout(&tuple, &TIMEOUTS), 240);
    assert!(talk
        .flow
        .early_drop_rank(Protocol::Tcp, false, 0, HZ)
        .is_some());
    // Nor by somebody who does not know the server's number.
    talk.inject(Original, ACK, talk.peers[0].at, 0, 1 << 30);
    assert_eq!(talk.flow.timeout(&tuple, &TIMEOUTS), 240);
    talk.send(Original, ACK, 0);
    assert_eq!(talk.flow.timeout(&tuple, &TIMEOUTS), 432_000);
    assert_eq!(
        talk.flow.early_drop_rank(Protocol::Tcp, false, 1 << 30, HZ),
        None
    );
}

#[test]
fn what_is_closed_goes_first_and_what_lasts_never() {
    let now = 100 * HZ;
    let udp = |direct: bool, answered: bool, last: u32| {
        let tuple = to_port(Protocol::Udp, 53);
        let flow = match direct {
            true => Flow::direct(&tuple, 0).1,
            false => Flow::new(&tuple, &tuple.to(ip([3; 4]), 4), OWNER, 0).1,
        };
        if answered {
            flow.advance_udp(Reply);
        }
        flow.count(Original, 1, last);
        rank_of(&flow, Protocol::Udp, false, now)
    };
    for direct in [false, true] {
        assert_eq!(udp(direct, false, 10), Some((3, now - 10)));
        assert_eq!(udp(direct, true, 10), Some((1, now - 10)));
    }
    let tcp = |direct: bool, segments: &[(Direction, u8)], last: u32| {
        let mut talk = Talk::new();
        let tuple = to_port(Protocol::Tcp, 443);
        talk.flow = match direct {
            true => Flow::direct(&tuple, 0).1,
            false => Flow::new(&tuple, &tuple.to(ip([3; 4]), 4), OWNER, 0).1,
        };
        for &(direction, flags) in segments {
            talk.send(direction, flags, 0);
        }
        talk.flow.count(Reply, 1, last);
        rank_of(&talk.flow, Protocol::Tcp, false, now)
    };
    let open = [(Original, SYN), (Reply, SYN | ACK), (Original, ACK)];
    let then = |segments: &[(Direction, u8)]| [&open, segments].concat();
    let reset = then(&[(Original, RST)]);
    let finished = then(&[(Original, FIN | ACK), (Reply, FIN | ACK)]);
    let closing = then(&[(Original, FIN | ACK)]);
    assert_eq!(tcp(false, &reset, 1000), Some((4, now - 1000)));
    for direct in [false, true] {
        assert_eq!(tcp(direct, &finished, 1000), Some((4, now - 1000)));
        // Answered, but not confirmed.
        assert_eq!(tcp(direct, &open[..1], 1000), Some((3, now - 1000)));
        assert_eq!(tcp(direct, &open[..2], 1000), Some((3, now - 1000)));
        // An end that has closed may wait for the other one, for a while.
        let idle = 10 * HZ;
        assert_eq!(tcp(direct, &closing, now - idle - 1), Some((2, idle + 1)));
    }
    let lasts = |idle: u32| {
        [
            udp(false, true, now - idle),
            tcp(false, &open, now - idle),
            tcp(false, &closing, now - idle),
        ]
    };
    assert_eq!(lasts(0), [None; 3]);
    assert_eq!(lasts(10 * HZ), [None; 3]);
    // A direct one is not needed: less is lost than with any other.
    let lasts = |idle: u32| {
        [
            udp(true, true, now - idle),
            tcp(true, &open, now - idle),
            tcp(true, &closing, now - idle),
        ]
    };
    assert_eq!(lasts(0), [Some((0, 0)); 3]);
    assert_eq!(lasts(10 * HZ), [Some((0, 10 * HZ)); 3]);
}

#[test]
fn for_a_direct_flow_only_direct_ones_go() {
    let tuple = to_port(Protocol::Tcp, 443);
    let redirected = flow(Protocol::Tcp);
    let (_, direct) = Flow::<()>::direct(&tuple, 0);
    assert_eq!(rank_of(&redirected, Protocol::Tcp, true, 9), None);
    assert_eq!(rank_of(&direct, Protocol::Tcp, true, 9), Some((3, 9)));
}

// As with connection tracking, packets of either direction count.
#[test]
fn datagrams_of_a_server_alone_last() {
    let tuple = to_port(Protocol::Udp, 53);
    let (_, flow) = Flow::<()>::direct(&tuple, 0);
    flow.advance_udp(Reply);
    flow.count(Reply, 1, 10 * HZ);
    assert_eq!(flow.timeout(&tuple, &TIMEOUTS), 180);
}

// For how long nobody answered says nothing.
#[test]
fn datagrams_last_two_seconds_after_an_answer_that_came_late() {
    let tuple = to_port(Protocol::Udp, 53);
    let (_, flow) = Flow::<()>::direct(&tuple, 0);
    let mut now = 0;
    while now < 3 * 3600 * HZ {
        flow.count(Original, 1, now);
        assert_eq!(flow.timeout(&tuple, &TIMEOUTS), 30);
        now += 30 * HZ;
    }
    flow.count(Original, 1, now);
    assert_eq!(flow.timeout(&tuple, &TIMEOUTS), 30);
    flow.advance_udp(Reply);
    flow.count(Reply, 1, now);
    assert_eq!(
        flow.timeout(&tuple, &TIMEOUTS),
        30,
        "an answer is no more than that"
    );
    flow.count(Original, 1, now + 3 * HZ);
    assert_eq!(flow.timeout(&tuple, &TIMEOUTS), 180);
}

// The clock of a CPU may be late.
#[test]
fn datagrams_are_no_older_than_their_flow() {
    let tuple = to_port(Protocol::Udp, 53);
    let born = 1 << 20;
    let (_, flow) = Flow::<()>::direct(&tuple, born);
    flow.advance_udp(Reply);
    for direction in Direction::ALL {
        flow.count(direction, 1, born - 300);
    }
    assert_eq!(flow.timeout(&tuple, &TIMEOUTS), 30);
}

// A moment of birth that would say that it lasts.
#[test]
fn no_flow_is_born_assured() {
    let tuple = to_port(Protocol::Udp, 53);
    let (_, flow) = Flow::<()>::direct(&tuple, u32::MAX);
    flow.advance_udp(Reply);
    assert_eq!(flow.timeout(&tuple, &TIMEOUTS), 30);
}
