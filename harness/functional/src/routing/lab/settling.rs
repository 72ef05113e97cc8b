// SPDX-License-Identifier: MIT OR Apache-2.0

//! How it is known that what was sent has passed.

use std::time::Duration;

/// How a test knows that nothing is on its way any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settling {
    /// By a round trip over the router.
    Fence,
    /// By waiting that long: the router forwards nothing.
    Wait(Duration),
}
