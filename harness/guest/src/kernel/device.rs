// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the modules' device files have in common.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use nix::libc;

/// Opens the device called `name` for the network namespace of the calling thread.
pub fn open(name: &str) -> Result<File> {
    let path = format!("/dev/{name}");
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {path}"))
}

/// Reads all that the device has to say, from position 0; the devices don't seek.
pub fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut page = [0; 4096];
    loop {
        let length = file.read_at(&mut page, bytes.len() as u64)?;
        if length == 0 {
            return Ok(bytes);
        }
        bytes.extend(&page[..length]);
    }
}

/// Asks a device for a record of `N` bytes, by an `ioctl` that only reads.
///
/// # Panics
/// If by its number the request is for another size.
pub fn ask<const N: usize>(file: &File, request: u32) -> io::Result<[u8; N]> {
    ask_about(file, request, [0; N])
}

/// The same, about what the record says.
///
/// # Panics
/// If by its number the request is for another size.
pub fn ask_about<const N: usize>(
    file: &File,
    request: u32,
    mut bytes: [u8; N],
) -> io::Result<[u8; N]> {
    // _IOC_SIZE of asm-generic/ioctl.h.
    assert_eq!((request >> 16) as usize & ((1 << 14) - 1), N);
    // SAFETY: The descriptor is open, and the request's number says that the kernel reads
    // and writes `N` bytes, which are there.
    let result =
        unsafe { libc::ioctl(file.as_raw_fd(), request as libc::Ioctl, bytes.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(bytes)
}
