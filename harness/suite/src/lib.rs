// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab test`: what can be shown only with a guest.
//!
//! Seven kinds of checks: the agent's functional tests of the module, where any splat fails them;
//! bad ends on purpose, where anything but the right verdict fails them; the self check, which
//! must hold, and must not when the agent measures wrong; the lens, which must see what arithmetic
//! says; subjects, each of which must lead packets as its directory says; pages of docs/, which are
//! followed word by word; and `mutexlab shell`, before which somebody is made to sit.
//!
//! Must not know: what a functional test does; the agent tells which there are, and runs them.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

mod bad_bench;
mod bad_ends;
mod bad_guests;
mod bench;
mod functional;
mod gone;
mod instrument;
mod junit;
mod ktap;
mod lanes;
mod lens;
mod lens_cells;
mod outcome;
mod pages;
mod record;
mod reports;
mod selected;
mod shell;
mod side_by_side;
mod subject_cells;
mod text;
mod typist;
mod wanted;

pub use functional::Cpus;
pub use outcome::label;
pub use reports::{Document, Place, Reports};
pub use selected::Listed;
pub use side_by_side::{side_by_side, SideBySide};
pub use wanted::{Ran, Wanted};
