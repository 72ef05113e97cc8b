// SPDX-License-Identifier: GPL-2.0

//! What a flow is and says of itself.

use super::super::super::checksum::Sum;
use super::super::super::tuple::tests::{any_v4, any_v6};
use super::super::super::tuple::V6;
use super::*;
use proptest::prelude::*;

fn sum<A: Address>(tuple: &Tuple<A>) -> Sum {
    let (addresses, ports) = tuple.sums();
    addresses.and(ports)
}

fn there_and_back<A: Address>(original: Tuple<A>, upstream: Tuple<A>) {
    let (keys, flow) = Flow::<()>::new(&original, &upstream, OWNER, 0);
    for direction in Direction::ALL {
        let before = keys[direction as usize];
        let after = keys[direction.other() as usize].reverse();
        let got = flow
            .checksum_fixup(direction)
            .transport
            .apply(!sum(&before).fold());
        assert_eq!(!got % 0xffff, sum(&after).fold() % 0xffff);
    }
}

proptest! {
    #[test]
    fn changes_are_those_of_the_checksums(
        four in any_v4(), six in any_v6(), address in any::<[u64; 2]>(), ports in any::<u32>(),
    ) {
        let other = V4(address[0] as u32);
        there_and_back(four, Tuple::new(four.protocol, other, other, Ports(ports)));
        let other = V6(address);
        there_and_back(six, Tuple::new(six.protocol, other, other, Ports(ports)));
    }
}

proptest! {
    // A flow that is made with its SYN is as one that sees it.
    #[test]
    fn a_flow_is_opened_as_by_its_first_segment(
        seq: u32, length in 0..2000_u32, more in prop::sample::select(vec![0, 8, 0x40, 0xc0]),
        shift in prop::option::of(0..16_u8),
    ) {
        let options = shift.map_or([1; 4], |shift| [3, 3, shift, 0]);
        let syn = segment(SYN | more, seq, length, 0);
        let tuple = to_port(Protocol::Tcp, 443);
        for make in [
            || Flow::<()>::direct(&to_port(Protocol::Tcp, 443), 7).1,
            || flow(Protocol::Tcp),
        ] {
            let (seen, opened) = (make(), make().opened(Opening::by(&syn, &options)));
            let outcome = seen.advance_tcp(Original, &syn, &options, &Reopenings::new(), HASH);
            prop_assert_eq!(outcome, None);
            prop_assert_eq!(format!("{seen:?}"), format!("{opened:?}"));
            prop_assert_eq!(seen.timeout(&tuple, &TIMEOUTS), opened.timeout(&tuple, &TIMEOUTS));
        }
    }
}

#[test]
fn udp_is_established_by_an_answer() {
    let flow = flow(Protocol::Udp);
    flow.advance_udp(Original);
    assert_eq!(flow.state(), FlowState::Opening);
    assert!(!flow.is_plain(Original, None));
    flow.advance_udp(Reply);
    assert_eq!(flow.state(), FlowState::Established);
    assert!(flow.is_plain(Original, None) && flow.is_plain(Reply, None));
}

#[test]
fn each_half_is_a_line_of_its_own() {
    // What the kernel keeps for a route: a pointer and two words.
    assert_eq!(size_of::<PerDirection<[u64; 2]>>(), 64);
    assert_eq!(size_of::<Flow<[u64; 2]>>(), 128);
}

#[test]
fn a_direct_flow_is_known_from_both_sides_and_never_plain() {
    let tuple = to_port(Protocol::Udp, 53);
    let (keys, flow) = Flow::<()>::direct(&tuple, 7);
    assert_eq!(keys, [tuple, tuple.reverse()]);
    assert!(flow.is_direct() && !flow.is_plain_direct(Original, None));
    flow.advance_udp(Reply);
    assert!(flow.is_direct() && flow.state() == FlowState::Established);
    for direction in Direction::ALL {
        assert!(flow.is_plain_direct(direction, None) && !flow.is_plain(direction, None));
    }
    let redirected = self::flow(Protocol::Udp);
    redirected.advance_udp(Reply);
    assert!(!redirected.is_direct() && !redirected.is_plain_direct(Reply, None));
}

#[test]
fn an_upstream_that_has_sent_anything_is_not_silent() {
    let talk = Talk::new();
    talk.inject(Original, SYN, 5, 0, 0);
    talk.flow.count(Original, 60, 1);
    assert!(talk.flow.is_unanswered());
    // A challenge (RFC 5961, section 4), say: it lives, whatever becomes of the connection.
    talk.inject(Reply, ACK, 77, 0, 99);
    talk.flow.count(Reply, 60, 2);
    assert_eq!(talk.flow.state(), FlowState::Opening);
    assert!(!talk.flow.is_unanswered());
    let talk = Talk::open();
    assert!(!talk.flow.is_unanswered());
}

#[test]
fn a_flow_is_confirmed_by_a_second_packet_or_an_answer() {
    let flow = flow(Protocol::Udp);
    assert!(flow.is_unconfirmed());
    flow.count(Original, 1, 0);
    assert!(flow.is_unconfirmed());
    flow.count(Original, 1, 0);
    assert!(!flow.is_unconfirmed());
    let flow = self::flow(Protocol::Udp);
    flow.advance_udp(Reply);
    assert!(!flow.is_unconfirmed());
}
