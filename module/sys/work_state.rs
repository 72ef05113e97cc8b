// SPDX-License-Identifier: GPL-2.0

//! The state of a work item that many callers ask for: when it has to be queued, and when it is idle.
//!
//! Like `link.rs`, this file does not depend on the kernel.

use core::sync::atomic::{AtomicU32, Ordering};

/// The work was not called for since its last run began, and that run has left nothing to do. The work is
/// not queued; if that run has not returned yet, it does nothing else any more.
const IDLE: u32 = 0;
/// The work runs, or will run again by itself, and was not called for since the run began.
const RUNNING: u32 = 1;
/// The work was called for since the last run began. The caller has queued it if it was idle.
const PENDING: u32 = 2;

/// Whether work has to be done. A caller first leaves what is to be done where the work looks for it.
///
/// The work is queued by the one caller that finds it idle, or by itself at the end of a run; so it is
/// never queued twice, and never forgotten. Its last access to anything that it shares is
/// [`Self::complete`].
pub struct WorkState(AtomicU32);

impl Default for WorkState {
    fn default() -> Self {
        Self::new()
    }
}

impl WorkState {
    /// Nothing has to be done.
    pub const fn new() -> Self {
        Self(AtomicU32::new(IDLE))
    }

    /// There is something to do. Whether the caller has to queue the work.
    #[must_use]
    pub fn schedule(&self) -> bool {
        self.0.swap(PENDING, Ordering::SeqCst) == IDLE
    }

    /// A run begins, and will see what earlier callers left.
    pub fn begin(&self) {
        self.0.swap(RUNNING, Ordering::SeqCst);
    }

    /// A run ends that has done all it found. Returns whether it has to queue the work again, since it was
    /// called for meanwhile. If not, all that the work shares may be freed as soon as the run has
    /// returned.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.0
            .compare_exchange(RUNNING, IDLE, Ordering::SeqCst, Ordering::SeqCst)
            .is_err()
    }

    /// Whether the last run is complete and the work was not called for since.
    pub fn is_idle(&self) -> bool {
        self.0.load(Ordering::SeqCst) == IDLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// A model of two callers, the work, and a task that waits for it to be idle; one of them takes one step
    /// at a time. The steps of the state are those of `WorkState` itself.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct Model {
        work_state: u32,
        // Left by callers; let wait by a run; reclaimed. Numbers of nodes.
        limbo_next: u8,
        limbo_wait: u8,
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
        fn on_work_state<R>(&mut self, step: impl FnOnce(&WorkState) -> R) -> R {
            let work_state = WorkState(AtomicU32::new(self.work_state));
            let result = step(&work_state);
            self.work_state = work_state.0.into_inner();
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
                    self.limbo_next += 1;
                    Caller::Calls
                }
                Caller::Calls => match self.on_work_state(WorkState::schedule) {
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
                    self.on_work_state(WorkState::begin);
                    Run::Began
                }
                Run::No => return None,
                Run::Began => {
                    self.done += self.limbo_wait;
                    self.limbo_wait = core::mem::take(&mut self.limbo_next);
                    Run::Took
                }
                Run::Took => {
                    match self.limbo_wait != 0 || self.on_work_state(WorkState::complete) {
                        true => Run::Queues,
                        false => Run::Returns,
                    }
                }
                Run::Queues => {
                    self.queue();
                    Run::No
                }
                Run::Returns => Run::No,
            };
            Some(self)
        }

        // What draining and dropping a pool rely on.
        fn check(&self) {
            let left = [Caller::Leaves, Caller::Calls];
            let all_called = self.callers.iter().all(|caller| !left.contains(caller));
            if self.work_state == IDLE && all_called {
                assert_eq!(
                    (self.limbo_next, self.limbo_wait),
                    (0, 0),
                    "forgotten: {self:?}"
                );
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
            work_state: IDLE,
            limbo_next: 0,
            limbo_wait: 0,
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
                assert_eq!(model.work_state, IDLE, "never idle: {model:?}");
                ends += 1;
            }
            left.extend(next.into_iter().flatten());
        }
        assert!(ends > 0 && seen.len() > 50, "{} states", seen.len());
    }
}
