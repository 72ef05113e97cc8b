// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox run`.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use mprox_client::{Client, Commit};
use mprox_file::ProxyFile;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{open, put, sizes};
use crate::service::Manager;

/// Redirect as a file says, as long as this runs
///
/// The context is this program's: however it ends, the kernel removes all of it. SIGHUP reads the file again; a mistake in it
/// is told, and leaves what is. Under systemd it says when it is ready (Type=notify or notify-reload), and with
/// FileDescriptorStoreMax=1 a restart drops no connection.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox run home.toml              Until Ctrl-C\n  \
    kill -HUP $(pidof mprox)         Read the file again\n  \
    systemctl start mprox@home       As a service of the package, with /etc/mprox/home.toml\n  \
    systemctl reload mprox@home      Read that again")]
pub struct RunCommand {
    /// The file
    file: PathBuf,
}

/// Who started this may have gone, and with him the terminal or the pipe: connections are redirected all the same.
fn tell(status: &str) {
    let _ = writeln!(io::stdout(), "{status}");
}

fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "mprox: {message}");
}

impl RunCommand {
    pub fn run(&self) -> Result<()> {
        // Before anything is redirected, so that no signal comes too early.
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        let mut manager = Manager::of_this_program();
        let file = ProxyFile::load(&self.file)?;
        let mut client = match manager.take_stored() {
            Some(descriptor) => Client::adopt(descriptor).context(
                "the service manager has stored something else than the socket of a context",
            )?,
            None => {
                let client = open()?;
                manager.store(client.as_fd());
                client
            }
        };
        put(&mut client, &file, &Commit::default())?;
        let status = format!("{}: {}", file.path, sizes(&file));
        tell(&status);
        manager.ready(&status);
        for signal in signals.forever() {
            if signal != SIGHUP {
                break;
            }
            manager.reloading();
            let status = match self.reload(&mut client) {
                Ok(status) => {
                    tell(&status);
                    status
                }
                Err(error) => {
                    let status = format!("nothing is changed: {error:#}").replace('\n', " ");
                    complain(&status);
                    status
                }
            };
            manager.ready(&status);
        }
        manager.stopping();
        Ok(())
    }

    fn reload(&self, client: &mut Client) -> Result<String> {
        let file = ProxyFile::load(&self.file)?;
        put(client, &file, &Commit::default())?;
        Ok(format!("{}: {}, read again", file.path, sizes(&file)))
    }
}
