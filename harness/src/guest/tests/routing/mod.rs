// SPDX-License-Identifier: MIT OR Apache-2.0

//! Routing is the kernel's: redirected packets go where nft's `dnat` would have them go, with the same
//! packets, whatever the routes, policy rules and marks are.

mod beside;
mod errors;
mod fate;
mod fragments;
mod groups;
mod lab;
mod places;
mod policy;
mod property;
mod queue;
mod race;

use super::GuestTest;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    let all = [
        policy::tests(),
        errors::tests(),
        places::tests(),
        property::tests(),
        race::tests(),
        beside::tests(),
        queue::tests(),
        fragments::tests(),
        groups::tests(),
    ];
    all.into_iter().flatten().collect()
}
