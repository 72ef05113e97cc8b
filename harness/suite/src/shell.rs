// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab shell` as people and scripts use it: another harness, at a terminal or at pipes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::bench::INSTRUMENT;
use super::outcome::{Ended, Shared};
use super::typist::Typist;
use mutexlab_host::paths;
use mutexlab_host::pty;
use mutexlab_host::terminal::Size;
use mutexlab_model::verdict::{Ending, Verdict};

/// How long a debugger's stub may take to be there, and to answer.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// The shell's prompt, in the router.
const PROMPT: &str = "router:~# ";

/// One way to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShellTest {
    /// Commands come over a pipe.
    Script,
    /// Somebody types.
    Terminal,
    /// The kernel panics before somebody's eyes.
    Panic,
    /// The harness is killed while somebody types.
    Killed,
    /// A debugger attaches and leaves.
    Debugger,
}

/// All of them.
pub const ALL: [ShellTest; 5] = [
    ShellTest::Script,
    ShellTest::Terminal,
    ShellTest::Panic,
    ShellTest::Killed,
    ShellTest::Debugger,
];

impl ShellTest {
    /// Its name as a test.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Script => "shell-runs-a-script-and-passes-its-exit-code-on",
            Self::Terminal => "shell-is-one-at-a-terminal-and-puts-it-right",
            Self::Panic => "shell-puts-the-terminal-right-after-a-panic",
            Self::Killed => "killed-shell-leaves-the-terminal-right",
            Self::Debugger => "shell-lets-a-debugger-in",
        }
    }

    /// Tries it on the default kernel as it is meant to run.
    pub fn run(self, outcomes: &Shared) -> Result<()> {
        let started = Instant::now();
        let tried = match self {
            Self::Script => script(),
            Self::Terminal => at_a_terminal(),
            Self::Panic => panic(),
            Self::Killed => killed(),
            Self::Debugger => debugger(),
        };
        let ending = match tried {
            Ok(()) => Ending::ok(),
            Err(error) => Ending::bad(Verdict::Failed, format!("{error:#}")),
        };
        outcomes.lock().ended(Ended {
            suite: INSTRUMENT,
            test: self.name(),
            ending,
            took: Some(started.elapsed()),
            console_log: None,
        })
    }
}

fn shell(arguments: &[&str]) -> Command {
    let mut command = Command::new(paths::this_program());
    command.arg("shell").args(arguments);
    command
}

fn script() -> Result<()> {
    let mut child = shell(&["--param", "max_flows=77"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start a shell")?;
    child.stdin.take().context("no pipe")?.write_all(
        b"cat /sys/module/mutex_proxy/parameters/max_flows\n\
          client ask how do you do\n\
          router ask -u -6 well\n\
          echo oh dear >&2\n\
          cat no-such-file 2>/dev/null || exit 41\n",
    )?;
    let output = child.wait_with_output().context("cannot wait for it")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    let is_right = matches!(lines.as_slice(), ["77", first, second]
        if first.starts_with("upstream 198.51.100.2:7007 answers 192.0.2.2:")
            && second.starts_with("upstream [2001:db8:2::2]:7007 answers [2001:db8:2::1]:"));
    ensure!(is_right, "it said {said:?} and {complained:?}");
    ensure!(
        complained.ends_with("oh dear\n"),
        "standard error is {complained:?}"
    );
    ensure!(
        output.status.code() == Some(41),
        "it ended with {}",
        output.status
    );
    Ok(())
}

fn at_a_terminal() -> Result<()> {
    let mut typist = Typist::start(shell(&[]))?;
    typist.wait_for(PROMPT)?;
    ensure!(!typist.is_as_before()?, "the terminal is not raw");
    typist.write("tty; stty size\n")?;
    typist.wait_for("/dev/pts/0\r\n24 80\r\n")?;
    pty::resize(
        &typist.pty.master,
        Size {
            rows: 31,
            columns: 97,
        },
    )?;
    typist.write("until [ \"$(stty size)\" = '31 97' ]; do :; done; echo as lar''ge\n")?;
    typist.wait_for("as large")?;
    typist.wait_for(PROMPT)?;
    typist.write("sleep 1000\n")?;
    typist.wait_for("sleep 1000\r\n")?;
    // The shell has to start it first.
    thread::sleep(Duration::from_secs(1));
    typist.write("\x03")?;
    typist.wait_for(PROMPT)?;
    typist.write("echo code $?; sleep 1000 & jobs\n")?;
    typist.wait_for("code 130")?;
    typist.wait_for("Running")?;
    typist.wait_for(PROMPT)?;
    typist.write("exit 7\n")?;
    typist.ended_with(Some(7))
}

fn panic() -> Result<()> {
    let mut typist = Typist::start(shell(&[]))?;
    typist.wait_for(PROMPT)?;
    typist.write("echo c >/proc/sysrq-trigger\n")?;
    typist.wait_for("ended as panic")?;
    typist.ended_with(Some(125))
}

fn killed() -> Result<()> {
    let mut typist = Typist::start(shell(&[]))?;
    typist.wait_for(PROMPT)?;
    signal::kill(
        Pid::from_raw(typist.child.id().cast_signed()),
        Signal::SIGKILL,
    )
    .context("cannot kill the shell")?;
    typist.ended_with(None)
}

fn debugger() -> Result<()> {
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let socket = directory.path().join("gdb");
    let gdb = format!("--gdb={}", socket.display());
    let mut child = shell(&[&gdb, "--wait", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start a shell")?;
    let tried = attach(&socket, &mut child);
    if tried.is_err() {
        // It may have ended.
        let _ = child.kill();
    }
    let output = child.wait_with_output().context("cannot wait for it")?;
    tried?;
    ensure!(
        output.status.success() && output.stdout == b"still here",
        "the guest did not go on: {}, {:?}",
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

/// Asks the stub why the guest has stopped and where it is, and lets it go; then says something to it.
fn attach(socket: &Path, child: &mut Child) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut stub = loop {
        match UnixStream::connect(socket) {
            Ok(stub) => break stub,
            Err(error) if Instant::now() > deadline => {
                return Err(error)
                    .with_context(|| format!("there is nobody at {}", socket.display()));
            }
            Err(_) => thread::sleep(POLL),
        }
    };
    stub.set_read_timeout(Some(PATIENCE))?;
    let why = ask(&mut stub, "?")?;
    ensure!(
        why.starts_with('T') || why.starts_with('S'),
        "the answer to ? is {why:?}"
    );
    // The reset vector is the last 16 bytes below 4 GiB, where a jump stands: Intel's manual, volume 3,
    // section 10.1.4.
    let first = ask(&mut stub, "mfffffff0,1")?;
    ensure!(first == "ea", "the guest's first instruction is {first:?}");
    let left = ask(&mut stub, "D")?;
    ensure!(left == "OK", "the answer to D is {left:?}");
    let mut input = child.stdin.take().context("no pipe")?;
    input.write_all(b"still here").context("cannot write to it")
}

/// One exchange of gdb's remote protocol (gdb's manual, "Overview" of it).
fn ask(stub: &mut UnixStream, request: &str) -> Result<String> {
    let sum = |text: &str| text.bytes().fold(0_u8, u8::wrapping_add);
    write!(stub, "${request}#{:02x}", sum(request)).context("cannot write to the stub")?;
    let mut text = String::new();
    let mut byte = [0];
    while !text.contains('#') {
        stub.read_exact(&mut byte)
            .with_context(|| format!("no answer to {request}"))?;
        text.push(char::from(byte[0]));
    }
    let mut digits = [0; 2];
    stub.read_exact(&mut digits)
        .context("an answer is cut short")?;
    stub.write_all(b"+").context("cannot write to the stub")?;
    let Some((_, body)) = text.trim_end_matches('#').split_once('$') else {
        bail!("the stub says {text:?}");
    };
    let told = std::str::from_utf8(&digits)
        .ok()
        .and_then(|digits| u8::from_str_radix(digits, 16).ok());
    ensure!(told == Some(sum(body)), "the checksum of {body:?} is wrong");
    Ok(body.to_owned())
}
