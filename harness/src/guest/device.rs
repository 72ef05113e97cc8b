// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the modules' device files have in common.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

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
