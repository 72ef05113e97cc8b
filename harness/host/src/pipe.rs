// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pipes in which a guest's words have room.

use std::io::{self, PipeReader, PipeWriter};

use nix::fcntl::{fcntl, FcntlArg};

/// Bytes that may wait for their reader: as many as anybody may have wait by default
/// (`/proc/sys/fs/pipe-max-size`). The longest event is the map of the memory for the lens, some 100 KiB.
const ROOM: i32 = 1 << 20;

/// A pipe with room for all that a guest says at the end. What does not fit waits in QEMU, and QEMU ends with the
/// guest: on a busy host, where the reader is late, the end of a long event was lost.
///
/// # Errors
/// If there can be no pipe.
pub fn roomy() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    // Who has many pipes may be refused more room. Then the reader had better be in time.
    let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(ROOM));
    Ok((reader, writer))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use nix::fcntl::OFlag;

    use super::*;

    #[test]
    fn a_long_event_waits_for_its_reader() {
        let (mut reader, mut writer) = roomy().unwrap();
        // What does not fit is an error then, and nothing to wait for.
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let event = vec![b'a'; 500_000];
        writer.write_all(&event).unwrap();
        drop(writer);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == event);
    }
}
