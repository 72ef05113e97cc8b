// SPDX-License-Identifier: MIT OR Apache-2.0

//! Between the standard streams here and those of the command in the guest.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{bail, Context, Result};
use signal_hook::consts::SIGWINCH;
use signal_hook::iterator::Signals;

use super::escape::Escape;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::terminal::{Saved, Size};
use mutexlab_protocol::frame::Frame;
use mutexlab_protocol::visit;
use mutexlab_protocol::visit::PORT;

/// How much is read at a time.
const PIECE: usize = 1 << 14;

/// Where QEMU will connect the guest's port to.
pub struct Port {
    path: PathBuf,
    listener: UnixListener,
}

/// The streams, connected.
pub struct Bridge {
    output: JoinHandle<Result<Option<i32>>>,
}

impl Port {
    /// Makes a socket in `directory`.
    ///
    /// # Errors
    /// If that cannot be.
    pub fn new(directory: &Path) -> Result<Self> {
        let path = directory.join("port");
        let listener = UnixListener::bind(&path)
            .with_context(|| format!("cannot make the socket {}", path.display()))?;
        // QEMU connects before the guest starts; who has not, never will.
        listener
            .set_nonblocking(true)
            .context("cannot set up a socket")?;
        Ok(Self { path, listener })
    }

    /// Arguments to QEMU, which connects to it.
    pub fn qemu_arguments(&self) -> [String; 4] {
        [
            "-chardev".to_owned(),
            format!("socket,id={PORT},path={}", self.path.display()),
            "-device".to_owned(),
            format!("virtserialport,chardev={PORT},name={PORT}"),
        ]
    }

    /// Connects the standard streams, once the guest is ready. Whoever wants out raises `interrupt`, as
    /// does an output that takes no more.
    ///
    /// # Errors
    /// If QEMU has not connected, or a thread cannot be started.
    pub fn connect(&self, terminal: Option<&Saved>, interrupt: &Interrupt) -> Result<Bridge> {
        let (stream, _) = self
            .listener
            .accept()
            .context("QEMU has not connected the guest's port")?;
        stream
            .set_nonblocking(false)
            .context("cannot set up a socket")?;
        let copy = || stream.try_clone().context("cannot copy a descriptor");
        let reader = copy()?;
        let writer = Arc::new(Mutex::new(copy()?));
        if let Some(terminal) = terminal {
            follow_size(terminal.try_clone()?, &writer)?;
        }
        let (own, wanted_out) = (Arc::clone(&writer), interrupt.clone());
        let is_terminal = terminal.is_some();
        thread::Builder::new()
            .spawn(move || forward_input(&own, is_terminal, &wanted_out))
            .context("cannot start a thread")?;
        let broken = interrupt.clone();
        let output = thread::Builder::new()
            .spawn(move || {
                let code = forward_output(reader, &writer);
                if code.is_err() {
                    broken.raise();
                }
                code
            })
            .context("cannot start a thread")?;
        Ok(Bridge { output })
    }
}

impl Bridge {
    /// The exit code, when the guest has gone; `None` if it went before it told one.
    ///
    /// # Errors
    /// If something could not be written.
    pub fn finish(self) -> Result<Option<i32>> {
        match self.output.join() {
            Ok(code) => code,
            Err(_) => bail!("the thread that writes output has panicked"),
        }
    }
}

fn send(frame: &Frame, writer: &Mutex<UnixStream>) -> io::Result<()> {
    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    frame.write(&mut *writer)
}

/// Tells the guest how large the terminal is, now and whenever that changes.
fn follow_size(terminal: Saved, writer: &Arc<Mutex<UnixStream>>) -> Result<()> {
    let mut signals = Signals::new([SIGWINCH]).context("cannot catch SIGWINCH")?;
    let writer = Arc::clone(writer);
    thread::Builder::new()
        .spawn(move || {
            for _ in signals.forever() {
                let Ok(size) = terminal.size() else { break };
                if send(&Frame::Size(told(size)), &writer).is_err() {
                    break;
                }
            }
        })
        .map(drop)
        .context("cannot start a thread")
}

/// A terminal's size, as the guest is told it.
pub fn told(Size { rows, columns }: Size) -> visit::Size {
    visit::Size { rows, columns }
}

fn forward_input(writer: &Mutex<UnixStream>, is_terminal: bool, interrupt: &Interrupt) {
    let mut input = io::stdin().lock();
    let mut buffer = vec![0; PIECE];
    let mut escape = Escape::default();
    loop {
        let frame = match input.read(&mut buffer) {
            Ok(length @ 1..) => {
                if is_terminal && escape.is_in(&buffer[..length], Instant::now()) {
                    interrupt.raise();
                    return;
                }
                Frame::Input(buffer[..length].to_vec())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => Frame::InputEnd,
        };
        // Without a guest nobody needs it.
        if send(&frame, writer).is_err() || frame == Frame::InputEnd {
            return;
        }
    }
}

/// Writes what comes from the guest until it has gone; the exit code, if it told one.
fn forward_output(mut reader: UnixStream, writer: &Mutex<UnixStream>) -> Result<Option<i32>> {
    let mut code = None;
    while let Some(frame) = Frame::read(&mut reader).context("the guest is not understood")? {
        match frame {
            Frame::Output(bytes) => {
                let mut output = io::stdout().lock();
                output
                    .write_all(&bytes)
                    .and_then(|()| output.flush())
                    .context("cannot write to standard output")?;
            }
            Frame::Error(bytes) => io::stderr()
                .write_all(&bytes)
                .context("cannot write to standard error")?,
            Frame::Ended(with) => {
                code = Some(with);
                send(&Frame::Farewell, writer).context("cannot write to the guest")?;
            }
            Frame::Input(_) | Frame::InputEnd | Frame::Size(_) | Frame::Farewell => {}
        }
    }
    Ok(code)
}
