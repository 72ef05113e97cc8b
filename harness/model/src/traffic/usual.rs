// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is told of packets only where it is unlike most.

use super::checksum::Checksum;
use super::cloned::Cloned;
use super::steering::Steering;

/// Something with a usual value, which is neither written nor part of a name.
pub trait Usual: Default + PartialEq {
    /// Whether it has that value. Takes a reference, which is what serde hands out.
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl Usual for Checksum {}
impl Usual for Cloned {}
impl Usual for Steering {}
