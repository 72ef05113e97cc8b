// SPDX-License-Identifier: GPL-2.0

//! What a TCP segment says, and how far its connection has come.
//!
//! A flow must not end because somebody who cannot see it guesses its addresses and ports: a RST
//! or FIN counts only with sequence numbers that its sender would use (compare RFC 5961).

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::packet::TCP_HEADER;

/// The control bits of a TCP header (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    const FIN: u8 = 1 << 0;
    const SYN: u8 = 1 << 1;
    const RST: u8 = 1 << 2;
    const ACK: u8 = 1 << 4;

    /// The sender has no more data.
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// The sender opens the connection.
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    /// The sender gives the connection up.
    pub const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    /// The acknowledgement number counts.
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// The first segment of a connection: SYN and nothing that contradicts it.
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }

    /// A segment as an established connection has them: an acknowledgement, and nothing that
    /// changes its state.
    #[inline(always)]
    pub const fn is_plain(self) -> bool {
        self.0 & (Self::SYN | Self::RST | Self::FIN | Self::ACK) == Self::ACK
    }
}

/// What a flow needs to know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The control bits.
    pub flags: Flags,
    // Sequence number of the first byte, and below it the acknowledgement: as they stand in the
    // header.
    numbers: u64,
    payload: u32,
}

impl Segment {
    /// Reads a segment of `length` bytes, of which `header` are the first.
    #[inline(always)]
    pub fn read(header: &[u8; TCP_HEADER], length: u32) -> Self {
        let [_, _, _, _, numbers @ .., offset, flags, _, _, _, _, _, _] = *header;
        Self {
            flags: Flags(flags),
            numbers: u64::from_be_bytes(numbers),
            payload: length.wrapping_sub(u32::from(offset >> 4) * 4),
        }
    }

    /// Sequence number of the first byte.
    const fn start(&self) -> u32 {
        (self.numbers >> 32) as u32
    }

    /// The next sequence number that the sender expects, if ACK is set.
    const fn ack(&self) -> u32 {
        self.numbers as u32
    }

    /// Sequence number after the last byte; SYN and FIN count as one.
    fn end(&self) -> u32 {
        let extra = u32::from(self.flags.syn()) + u32::from(self.flags.fin());
        self.start().wrapping_add(self.payload).wrapping_add(extra)
    }
}

/// One more than the largest window that can be announced without scaling (RFC 9293).
const WINDOW: u32 = 65_536;
/// The largest shift that RFC 7323, section 2.3, allows.
const MAX_SHIFT: u8 = 14;

/// The options in a segment, which begins with its header; none if the header is not all there.
pub fn options(segment: &[u8]) -> &[u8] {
    let length = segment
        .get(12)
        .map_or(0, |offset| usize::from(offset >> 4) * 4);
    segment.get(TCP_HEADER..length).unwrap_or_default()
}

/// The shift of the window scale option (RFC 7323) among `options`; zero without one.
pub fn window_shift(mut options: &[u8]) -> u8 {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const WINDOW_SCALE: u8 = 3;
    loop {
        match *options {
            [WINDOW_SCALE, 3, shift, ..] => return shift.min(MAX_SHIFT),
            [NOTHING, ref rest @ ..] => options = rest,
            [END, ..] | [] | [_] => return 0,
            [_, length, ..] => match options.get(usize::from(length).max(2)..) {
                Some(rest) => options = rest,
                None => return 0,
            },
        }
    }
}

const fn pack(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

/// How far one side of a connection has come, as its own segments tell.
///
/// Only that side's segments write it. Of two of them that are handled at the same moment one may
/// be overlooked; the next makes up for it.
#[derive(Debug, Default)]
pub struct Progress {
    // After the last byte sent, and below it the last acknowledgement sent.
    seen: AtomicU64,
    // The bits that are above all numbers by which a segment may be ahead of the last; twice.
    above: AtomicU64,
}

impl Progress {
    fn end(&self) -> u32 {
        (self.seen.load(Relaxed) >> 32) as u32
    }

    fn ack(&self) -> u32 {
        self.seen.load(Relaxed) as u32
    }

    fn set_ack(&self, ack: u32) {
        self.seen.store(pack(self.end(), ack), Relaxed);
    }

    fn reach(&self) -> u32 {
        !(self.above.load(Relaxed) as u32)
    }

    /// Begins with a side's SYN, of which `options` are the TCP options.
    pub fn begin(&self, segment: &Segment, options: &[u8]) {
        self.seen.store(pack(segment.end(), segment.ack()), Relaxed);
        let above = !(WINDOW << window_shift(options)).wrapping_sub(1);
        self.above.store(pack(above, above), Relaxed);
    }

    /// Begins with the SYN in answer to the `other` side's: from here on that acknowledges what
    /// this one sends, and a scale that was agreed on counts for both.
    pub fn answer(&self, other: &Self, segment: &Segment, options: &[u8]) {
        self.begin(segment, options);
        other.set_ack(segment.end());
        let above = self.above.load(Relaxed) & other.above.load(Relaxed);
        self.above.store(above, Relaxed);
        other.above.store(above, Relaxed);
    }

    /// Takes note of a segment without SYN and FIN, if its numbers are a step from those before
    /// that its sender could have made. If not, or where acknowledgements wrap, that is for
    /// [`Self::takes`] to say.
    #[inline(always)]
    #[must_use]
    pub fn note(&self, segment: &Segment) -> bool {
        let now = segment
            .numbers
            .wrapping_add(u64::from(segment.payload) << 32);
        // Both differences in one: the lower borrows from the upper one if it is negative, and then
        // is refused, or if the acknowledgement has wrapped.
        let ahead = now.wrapping_sub(self.seen.load(Relaxed));
        if ahead & self.above.load(Relaxed) != 0 {
            return false;
        }
        self.seen.store(now, Relaxed);
        true
    }

    /// As `note`, for any segment without SYN; whether the step was possible. A repeated segment
    /// is.
    pub fn takes(&self, segment: &Segment) -> bool {
        let (end, ack, reach) = (self.end(), self.ack(), self.reach());
        let within = |ahead: u32| ahead <= reach;
        let (segment_end, segment_ack) = (segment.end(), segment.ack());
        if !within(segment_ack.wrapping_sub(ack)) && !within(ack.wrapping_sub(segment_ack)) {
            return false;
        }
        let newer = within(segment_end.wrapping_sub(end));
        if newer && within(segment_ack.wrapping_sub(ack)) {
            self.seen.store(pack(segment_end, segment_ack), Relaxed);
        }
        newer || within(end.wrapping_sub(segment_end))
    }

    /// Whether a RST that comes from this side could be real: it starts where its receiver, the
    /// `other` side, expects it, or after the last byte that was sent.
    pub fn resets(&self, other: &Self, segment: &Segment) -> bool {
        segment.start() == other.ack() || segment.start() == self.end()
    }

    /// Whether a RST in answer to a SYN is right: it acknowledges just that (RFC 9293, 3.10.7.3).
    pub fn refuses(other: &Self, segment: &Segment) -> bool {
        segment.flags.ack() && segment.ack() == other.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ACK: u8 = 16;

    fn segment(flags: u8, start: u32, length: u32, ack: u32) -> Segment {
        let mut header = [0; TCP_HEADER];
        header[4..8].copy_from_slice(&start.to_be_bytes());
        header[8..12].copy_from_slice(&ack.to_be_bytes());
        header[12] = 8 << 4;
        header[13] = flags;
        Segment::read(&header, length + 32)
    }

    // A side that expects its peer's first byte to have this number.
    fn begun(start: u32, ack: u32) -> Progress {
        let progress = Progress::default();
        progress.begin(&segment(2, start, 0, 0), &[1, 3, 3, 7]);
        progress.set_ack(ack);
        progress
    }

    #[test]
    fn reads_numbers_and_length() {
        let read = segment(ACK, 1000, 10, 77);
        assert_eq!((read.start(), read.end(), read.ack()), (1000, 1010, 77));
        assert!(read.flags.is_plain());
        assert_eq!(segment(17, 5, 0, 0).end(), 6);
    }

    #[test]
    fn only_a_bare_syn_opens() {
        assert!(Flags(2).opens());
        // ECN bits (RFC 3168) belong to a SYN.
        assert!(Flags(2 | 0xc0).opens());
        for flags in [0, ACK, 2 | ACK, 3, 6, 4] {
            assert!(!Flags(flags).opens(), "{flags:#x}");
        }
        for flags in [0, 2, 4 | ACK, 1 | ACK] {
            assert!(!Flags(flags).is_plain(), "{flags:#x}");
        }
    }

    #[test]
    fn options_end_where_data_begins() {
        let mut segment = [3, 3, 7].repeat(20);
        for (offset, length) in [(4, 0), (5, 0), (7, 8), (15, 40)] {
            segment[12] = offset << 4;
            assert_eq!(options(&segment).len(), length, "{offset}");
        }
        assert!(options(&segment[..59]).is_empty());
        assert!(options(&[]).is_empty());
    }

    #[test]
    fn finds_the_window_scale() {
        assert_eq!(window_shift(&[2, 4, 5, 180, 1, 3, 3, 7]), 7);
        assert_eq!(window_shift(&[3, 3, 200]), MAX_SHIFT);
        for none in [&[][..], &[0, 3, 3, 7], &[2, 4, 5], &[3, 3], &[8, 0, 1]] {
            assert_eq!(window_shift(none), 0, "{none:?}");
        }
    }

    // Near the wrap or anywhere.
    fn any_number() -> impl Strategy<Value = u32> {
        prop_oneof![any::<u32>(), u32::MAX - 200_000..]
    }

    fn any_step() -> impl Strategy<Value = u32> {
        prop_oneof![Just(0), 0_u32..60_000]
    }

    proptest! {
        #[test]
        fn any_options_end(options in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(window_shift(&options) <= MAX_SHIFT);
        }

        // A sender that keeps to its window is followed to the byte, over the wrap as well.
        #[test]
        fn follows_a_real_sender(
            start in any_number(),
            expected in any_number(),
            steps in prop::collection::vec((any_step(), any_step()), 1..50),
        ) {
            let (sender, receiver) = (begun(start, expected), begun(7, 500));
            let (mut at, mut ack) = (start.wrapping_add(1), expected);
            for (length, acknowledged) in steps {
                ack = ack.wrapping_add(acknowledged);
                let sent = segment(ACK, at, length, ack);
                prop_assert!(sender.note(&sent) || sender.takes(&sent));
                at = at.wrapping_add(length);
                receiver.set_ack(at);
                prop_assert_eq!((sender.end(), sender.ack()), (at, ack));
                prop_assert!(sender.resets(&receiver, &segment(4, at, 0, 0)));
                prop_assert!(sender.takes(&segment(17, at, 0, ack)));
                // The FIN was only tried: take it back.
                sender.seen.store(pack(at, ack), Relaxed);
            }
        }

        // Somebody who guesses numbers moves nothing and resets nothing.
        #[test]
        fn ignores_a_blind_sender(start: u32, guesses in prop::collection::vec(any::<[u32; 2]>(), 1..50)) {
            let (sender, receiver) = (begun(start, 500), begun(7, 500));
            let at = start.wrapping_add(1);
            receiver.set_ack(at);
            let reach = sender.reach();
            for [guess, ack] in guesses {
                prop_assume!(guess != at && guess.wrapping_sub(at) > reach);
                prop_assume!(at.wrapping_sub(guess) > reach);
                prop_assert!(!sender.note(&segment(ACK, guess, 100, ack)));
                prop_assert!(!sender.takes(&segment(17, guess, 0, ack)));
                prop_assert!(!sender.resets(&receiver, &segment(4, guess, 0, 0)));
                prop_assert_eq!(sender.end(), at);
            }
        }
    }

    #[test]
    fn a_reset_refuses_a_syn_only_with_its_number() {
        let client = begun(99, 500);
        assert!(Progress::refuses(&client, &segment(20, 0, 0, 100)));
        assert!(!Progress::refuses(&client, &segment(20, 0, 0, 101)));
        assert!(!Progress::refuses(&client, &segment(4, 0, 0, 100)));
    }
}
