// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reproducible performance engineering for in-kernel networking: the host's program, and the
//! agent that it runs in the guest.

pub mod attended;
pub mod back_to_back;
pub mod bench;
pub mod bisect;
pub mod boot;
pub mod boot_command;
pub mod call_graph;
pub mod claims;
pub mod cli;
pub mod commit;
pub mod compare;
pub mod console;
pub mod decode;
pub mod doctor;
pub mod golden;
pub mod guard;
pub mod guest;
pub mod guest_root;
pub mod histogram;
pub mod image;
pub mod interrupt;
mod json;
pub mod kernel;
pub mod kmod;
pub mod known_lines;
pub mod kvm;
mod leash;
pub mod lens;
pub mod matrix;
pub mod merge;
pub mod mp_table;
mod parent;
pub mod paths;
pub mod pipe;
pub mod plan;
pub mod program;
pub mod pty;
pub mod qemu;
pub mod report;
pub mod reproduce;
pub mod results;
pub mod scenario;
pub mod schema;
pub mod search;
pub mod self_test;
pub mod selfcheck;
pub mod shell;
pub mod subject;
pub mod summary;
pub mod table;
pub mod terminal;
pub mod traffic;
pub mod verdict;
pub mod virtme;
