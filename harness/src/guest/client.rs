// SPDX-License-Identifier: MIT OR Apache-2.0

//! The client of a closed loop: what every client does, wherever it is.

use std::net::SocketAddr;

use super::payload::{self, Kind, Label};
use super::protocol::{Delivery, Traffic};
use super::traffic::{Stop, Target, FLOW};

/// What a client does, step by step; between the steps the responder does its part.
pub trait Client {
    /// Sends the packet that makes the flow: the first request, or a SYN.
    fn open(&mut self, delivery: &mut Delivery) -> Result<(), Stop>;
    /// Takes the answer to it; a TCP client acknowledges it.
    fn establish(&mut self, delivery: &mut Delivery) -> Result<(), Stop>;
    /// Sends the next request.
    fn send(&mut self, delivery: &mut Delivery) -> Result<(), Stop>;
    /// Takes the answer to it.
    fn receive(&mut self, delivery: &mut Delivery) -> Result<(), Stop>;
    /// Ends a connection of which the responder has closed its end already.
    fn close(&mut self, delivery: &mut Delivery) -> Result<(), Stop>;
}

/// Makes requests and checks their answers.
pub struct Dialogue {
    server: SocketAddr,
    sent: u32,
    answered: u32,
    payload: Vec<u8>,
}

impl Dialogue {
    /// A dialogue with the original destination of `traffic`.
    pub fn new(traffic: &Traffic) -> Self {
        Self {
            server: Target::Original.socket(traffic.family),
            sent: 0,
            answered: 0,
            payload: vec![0; usize::from(traffic.payload)],
        }
    }

    /// Where requests go.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// The next request, counted as sent.
    pub fn request(&mut self, delivery: &mut Delivery) -> &[u8] {
        let label = Label {
            flow: FLOW,
            sequence: self.sent,
        };
        payload::fill(&mut self.payload, Kind::Request, label);
        self.sent += 1;
        delivery.sent += 1;
        &self.payload
    }

    /// Checks that the next answer came from the server, as it was sent.
    pub fn check(
        &mut self,
        source: SocketAddr,
        answer: &[u8],
        delivery: &mut Delivery,
    ) -> Result<(), Stop> {
        let label = Label {
            flow: FLOW,
            sequence: self.answered,
        };
        self.answered += 1;
        delivery.replies += 1;
        if source != self.server {
            return Err(Stop::Subject(format!(
                "answer {} came from {source} instead of {}",
                label.sequence, self.server
            )));
        }
        delivery.replies_from_original += 1;
        let length_fits = answer.len() == self.payload.len();
        if !length_fits || !payload::is_intact(answer, Kind::Answer, label) {
            delivery.bad_payload += 1;
            return Err(Stop::Subject(format!(
                "answer {} is not what was sent: {:?}, {} of {} bytes",
                label.sequence,
                Label::of(answer),
                answer.len(),
                self.payload.len()
            )));
        }
        Ok(())
    }

    /// What is waited for, for messages.
    pub fn awaited(&self) -> String {
        format!("answer {}", self.answered)
    }
}
