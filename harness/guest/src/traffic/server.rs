// SPDX-License-Identifier: MIT OR Apache-2.0

//! The server of a closed loop: what every server does, wherever it is.

use super::tcp::Numbers;
use crate::traffic::target::Stop;
use mutexlab_model::measured::Delivery;
use mutexlab_protocol::Mischief;

/// What came from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The first segment of a connection; its answer is sent.
    Opened,
    /// A segment with nothing to answer.
    Acknowledged,
    /// A request; its answer is sent.
    Answered,
    /// The last segment of a connection; its acknowledgement is sent.
    Closed,
}

/// Checks whatever arrives at either target, and answers what it was asked, each time for the flow
/// of the given number.
pub trait Server {
    /// Goes on until it has done what is `wanted`.
    fn serve_until(
        &mut self,
        flow: u32,
        wanted: Served,
        delivery: &mut Delivery,
    ) -> Result<(), Stop>;
    /// Closes the connection from this end first, so that the client's stack keeps nothing in
    /// TIME_WAIT. Does nothing if there is no connection.
    fn finish(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop>;
    /// Packets received and sent until now; of sockets, messages.
    fn packets(&self) -> u64;
    /// Bytes of the frames received until now; of sockets, of the messages.
    fn bytes(&self) -> u64;
    /// Treats answers so from now on; sockets have no such answers.
    fn misbehave(&mut self, _: Option<Mischief>) {}
    /// Ends it, and leaves its connections' numbers, if flows have any that it knows.
    fn hand_over(self: Box<Self>) -> Vec<Numbers> {
        Vec::new()
    }
}
