// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the agent tells of its functional tests.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A functional test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestInfo {
    /// Its name.
    pub name: String,
    /// A line about what it shows.
    pub about: String,
    /// Whether only a debug image can run it: it needs netem, fault injection or a checker.
    pub needs_debug: bool,
    /// Whether it takes its time: it runs only if asked for, or with all.
    pub is_long: bool,
    /// Whether it is for every night: it runs only if asked for, or with those.
    pub is_nightly: bool,
    /// Whether only kernels of 7.x as they are meant to run are asked for it by day: it takes long where the kernel
    /// checks itself, and tells what nft and routing do there.
    pub wants_usual_kernel: bool,
    /// Whether it shows what CPUs do at the same time, or one of them for another: it has two, whose turns are not the same in
    /// each boot.
    pub needs_cpus: bool,
    /// Whether it looks at what the tests before it left: it is the last in each guest.
    pub ends_guests: bool,
    /// How much longer it may take than what the others are given.
    pub lasts: Duration,
}
