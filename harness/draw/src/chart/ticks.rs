// SPDX-License-Identifier: MIT OR Apache-2.0

//! Round numbers along an axis.

/// Round numbers that cover a range.
#[derive(Clone, Debug, PartialEq)]
pub struct Ticks {
    /// In order; the first is at most the range's lower end, the last at least its upper one.
    pub values: Vec<f64>,
    /// Digits behind the point that tell them apart.
    pub decimals: usize,
}

/// Ticks at a distance of 1, 2 or 5 times a power of ten, about `most` of them and not more than
/// two above that. An empty range is widened.
pub fn linear(low: f64, high: f64, most: usize) -> Ticks {
    let (low, high) = widen(low, high);
    let spaces = count(most.max(2) - 1);
    let rough = (high - low) / spaces;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        // A hair's breadth, so that rounding does not take a needlessly long step.
        .find(|&step| step >= rough * (1.0 - 1e-9))
        .unwrap_or(10.0 * power);
    let first = (low / step + 1e-9).floor();
    let last = (high / step - 1e-9).ceil();
    let mut values = Vec::new();
    let mut at = first;
    while at <= last {
        // Not a sum of steps, whose errors would add up; and no negative zero.
        values.push(if at == 0.0 { 0.0 } else { at * step });
        at += 1.0;
    }
    Ticks {
        values,
        decimals: decimals(step),
    }
}

/// The powers of `base` that cover a range of positive numbers.
pub fn powers(low: f64, high: f64, base: f64) -> Ticks {
    let low = low.max(f64::MIN_POSITIVE);
    let high = high.max(low);
    let first = (low.log(base) + 1e-9).floor();
    let mut last = (high.log(base) - 1e-9).ceil();
    if last <= first {
        last = first + 1.0;
    }
    let mut values = Vec::new();
    let mut exponent = first;
    while exponent <= last {
        values.push(base.powf(exponent));
        exponent += 1.0;
    }
    Ticks {
        decimals: values.first().map_or(0, |&value| decimals(value)),
        values,
    }
}

fn widen(low: f64, high: f64) -> (f64, f64) {
    let (low, high) = if low <= high {
        (low, high)
    } else {
        (high, low)
    };
    // What rounding leaves of nothing is nothing, too.
    let size = low.abs().max(high.abs());
    if high - low > size * 1e-9 {
        return (low, high);
    }
    if size == 0.0 {
        (0.0, 1.0)
    } else {
        (low - size * 0.05, high + size * 0.05)
    }
}

fn decimals(step: f64) -> usize {
    (0..9)
        .find(|&digits| {
            let scaled = step * 10_f64.powi(digits);
            (scaled - scaled.round()).abs() < 1e-6 * scaled.max(1.0) && scaled > 0.5
        })
        .map_or(9, |digits| usize::try_from(digits).unwrap_or(9))
}

/// Which of the labels, given as (middle, width) in order, can stand beside each other: every
/// one, every second, third… until none touches the next. The one at `anchor` always is shown.
pub fn thin(labels: &[(f64, f64)], gap: f64, anchor: usize) -> Vec<bool> {
    let shown = |stride: usize| {
        (0..labels.len()).map(move |index| index.abs_diff(anchor).is_multiple_of(stride))
    };
    let fits = |stride: &usize| {
        let mut visible = labels
            .iter()
            .zip(shown(*stride))
            .filter_map(|(label, shown)| shown.then_some(label));
        let Some(mut before) = visible.next() else {
            return true;
        };
        visible.all(|label| {
            let apart = (label.0 - before.0).abs() >= (label.1 + before.1) / 2.0 + gap;
            before = label;
            apart
        })
    };
    let stride = (1..=labels.len()).find(fits);
    shown(stride.unwrap_or(labels.len().max(1))).collect()
}

/// Ticks and labels are few.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ticks_are_the_ones_a_person_would_choose() {
        assert_eq!(linear(0.0, 1470.0, 5).values, [0.0, 500.0, 1000.0, 1500.0]);
        assert_eq!(
            linear(-12.0, 31.0, 6).values,
            [-20.0, -10.0, 0.0, 10.0, 20.0, 30.0, 40.0]
        );
        assert_eq!(linear(0.0, 0.0, 5).values.first(), Some(&0.0));
        assert_eq!(powers(1.0, 1_000_000.0, 10.0).values.len(), 7);
        assert_eq!(powers(1.0, 16.0, 2.0).values, [1.0, 2.0, 4.0, 8.0, 16.0]);
        assert_eq!(powers(1.0, 1.0, 10.0).values, [1.0, 10.0]);
    }

    #[test]
    fn labels_that_fit_are_all_shown() {
        assert_eq!(thin(&[(0.0, 10.0), (20.0, 10.0)], 4.0, 0), [true, true]);
        let labels = [(0.0, 30.0), (20.0, 30.0), (40.0, 30.0), (60.0, 30.0)];
        assert_eq!(thin(&labels, 4.0, 0), [true, false, true, false]);
        assert_eq!(thin(&labels, 4.0, 3), [false, true, false, true]);
    }

    proptest! {
        #[test]
        fn ticks_cover_the_range_and_are_nice(
            a in -1e9..1e9_f64,
            size in prop_oneof![Just(0.0), 1e-6..1e9_f64],
            most in 2_usize..12,
        ) {
            let ticks = linear(a, a + size, most);
            let (first, last) = (ticks.values[0], *ticks.values.last().unwrap());
            let slack = 1e-6 * (last - first);
            prop_assert!(first <= a + slack && last >= a + size - slack);
            prop_assert!(ticks.values.len() >= 2);
            prop_assert!(ticks.values.len() <= most + 2, "{:?}", ticks.values);
            let step = ticks.values[1] - ticks.values[0];
            let factor = step / 10_f64.powf(step.log10().floor());
            let nice = [1.0, 2.0, 5.0, 10.0].iter().any(|nice| (factor - nice).abs() < 1e-3);
            // Where the range is tiny beside its distance from zero, a difference says little.
            prop_assert!(nice || step < first.abs() * 1e-9, "step {}", step);
            for pair in ticks.values.windows(2) {
                prop_assert!(pair[0] < pair[1]);
            }
        }

        #[test]
        fn powers_cover_the_range(low in 1e-3..1e6_f64, factor in 1.0..1e6_f64, base in prop_oneof![Just(2.0), Just(10.0)]) {
            let ticks = powers(low, low * factor, base);
            prop_assert!(ticks.values[0] <= low * (1.0 + 1e-6));
            prop_assert!(*ticks.values.last().unwrap() >= low * factor * (1.0 - 1e-6));
            for pair in ticks.values.windows(2) {
                prop_assert!((pair[1] / pair[0] - base).abs() < 1e-6);
            }
        }

        #[test]
        fn labels_never_touch(
            mut places in prop::collection::vec((0.0..800.0_f64, 5.0..90.0_f64), 1..40),
            anchor in any::<prop::sample::Index>(),
        ) {
            places.sort_by(|a, b| a.0.total_cmp(&b.0));
            let anchor = anchor.index(places.len());
            let shown = thin(&places, 6.0, anchor);
            prop_assert_eq!(shown.len(), places.len());
            prop_assert!(shown[anchor]);
            let visible: Vec<_> = places.iter().zip(&shown).filter(|&(_, &s)| s).map(|(p, _)| p).collect();
            for pair in visible.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 >= (pair[0].1 + pair[1].1) / 2.0 + 6.0 - 1e-9);
            }
        }
    }
}
