// SPDX-License-Identifier: GPL-2.0

//! How long hooks take: a histogram of the clock after a hook less the clock before it. How a hook is timed
//! depends on the machine.

use core::marker::PhantomData;

pub(super) use super::arch::time;
use super::counters::Counters;
use crate::abi::histogram::Octaves;
use crate::abi::monitor::LATENCY_PRECISION;

/// The times of one hook, on each CPU: a counter for each place of [`Octaves`]. 8200 bytes a CPU.
pub(crate) type Histogram = Counters<{ Octaves::<LATENCY_PRECISION>::COUNT }>;

/// Where a `T` has a histogram.
///
/// # Invariants
///
/// At that offset, in bytes, every `T` has a [`Histogram`].
pub(crate) struct Within<T>(usize, PhantomData<fn(&T)>);

impl<T> Within<T> {
    /// The histogram `index` of the array at `offset` bytes in a `T`. For [`within`].
    ///
    /// # Safety
    ///
    /// The array at `offset` is the one that `_field` returns.
    pub(crate) const unsafe fn new<const N: usize>(
        offset: usize,
        _field: fn(&T) -> &[Histogram; N],
        index: usize,
    ) -> Self {
        assert!(index < N);
        // INVARIANT: by the caller's promise, and an array has no gaps.
        Self(offset + index * size_of::<Histogram>(), PhantomData)
    }

    /// The offset in bytes.
    pub(super) const fn offset(&self) -> usize {
        self.0
    }
}

// Each module uses its own share of sys/.
#[allow(unused_macros)]
/// [`Within`]: the histogram `$index` of the array `$field` of `$target`.
macro_rules! within {
    ($target:ty, $field:ident, $index:expr) => {
        // SAFETY: the field's offset, and the field.
        unsafe {
            $crate::sys::latency::Within::new(
                core::mem::offset_of!($target, $field),
                |target: &$target| &target.$field,
                $index,
            )
        }
    };
}

#[allow(unused_imports)]
pub(crate) use within;
