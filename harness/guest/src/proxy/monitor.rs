// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the module tells of a namespace in /proc/net/mutex_proxy/.

mod latency;
mod stats;
mod text;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

use crate::net::namespace::Namespace;
pub use latency::{Histogram, Latency};
pub use stats::Stats;

/// The directory, for the namespace of the thread that looks at it. /proc/net is that of the
/// process's first thread.
pub const DIRECTORY: &str = "/proc/thread-self/net/mutex_proxy";

/// Opens the file called `name` of `namespace`; `None` if there is no such file, or nothing that it could tell of.
pub fn open(namespace: &Namespace, name: &str) -> Result<Option<File>> {
    let path = format!("{DIRECTORY}/{name}");
    namespace.run(|| match File::open(&path) {
        Ok(file) => match file.read_at(&mut [0], 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // Any other error is for who reads.
            _ => Ok(Some(file)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(error).with_context(|| format!("cannot open {path} ({})", namespace.name()))
        }
    })
}
