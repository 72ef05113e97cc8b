// SPDX-License-Identifier: MIT OR Apache-2.0

//! QEMU's main loop and its CPUs take turns: neither goes on before the other one sleeps.
//!
//! With `-icount …,sleep=off` the main loop sets the virtual clock forward by what is missing to the next timer, as soon as it finds all CPUs halted
//! (`icount_start_warp_timer()` of accel/tcg/icount-common.c, softmmu/icount.c before QEMU 9). But a CPU that executes HLT is halted for a moment before the
//! instructions that it has executed are added to the clock (`icount_process_data()`), and the main loop does not wait for it. If it is awake in
//! that moment, the clock has these instructions twice, and from then on the boot is another one. Of some
//! 80,000 halts of a boot about one was seen to meet it there.
//!
//! All CPUs are one thread's, which sleeps where all of them are halted or stopped (`rr_wait_io_event()`, accel/tcg/tcg-accel-ops-rr.c). What it waits
//! for there comes from the main loop alone, as long as a machine has nothing outside.

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Whether one of the two sleeps: a futex(2).
#[derive(Debug)]
struct Sleep(AtomicU32);

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

impl Sleep {
    fn is_asleep(&self) -> bool {
        self.0.load(Ordering::SeqCst) == ASLEEP
    }

    fn wake_up(&self) {
        self.0.store(AWAKE, Ordering::SeqCst);
    }

    fn fall_asleep(&self) {
        self.0.store(ASLEEP, Ordering::SeqCst);
        // SAFETY: the word outlives the call, which reads nothing else for this operation.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                1,
            );
        }
    }

    /// Waits until it sleeps, or for so long.
    fn wait_until_asleep(&self, patience: Option<Duration>) {
        let timeout = patience.map(|patience| libc::timespec {
            tv_sec: patience.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        });
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the word and the time outlive the call; it returns at once if the word is not as said.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                AWAKE,
                timeout,
            );
        }
    }
}

/// Whose turn it is.
#[derive(Debug)]
pub struct Turns {
    main_loop: Sleep,
    cpus: Sleep,
}

impl Turns {
    /// The main loop's, before there are CPUs.
    pub const fn at_start() -> Self {
        Self {
            main_loop: Sleep(AtomicU32::new(AWAKE)),
            cpus: Sleep(AtomicU32::new(ASLEEP)),
        }
    }

    /// The main loop is about to sleep.
    pub fn main_loop_sleeps(&self) {
        self.main_loop.fall_asleep();
    }

    /// The main loop has been woken: returns when all CPUs sleep, or if they do not within its patience.
    pub fn main_loop_wakes(&self, patience: Option<Duration>) {
        loop {
            self.main_loop.wake_up();
            if self.cpus.is_asleep() {
                return;
            }
            self.main_loop.fall_asleep();
            self.cpus.wait_until_asleep(patience);
            if patience.is_some() && !self.cpus.is_asleep() {
                self.main_loop.wake_up();
                return;
            }
        }
    }

    /// The main loop goes on with what it waited for the CPUs to do: they have done it.
    pub fn main_loop_was_answered(&self) {
        self.main_loop.wake_up();
    }

    /// All CPUs are about to sleep.
    pub fn cpus_sleep(&self) {
        self.cpus.fall_asleep();
    }

    /// The CPUs have been woken: returns when the main loop sleeps. Until then they hold nothing that it needs: they wait in
    /// `without_lock`. They sleep until they have the lock again, which the main loop may keep while it waits for something else.
    pub fn cpus_wake(&self, mut without_lock: impl FnMut(&dyn Fn())) {
        loop {
            self.cpus.wake_up();
            if self.main_loop.is_asleep() {
                return;
            }
            self.cpus.fall_asleep();
            without_lock(&|| {
                while !self.main_loop.is_asleep() {
                    self.main_loop.wait_until_asleep(None);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::Mutex;
    use std::thread;

    use super::*;

    #[test]
    fn never_are_both_awake() {
        const TURNS: u64 = 20_000;
        let turns = Turns::at_start();
        let (awake, met) = (AtomicU64::new(0), AtomicU64::new(0));
        let work = || {
            met.fetch_add(awake.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            thread::yield_now();
            awake.fetch_sub(1, Ordering::SeqCst);
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..TURNS {
                    turns.cpus_wake(|wait| wait());
                    work();
                    turns.cpus_sleep();
                }
            });
            turns.main_loop_sleeps();
            for _ in 0..TURNS {
                turns.main_loop_wakes(None);
                work();
                turns.main_loop_sleeps();
            }
        });
        assert_eq!(met.into_inner(), 0);
    }

    #[test]
    fn the_main_loop_may_keep_the_lock_while_it_sleeps() {
        let turns = Turns::at_start();
        let lock = Mutex::new(());
        let held = lock.lock().unwrap();
        let wait_for_it = AtomicU64::new(0);
        thread::scope(|scope| {
            let cpus = scope.spawn(|| {
                turns.cpus_wake(|wait| {
                    wait_for_it.store(1, Ordering::SeqCst);
                    wait();
                    drop(lock.lock().unwrap());
                });
            });
            while wait_for_it.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            // It sleeps often enough for the CPUs to come to the lock, which they do not get.
            for _ in 0..100 {
                turns.main_loop_sleeps();
                thread::sleep(Duration::from_millis(1));
                turns.main_loop_wakes(None);
            }
            drop(held);
            turns.main_loop_sleeps();
            cpus.join().unwrap();
        });
    }

    #[test]
    fn who_has_patience_does_not_wait_for_ever() {
        let turns = Turns::at_start();
        turns.main_loop_sleeps();
        turns.cpus_wake(|wait| wait());
        turns.main_loop_wakes(Some(Duration::from_millis(1)));
        // They go to sleep, and wake when the main loop has gone on and sleeps.
        turns.cpus_sleep();
        turns.main_loop_sleeps();
        turns.cpus_wake(|wait| wait());
    }
}
