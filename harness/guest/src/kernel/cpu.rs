// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the CPUs were busy with.
//!
//! The images account by the tick and not by the time (CONFIG_TICK_CPU_ACCOUNTING), so that user,
//! system and softirq can't be told apart within milliseconds. But each process has a clock of its
//! own that is exact, with the softirqs in it that it ran; and how long a CPU was idle is known by
//! the time, too, told in hundredths of a second.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{clock_getcpuclockid, clock_gettime, ClockId};
use nix::unistd::Pid;

use mutexlab_model::measured::CoreTime;

/// The clocks of all that this guest does for packets but for interrupts of an idle CPU and for
/// other programs: this process, and the threads that run what softirqs leave.
pub struct Workers(Vec<ClockId>);

impl Workers {
    /// Looks for them.
    pub fn find() -> Result<Self> {
        let mut clocks = vec![ClockId::CLOCK_PROCESS_CPUTIME_ID];
        for entry in fs::read_dir("/proc").context("cannot list the processes")? {
            let entry = entry.context("cannot list the processes")?;
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // A process may end while it is looked at.
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if name.starts_with("ksoftirqd/") {
                clocks.push(
                    clock_getcpuclockid(Pid::from_raw(pid)).context("a thread has no clock")?,
                );
            }
        }
        Ok(Self(clocks))
    }

    /// What they have spent until now.
    pub fn time(&self) -> Result<Duration> {
        self.0
            .iter()
            .map(|&clock| {
                let time = clock_gettime(clock).context("cannot read a process's clock")?;
                Ok(Duration::from(time))
            })
            .sum()
    }
}

/// The time of each CPU until now.
pub fn cores() -> Result<Vec<CoreTime>> {
    let path = "/proc/stat";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(parse(&text))
}

/// Lines are `cpuN`, and user, nice, system, idle, iowait and others in hundredths of a second:
/// proc_stat(5).
fn parse(text: &str) -> Vec<CoreTime> {
    let core = |line: &str| {
        let mut words = line.strip_prefix("cpu")?.split_whitespace();
        // The first line is of all together and has no number.
        let number = line.strip_prefix("cpu")?.chars().next()?.is_ascii_digit();
        let cpu = words.next().filter(|_| number)?.parse().ok()?;
        let times: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        let idle = times.get(3)? + times.get(4)?;
        Some(CoreTime {
            cpu,
            idle,
            all: times.iter().take(8).sum(),
        })
    };
    text.lines().filter_map(core).collect()
}

/// What has passed since `before`.
pub fn since(before: &[CoreTime], after: &[CoreTime]) -> Vec<CoreTime> {
    after
        .iter()
        .filter_map(|after| {
            let before = before.iter().find(|before| before.cpu == after.cpu)?;
            Some(CoreTime {
                cpu: after.cpu,
                idle: after.idle.saturating_sub(before.idle),
                all: after.all.saturating_sub(before.all),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_told_apart() {
        let text = "cpu  30 0 30 130 10 0 0 0 0 0\ncpu0 10 0 10 70 10 0 0 0 5 0\n\
                    cpu1 20 0 20 60 0 0 0 0 0 0\nintr 7 0\n";
        let cores = parse(text);
        assert_eq!(cores.len(), 2);
        assert_eq!((cores[0].cpu, cores[0].idle, cores[0].all), (0, 80, 100));
        assert_eq!((cores[1].cpu, cores[1].idle, cores[1].all), (1, 60, 100));
        let later = since(&cores[..1], &parse(&text.replace("cpu0 10", "cpu0 40")));
        assert_eq!(later.len(), 1);
        assert_eq!((later[0].idle, later[0].all), (0, 30));
    }

    #[test]
    fn work_takes_time() {
        let workers = Workers::find().unwrap();
        let before = workers.time().unwrap();
        let sum: u64 = (0..1_000_000_u64).map(std::hint::black_box).sum();
        assert!(sum > 0 && workers.time().unwrap() > before);
    }
}
