// SPDX-License-Identifier: MIT OR Apache-2.0

//! The client of a closed loop: what every client does, wherever it is.

use std::net::SocketAddr;

use super::flows::Flows;
use super::payload::{self, Kind, Label};
use super::sizes::Sizes;
use super::tcp::Numbers;
use crate::traffic::target::{Stop, Target};
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::Traffic;

/// What a client does, step by step, each on the flow of the given number; between the steps the
/// responder does its part.
pub trait Client {
    /// Sends the packet that makes the flow: the first request, or a SYN.
    fn open(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop>;
    /// Takes the answer to it; a TCP client acknowledges it.
    fn establish(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop>;
    /// Sends the next request.
    fn send(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop>;
    /// Sends the next `count` requests, which reach the router at once.
    fn send_at_once(&mut self, flow: u32, count: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        (0..count).try_for_each(|_| self.send(flow, delivery))
    }
    /// Takes the answer to it.
    fn receive(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop>;
    /// Ends a connection of which the responder has closed its end already.
    fn close(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop>;
    /// Ends the client, and leaves what it knows of its connections; only on the wire it knows it.
    fn hand_over(self: Box<Self>) -> Vec<Numbers> {
        Vec::new()
    }
}

/// Makes requests and checks their answers.
pub struct Dialogue {
    server: SocketAddr,
    sizes: Sizes,
    flows: Vec<Progress>,
    payload: Vec<u8>,
}

/// How far a flow has come.
#[derive(Clone, Copy, Default)]
struct Progress {
    sent: u32,
    answered: u32,
}

impl Dialogue {
    /// A dialogue of each of `flows` with the original destination of `traffic`.
    pub fn new(traffic: &Traffic, flows: &Flows) -> Self {
        let sizes = Sizes::of(traffic);
        Self {
            server: Target::Original.address(traffic),
            flows: vec![Progress::default(); flows.count() as usize],
            payload: vec![0; sizes.max()],
            sizes,
        }
    }

    /// Where requests go.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// Bytes of the next request of a flow.
    pub fn length(&self, flow: u32) -> usize {
        let sequence = self.flows[flow as usize].sent;
        self.sizes.payload(Label { flow, sequence }.number())
    }

    /// Bytes of the next answer of a flow.
    pub fn answer_length(&self, flow: u32) -> usize {
        let sequence = self.flows[flow as usize].answered;
        self.sizes.payload(Label { flow, sequence }.number())
    }

    /// The next request of a flow, counted as sent.
    pub fn request(&mut self, flow: u32, delivery: &mut Delivery) -> &[u8] {
        let progress = &mut self.flows[flow as usize];
        let label = Label {
            flow,
            sequence: progress.sent,
        };
        let payload = &mut self.payload[..self.sizes.payload(label.number())];
        payload::fill(payload, Kind::Request, label);
        progress.sent += 1;
        delivery.sent += 1;
        payload
    }

    /// Checks that the next answer of a flow came from the server, as it was sent.
    pub fn check(
        &mut self,
        flow: u32,
        source: SocketAddr,
        answer: &[u8],
        delivery: &mut Delivery,
    ) -> Result<(), Stop> {
        let progress = &mut self.flows[flow as usize];
        let label = Label {
            flow,
            sequence: progress.answered,
        };
        progress.answered += 1;
        delivery.replies += 1;
        if source != self.server {
            return Err(Stop::Subject(format!(
                "answer {} of flow {flow} came from {source} instead of {}",
                label.sequence, self.server
            )));
        }
        delivery.replies_from_original += 1;
        let length = self.sizes.payload(label.number());
        if answer.len() != length || !payload::is_intact(answer, Kind::Answer, label) {
            delivery.bad_payload += 1;
            return Err(Stop::Subject(format!(
                "answer {} of flow {flow} is not what was sent: {:?}, {} of {} bytes",
                label.sequence,
                Label::of(answer),
                answer.len(),
                length
            )));
        }
        Ok(())
    }

    /// What is waited for, for messages.
    pub fn awaited(&self, flow: u32) -> String {
        let answered = self.flows[flow as usize].answered;
        format!("answer {answered} of flow {flow}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_model::traffic::Payload;

    const TRAFFIC: Traffic = Traffic {
        payload: Payload::Bytes(32),
        flows: 2,
        ..Traffic::USUAL
    };

    fn answer(label: Label) -> [u8; 32] {
        let mut answer = [0; 32];
        payload::fill(&mut answer, Kind::Answer, label);
        answer
    }

    #[test]
    fn each_flow_has_its_own_answers() {
        let mut delivery = Delivery::default();
        let mut dialogue = Dialogue::new(&TRAFFIC, &Flows::measured(&TRAFFIC));
        let server = dialogue.server();
        let first = dialogue.request(0, &mut delivery).to_vec();
        let other = dialogue.request(1, &mut delivery).to_vec();
        let label = |flow, sequence| Label { flow, sequence };
        assert_eq!(Label::of(&first), Some(label(0, 0)));
        assert_eq!(Label::of(&other), Some(label(1, 0)));
        let answers = answer(label(1, 0));
        assert!(dialogue.check(1, server, &answers, &mut delivery).is_ok());
        // The other flow's, and one that was there already.
        assert!(dialogue.check(0, server, &answers, &mut delivery).is_err());
        assert!(dialogue.check(1, server, &answers, &mut delivery).is_err());
        assert_eq!((delivery.sent, delivery.replies), (2, 3));
        assert_eq!(delivery.bad_payload, 2);
    }
}
