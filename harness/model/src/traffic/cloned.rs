// SPDX-License-Identifier: MIT OR Apache-2.0

//! What packets share with clones of theirs.

use super::axis::axis;

axis! {
    /// Whether somebody else holds the same data while a packet passes the router (`skb_cloned()`).
    #[derive(Default)]
    pub enum Cloned {
        /// Nobody does.
        #[default]
        No,
        /// The payload is shared, the headers are the packet's own (`skb_cloned()`, not `skb_header_cloned()`): what
        /// a TCP socket sends while it keeps the data to send it again. Headers may be written in place. The
        /// client is a TCP socket of the client's stack; answers come from the wire, and are no clones.
        Payload,
        /// Headers are shared, too (`skb_header_cloned()`): a packet socket listens on the device that sends, as with
        /// tcpdump. Whoever writes headers has to copy them first.
        Header,
    }
}
