// SPDX-License-Identifier: GPL-2.0

//! When work has to be queued that many call for and one does, and when it is over.
//!
//! Like `link.rs`, this file knows no kernel.

use core::sync::atomic::{AtomicU32, Ordering};

/// Nobody has called for the work since its last run began, and that run has left nothing to do: it is
/// not queued, and if it has not returned yet, it does nothing else than that.
const IDLE: u32 = 0;
/// It runs, or will do so again by itself, and nobody has called since it began.
const RUNS: u32 = 1;
/// Somebody has called since the last run began, and has queued it unless it was not idle.
const CALLED: u32 = 2;

/// Whether work has to be done. Callers first leave what is to be done where the work looks for it.
///
/// The work is queued by the one caller who finds it idle, or by itself at the end of a run; so it is
/// never queued twice, and never forgotten. The last thing that it does with anything it shares is
/// [`Self::end`].
pub struct Duty(AtomicU32);

impl Default for Duty {
    fn default() -> Self {
        Self::new()
    }
}

impl Duty {
    /// Nothing has to be done.
    pub const fn new() -> Self {
        Self(AtomicU32::new(IDLE))
    }

    /// There is something to do. Whether the caller has to queue the work.
    #[must_use]
    pub fn call(&self) -> bool {
        self.0.swap(CALLED, Ordering::SeqCst) == IDLE
    }

    /// A run begins, and will see what calls before this left.
    pub fn begin(&self) {
        self.0.swap(RUNS, Ordering::SeqCst);
    }

    /// A run ends that has done all it found. Whether it has to queue the work again, since somebody
    /// has called meanwhile. If not, whoever waits for the work may free all that it shares with them
    /// as soon as the run has returned.
    #[must_use]
    pub fn end(&self) -> bool {
        self.0
            .compare_exchange(RUNS, IDLE, Ordering::SeqCst, Ordering::SeqCst)
            .is_err()
    }

    /// Whether it was done when nobody had called for more.
    pub fn is_idle(&self) -> bool {
        self.0.load(Ordering::SeqCst) == IDLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// A model of two callers, the work and somebody who waits for it to be idle, one step of one of
    /// them at a time. The steps of `Duty` are its own, of one value at a time.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct Model {
        duty: u32,
        // Left by callers; let wait by a run; reclaimed. Numbers of nodes.
        retired: u8,
        waiting: u8,
        done: u8,
        queued: bool,
        run: Run,
        callers: [Caller; 2],
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    enum Run {
        No,
        Began,
        Took,
        Queues,
        // Says it is idle, and has not returned.
        Returns,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    enum Caller {
        Leaves,
        Calls,
        Queues,
        Gone,
    }

    impl Model {
        fn on_duty<R>(&mut self, step: impl FnOnce(&Duty) -> R) -> R {
            let duty = Duty(AtomicU32::new(self.duty));
            let result = step(&duty);
            self.duty = duty.0.into_inner();
            result
        }

        fn queue(&mut self) {
            assert!(!self.queued, "queued twice: {self:?}");
            self.queued = true;
        }

        fn caller(mut self, which: usize) -> Option<Self> {
            let at = self.callers[which];
            self.callers[which] = match at {
                Caller::Leaves => {
                    self.retired += 1;
                    Caller::Calls
                }
                Caller::Calls => match self.on_duty(Duty::call) {
                    true => Caller::Queues,
                    false => Caller::Gone,
                },
                Caller::Queues => {
                    self.queue();
                    Caller::Gone
                }
                Caller::Gone => return None,
            };
            Some(self)
        }

        fn work(mut self) -> Option<Self> {
            let at = self.run;
            self.run = match at {
                Run::No if self.queued => {
                    self.queued = false;
                    self.on_duty(Duty::begin);
                    Run::Began
                }
                Run::No => return None,
                Run::Began => {
                    self.done += self.waiting;
                    self.waiting = core::mem::take(&mut self.retired);
                    Run::Took
                }
                Run::Took => match self.waiting != 0 || self.on_duty(Duty::end) {
                    true => Run::Queues,
                    false => Run::Returns,
                },
                Run::Queues => {
                    self.queue();
                    Run::No
                }
                Run::Returns => Run::No,
            };
            Some(self)
        }

        // What whoever settles, or drops the pool, relies on.
        fn check(&self) {
            let left = [Caller::Leaves, Caller::Calls];
            let all_called = self.callers.iter().all(|caller| !left.contains(caller));
            if self.duty == IDLE && all_called {
                assert_eq!((self.retired, self.waiting), (0, 0), "forgotten: {self:?}");
                assert!(!self.queued, "would run again: {self:?}");
                assert!(
                    matches!(self.run, Run::No | Run::Returns),
                    "does more than return: {self:?}"
                );
            }
        }
    }

    #[test]
    fn no_order_of_steps_forgets_or_frees_too_early() {
        let mut seen = HashSet::new();
        let mut ends = 0;
        let mut left = vec![Model {
            duty: IDLE,
            retired: 0,
            waiting: 0,
            done: 0,
            queued: false,
            run: Run::No,
            callers: [Caller::Leaves; 2],
        }];
        while let Some(model) = left.pop() {
            if !seen.insert(model) {
                continue;
            }
            model.check();
            let next = [model.caller(0), model.caller(1), model.work()];
            if next.iter().all(Option::is_none) {
                assert_eq!(model.done, 2, "never reclaimed: {model:?}");
                assert_eq!(model.duty, IDLE, "never idle: {model:?}");
                ends += 1;
            }
            left.extend(next.into_iter().flatten());
        }
        assert!(ends > 0 && seen.len() > 50, "{} states", seen.len());
    }
}
