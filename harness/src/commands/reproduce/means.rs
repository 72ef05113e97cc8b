// SPDX-License-Identifier: MIT OR Apache-2.0

//! By what a results file's numbers are made again: which commit's harness, and which commit's proxy.

use anyhow::{bail, Result};

use mutexlab_results::closure::{Closure, Tree};

/// What has to be there to measure the same again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// The files as they are: they are those of then.
    Present,
    /// This harness, and the proxy of a commit.
    Proxy {
        /// The proxy's commit.
        proxy: String,
    },
    /// The harness of a commit, and its proxy.
    Commit {
        /// Both's commit.
        commit: String,
    },
    /// The harness of one commit, and the proxy of another.
    Two {
        /// The commit of harness and probe.
        harness: String,
        /// The proxy's.
        proxy: String,
    },
}

impl Means {
    /// What the results with `closure` need, where the files are now those of `present`.
    ///
    /// # Errors
    /// If files were measured that are in no commit.
    pub fn of(closure: &Closure, present: &Tree) -> Result<Self> {
        let proxy = Tree {
            commit: closure.commit.clone(),
            dirty: closure.dirty,
        };
        let trees = [
            ("proxy", Some(&proxy)),
            ("harness", closure.harness.as_ref()),
        ];
        for (what, tree) in trees {
            if let Some(Tree {
                commit,
                dirty: true,
            }) = tree
            {
                bail!(
                    "the {what} had files that are in no commit ({commit} with changes): what it was \
                     made of is lost. Commit first, then measure."
                );
            }
        }
        Ok(match &closure.harness {
            None if proxy == *present => Self::Present,
            None => Self::Commit {
                commit: proxy.commit,
            },
            Some(harness) if harness == present => Self::Proxy {
                proxy: proxy.commit,
            },
            Some(harness) => Self::Two {
                harness: harness.commit.clone(),
                proxy: proxy.commit,
            },
        })
    }

    /// What is built where, a line each.
    pub fn lines(&self) -> Vec<String> {
        let harness = |commit: &str| {
            format!("harness and probe: of {commit}, built in a work tree of its own")
        };
        let proxy = |commit: &str| format!("proxy: of {commit}, from a work tree of its own");
        match self {
            Self::Present => vec!["harness, probe and proxy: the files as they are".to_owned()],
            Self::Proxy { proxy: commit } => vec![
                "harness and probe: the files as they are".to_owned(),
                proxy(commit),
            ],
            Self::Commit { commit } => vec![format!(
                "harness, probe and proxy: of {commit}, built in a work tree of its own"
            )],
            Self::Two {
                harness: ours,
                proxy: theirs,
            } => vec![harness(ours), proxy(theirs)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_results::sample::closure;

    fn tree(commit: &str, dirty: bool) -> Tree {
        Tree {
            commit: commit.to_owned(),
            dirty,
        }
    }

    fn closure_of(commit: &str, harness: Option<Tree>) -> Closure {
        Closure {
            commit: commit.to_owned(),
            harness,
            ..closure()
        }
    }

    #[test]
    fn each_part_is_of_the_commit_that_it_was_of() {
        let (old, new) = ("old".to_owned(), "new".to_owned());
        let present = tree("new", false);
        let means = |closure: &Closure, present| Means::of(closure, present).unwrap();
        assert_eq!(means(&closure_of("new", None), &present), Means::Present);
        let of_old = closure_of("old", None);
        let commit = Means::Commit {
            commit: old.clone(),
        };
        assert_eq!(means(&of_old, &present), commit);
        let by_new = closure_of("old", Some(tree("new", false)));
        let proxy = Means::Proxy { proxy: old.clone() };
        assert_eq!(means(&by_new, &present), proxy);
        let by_old = closure_of("new", Some(tree("old", false)));
        let two = Means::Two {
            harness: old,
            proxy: new.clone(),
        };
        assert_eq!(means(&by_old, &present), two);
        // Files that have changed since are not those that were measured.
        let changed = tree("new", true);
        let commit = Means::Commit { commit: new };
        assert_eq!(means(&closure_of("new", None), &changed), commit);
    }

    #[test]
    fn what_is_in_no_commit_cannot_be_made_again() {
        let present = tree("new", true);
        let dirty = Closure {
            dirty: true,
            ..closure_of("new", None)
        };
        let error = Means::of(&dirty, &present).unwrap_err().to_string();
        assert!(
            error.contains("the proxy") && error.contains("new"),
            "{error}"
        );
        let by_dirty = closure_of("new", Some(tree("old", true)));
        let error = Means::of(&by_dirty, &present).unwrap_err().to_string();
        assert!(
            error.contains("the harness") && error.contains("old"),
            "{error}"
        );
    }
}
