// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's own log, with the levels that a console does not show (Documentation/ABI/testing/dev-kmsg).

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use nix::libc;

use mutexlab_protocol::log_line::{LogLine, WARNING};

/// Where it is.
pub const PATH: &str = "/dev/kmsg";
/// More than a record has: PRINTKRB_RECORD_MAX of kernel/printk/, each byte escaped as four.
const RECORD_MAX: usize = 1 << 14;

/// Reads a record: level and facility, number, microseconds, flags; the text; and properties, a line each.
fn parse(record: &str) -> Option<LogLine> {
    let (head, rest) = record.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let microseconds: f64 = fields.nth(1)?.parse().ok()?;
    Some(LogLine {
        level: (priority & 7) as u8,
        at: microseconds / 1e6,
        text: rest.lines().next().unwrap_or_default().to_owned(),
    })
}

/// A reader of the log.
pub struct KernelLog {
    file: File,
    buffer: Vec<u8>,
}

impl KernelLog {
    /// Begins with the oldest line that is there.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open() -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(PATH);
        Ok(Self {
            file: file.with_context(|| format!("cannot open {PATH}"))?,
            buffer: vec![0; RECORD_MAX],
        })
    }

    /// Begins with the lines to come: what was said before there was an agent is of the machine and the kernel
    /// alone, in which no module had a part. (Reports of faults are seen on the console from its first line on.)
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn from_now_on() -> Result<Self> {
        let mut log = Self::open()?;
        log.file
            .seek(SeekFrom::End(0))
            .with_context(|| format!("cannot skip what {PATH} has"))?;
        Ok(log)
    }

    /// The complaints among the lines that are new. Lines that were overwritten before they were read are one: they
    /// were not looked at.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn complaints(&mut self) -> Result<Vec<LogLine>> {
        // A line without its end can be read only when another one comes (vprintk_store()). Consoles do not show
        // what is for debugging.
        fs::write(PATH, "<7>mutexlab: the log is looked at\n")
            .with_context(|| format!("cannot write {PATH}"))?;
        let mut complaints = Vec::new();
        loop {
            let length = match self.file.read(&mut self.buffer) {
                Ok(0) => return Ok(complaints),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(complaints),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {
                    complaints.push(LogLine {
                        level: WARNING,
                        at: 0.0,
                        text: "the log has overwritten lines that nobody had looked at".to_owned(),
                    });
                    continue;
                }
                Err(error) => return Err(error).with_context(|| format!("cannot read {PATH}")),
            };
            let record = String::from_utf8_lossy(&self.buffer[..length]);
            let line = parse(&record)
                .with_context(|| format!("a record of {PATH} is unreadable: {record:?}"))?;
            if line.is_complaint() {
                complaints.push(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        // Of the kernel; of a program, which is facility 1; and a part of a line that is in progress.
        for (record, level, at, text) in [
            (
                "6,339,5140900,-;NET: Registered\n",
                6,
                5.1409,
                "NET: Registered",
            ),
            (
                "4,340,5690716,-,caller=T1;udevd[80]: a; b\n SUBSYSTEM=acpi\n",
                4,
                5.690716,
                "udevd[80]: a; b",
            ),
            ("12,7,1000000,-;warning\n", 4, 1.0, "warning"),
            ("3,8,0,c;\n", 3, 0.0, ""),
        ] {
            let line = parse(record).unwrap();
            assert_eq!((line.level, line.at, line.text.as_str()), (level, at, text));
        }
        for bad in ["", "4,1,2", "x,1,2,-;a", "4,1;a"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
