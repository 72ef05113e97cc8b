// SPDX-License-Identifier: MIT OR Apache-2.0

//! Programs that nobody wants to go on once we are gone, whatever ended us: what they would write, the next
//! run writes, too.
//!
//! [`leash`](crate::leash) is for those that start others; this is for single programs, and for this one, which
//! ends what it has started when it is told to end.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;

/// Has the program get SIGTERM when the thread ends that starts it. That thread should wait for it.
///
/// # Errors
/// None; duct's `before_spawn` wants a result.
pub fn ends_it(command: &mut Command) -> io::Result<()> {
    // SAFETY: The closure only makes a system call, which is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGTERM).map_err(Into::into));
    }
    Ok(())
}
