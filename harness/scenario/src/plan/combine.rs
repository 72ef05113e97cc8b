// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which combinations of parameters are measured.

use std::collections::{BTreeMap, BTreeSet};

use crate::parameter::Choices;
use crate::question::Combine;

/// A value for each parameter, by name.
pub type Combination = BTreeMap<String, String>;

/// The combinations of `parameters` that `combine` asks for, the defaults first.
pub fn combinations(parameters: &Choices, combine: Combine) -> Vec<Combination> {
    let sizes: Vec<usize> = parameters.values().map(|values| values.len()).collect();
    let chosen = match combine {
        Combine::Full => full(&sizes),
        Combine::Alone => other_than_default(&sizes, 1),
        Combine::Pairs => other_than_default(&sizes, 2),
        Combine::Pairwise => pairwise(&sizes),
    };
    chosen
        .into_iter()
        .map(|choice| {
            parameters
                .iter()
                .zip(choice)
                .filter_map(|((name, values), index)| {
                    Some((name.clone(), values.get(index)?.to_string()))
                })
                .collect()
        })
        .collect()
}

/// An index for each parameter.
type Choice = Vec<usize>;

/// All, the last parameter changing fastest.
fn full(sizes: &[usize]) -> Vec<Choice> {
    let mut all = vec![Vec::new()];
    for &size in sizes {
        all = all
            .iter()
            .flat_map(|choice| {
                (0..size).map(move |index| {
                    let mut choice = choice.clone();
                    choice.push(index);
                    choice
                })
            })
            .collect();
    }
    all
}

/// Those in which at most `most` parameters have another value than their first, the fewer first.
fn other_than_default(sizes: &[usize], most: usize) -> Vec<Choice> {
    let mut all = full(sizes);
    let others = |choice: &Choice| choice.iter().filter(|&&index| index != 0).count();
    all.retain(|choice| others(choice) <= most);
    all.sort_by_key(others);
    all
}

/// A covering array of strength 2, made greedily: each further row begins with a pair that no row
/// has yet, and every other parameter gets the value that covers the most new pairs, the first one
/// of equals. The first row is the defaults.
fn pairwise(sizes: &[usize]) -> Vec<Choice> {
    let defaults = vec![0; sizes.len()];
    let mut missing: BTreeSet<[(usize, usize); 2]> = BTreeSet::new();
    for (first, &first_size) in sizes.iter().enumerate() {
        for (second, &second_size) in sizes.iter().enumerate().skip(first + 1) {
            for index in 0..first_size {
                missing.extend((0..second_size).map(|other| [(first, index), (second, other)]));
            }
        }
    }
    let cover = |row: &[usize], missing: &mut BTreeSet<[(usize, usize); 2]>| {
        missing.retain(|pair| {
            pair.iter()
                .any(|&(parameter, index)| row[parameter] != index)
        });
    };
    let mut rows = vec![defaults];
    if let [only] = sizes {
        // There are no pairs, but each value shall be there.
        return (0..*only).map(|index| vec![index]).collect();
    }
    cover(&rows[0], &mut missing);
    while let Some(&[(first, index), (second, other)]) = missing.first() {
        let mut row: Vec<Option<usize>> = vec![None; sizes.len()];
        row[first] = Some(index);
        row[second] = Some(other);
        for parameter in 0..sizes.len() {
            if row[parameter].is_some() {
                continue;
            }
            let new_pairs = |index: usize| {
                row.iter()
                    .enumerate()
                    .filter_map(|(other, chosen)| Some((other, (*chosen)?)))
                    .filter(|&there| {
                        let mut pair = [there, (parameter, index)];
                        pair.sort_unstable();
                        missing.contains(&pair)
                    })
                    .count()
            };
            // The last of equals is the greatest: count down.
            row[parameter] = (0..sizes[parameter])
                .rev()
                .max_by_key(|&index| new_pairs(index));
        }
        let row: Choice = row.into_iter().map(Option::unwrap_or_default).collect();
        cover(&row, &mut missing);
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sizes() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(1_usize..5, 1..6)
    }

    fn covers(rows: &[Choice], sizes: &[usize]) -> bool {
        (0..sizes.len()).all(|first| {
            (first + 1..sizes.len()).all(|second| {
                (0..sizes[first]).all(|a| {
                    (0..sizes[second])
                        .all(|b| rows.iter().any(|row| row[first] == a && row[second] == b))
                })
            })
        })
    }

    proptest! {
        #[test]
        fn pairwise_has_every_pair_and_every_value(sizes in sizes()) {
            let rows = pairwise(&sizes);
            prop_assert!(covers(&rows, &sizes), "{rows:?}");
            for (parameter, &size) in sizes.iter().enumerate() {
                for index in 0..size {
                    prop_assert!(rows.iter().any(|row| row[parameter] == index));
                }
            }
            let all = full(&sizes);
            prop_assert!(rows.len() <= all.len());
            prop_assert!(rows.iter().all(|row| all.contains(row)));
            let distinct: BTreeSet<_> = rows.iter().collect();
            prop_assert_eq!(distinct.len(), rows.len());
        }

        #[test]
        fn defaults_come_first(sizes in sizes()) {
            let defaults = vec![0; sizes.len()];
            for rows in [full(&sizes), other_than_default(&sizes, 2), pairwise(&sizes)] {
                prop_assert_eq!(rows.first(), Some(&defaults));
            }
        }
    }

    #[test]
    fn alone_and_pairs_change_one_or_two() {
        let sizes = [2, 2, 3];
        assert_eq!(other_than_default(&sizes, 1).len(), 1 + 1 + 1 + 2);
        assert_eq!(other_than_default(&sizes, 2).len(), 1 + 4 + (1 + 2 + 2));
        assert_eq!(other_than_default(&sizes, 3).len(), full(&sizes).len());
    }

    #[test]
    fn pairwise_is_few() {
        // Ten switches: 1,024 in full.
        assert!(
            pairwise(&[2; 10]).len() <= 12,
            "{}",
            pairwise(&[2; 10]).len()
        );
        // No fewer than the two largest have pairs.
        assert_eq!(pairwise(&[4, 3, 2]).len(), 12);
        assert_eq!(pairwise(&[3]), [[0], [1], [2]]);
        assert_eq!(pairwise(&[]), [Choice::new()]);
    }
}
