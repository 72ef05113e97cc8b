// SPDX-License-Identifier: GPL-2.0

//! Memory for what is built when rules change, which may not be there. The kernel's is charged to the caller's control group.

use core::ops::{Deref, DerefMut};

/// Where it comes from.
pub trait Allocate {
    /// Values, one behind the other.
    type Vec<T>: DerefMut<Target = [T]>;
    /// A value that several have, until the last lets go.
    type Shared<T>: Deref<Target = T> + Clone;
    /// Why there is none.
    type Error;

    /// All of `items`, in their order.
    ///
    /// # Errors
    /// If there is no memory for them.
    fn collect<T>(items: impl Iterator<Item = T>) -> Result<Self::Vec<T>, Self::Error>;

    /// Adds an item behind the others.
    ///
    /// # Errors
    /// If there is no memory for it.
    fn push<T>(items: &mut Self::Vec<T>, item: T) -> Result<(), Self::Error>;

    /// The value, to be shared.
    ///
    /// # Errors
    /// If there is no memory for it; it is gone then.
    fn share<T>(value: T) -> Result<Self::Shared<T>, Self::Error>;

    /// So many copies of a value.
    ///
    /// # Errors
    /// If there is no memory for them.
    fn repeated<T: Copy>(value: T, count: usize) -> Result<Self::Vec<T>, Self::Error> {
        Self::collect(core::iter::repeat_n(value, count))
    }
}
