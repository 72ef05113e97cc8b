// SPDX-License-Identifier: GPL-2.0

//! Any bytes, read as a segment of TCP: flags and options are those that etherparse finds.

use etherparse::{TcpHeaderSlice, TcpOptionElement};
use mutex_datapath::packet::TCP_HEADER;
use mutex_datapath::reopenings::Reopenings;
use mutex_datapath::tcp::segment::{options, window_shift};
use mutex_datapath::tcp::{Segment, SeqState, Syn};

pub fn run(data: &[u8]) {
    let found = options(data);
    let shift = window_shift(found);
    assert!(found.len() <= 40 && shift <= Some(14));
    // As a bare list, too.
    assert!(window_shift(data) <= Some(14));
    let Some(header) = data.first_chunk::<TCP_HEADER>() else {
        assert!(found.is_empty());
        return;
    };
    let segment = Segment::read(header, data.len() as u32);
    follow(&segment, found);
    let Ok(slice) = TcpHeaderSlice::from_slice(data) else {
        assert!(found.is_empty());
        return;
    };
    assert_eq!(found, slice.options());
    let flags = segment.flags;
    assert_eq!(
        [flags.fin(), flags.syn(), flags.rst(), flags.ack()],
        [slice.fin(), slice.syn(), slice.rst(), slice.ack()]
    );
    assert_eq!(
        flags.opens(),
        slice.syn() && !slice.ack() && !slice.rst() && !slice.fin()
    );
    assert_eq!(
        flags.is_plain(),
        slice.ack() && !slice.syn() && !slice.rst() && !slice.fin()
    );
    // Of well-formed options the first one counts.
    let Ok(list) = slice.options_iterator().collect::<Result<Vec<_>, _>>() else {
        return;
    };
    let scale = list.iter().find_map(|option| match option {
        TcpOptionElement::WindowScale(shift) => Some(*shift),
        _ => None,
    });
    assert_eq!(shift, scale.map(|scale| scale.min(14)));
}

// A connection that begins with it takes the segment after it.
fn follow(segment: &Segment, options: &[u8]) {
    let (one, other) = (SeqState::default(), SeqState::default());
    let syn = Syn::read(segment, options);
    assert!(one.begin(&syn) && one.begin(&syn));
    assert_eq!(one.syn(), Some(syn));
    let reopenings = Reopenings::new();
    reopenings.keep(7, &syn);
    let kept = reopenings.take(7, segment);
    assert_eq!(kept.is_some(), syn.is_acked_by(segment));
    other.answer(&one, segment, options);
    let _ = (
        one.accept_in_order(segment),
        one.accept(segment),
        one.resets(&other, segment),
        one.takes_back(segment),
        one.refuses(&other, segment),
    );
}
