// SPDX-License-Identifier: MIT OR Apache-2.0

//! QEMU's main loop, which sets the virtual clock forward while all CPUs are halted.
//!
//! With `-icount …,sleep=off` it adds to the clock what is missing to the next timer, as soon as it finds all CPUs halted
//! (`icount_start_warp_timer()` of softmmu/icount.c). But a CPU that executes HLT is halted for a moment before the instructions that it has executed
//! are added to the clock (`icount_process_data()`), and the main loop does not wait for it. If it is awake in
//! that moment, the clock has these instructions twice, and from then on the boot is another one. A timer that was
//! handled a moment before wakes it; of some 80,000 halts of a boot it was seen to be awake at one in seven, and in that moment
//! at about one.
//!
//! So a CPU waits before HLT until the main loop sleeps. What wakes it then comes from outside, and a repeatable machine has
//! nothing outside.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process;
use std::thread;

/// The main loop of this process.
#[derive(Debug)]
pub struct MainLoop {
    /// What system call its thread is in (proc_pid_syscall(5)).
    call: File,
}

impl MainLoop {
    /// That of this process, in its first thread.
    ///
    /// # Errors
    /// If the kernel does not tell what a thread is doing.
    pub fn of_this_process() -> Result<Self, String> {
        let path = format!("/proc/self/task/{}/syscall", process::id());
        let open = || -> io::Result<Self> {
            let main_loop = Self {
                call: File::open(&path)?,
            };
            main_loop.is_asleep()?;
            Ok(main_loop)
        };
        open().map_err(|error| {
            format!(
                "cannot read {path}, which a kernel with CONFIG_HAVE_ARCH_TRACEHOOK has: {error}"
            )
        })
    }

    /// Waits until it sleeps in poll() or ppoll(). Whoever waits may hold no lock that the main loop takes.
    pub fn wait_until_asleep(&self) {
        // An error is not for the guest to see: it was readable when this began.
        while !self.is_asleep().unwrap_or(true) {
            thread::yield_now();
        }
    }

    fn is_asleep(&self) -> io::Result<bool> {
        let mut text = [0; 32];
        let length = self.call.read_at(&mut text, 0)?;
        Ok(sleeps(&text[..length]))
    }
}

/// Whether a thread sleeps in poll() or ppoll(), by what its file `syscall` has.
fn sleeps(text: &[u8]) -> bool {
    let number = text.split(|&byte| byte == b' ').next();
    let calls = [libc::SYS_poll, libc::SYS_ppoll];
    number.is_some_and(|number| {
        calls
            .iter()
            .any(|call| call.to_string().as_bytes() == number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_thread_that_polls_sleeps() {
        assert!(sleeps(b"271 0x55 0x4 0x7ffc 0x0 0x8 0x0 0x7ffc 0x7f7e\n"));
        assert!(sleeps(b"7 0x55 0x4\n"));
        // It runs, or waits for a lock (futex).
        assert!(!sleeps(b"running\n"));
        assert!(!sleeps(b"202 0x55 0x80\n"));
        assert!(!sleeps(b"2710 0x0\n"));
        assert!(!sleeps(b""));
    }

    #[test]
    fn the_kernel_tells_what_the_first_thread_is_doing() {
        let main_loop = MainLoop::of_this_process().unwrap();
        // The test's harness waits for this test otherwise.
        assert!(!main_loop.is_asleep().unwrap());
    }
}
