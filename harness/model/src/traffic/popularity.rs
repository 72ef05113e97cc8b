// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which of several flows has the next packet.

use super::axis::axis;

axis! {
    /// How often each of several flows has a packet.
    #[derive(Default)]
    pub enum Popularity {
        /// All the same.
        #[default]
        Uniform,
        /// The *n*-th most popular one in proportion to 1/*n*: Zipf's law with exponent 1.
        Zipf,
    }
}
