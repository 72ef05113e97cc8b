// SPDX-License-Identifier: GPL-2.0

//! What fuzz targets do with their input, one module each.
//!
//! `cargo fuzz` builds them into programs, and the test `corpus` runs them over the kept inputs: it
//! includes these very files, with the ordinary compiler.

mod checksum;
mod input;
mod version;

pub mod buckets;
pub mod config;
pub mod flow;
pub mod icmp;
pub mod packet;
pub mod rules;
pub mod segment;
pub mod table;
pub mod translate;
pub mod upstream;

/// What is done with an input; a panic says that it should not have come to that.
pub type Target = fn(&[u8]);

/// All of them, by their names.
pub const TARGETS: [(&str, Target); 10] = [
    ("buckets", buckets::run),
    ("config", config::run),
    ("flow", flow::run),
    ("icmp", icmp::run),
    ("packet", packet::run),
    ("rules", rules::run),
    ("segment", segment::run),
    ("table", table::run),
    ("translate", translate::run),
    ("upstream", upstream::run),
];
