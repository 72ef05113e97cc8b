// SPDX-License-Identifier: GPL-2.0

//! How far one direction of a TCP connection has come, by the numbers of its segments.
//!
//! A flow must not end because somebody who cannot see it guesses its addresses and ports: a RST
//! or FIN counts only with sequence numbers that its sender would use (compare RFC 5961).

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::segment::{Segment, Syn};

/// One more than the largest window that can be announced without scaling (RFC 9293).
const WINDOW: u32 = 65_536;
/// The `window_mask` without a scale.
const UNSCALED: u32 = !(WINDOW - 1);
/// In the `window_mask` of a SYN that is not answered: it has a window scale option.
const SCALES: u32 = 1;

const fn pack(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

impl Syn {
    const fn end(&self) -> u32 {
        self.first.wrapping_add(self.data)
    }

    fn window_mask(&self) -> u32 {
        match self.shift {
            Some(shift) => !(WINDOW << shift).wrapping_sub(1) | SCALES,
            None => UNSCALED,
        }
    }
}

/// How far one direction of a connection has come, as its own segments tell: struct ip_ct_tcp_state of
/// connection tracking, in 16 bytes.
///
/// Only that direction's segments write it, but for the answer to its SYN. Of two of them that are handled at the same
/// moment one may be overlooked; the next makes up for it.
#[derive(Debug, Default)]
pub struct SeqState {
    // `next_seq`, the number after the last byte sent, and below it `acked`, the last acknowledgement
    // sent. Before its SYN is answered an end has acknowledged nothing that counts: `acked` is then
    // `first` of that SYN.
    numbers: AtomicU64,
    // The bits that are above all numbers by which a segment may be ahead of the last; zero before
    // the direction's SYN. Once more above, when that is acknowledged.
    window_mask: AtomicU64,
}

/// How far a direction has come when its flow is made: nowhere, or it has sent a SYN.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening {
    numbers: u64,
    window_mask: u64,
}

impl Opening {
    /// By a SYN, and its TCP options.
    #[inline(always)]
    pub fn by(segment: &Segment, options: &[u8]) -> Self {
        let syn = Syn::read(segment, options);
        Self {
            numbers: pack(syn.end(), syn.first),
            window_mask: syn.window_mask().into(),
        }
    }
}

impl From<Opening> for SeqState {
    #[inline(always)]
    fn from(opening: Opening) -> Self {
        Self {
            numbers: AtomicU64::new(opening.numbers),
            window_mask: AtomicU64::new(opening.window_mask),
        }
    }
}

impl SeqState {
    fn next_seq(&self) -> u32 {
        (self.numbers.load(Relaxed) >> 32) as u32
    }

    fn acked(&self) -> u32 {
        self.numbers.load(Relaxed) as u32
    }

    fn set_acked(&self, acked: u32) {
        self.numbers.store(pack(self.next_seq(), acked), Relaxed);
    }

    // The largest step.
    fn window(&self) -> u32 {
        !(self.window_mask.load(Relaxed) as u32 & !SCALES)
    }

    /// The direction's SYN, if there was one and it is not answered yet.
    pub fn syn(&self) -> Option<Syn> {
        let (mask, first) = (self.window_mask.load(Relaxed) as u32, self.acked());
        (mask != 0).then(|| Syn {
            first,
            data: self.next_seq().wrapping_sub(first),
            shift: (mask & SCALES != 0).then(|| {
                let bits = (mask & !SCALES).trailing_zeros();
                bits.saturating_sub(WINDOW.trailing_zeros()) as u8
            }),
        })
    }

    /// Begins with a direction's SYN, or the same once more. False if that end has sent another one
    /// before: the answer will tell which of them counts.
    #[must_use]
    pub fn begin(&self, syn: &Syn) -> bool {
        let syn = match self.syn() {
            Some(before) => before.once_more(syn),
            None => Some(*syn),
        };
        let Some(syn) = syn else {
            return false;
        };
        let acked = self.window_mask.load(Relaxed) & u64::from(u32::MAX) << 32;
        self.numbers.store(pack(syn.end(), syn.first), Relaxed);
        self.window_mask
            .store(acked | u64::from(syn.window_mask()), Relaxed);
        true
    }

    /// Begins with a direction's SYN, whatever there was before.
    pub fn begin_anew(&self, syn: &Syn) {
        self.numbers.store(pack(syn.end(), syn.first), Relaxed);
        self.window_mask.store(syn.window_mask().into(), Relaxed);
    }

    /// Begins with the SYN in answer to that of the `other` direction: from here on that acknowledges what
    /// this one sends, and a scale that was agreed on counts for both.
    pub fn answer(&self, other: &Self, segment: &Segment, options: &[u8]) {
        self.begin_anew(&Syn::read(segment, options));
        self.agree(other, segment.end(), segment.ack());
    }

    /// Both ends have sent their SYN at once (RFC 9293, section 3.5, figure 7), and this segment
    /// acknowledges that of the `other` direction without one. False if it is no such segment.
    #[must_use]
    pub fn confirm(&self, other: &Self, segment: &Segment) -> bool {
        let confirms =
            self.syn().is_some() && other.syn().is_some_and(|syn| syn.is_acked_by(segment));
        if confirms {
            // What the other end expects, if it has said so.
            let expected = if self.is_syn_acked() {
                self.next_seq()
            } else {
                segment.start()
            };
            self.agree(other, expected, segment.ack());
            self.numbers
                .store(pack(segment.end(), segment.ack()), Relaxed);
        }
        confirms
    }

    // Both have a SYN, and the other's is answered by one after which comes `next_seq`.
    fn agree(&self, other: &Self, next_seq: u32, acked: u32) {
        // The larger window; RFC 7323, section 2.2: with a scale only if both SYNs have one.
        let masks = [self, other].map(|seq| seq.window_mask.load(Relaxed) as u32);
        let mask = match masks[0] & masks[1] {
            mask if mask & SCALES != 0 => mask & !SCALES,
            _ => UNSCALED,
        };
        self.numbers.store(pack(next_seq, acked), Relaxed);
        other.set_acked(next_seq);
        self.window_mask.store(pack(mask, mask), Relaxed);
        other.window_mask.store(pack(mask, mask), Relaxed);
    }

    /// The other end acknowledges this one's SYN, while its own is not answered. What it acknowledges it has got, whatever
    /// was taken for that SYN, or if none passed.
    pub fn syn_is_acked(&self, segment: &Segment) {
        let syn = self.syn();
        if !syn.is_some_and(|syn| syn.is_acked_by(segment)) {
            self.begin_anew(&Syn {
                first: segment.ack(),
                data: 0,
                shift: syn.map_or(Some(0), |syn| syn.shift),
            });
        }
        self.set_syn_acked();
    }

    fn set_syn_acked(&self) {
        let mask = self.window_mask.load(Relaxed) as u32;
        self.window_mask.store(pack(mask, mask), Relaxed);
    }

    /// Whether it has.
    pub fn is_syn_acked(&self) -> bool {
        self.window_mask.load(Relaxed) >> 32 != 0
    }

    /// Whether a segment of an end that has sent its SYN begins where its last one ended.
    pub fn is_next(&self, segment: &Segment) -> bool {
        self.syn().is_some() && segment.start() == self.next_seq()
    }

    /// Whether a segment begins after all that was sent.
    pub fn is_before(&self, segment: &Segment) -> bool {
        segment.start().wrapping_sub(self.next_seq()) <= u32::MAX / 2
    }

    /// Takes note of a FIN that an end sends next, before its SYN is answered.
    pub fn finish_early(&self, segment: &Segment) {
        self.numbers
            .store(pack(segment.end(), self.acked()), Relaxed);
    }

    /// Takes note of a segment without SYN and FIN, if its numbers are a step from those before
    /// that its sender could have made. If not, or where acknowledgements wrap, that is for
    /// [`Self::accept`] to say.
    ///
    /// Both differences are one subtraction of 64 bits. With a window of 65,536, `window_mask` is
    /// `ffff0000` twice:
    ///
    /// ```text
    ///            next_seq  acked
    /// segment    00001020  00000510
    /// before     00001000  00000500
    /// ahead      00000020  00000010   no bit of the mask: accepted
    ///
    /// segment    00001020  000004ff   acknowledges less than before
    /// ahead      0000001f  ffffffff   the lower half is refused; it has borrowed from the upper one
    ///
    /// segment    00000fff  00000510   sent again
    /// ahead      ffffffff  00000010   the upper half is refused
    ///
    /// segment    00001020  00000003   `acked` was fffffff0, and has wrapped
    /// ahead      0000001f  00000013   accepted: the borrow makes the upper half one less than it is. So a
    ///                                 step of 65,536 is let by; and one of 0 is ffffffff, and is refused
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn accept_in_order(&self, segment: &Segment) -> bool {
        let now = segment
            .numbers
            .wrapping_add(u64::from(segment.payload) << 32);
        let ahead = now.wrapping_sub(self.numbers.load(Relaxed));
        if ahead & self.window_mask.load(Relaxed) != 0 {
            return false;
        }
        self.numbers.store(now, Relaxed);
        true
    }

    /// As `accept_in_order`, for any segment without SYN; whether the step was possible. A repeated
    /// segment is, and may acknowledge more than it did.
    pub fn accept(&self, segment: &Segment) -> bool {
        let window = self.window();
        let within = |ahead: u32| ahead <= window;
        // The later one of two, if they are near.
        let later = |before: u32, now: u32| {
            if within(now.wrapping_sub(before)) {
                Some(now)
            } else {
                within(before.wrapping_sub(now)).then_some(before)
            }
        };
        let next_seq = later(self.next_seq(), segment.end());
        let acked = later(self.acked(), segment.ack());
        let (Some(next_seq), Some(acked)) = (next_seq, acked) else {
            return false;
        };
        self.numbers.store(pack(next_seq, acked), Relaxed);
        true
    }

    /// Whether a FIN could be real: it is near, and acknowledges nothing that the `other` direction has not sent (RFC 5961,
    /// section 5). The largest window would let by one of four that are guessed.
    pub fn closes(&self, other: &Self, segment: &Segment) -> bool {
        let ahead = segment.start().wrapping_sub(self.next_seq());
        let near = ahead < WINDOW || ahead.wrapping_neg() < WINDOW;
        let sent = other.next_seq().wrapping_sub(segment.ack()) <= u32::MAX / 2;
        segment.flags.ack() && near && sent
    }

    /// Whether `segment` acknowledges what was sent in the `other` direction, since the last acknowledgement: who
    /// guesses its number does not. If the numbers were forgotten, any does.
    pub fn confirms(&self, other: &Self, segment: &Segment) -> bool {
        let sent = other.next_seq().wrapping_sub(self.acked());
        let confirms = segment.ack().wrapping_sub(self.acked()) <= sent;
        segment.flags.ack() && (confirms || !self.is_known())
    }

    /// Whether anything is known of the direction.
    pub fn is_known(&self) -> bool {
        self.syn().is_some()
    }

    /// From now on nothing is known of the direction: any step is possible.
    pub fn forget(&self) {
        self.window_mask.store(0, Relaxed);
    }

    /// Whether `segment` of the other direction acknowledges a SYN that could be that with which the
    /// connection began, late: it lies no further back than what is repeated.
    pub fn has_begun_with(&self, segment: &Segment) -> bool {
        // Before there was an answer the connection has not begun.
        self.is_syn_acked() && self.next_seq().wrapping_sub(segment.ack()) <= self.window()
    }

    /// Whether this direction's last acknowledgement is of `segment`, and of no more.
    pub fn acks_end_of(&self, segment: &Segment) -> bool {
        self.acked() == segment.end()
    }

    /// Whether a RST that comes in this direction could be real: it starts where its receiver, the
    /// sender of the `other` direction, expects it, or after the last byte that was sent.
    pub fn resets(&self, other: &Self, segment: &Segment) -> bool {
        segment.start() == other.acked() || segment.start() == self.next_seq()
    }

    /// As `resets`, from the end that has sent its SYN first, before an answer: nothing is known of
    /// what the other one expects.
    pub fn takes_back(&self, segment: &Segment) -> bool {
        self.syn().is_some_and(|syn| syn.has(segment.start()))
    }

    /// As `resets`, from the end that is to answer: either the RST acknowledges the SYN (RFC 9293, section 3.10.7.3),
    /// or this end has sent a SYN as well, which the other one has acknowledged.
    pub fn refuses(&self, other: &Self, segment: &Segment) -> bool {
        other.syn().is_some_and(|syn| syn.is_acked_by(segment))
            || self.is_syn_acked() && segment.start() == self.next_seq()
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::tests::{segment, ACK};
    use super::super::segment::MAX_SHIFT;
    use super::*;
    use proptest::prelude::*;

    // An end that expects its peer's first byte to have this number.
    fn begun(start: u32, ack: u32) -> SeqState {
        let seq = SeqState::default();
        seq.begin_anew(&Syn::read(&segment(2, start, 0, 0), &[1, 3, 3, 7]));
        seq.set_syn_acked();
        seq.set_acked(ack);
        seq
    }

    // Near the wrap or anywhere.
    fn any_number() -> impl Strategy<Value = u32> {
        prop_oneof![any::<u32>(), u32::MAX - 200_000..]
    }

    fn any_step() -> impl Strategy<Value = u32> {
        prop_oneof![Just(0), 0_u32..60_000]
    }

    proptest! {
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
                prop_assert!(sender.accept_in_order(&sent) || sender.accept(&sent));
                at = at.wrapping_add(length);
                receiver.set_acked(at);
                prop_assert_eq!((sender.next_seq(), sender.acked()), (at, ack));
                prop_assert!(sender.resets(&receiver, &segment(4, at, 0, 0)));
                prop_assert!(sender.accept(&segment(17, at, 0, ack)));
                // The FIN was only tried: take it back.
                sender.numbers.store(pack(at, ack), Relaxed);
            }
        }

        // Somebody who guesses numbers moves nothing and resets nothing.
        #[test]
        fn ignores_a_blind_sender(start: u32, guesses in prop::collection::vec(any::<[u32; 2]>(), 1..50)) {
            let (sender, receiver) = (begun(start, 500), begun(7, 500));
            let at = start.wrapping_add(1);
            receiver.set_acked(at);
            let window = sender.window();
            for [guess, ack] in guesses {
                prop_assume!(guess != at && guess.wrapping_sub(at) > window);
                prop_assume!(at.wrapping_sub(guess) > window);
                prop_assert!(!sender.accept_in_order(&segment(ACK, guess, 100, ack)));
                prop_assert!(!sender.accept(&segment(17, guess, 0, ack)));
                prop_assert!(!sender.resets(&receiver, &segment(4, guess, 0, 0)));
                prop_assert_eq!(sender.next_seq(), at);
            }
        }
    }

    #[test]
    fn a_syn_is_kept_until_it_is_answered() {
        let seq = SeqState::default();
        assert_eq!(seq.syn(), None);
        for shift in [None].into_iter().chain((0..=MAX_SHIFT).map(Some)) {
            let (first, data) = (u32::MAX - 3, shift.map_or(0, u32::from) * 100);
            let syn = Syn { first, data, shift };
            assert!(seq.begin(&syn));
            assert_eq!(seq.syn(), Some(syn));
        }
        let kept = seq.syn();
        let (first, data, shift) = (u32::MAX - 3, 0, None);
        assert!(seq.begin(&Syn { first, data, shift }));
        assert!(!seq.begin(&Syn {
            first: 5,
            data,
            shift
        }));
        assert_eq!(seq.syn(), kept);
    }

    // The examples of `accept_in_order`.
    #[test]
    fn both_differences_are_one() {
        let accepts = |acked, start, length, ack| {
            let seq = begun(0, acked);
            let mask = !(WINDOW - 1);
            seq.window_mask.store(pack(mask, mask), Relaxed);
            seq.numbers.store(pack(0x1000, acked), Relaxed);
            seq.accept_in_order(&segment(ACK, start, length, ack))
        };
        assert!(accepts(0x500, 0x1000, 0x20, 0x510));
        assert!(!accepts(0x500, 0x1000, 0x20, 0x4ff));
        assert!(!accepts(0x500, 0xff0, 0xf, 0x510));
        assert!(accepts(0xffff_fff0, 0x1000, 0x20, 3));
        assert!(accepts(0xffff_fff0, 0x1000, WINDOW, 3));
        assert!(!accepts(0xffff_fff0, 0x1000, 0, 3));
        assert!(!accepts(0x500, 0x1000, WINDOW, 0x510));
    }
}
