// SPDX-License-Identifier: MIT OR Apache-2.0

//! Binary search among commits of which some cannot be judged.

/// What is known of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// As the good one.
    Good,
    /// As the bad one.
    Bad,
    /// It cannot be measured.
    Skipped,
}

/// Where the change is, by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The first bad commit, unless one of those skipped before it is.
    pub first_bad: usize,
    /// Skipped commits right before it, any of which may be the first bad one.
    pub suspects: Vec<usize>,
}

/// Finds the first bad of `count` commits, oldest first, of which the last is known to be bad. What
/// comes before the first is good. `judge` is asked of as few commits as it takes: of each once.
///
/// # Errors
/// The first error of `judge`.
pub fn first_bad<E>(
    count: usize,
    mut judge: impl FnMut(usize) -> Result<Judged, E>,
) -> Result<Found, E> {
    let mut bad = count.saturating_sub(1);
    // What lies before is good.
    let mut from = 0;
    let mut skipped = vec![false; count];
    while let Some(next) = nearest_to_middle(from, bad, &skipped) {
        match judge(next)? {
            Judged::Good => from = next + 1,
            Judged::Bad => bad = next,
            Judged::Skipped => skipped[next] = true,
        }
    }
    Ok(Found {
        first_bad: bad,
        suspects: (from..bad).collect(),
    })
}

/// The commit nearest to the middle of `from..to` that was not skipped.
fn nearest_to_middle(from: usize, to: usize, skipped: &[bool]) -> Option<usize> {
    let middle = from + (to - from) / 2;
    (from..to)
        .filter(|&index| !skipped[index])
        .min_by_key(|index| index.abs_diff(middle))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_bad_commit_is_found(
            skipped in prop::collection::vec(prop::bool::weighted(0.3), 1..60),
            first in any::<prop::sample::Index>(),
        ) {
            let count = skipped.len();
            let first = first.index(count);
            let mut asked = Vec::new();
            let found = first_bad::<Infallible>(count, |index| {
                asked.push(index);
                Ok(if skipped[index] {
                    Judged::Skipped
                } else if index >= first {
                    Judged::Bad
                } else {
                    Judged::Good
                })
            }).unwrap();
            let certain = found.suspects.is_empty() && found.first_bad == first;
            prop_assert!(certain || found.suspects.contains(&first) || found.first_bad == first);
            prop_assert!(found.suspects.iter().all(|&index| skipped[index]));
            asked.sort_unstable();
            asked.dedup();
            prop_assert!(!asked.contains(&(count - 1)), "the last is known");
        }

        #[test]
        fn it_takes_a_logarithm_of_questions(count in 1_usize..1_000, first in any::<prop::sample::Index>()) {
            let first = first.index(count);
            let mut questions = 0;
            let found = first_bad::<Infallible>(count, |index| {
                questions += 1;
                Ok(if index >= first { Judged::Bad } else { Judged::Good })
            }).unwrap();
            prop_assert_eq!(found, Found { first_bad: first, suspects: Vec::new() });
            prop_assert!(questions <= count.ilog2() + 1);
        }
    }

    #[test]
    fn an_error_ends_the_search() {
        assert_eq!(first_bad(9, |_| Err("no")), Err("no"));
    }

    #[test]
    fn one_commit_needs_no_question() {
        let found = first_bad(1, |_| Err("asked")).unwrap();
        assert_eq!((found.first_bad, found.suspects.len()), (0, 0));
    }
}
