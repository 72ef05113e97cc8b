// SPDX-License-Identifier: MIT OR Apache-2.0

//! On which CPU packets are sent, and so handled on all their way: veth hands a frame to the receive
//! queue of the CPU on which it was sent (`netif_rx()`), unless the kernel is told to spread them
//! (RPS, threaded NAPI), which [`crate::guest::softnet`] would show.

use std::num::NonZeroU32;

use anyhow::{Context, Result};
use nix::sched::{sched_setaffinity, CpuSet};
use nix::unistd::Pid;

/// Where all is done that is of no CPU in particular.
const HOME: u32 = 0;

/// Keeps the calling thread, and threads that it starts, on one CPU from now on.
///
/// # Errors
/// If the machine does not have it.
pub fn stay_on(cpu: u32) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu as usize)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus))
        .with_context(|| format!("cannot stay on CPU {cpu}"))
}

/// The CPU of the calling thread, which goes to that of each flow; on CPU 0 before and afterwards.
#[derive(Debug)]
pub struct Placement {
    spread: Option<NonZeroU32>,
    now: u32,
}

impl Placement {
    /// For flows that are spread over so many CPUs; of others CPU 0 handles all packets.
    pub const fn new(spread: Option<NonZeroU32>) -> Self {
        Self { spread, now: HOME }
    }

    /// Goes to the flow's CPU; says whether that is another one than before.
    ///
    /// # Errors
    /// If the machine does not have it.
    pub fn go_to(&mut self, flow: u32) -> Result<bool> {
        let cpu = of(self.spread, flow);
        if cpu == self.now {
            return Ok(false);
        }
        stay_on(cpu)?;
        self.now = cpu;
        Ok(true)
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        if self.now != HOME {
            // CPU 0 is there as long as the machine is.
            let _ = stay_on(HOME);
        }
    }
}

/// The CPU of a flow.
pub fn of(spread: Option<NonZeroU32>, flow: u32) -> u32 {
    spread.map_or(HOME, |cpus| flow % cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::sched_getaffinity;

    fn here() -> Vec<u32> {
        let cpus = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let is_set = |&cpu: &u32| cpus.is_set(cpu as usize).unwrap_or(false);
        (0..1024).filter(is_set).collect()
    }

    #[test]
    fn a_thread_follows_its_flow_and_comes_home() {
        // Another thread's affinity is its own.
        let moved = std::thread::spawn(|| {
            if !here().starts_with(&[0, 1]) {
                return None;
            }
            let mut placement = Placement::new(NonZeroU32::new(2));
            let moves = [0, 1, 3, 2].map(|flow| (placement.go_to(flow).unwrap(), here()));
            drop(placement);
            Some((moves, here()))
        });
        // On a machine of one CPU there is nothing to see.
        if let Some((moves, home)) = moved.join().unwrap() {
            let expected = [
                (false, here()),
                (true, vec![1]),
                (false, vec![1]),
                (true, vec![0]),
            ];
            assert_eq!(moves, expected);
            assert_eq!(home, [0]);
        }
    }

    #[test]
    fn flows_go_round_the_cpus() {
        let cpus = |spread| [0, 1, 2, 3].map(|flow| of(NonZeroU32::new(spread), flow));
        assert_eq!(cpus(3), [0, 1, 2, 0]);
        assert_eq!(cpus(0), [0; 4]);
    }
}
