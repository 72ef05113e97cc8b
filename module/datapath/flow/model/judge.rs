// SPDX-License-Identifier: GPL-2.0

//! Whether the flow is where its ends are: what it must know of what passes, and what it cannot.

use super::super::super::abi::proxy::Protocol;
use super::super::super::state::FlowState;
use super::super::super::tcp::Flags;
use super::super::super::upstream::Outcome;
use super::super::tests::{flow, ACK, RST, SYN};

use super::super::{Direction, Flow};
use super::ends::{connection, End, Sent, Tcp};
use super::world::{Check, World, FORGED};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use Direction::{Original, Reply};

const HASH: u32 = 77;

impl World {
    // As `handle` and `advance` of module/proxy/slow_path.rs. False if it goes no further.
    pub(super) fn pass(&mut self, sent: &mut Sent) -> Result<bool, TestCaseError> {
        let segment = self.segment(sent);
        let opens = sent.direction == Original && Flags(sent.flags).opens();
        let before = self.state();
        let replaces = |flow: &Flow<()>| flow.is_replaced_by(sent.direction, &segment);
        let begins = opens && self.flow.as_ref().is_none_or(replaces);
        if begins {
            self.flow = Some(flow(Protocol::Tcp));
            self.connection += 1;
            self.own = Some(sent.seq);
            self.client = Some(connection(sent.seq));
            self.server = None;
            self.sent_to.retain(|&(end, _), _| end != Original as usize);
            self.acked_to = [0; 2];
            self.met = None;
        }
        // LIMIT: a SYN of the server's that passed before the flow began, and met the client's, is not known: what
        // follows could also be of a connection that the client does not know of.
        if begins && !sent.forged {
            let is_syn = |sent: &Sent| sent.direction == Reply && sent.flags == SYN;
            let meets = |(sent, passed): &(Sent, bool)| *passed && is_syn(sent);
            let [client, _] = &self.ends;
            let mine = client.iss == sent.seq;
            let met = mine && client.tcp != Tcp::SynSent;
            // LIMIT: nor are data of the first of two SYNs, if the flow began with the second, which has none.
            let met = met || mine && client.nxt > sent.seq + sent.length();
            self.pushed_out |= met || self.under_way.iter().any(meets);
        }
        // A server that opens as well does so for the client's SYN.
        let [client, _] = &self.ends;
        let meets = before == Some(FlowState::Opening) && self.own == Some(client.iss);
        if sent.direction == Reply && sent.flags == SYN && !sent.forged && !meets {
            return Ok(false);
        }
        if opens && matches!(client.tcp, Tcp::SynSent | Tcp::SynReceived) {
            let others = self.own != Some(client.iss) && self.own != Some(sent.seq);
            self.pushed_out |= others && sent.seq != client.iss;
        }
        // Who is near knows what acknowledges a SYN.
        let near = sent.forged && sent.seq < FORGED;
        let Some(flow) = &self.flow else {
            return Ok(false);
        };
        if near && before == Some(FlowState::Opening) {
            return Ok(false);
        }
        let options = match self.options[sent.direction as usize] {
            Some(shift) => [3, 3, shift, 0],
            None => [0; 4],
        };
        let outcome = if flow.is_plain(sent.direction, Some(&segment)) {
            None
        } else {
            flow.advance_tcp(sent.direction, &segment, &options, &self.reopenings, HASH)
        };
        let after = self.state();
        if sent.forged && !begins {
            self.seen.forged += 1;
            prop_assert_eq!((before, None), (after, outcome), "a forger moves it");
        }
        if before != Some(FlowState::Opening) && !begins {
            prop_assert!(after != Some(FlowState::Opening), "it opens again");
        }
        match outcome {
            Some(Outcome::Answered) => {
                let [client, server] = &self.ends;
                let real = sent.direction == Reply && sent.has(ACK) && !sent.has(RST);
                prop_assert!(real && !sent.forged, "nobody has answered: {server:?}");
                // LIMIT: of two SYNs that both are answered the flow believes the later answer, and that may be one to a
                // SYN that the client has given up, or never sent. Only the client can tell, whom a forger would
                // outdo if it were believed.
                let mine = Some(connection(client.iss));
                self.pushed_out |=
                    self.answered.map(connection) == mine && Some(connection(sent.ack)) != mine;
                // LIMIT: nor which server the client has met, if that opened and an older one answers.
                let [server, met] = [Some(connection(sent.seq)), self.met];
                self.pushed_out |= met.is_some() && met != server;
                self.answered = Some(sent.ack);
                // Or another SYN than that with which it began is answered.
                let another = self.client != Some(connection(sent.ack));
                self.client = Some(connection(sent.ack));
                self.server = Some(connection(sent.seq));
                self.own = None;
                self.connection += u32::from(another || before != Some(FlowState::Opening));
                self.seen.anew += u32::from(before != Some(FlowState::Opening));
            }
            Some(Outcome::Refused) => {
                prop_assert!(sent.direction == Reply && sent.has(RST) && !sent.forged);
                self.client = Some(connection(sent.ack));
                self.seen.refused += 1;
            }
            Some(Outcome::Unanswered) => prop_assert!(false, "a segment is an answer"),
            None => {}
        }
        // LIMIT: of a server that both refuses and answers one SYN (it came twice, or is met by
        // the server's own) the flow believes what passes first, the client what arrives first.
        if sent.direction == Reply && sent.has(ACK) && !sent.forged {
            let of = connection(sent.ack);
            if sent.has(RST) && sent.seq == 0 {
                self.refused.insert(of);
                self.pushed_out |= self.answered.map(connection) == Some(of);
            } else {
                self.pushed_out |= self.refused.contains(&of);
            }
        }
        // LIMIT: a SYN that was answered is not kept for the answer of another server, after a crash, unless it came once more
        // meanwhile. Which of the two the client has got, it knows alone.
        if sent.direction == Reply && sent.flags == SYN | ACK && !sent.forged {
            let again = self.answered.map(connection) == Some(connection(sent.ack));
            let another = self.server != Some(connection(sent.seq));
            self.pushed_out |= again && another && outcome.is_none();
        }
        // LIMIT: of both that open at once the flow follows the SYN with which it began, unless that was refused meanwhile;
        // and no second one of the client's.
        if sent.direction == Original && sent.flags == SYN | ACK && !sent.forged {
            self.pushed_out |= match before {
                Some(FlowState::Opening) => self.own != Some(sent.seq),
                before => before == Some(FlowState::Closed),
            };
        }
        sent.passed = self.connection;
        if !sent.forged {
            let refused = sent.flags == RST | ACK && sent.seq == 0;
            // Whoever knows nothing of the connection may have forged both the SYN and this.
            let other = refused && !matches!(before, Some(FlowState::Opening));
            sent.known = match sent.has(RST) {
                true => !other && self.is_known(sent, before),
                // One that has overtaken more is as far as a forged one.
                false => sent.seq <= self.sent_to(sent.direction, sent.seq) + 65_535,
            };
            self.note(sent);
        }
        if sent.direction == Reply && sent.flags == SYN && !sent.forged {
            self.met = Some(connection(sent.seq));
        }
        self.history
            .push(format!("{sent:x?} {before:?} -> {after:?}, {outcome:?}"));
        // Who is near knows more than a forger can: an answer would, too.
        Ok(!near)
    }

    // How far the end has come to which `number` belongs, as far as it passed.
    fn sent_to(&self, direction: Direction, number: i64) -> i64 {
        let key = (direction as usize, connection(number));
        self.sent_to.get(&key).copied().unwrap_or_default()
    }

    // Whether who is between the ends can tell a RST from a forged one.
    fn is_known(&self, sent: &Sent, before: Option<FlowState>) -> bool {
        if sent.has(ACK) {
            return sent.ack <= self.sent_to(sent.direction.other(), sent.ack);
        }
        // RFC 5961, section 3.2: not one that has overtaken what its sender sent before. RFC 9293, section
        // 3.10.7.3: nor one to somebody who may not have seen its sender's SYN.
        let acked = self.acked_to[sent.direction as usize];
        let met = sent.direction == Original
            || before != Some(FlowState::Opening)
            || connection(acked) == connection(sent.seq);
        sent.seq <= self.sent_to(sent.direction, sent.seq) && met
    }

    // What has passed.
    fn note(&mut self, sent: &Sent) {
        // What overtakes the server's SYN is not known to be the server's; nor is the client's what does not follow on
        // its SYN.
        let next = sent.direction == Original && sent.seq == self.sent_to(Original, sent.seq);
        let early = self.state() == Some(FlowState::Opening) && !next;
        if sent.has(RST) || early && !sent.has(SYN) {
            return;
        }
        let [mine, other] = [sent.direction as usize, sent.direction.other() as usize];
        let sent_to = self
            .sent_to
            .entry((mine, connection(sent.seq)))
            .or_default();
        *sent_to = (*sent_to).max(sent.seq + sent.length());
        if sent.has(ACK) {
            self.acked_to[other] = self.acked_to[other].max(sent.ack);
        }
    }

    // Whether the flow is where its ends are.
    pub(super) fn check(&mut self) -> Check {
        let [client, server] = self.ends;
        if client.irs != server.iss || server.irs != client.iss || self.pushed_out {
            return Ok(());
        }
        if client.tcp == Tcp::Established && server.tcp == Tcp::Established {
            self.seen.established += 1;
            prop_assert_eq!(self.state(), Some(FlowState::Established));
            let answered = self.answered.unwrap_or_default();
            let own = client.iss + 1..=client.nxt;
            prop_assert!(own.contains(&answered), "not told: {answered} of {own:?}");
        }
        let over = |end: &End| matches!(end.tcp, Tcp::Closed | Tcp::TimeWait);
        let fins = [client.got_fin, server.got_fin];
        if over(&client) && over(&server) && fins == [Some(self.connection); 2] {
            self.seen.finished += 1;
            prop_assert_eq!(self.state(), Some(FlowState::Closed));
        }
        Ok(())
    }
}
