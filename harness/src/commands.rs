// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands of `mutexlab`: what each is told, what it asks the crates below, and what it prints.

pub mod bench;
mod bench_trees;
pub mod bisect;
pub mod boot;
pub mod claims;
pub mod compare;
pub mod doctor;
pub mod document;
mod functions;
pub mod golden;
pub mod guard;
pub mod image;
pub mod image_list;
mod json;
pub mod lens;
pub mod matrix;
pub mod merge;
pub mod report;
pub mod report_measure;
pub mod reproduce;
pub mod schema;
pub mod selfcheck;
pub mod series;
pub mod shell;
pub mod test;
