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

use anyhow::Result;

use super::setup::FAMILIES;
use super::GuestTest;
use mutexlab_model::traffic::Family;

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

/// A test for each IP version, which a test with many networks is cut into: one must be over before the
/// guest counts as dead.
fn by_family(
    name: &str,
    about: &str,
    run: impl Fn(Family) -> Result<()> + Copy + 'static,
) -> Vec<GuestTest> {
    FAMILIES
        .map(|family| {
            let version = match family {
                Family::V4 => "v4",
                Family::V6 => "v6",
            };
            GuestTest::new(format!("{name}-{version}"), about.to_owned(), move || {
                run(family)
            })
        })
        .into()
}
