// SPDX-License-Identifier: MIT OR Apache-2.0

//! On which CPU packets are sent, and so handled on all their way: veth hands a frame to the receive
//! queue of the CPU on which it was sent (`netif_rx()`), unless the kernel is told to spread them
//! (RPS, threaded NAPI), which [`crate::net::softnet`] would show.

use std::num::NonZeroU32;

use anyhow::{Context, Result};
use nix::sched::{sched_setaffinity, CpuSet};
use nix::unistd::Pid;

use mutexlab_model::traffic::{Steering, Traffic};

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

/// Which CPUs the packets of flows are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Homes {
    /// Over how many CPUs flows are spread; of others CPU 0 handles all packets.
    cpus: Option<NonZeroU32>,
    steering: Steering,
}

impl Homes {
    /// All are for CPU 0.
    pub const ONE: Self = Self {
        cpus: None,
        steering: Steering::Symmetric,
    };

    /// Those of a cell.
    pub const fn of(traffic: &Traffic) -> Self {
        Self {
            cpus: traffic.spread,
            steering: traffic.steering,
        }
    }

    /// Over how many CPUs flows are spread, if they are.
    pub const fn spread(self) -> Option<NonZeroU32> {
        self.cpus
    }

    /// The CPU of a flow's packets from the client.
    pub fn there(self, flow: u32) -> u32 {
        self.cpus.map_or(HOME, |cpus| flow % cpus)
    }

    /// The CPU of their answers.
    pub fn back(self, flow: u32) -> u32 {
        let there = self.there(flow);
        self.cpus
            .map_or(there, |cpus| self.steering.back(there, cpus))
    }

    /// Whether some answer is for another CPU than the packet before it.
    pub fn are_apart(self) -> bool {
        self.there(0) != self.back(0)
    }
}

/// The CPU of the calling thread, which goes to that of each flow; on CPU 0 before and afterwards.
#[derive(Debug)]
pub struct Placement {
    homes: Homes,
    now: u32,
}

impl Placement {
    /// For flows with these CPUs.
    pub const fn new(homes: Homes) -> Self {
        Self { homes, now: HOME }
    }

    /// Which they are.
    pub const fn homes(&self) -> Homes {
        self.homes
    }

    /// Goes to the CPU of a flow's packets from the client; says whether that is another one than before.
    ///
    /// # Errors
    /// If the machine does not have it.
    pub fn go_there(&mut self, flow: u32) -> Result<bool> {
        self.go_to(self.homes.there(flow))
    }

    /// Goes to the CPU of their answers; says whether that is another one than before.
    ///
    /// # Errors
    /// If the machine does not have it.
    pub fn go_back(&mut self, flow: u32) -> Result<bool> {
        self.go_to(self.homes.back(flow))
    }

    fn go_to(&mut self, cpu: u32) -> Result<bool> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::sched_getaffinity;

    fn homes(spread: u32, steering: Steering) -> Homes {
        Homes {
            cpus: NonZeroU32::new(spread),
            steering,
        }
    }

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
            let mut placement = Placement::new(homes(2, Steering::Asymmetric));
            let mut moves = [0, 1, 3, 2].map(|flow| (placement.go_there(flow).unwrap(), here()));
            // Flow 2 is of CPU 0, and its answers are of CPU 1.
            moves[3].0 &= placement.go_back(2).unwrap() && here() == [1];
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
        for steering in [Steering::Symmetric, Steering::Asymmetric] {
            let cpus = |spread| [0, 1, 2, 3].map(|flow| homes(spread, steering).there(flow));
            assert_eq!(cpus(3), [0, 1, 2, 0]);
            assert_eq!(cpus(0), [0; 4]);
        }
    }

    #[test]
    fn answers_come_to_the_same_cpu_or_to_another() {
        let back = |spread, steering| [0, 1, 2, 3].map(|flow| homes(spread, steering).back(flow));
        assert_eq!(back(3, Steering::Symmetric), [0, 1, 2, 0]);
        assert_eq!(back(3, Steering::Asymmetric), [2, 0, 1, 2]);
        let apart = |spread| homes(spread, Steering::Asymmetric).are_apart();
        assert_eq!([0, 1, 2].map(apart), [false, false, true]);
        assert!(!homes(2, Steering::Symmetric).are_apart());
    }
}
