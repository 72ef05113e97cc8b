// SPDX-License-Identifier: GPL-2.0

//! What a TCP segment says: its control bits, its numbers, its options, and what a SYN tells.

use super::super::packet::TCP_HEADER;

/// The control bits of a TCP header (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    const FIN: u8 = 1 << 0;
    const SYN: u8 = 1 << 1;
    const RST: u8 = 1 << 2;
    const ACK: u8 = 1 << 4;

    /// Those of the segment that a transport header begins; `None` if it is too short.
    #[inline(always)]
    pub fn of(transport: &[u8]) -> Option<Self> {
        transport.get(13).copied().map(Self)
    }

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

    /// Whether the state of an established connection may follow from it: RFC 9293, section 3.10.7.4.
    #[inline(always)]
    pub const fn may_change_state(self) -> bool {
        self.0 & (Self::SYN | Self::RST | Self::FIN) != 0
    }
}

/// What a flow needs to know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The control bits.
    pub flags: Flags,
    // Sequence number of the first byte, and below it the acknowledgement: as they stand in the
    // header.
    pub(super) numbers: u64,
    pub(super) payload: u32,
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
    pub const fn start(&self) -> u32 {
        (self.numbers >> 32) as u32
    }

    /// The next sequence number that the sender expects, if ACK is set.
    pub(super) const fn ack(&self) -> u32 {
        self.numbers as u32
    }

    /// Sequence number after the last byte; SYN and FIN count as one.
    pub(super) fn end(&self) -> u32 {
        let extra = u32::from(self.flags.syn()) + u32::from(self.flags.fin());
        self.start().wrapping_add(self.payload).wrapping_add(extra)
    }
}

/// The largest shift that RFC 7323, section 2.3, allows.
pub(super) const MAX_SHIFT: u8 = 14;

/// The options in a segment, which begins with its header; none if the header is not all there.
pub fn options(segment: &[u8]) -> &[u8] {
    let length = segment
        .get(12)
        .map_or(0, |offset| usize::from(offset >> 4) * 4);
    segment.get(TCP_HEADER..length).unwrap_or_default()
}

/// The shift of the window scale option (RFC 7323) among `options`.
pub fn window_shift(mut options: &[u8]) -> Option<u8> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const WINDOW_SCALE: u8 = 3;
    loop {
        match *options {
            [WINDOW_SCALE, 3, shift, ..] => return Some(shift.min(MAX_SHIFT)),
            [NOTHING, ref rest @ ..] => options = rest,
            [END, ..] | [] | [_] => return None,
            [_, length, ..] => match options.get(usize::from(length).max(2)..) {
                Some(rest) => options = rest,
                None => return None,
            },
        }
    }
}

/// What a SYN tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// The number after the SYN itself, without data: the least that acknowledges it.
    pub first: u32,
    /// How many bytes of data it has (TCP Fast Open, RFC 7413).
    pub data: u32,
    /// Of its window scale option.
    pub shift: Option<u8>,
}

impl Syn {
    /// From a segment with SYN, and its TCP options.
    pub fn read(segment: &Segment, options: &[u8]) -> Self {
        let first = segment.start().wrapping_add(1);
        // A header that says it is longer than the packet leaves no data, and not four gigabytes.
        let data = segment.end().wrapping_sub(first);
        Self {
            first,
            data: if data > u32::from(u16::MAX) { 0 } else { data },
            shift: window_shift(options),
        }
    }

    /// Whether `number` is after the SYN, and not after its data: with that it can be acknowledged
    /// (RFC 9293, section 3.10.7.3), as a server does that takes all of the data, or none.
    pub const fn has(&self, number: u32) -> bool {
        number.wrapping_sub(self.first) <= self.data
    }

    /// Whether `segment` acknowledges it.
    pub const fn is_acked_by(&self, segment: &Segment) -> bool {
        segment.flags.ack() && self.has(segment.ack())
    }

    /// The same, of which just what `segment` acknowledges is known to have arrived.
    #[must_use]
    pub const fn up_to(&self, segment: &Segment) -> Self {
        Self {
            first: segment.ack(),
            data: 0,
            shift: self.shift,
        }
    }

    /// This and `syn`, if they are of one connection. Data need not be repeated, and may be
    /// acknowledged all the same.
    pub fn once_more(&self, syn: &Self) -> Option<Self> {
        (self.first == syn.first).then(|| Self {
            first: self.first,
            data: self.data.max(syn.data),
            shift: self.shift.max(syn.shift),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in super::super) const ACK: u8 = 16;

    pub(in super::super) fn segment(flags: u8, start: u32, length: u32, ack: u32) -> Segment {
        let mut header = [0; TCP_HEADER];
        header[4..8].copy_from_slice(&start.to_be_bytes());
        header[8..12].copy_from_slice(&ack.to_be_bytes());
        header[12] = 8 << 4;
        header[13] = flags;
        Segment::read(&header, length + 32)
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
        for flags in 0..=u8::MAX {
            let flags = Flags(flags);
            assert_eq!(flags.is_plain(), flags.ack() && !flags.may_change_state());
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
        assert_eq!(window_shift(&[2, 4, 5, 180, 1, 3, 3, 7]), Some(7));
        assert_eq!(window_shift(&[3, 3, 200]), Some(MAX_SHIFT));
        assert_eq!(window_shift(&[3, 3, 0]), Some(0));
        for none in [&[][..], &[0, 3, 3, 7], &[2, 4, 5], &[3, 3], &[8, 0, 1]] {
            assert_eq!(window_shift(none), None, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn any_options_end(options in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(window_shift(&options) <= Some(MAX_SHIFT));
        }
    }

    // Of a header that is not all there.
    #[test]
    fn a_syn_has_no_more_data_than_a_packet() {
        let mut header = [0; TCP_HEADER];
        header[12] = 15 << 4;
        header[13] = 2;
        let syn = Syn::read(&Segment::read(&header, 20), &[]);
        assert_eq!((syn.first, syn.data), (1, 0));
        assert_eq!(Syn::read(&segment(2, 0, 65_535, 0), &[]).data, 65_535);
        assert_eq!(Syn::read(&segment(2, 0, 65_536, 0), &[]).data, 0);
    }

    #[test]
    fn a_syn_is_acknowledged_up_to_its_data() {
        let syn = Syn::read(&segment(2, u32::MAX - 1, 3, 0), &[3, 3, 200]);
        let read = Syn {
            first: u32::MAX,
            data: 3,
            shift: Some(MAX_SHIFT),
        };
        assert_eq!(syn, read);
        for (ack, right) in [
            (u32::MAX - 1, false),
            (u32::MAX, true),
            (2, true),
            (3, false),
        ] {
            assert_eq!(syn.is_acked_by(&segment(20, 0, 0, ack)), right, "{ack}");
            assert!(!syn.is_acked_by(&segment(4, 0, 0, ack)));
        }
    }
}
