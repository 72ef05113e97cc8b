// SPDX-License-Identifier: GPL-2.0

//! How a flow moves on by the segments of its TCP connection.

use core::sync::atomic::Ordering::Relaxed;

use super::super::reopenings::Reopenings;
use super::super::state::FlowState;
use super::super::tcp::{Segment, Syn};
use super::super::upstream::Outcome;
use super::{Direction, Flow, DIRECT, FINS, FIN_OF, HALF_OPEN, STATE};

impl<R> Flow<R> {
    /// Moves the flow on by a segment of `direction` with TCP options `options`. Tells how the upstream
    /// takes the connection, if this segment decides it. `hash` is the flow's, of whichever direction,
    /// but always the same one.
    #[cold]
    pub fn advance_tcp(
        &self,
        direction: Direction,
        segment: &Segment,
        options: &[u8],
        reopenings: &Reopenings,
        hash: u32,
    ) -> Option<Outcome> {
        let state_flags = self.dir(direction).state_flags.load(Relaxed);
        let (state, fins) = (
            FlowState::from_number(state_flags & STATE),
            state_flags & !STATE,
        );
        let mine = &self.dir(direction).seq;
        let other = &self.dir(direction.other()).seq;
        let flags = segment.flags;
        if flags.rst() {
            return self.reset(direction, segment, reopenings, hash);
        }
        match (state, direction, flags.syn()) {
            (_, Direction::Reply, true) if flags.ack() => {
                return self.answer(segment, options, reopenings, hash);
            }
            (FlowState::Opening, Direction::Original, true) => {
                let known = mine.begin(&Syn::read(segment, options));
                if !known && flags.opens() {
                    reopenings.keep(hash, &Syn::read(segment, options));
                } else if known && flags.ack() {
                    other.syn_is_acked(segment);
                }
            }
            (FlowState::Opening, Direction::Reply, true) => {
                let syn = Syn::read(segment, options);
                if !mine.begin(&syn) && !mine.is_syn_acked() {
                    mine.begin_anew(&syn);
                }
            }
            // Answers to a direct one may take another way.
            (FlowState::Opening, Direction::Original, false) if fins & DIRECT != 0 => {
                if flags.ack() {
                    self.finish(FlowState::Established, fins, direction, flags.fin());
                }
            }
            (FlowState::Opening, Direction::Original, false) => {
                // Both have opened at once.
                if flags.ack() && mine.is_next(segment) {
                    other.syn_is_acked(segment);
                    if flags.fin() {
                        mine.finish_early(segment);
                        self.set_state(FlowState::Opening, fins | FIN_OF[direction as usize]);
                    }
                }
            }
            (FlowState::Opening, Direction::Reply, false) => {
                if mine.confirm(other, segment) {
                    self.finish(FlowState::Established, fins, direction, flags.fin());
                    return Some(Outcome::Answered);
                }
            }
            // The client may have forgotten the connection: the answer will tell.
            (_, Direction::Original, true) if flags.opens() => {
                reopenings.keep(hash, &Syn::read(segment, options));
            }
            (_, _, true) => {}
            (FlowState::Established | FlowState::Closing | FlowState::Closed, _, false) => {
                let is_followed = fins & DIRECT == 0;
                if flags.fin() && !(flags.ack() && !is_followed || mine.closes(other, segment)) {
                    return None;
                }
                let half_open = fins & HALF_OPEN != 0;
                let confirms = direction == Direction::Original;
                if half_open && confirms && !mine.confirms(other, segment) {
                    return None;
                }
                if !is_followed && !half_open || mine.accept(segment) {
                    // What the client acknowledges it has got.
                    let fins = match direction {
                        Direction::Original => fins & !HALF_OPEN,
                        Direction::Reply => fins,
                    };
                    if flags.fin() {
                        self.finish(state, fins, direction, true);
                    } else if fins != state_flags & !STATE {
                        self.set_state(state, fins);
                    }
                }
            }
        }
        None
    }

    // A SYN of the upstream that acknowledges something.
    fn answer(
        &self,
        segment: &Segment,
        options: &[u8],
        reopenings: &Reopenings,
        hash: u32,
    ) -> Option<Outcome> {
        let [client, server] = &self.dirs;
        let (client_seq, server_seq) = (&client.seq, &server.seq);
        let state_flags = server.state_flags.load(Relaxed);
        let (state, mut fins) = (
            FlowState::from_number(state_flags & STATE),
            state_flags & !STATE,
        );
        let opening = state == FlowState::Opening || self.is_one_way();
        let syn = client_seq.syn().filter(|_| opening);
        if !syn.is_some_and(|syn| syn.is_acked_by(segment)) {
            let anew = reopenings.take(hash, segment)?;
            match syn {
                // It may be answered yet.
                Some(syn) => reopenings.keep(hash, &syn),
                // Who has got no answer yet may get another one, of a server that has crashed since.
                None if client_seq.has_begun_with(segment)
                    && (fins & HALF_OPEN == 0 || client_seq.acks_end_of(segment)) =>
                {
                    return None;
                }
                None => {}
            }
            client_seq.begin_anew(&anew.up_to(segment));
            fins &= DIRECT;
        }
        server_seq.answer(client_seq, segment, options);
        self.finish(
            FlowState::Established,
            fins | HALF_OPEN,
            Direction::Reply,
            false,
        );
        Some(Outcome::Answered)
    }

    // A RST, which may be forged.
    fn reset(
        &self,
        direction: Direction,
        segment: &Segment,
        reopenings: &Reopenings,
        hash: u32,
    ) -> Option<Outcome> {
        let mine = &self.dir(direction).seq;
        let other = &self.dir(direction.other()).seq;
        let state_flags = self.dir(direction).state_flags.load(Relaxed);
        let (state, fins) = (
            FlowState::from_number(state_flags & STATE),
            state_flags & !STATE,
        );
        let mut refuses = (state, direction) == (FlowState::Opening, Direction::Reply);
        let mut real = match (state, direction) {
            (FlowState::Opening, Direction::Original) => mine.takes_back(segment),
            (FlowState::Opening, Direction::Reply) => mine.refuses(other, segment),
            (FlowState::Closed, _) => false,
            // It may be forged: if the client lives, its next segment says so.
            _ if fins & DIRECT != 0 => {
                if !self.is_half_open() {
                    self.dir(Direction::Original).seq.forget();
                    self.set_state(state, fins | HALF_OPEN);
                }
                return None;
            }
            _ => mine.resets(other, segment),
        };
        // Or what is refused is another SYN than that of which the flow knows.
        if !real && direction == Direction::Reply && reopenings.take(hash, segment).is_some() {
            match state {
                FlowState::Opening => {
                    if let Some(syn) = other.syn() {
                        reopenings.keep(hash, &syn);
                    }
                    (refuses, real) = (true, true);
                }
                // Both may be forged by somebody who knows nothing of the connection: if its client lives, its
                // next segment says so.
                FlowState::Established | FlowState::Closing => {
                    self.set_state(state, fins | HALF_OPEN);
                }
                FlowState::Closed => {}
            }
        }
        if real {
            self.set_state(FlowState::Closed, fins);
        }
        (real && refuses).then_some(Outcome::Refused)
    }

    // In `state`, or after it: with `fins`, and one of `direction` if it `closes`.
    fn finish(&self, state: FlowState, fins: u8, direction: Direction, closes: bool) {
        let fins = fins
            | if closes {
                FIN_OF[direction as usize]
            } else {
                0
            };
        let state = match fins & FINS {
            _ if state == FlowState::Closed => FlowState::Closed,
            0 => state,
            FINS => FlowState::Closed,
            _ => FlowState::Closing,
        };
        self.set_state(state, fins);
    }

    // Whether the client has not said that it knows of its connection of TCP: maybe it does not exist.
    pub(super) fn is_half_open(&self) -> bool {
        let state_flags = self.dir(Direction::Original).state_flags.load(Relaxed);
        state_flags & HALF_OPEN != 0 || self.is_one_way()
    }

    // Whether it is a direct connection of TCP of which no answer has passed.
    fn is_one_way(&self) -> bool {
        self.is_direct() && !self.dir(Direction::Reply).seq.is_known()
    }

    /// Whether a segment of `direction` may begin another connection than the flow's: any SYN of the client's but the one with which that
    /// began, once more. Whose socket has sent it may be another, too.
    pub fn may_begin_anew(&self, direction: Direction, segment: &Segment) -> bool {
        if !segment.flags.opens() || direction != Direction::Original {
            return false;
        }
        let syn = self.dir(Direction::Original).seq.syn();
        let is_known = syn.is_some_and(|syn| syn.first == segment.start().wrapping_add(1));
        self.state() != FlowState::Opening || !is_known
    }

    /// Whether a segment of `direction` begins another connection of the same ports than one that is over. If that
    /// was closed by both ends, only a SYN with a number after the client's last does (RFC 9293, section 3.10.7.4, TIME-WAIT):
    /// any other is late or forged, or its answer will tell.
    pub fn is_replaced_by(&self, direction: Direction, segment: &Segment) -> bool {
        if !segment.flags.opens() || direction != Direction::Original {
            return false;
        }
        let dir = self.dir(Direction::Original);
        let state_flags = dir.state_flags.load(Relaxed);
        if FlowState::from_number(state_flags & STATE) != FlowState::Closed {
            return false;
        }
        // Of a direct one the numbers are not followed.
        state_flags & (FINS | DIRECT) != FINS || dir.seq.is_before(segment)
    }
}
