// SPDX-License-Identifier: GPL-2.0

//! What fuzz targets do with their input, one module each.
//!
//! `cargo fuzz` builds them into programs, and the test `corpus` runs them over the kept inputs: it
//! includes these very files, with the ordinary compiler.

mod checksum;
mod input;
mod version;

pub mod buckets;
pub mod flow;
pub mod icmp;
pub mod messages;
pub mod packet;
pub mod probe;
pub mod rules;
pub mod segment;
pub mod table;
pub mod translate;
pub mod upstream;

/// What is done with an input; a panic says that it should not have come to that.
pub type Target = fn(&[u8]);

/// All of them, by their names.
pub const TARGETS: [(&str, Target); 11] = [
    ("buckets", buckets::run),
    ("flow", flow::run),
    ("icmp", icmp::run),
    ("messages", messages::run),
    ("packet", packet::run),
    ("probe", probe::run),
    ("rules", rules::run),
    ("segment", segment::run),
    ("table", table::run),
    ("translate", translate::run),
    ("upstream", upstream::run),
];
