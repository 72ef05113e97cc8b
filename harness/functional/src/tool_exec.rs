// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox exec`: one command with only its connections redirected.

use std::fs;
use std::io::{BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use nix::mount::{mount, umount, MsFlags};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::setup::{original, upstream, Setup};
use super::sockets::{accept, is_readable, listen, PATIENCE};
use super::tool::{ensure_says, fails, line, Running};
use super::GuestTest;
use mutexlab_model::traffic::Family;
use mutexlab_protocol::MPROX;

/// All of this file.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "mprox-exec",
        "mprox exec redirects what a command and its children connect to, and nobody else, until the last has ended",
        exec,
    )]
}

/// A client that is a static program: it sends a line to the original destination.
fn client(family: Family) -> String {
    let to = original(family);
    format!(
        "echo hello | /bin/busybox nc -w 3 {} {}",
        to.ip(),
        to.port()
    )
}

/// Runs a command in the router, and says whether it got to the upstream (`true`) or to the original destination.
fn gets_to_upstream(setup: &Setup, family: Family, program: &mut Command) -> Result<bool> {
    let there = listen(&setup.layout.server, upstream(family))?;
    let here = listen(&setup.layout.server, original(family))?;
    let child = setup.layout.router.run(|| Ok(program.spawn()?))?;
    let mut child = Running(child);
    let began = Instant::now();
    let to_upstream = loop {
        ensure!(began.elapsed() < PATIENCE, "it gets to nobody");
        if is_readable(&there, Duration::from_millis(20))? {
            break true;
        }
        if is_readable(&here, Duration::from_millis(20))? {
            break false;
        }
    };
    let (mut stream, _) = accept(if to_upstream { &there } else { &here })?;
    let mut said = [0; 6];
    stream.read_exact(&mut said)?;
    ensure!(said == *b"hello\n", "it said {said:?}");
    drop(stream);
    child.0.wait()?;
    Ok(to_upstream)
}

fn exec() -> Result<()> {
    let setup = Setup::new()?;
    const GROUPS: &str = "/sys/fs/cgroup";
    mount(
        Some("cgroup2"),
        GROUPS,
        Some("cgroup2"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("cannot mount cgroup2")?;
    let executing = |via: &str, script: &str| {
        let mut command = Command::new(MPROX);
        command.args(["exec", "--via", via, "--", "/bin/sh", "-c", script]);
        command
    };
    for family in [Family::V4, Family::V6] {
        let via = upstream(family).to_string();
        let child = format!("/bin/sh -c '{}'", client(family));
        for script in [client(family), child] {
            let redirected = gets_to_upstream(&setup, family, &mut executing(&via, &script))?;
            ensure!(redirected, "{family:?} {script}: not redirected");
        }
        let mut beside = Command::new("/bin/sh");
        beside.args(["-c", &client(family)]);
        ensure!(
            !gets_to_upstream(&setup, family, &mut beside)?,
            "{family:?}: nobody's, and redirected"
        );
    }
    // Over the IP version of no server nothing gets past.
    let four = upstream(Family::V4).to_string();
    let began = Instant::now();
    let refused = setup.layout.router.run(|| {
        Ok(executing(&four, &client(Family::V6))
            .stderr(Stdio::null())
            .status()?)
    })?;
    ensure!(
        !refused.success() && began.elapsed() < PATIENCE,
        "IPv6: {refused}"
    );
    // What a command leaves is waited for, and ended when that is asked for.
    let mut left = setup.layout.router.run(|| {
        let mut command = executing(&four, "sleep 1000 & exit 3");
        Ok(command.stderr(Stdio::piped()).spawn()?)
    })?;
    let complained = left.stderr.take().context("no pipe")?;
    let said = line(&mut BufReader::new(complained))?;
    ensure_says(&said, "the command has ended, and left 1 process: waiting")?;
    kill(Pid::from_raw(i32::try_from(left.id())?), Signal::SIGTERM)?;
    let status = left.wait()?;
    ensure!(
        status.code() == Some(3),
        "expected the command's exit code 3, got {status}"
    );
    let killed = setup
        .layout
        .router
        .run(|| Ok(executing(&four, "kill -9 $$").status()?))?;
    ensure!(killed.code() == Some(137), "expected 137, got {killed}");
    let missing = setup.layout.router.run(|| {
        let mut command = Command::new(MPROX);
        command.args(["exec", "--via", &four, "--", "/no/such/program"]);
        Ok(command.output()?)
    })?;
    let said = String::from_utf8_lossy(&missing.stderr);
    ensure_says(
        &said,
        "cannot run /no/such/program: No such file or directory",
    )?;
    let remains = fs::read_dir(GROUPS)?
        .filter_map(|one| one.ok()?.file_name().into_string().ok())
        .find(|name| name.starts_with("mprox-exec"));
    ensure!(remains.is_none(), "{remains:?} is left");
    ensure_says(&fails(&setup, &["stats"])?, "nothing is redirected")?;
    umount(GROUPS)?;
    setup.finish()
}
