// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tasks that some threads take off one queue, so that as many guests run at once.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Error, Result};

use mutexlab_host::interrupt::Interrupt;

/// Runs all `tasks` on up to `lanes` threads, each taking the next one that is left. If one fails, no other
/// is begun, and `interrupt` is raised so that those that run end soon.
///
/// # Errors
/// The first in time.
pub fn run<T: Send>(
    tasks: impl IntoIterator<Item = T>,
    lanes: usize,
    interrupt: &Interrupt,
    run: impl Fn(T) -> Result<()> + Sync,
) -> Result<()> {
    let queue: Mutex<VecDeque<T>> = Mutex::new(tasks.into_iter().collect());
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let work = || loop {
        let task = lock(&queue).pop_front();
        let Some(task) = task else { return };
        if let Err(error) = interrupt
            .check()
            .map_err(Error::from)
            .and_then(|()| run(task))
        {
            lock(&failure).get_or_insert(error);
            lock(&queue).clear();
            interrupt.raise();
        }
    };
    let lanes = lanes.clamp(1, lock(&queue).len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(work);
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

// A thread that panicked takes the program down with it: what it left behind a lock is of no interest.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use anyhow::bail;

    use super::*;

    #[test]
    fn each_task_runs_once_and_as_many_at_once_as_there_are_lanes() {
        let barrier = Barrier::new(2);
        let done = Mutex::new(Vec::new());
        run(0..4, 2, &Interrupt::never(), |task| {
            // Two are here at once, or nobody goes on.
            barrier.wait();
            lock(&done).push(task);
            Ok(())
        })
        .unwrap();
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, [0, 1, 2, 3]);
    }

    #[test]
    fn one_lane_keeps_the_order() {
        let done = Mutex::new(Vec::new());
        let push = |task| {
            lock(&done).push(task);
            Ok(())
        };
        run(0..4, 1, &Interrupt::never(), push).unwrap();
        assert_eq!(*lock(&done), [0, 1, 2, 3]);
        run(0..0, 1, &Interrupt::never(), push).unwrap();
        assert_eq!(lock(&done).len(), 4);
    }

    #[test]
    fn after_a_failure_nothing_begins_and_what_runs_is_told() {
        let interrupt = Interrupt::never();
        let begun = Mutex::new(0);
        let error = run(0..9, 1, &interrupt, |task| {
            *lock(&begun) += 1;
            if task == 1 {
                bail!("no guest");
            }
            Ok(())
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "no guest");
        assert_eq!(*lock(&begun), 2);
        assert!(interrupt.raised());
    }
}
