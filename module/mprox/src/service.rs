// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a service manager and a service tell each other: sd_notify(3), sd_listen_fds(3) and the file descriptor store of
//! systemd.service(5).

use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags, UnixAddr};
use nix::sys::time::TimeSpec;
use nix::time::{clock_gettime, ClockId};

/// What the context's socket is called in the store.
const STORED: &str = "context";
/// The first descriptor that a service manager hands over (SD_LISTEN_FDS_START).
const FIRST: i32 = 3;

/// What of the environment is for us. Nobody else reads it in this program.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<String>,
    // Descriptors from `FIRST` on that are ours, by their names.
    stored: Vec<String>,
}

impl Manager {
    /// Who started this program, as its environment says.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    pub fn of_this_program() -> Self {
        let value = |name: &str| std::env::var(name).ok();
        let is_for_us = value("LISTEN_PID") == Some(std::process::id().to_string());
        let count = value("LISTEN_FDS").and_then(|count| count.parse::<usize>().ok());
        let names = value("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned);
        Self {
            socket: value("NOTIFY_SOCKET").filter(|path| !path.is_empty()),
            stored: match (is_for_us, count) {
                (true, Some(count)) => names.take(count).collect(),
                _ => Vec::new(),
            },
        }
    }

    /// The socket that this program has left in the store before it was started again; the first time.
    pub fn take_stored(&mut self) -> Option<OwnedFd> {
        let place = self.stored.iter().position(|name| name == STORED)?;
        self.stored[place].clear();
        let descriptor = FIRST + i32::try_from(place).ok()?;
        // SAFETY: the manager has opened it for this process, and nobody else here uses it: there is one `Manager`, since only
        // `of_this_program` gives it names, and this one was taken just now.
        Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    /// Keeps a socket in the store: who is started next gets it.
    pub fn store(&self, socket: BorrowedFd<'_>) {
        // It is not to be polled: the kernel's answers are for us.
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={STORED}\n");
        self.tell(&text, Some(socket));
    }

    /// It works, and this is what it does.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}\n"), None);
    }

    /// It reads its file again.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or(TimeSpec::new(0, 0));
        let microseconds = now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000;
        let text = format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\n");
        self.tell(&text, None);
    }

    /// It is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\n", None);
    }

    // A manager that cannot be told is no reason to do without what it manages: sd_notify(3).
    fn tell(&self, text: &str, descriptor: Option<BorrowedFd<'_>>) {
        if let Err(error) = self.send(text, descriptor) {
            let _ = writeln!(
                io::stderr(),
                "mprox: the service manager cannot be told: {error}"
            );
        }
    }

    fn send(&self, text: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let Some(path) = &self.socket else {
            return Ok(());
        };
        let address = match path.strip_prefix('@') {
            Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
            None => UnixAddr::new(path.as_str())?,
        };
        let socket = UnixDatagram::unbound()?;
        let descriptors: Vec<_> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let control = if descriptors.is_empty() {
            &[][..]
        } else {
            &rights
        };
        let text = [IoSlice::new(text.as_bytes())];
        sendmsg(
            socket.as_raw_fd(),
            &text,
            control,
            MsgFlags::MSG_NOSIGNAL,
            Some(&address),
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::cmsg_space;
    use nix::sys::socket::{recvmsg, ControlMessageOwned};

    use super::*;

    #[test]
    fn the_manager_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let service = Manager {
            socket: Some(path.display().to_string()),
            stored: Vec::new(),
        };
        let mut buffer = [0; 256];
        service.ready("2 rules");
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\nSTATUS=2 rules\n");
        service.reloading();
        let length = manager.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        let time = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(time.trim().parse::<u64>().unwrap() > 0);
        let kept = UnixDatagram::unbound().unwrap();
        service.store(kept.as_fd());
        let mut text = [0; 64];
        let mut space = cmsg_space!([i32; 1]);
        let mut parts = [io::IoSliceMut::new(&mut text)];
        let received = recvmsg::<UnixAddr>(
            manager.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::empty(),
        )
        .unwrap();
        let passed = received
            .cmsgs()
            .unwrap()
            .any(|one| matches!(one, ControlMessageOwned::ScmRights(all) if all.len() == 1));
        assert!(passed);
        let length = received.bytes;
        assert_eq!(&text[..length], b"FDSTORE=1\nFDPOLL=0\nFDNAME=context\n");
    }

    #[test]
    fn without_a_manager_nobody_is_told() {
        let mut nobody = Manager::default();
        nobody.ready("");
        nobody.stopping();
        assert!(nobody.take_stored().is_none());
        let gone = Manager {
            socket: Some("/nowhere/at/all".to_owned()),
            stored: Vec::new(),
        };
        // It goes on.
        gone.ready("");
    }
}
