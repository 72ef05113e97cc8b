// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's random numbers.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::libc;

/// Has the kernel believe that it has gathered enough. Other machines have after a few seconds; a
/// guest whose instructions take no time of their own needs minutes, and until then each random
/// number is thousands of instructions more, also those of connection tracking and of the module
/// for a new flow. Nothing secret is in a guest.
pub fn provide() -> Result<()> {
    const PATH: &str = "/dev/random";
    // struct rand_pool_info of linux/random.h: how many bits they are worth, how many bytes follow.
    const SIZE: usize = 32;
    let info: [u32; 2 + SIZE / 4] = [8 * SIZE as u32, SIZE as u32, 1, 2, 3, 4, 5, 6, 7, 8];
    // _IOW('R', 0x03, int[2])
    const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
    let file = OpenOptions::new()
        .write(true)
        .open(PATH)
        .with_context(|| format!("cannot open {PATH}"))?;
    // SAFETY: The descriptor is open, and the kernel reads as much as the second number says behind
    // the first two, which is there.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), RNDADDENTROPY, info.as_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("cannot add to {PATH}"));
    }
    Ok(())
}
