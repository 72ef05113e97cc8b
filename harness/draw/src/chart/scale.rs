// SPDX-License-Identifier: MIT OR Apache-2.0

//! From numbers to places between 0 and 1.

/// How numbers lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// Evenly between two numbers.
    Linear {
        /// What lies at 0.
        low: f64,
        /// What lies at 1.
        high: f64,
    },
    /// Each factor takes the same room; of positive numbers.
    Log {
        /// What lies at 0.
        low: f64,
        /// What lies at 1.
        high: f64,
    },
    /// Parts of a whole, from 0 to 1 (not included): each nine takes the same room, as in plots
    /// of HDR histograms.
    Nines {
        /// The number of nines that lies at 1; 3 for 99.9 %.
        nines: f64,
    },
}

impl Scale {
    /// Where a number lies. Those outside of the range lie at its end.
    pub fn place(&self, value: f64) -> f64 {
        let place = match *self {
            Self::Linear { low, high } => (value - low) / (high - low),
            Self::Log { low, high } => (value / low).ln() / (high / low).ln(),
            Self::Nines { nines } => -(1.0 - value).max(f64::MIN_POSITIVE).log10() / nines,
        };
        if place.is_nan() {
            0.0
        } else {
            place.clamp(0.0, 1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nines_are_evenly_spaced() {
        let scale = Scale::Nines { nines: 4.0 };
        for (value, place) in [
            (0.0, 0.0),
            (0.9, 0.25),
            (0.99, 0.5),
            (0.999, 0.75),
            (1.0, 1.0),
        ] {
            assert!((scale.place(value) - place).abs() < 1e-9, "{value}");
        }
    }

    proptest! {
        #[test]
        fn order_is_kept_and_nothing_leaves_the_axis(
            low in 0.1..1e3_f64, size in 1.0..1e6_f64, a in -1e7..1e7_f64, b in -1e7..1e7_f64,
        ) {
            let high = low + size;
            for scale in [Scale::Linear { low, high }, Scale::Log { low, high }, Scale::Nines { nines: 4.0 }] {
                let (low, high) = (scale.place(a.min(b)), scale.place(a.max(b)));
                prop_assert!((0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
                // The logarithm of what is not positive has no place, and lies at the lower end.
                prop_assert!(low <= high, "{:?} {} {}", scale, low, high);
            }
        }
    }
}
