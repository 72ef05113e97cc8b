// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox`, the proxy's command line, as people use it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use anyhow::{anyhow, bail, ensure, Context as _, Result};
use mprox_client::{Client, Commit, ContextName};
use mprox_file::ProxyFile;
use mutex_abi::proxy::{Selection, MAX_RULES};
use nix::sys::ptrace;
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

use super::control::ensure_redirected;
use super::setup::{all_rules, original, sized, upstream, Setup};
use super::sockets::PATIENCE;
use super::GuestTest;
use mutexlab_guest::proxy::context::configuration;
use mutexlab_model::traffic::Family;
use mutexlab_protocol::MPROX;

/// All of this file.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "mprox-apply",
            "a file is checked, applied, shown, replaced and deleted; a mistake in it changes nothing",
            apply,
        ),
        GuestTest::single(
            "mprox-run",
            "mprox run redirects as long as it runs, and reads its file again when told",
            run,
        ),
        GuestTest::single(
            "mprox-killed",
            "mprox apply, killed at each of its system calls, leaves the old configuration or the new one",
            killed,
        )
        .long(),
        GuestTest::single(
            "mprox-networks",
            "a file with 100,000 networks and 4,000 rules is applied, told and replaced while packets pass",
            networks,
        ),
    ]
}

/// A file that redirects both IP versions, from the original destination to the upstream.
fn text(name: &str) -> String {
    let group = |family: Family| {
        format!(
            "[upstreams.to-{version}]\nservers = [\"{}\"]\n",
            upstream(family),
            version = number(family),
        )
    };
    let rule = |family: Family| {
        let original = original(family);
        format!(
            "[[rule]]\nname = \"{name}-{version}\"\nto = \"{}\"\nports = {}\nvia = \"to-{version}\"\n",
            original.ip(),
            original.port(),
            version = number(family),
        )
    };
    [Family::V4, Family::V6]
        .map(|family| group(family) + &rule(family))
        .concat()
}

fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

const FILE: &str = "/tmp/home.toml";

fn write(text: &str) -> Result<()> {
    fs::write(FILE, text).context(FILE)
}

fn output(setup: &Setup, arguments: &[&str]) -> Result<Output> {
    setup.layout.router.run(|| {
        let output = Command::new(MPROX).args(arguments).output();
        output.context("cannot run mprox")
    })
}

/// What it prints.
pub fn succeeds(setup: &Setup, arguments: &[&str]) -> Result<String> {
    let output = output(setup, arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && said.is_empty(),
        "mprox {arguments:?}: {}: {said}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What it complains of, in one line.
pub fn fails(setup: &Setup, arguments: &[&str]) -> Result<String> {
    let output = output(setup, arguments)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(1) && output.stdout.is_empty() && said.lines().count() == 1,
        "mprox {arguments:?}: expected a failure and a line, got {}: {said}",
        output.status
    );
    Ok(said)
}

pub fn ensure_says(said: &str, expected: &str) -> Result<()> {
    ensure!(
        said.contains(expected),
        "expected it to say {expected:?}, got {said:?}"
    );
    Ok(())
}

fn apply() -> Result<()> {
    let setup = Setup::new()?;
    write(&text("web"))?;
    let is_free = fails(&setup, &["stats"])?;
    ensure_says(&is_free, "nothing is redirected in this network namespace")?;
    ensure_says(&succeeds(&setup, &["show"])?, "no context has a name")?;
    let said = succeeds(&setup, &["check", FILE])?;
    ensure_says(&said, "2 rules, 2 upstreams; the kernel would take it")?;
    ensure_redirected(&setup, false, 0).context("checked")?;
    let said = succeeds(&setup, &["apply", FILE])?;
    ensure!(said == "home: new, 2 rules, 2 upstreams\n", "{said}");
    ensure_redirected(&setup, true, 1).context("applied")?;
    let shown = succeeds(&setup, &["show", "home"])?;
    let four = (original(Family::V4), upstream(Family::V4));
    let six = (original(Family::V6), upstream(Family::V6));
    let expected = format!(
        "context home, generation 1\n  upstreams to-4, round-robin: {} (1 connection)\n  upstreams to-6, round-robin: {} (1 connection)\n  \
         rule web-4: ipv4 to {} port {} via to-4 (1 connection)\n  rule web-6: ipv6 to {} port {} via to-6 (1 connection)\n",
        four.1,
        six.1,
        four.0.ip(),
        four.0.port(),
        six.0.ip(),
        six.0.port(),
    );
    ensure!(shown == expected, "expected {expected}, got {shown}");
    let shown = succeeds(&setup, &["show", "--json"])?;
    ensure_says(&shown, "\"name\":\"web-6\",\"ip\":6,\"protocol\":null")?;
    let stats = succeeds(&setup, &["stats", "--json"])?;
    ensure_says(&stats, "\"flows_current\":2")?;
    // Mistakes, of the file and of what the kernel alone knows.
    let mistake = text("web").replace("via = \"to-6\"", "via = \"to6\"");
    write(&mistake)?;
    for command in ["check", "apply"] {
        let said = fails(&setup, &[command, FILE])?;
        let expected = "home.toml:14:7: no upstreams are called `to6`; did you mean `to-6`?";
        ensure_says(&said, expected)?;
    }
    let said = fails(
        &setup,
        &["apply", "--generation", "0", "--name", "home", FILE],
    );
    ensure_says(&said?, "home.toml:14:7")?;
    ensure_redirected(&setup, true, 2).context("after mistakes")?;
    write(&text("other"))?;
    let said = fails(&setup, &["apply", "--generation", "0", FILE])?;
    ensure_says(&said, "the context has been configured meanwhile")?;
    let said = succeeds(&setup, &["apply", "--generation", "1", FILE])?;
    ensure!(said == "home: replaced, 2 rules, 2 upstreams\n", "{said}");
    ensure_says(&succeeds(&setup, &["show"])?, "rule other-4:")?;
    let direct = "[[rule]]\nto = \"private\"\naction = \"direct\"\n";
    write(direct)?;
    succeeds(&setup, &["apply", FILE])?;
    ensure_redirected(&setup, false, 3).context("no rule redirects any more")?;
    succeeds(&setup, &["delete", "home"])?;
    let said = fails(&setup, &["delete", "home"])?;
    ensure_says(&said, "there is no context `home`")?;
    let said = fails(&setup, &["show", "home"])?;
    ensure_says(&said, "there is no context `home`")?;
    setup.finish()?;
    let without = Command::new(MPROX).arg("show").output()?;
    let said = String::from_utf8_lossy(&without.stderr);
    ensure_says(&said, "`modprobe mutex_proxy` loads it")
}

/// A program that is killed when this is dropped.
pub struct Running(pub Child);

impl Running {
    fn start(setup: &Setup) -> Result<Self> {
        let child = setup.layout.router.run(|| {
            Command::new(MPROX)
                .args(["run", FILE])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .context("cannot run mprox")
        })?;
        Ok(Self(child))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.0.id())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The next line of a program's.
pub fn line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    ensure!(line.ends_with('\n'), "it ended, and said no more: {line:?}");
    Ok(line)
}

fn run() -> Result<()> {
    let setup = Setup::new()?;
    write(&text("web"))?;
    let mut running = Running::start(&setup)?;
    let missing = || anyhow!("no pipe");
    let mut said = BufReader::new(running.0.stdout.take().ok_or_else(missing)?);
    let mut complained = BufReader::new(running.0.stderr.take().ok_or_else(missing)?);
    ensure_says(&line(&mut said)?, "home.toml: 2 rules, 2 upstreams")?;
    ensure_redirected(&setup, true, 0).context("running")?;
    // It is nobody else's.
    ensure_says(&succeeds(&setup, &["show"])?, "no context has a name")?;
    write("[[rule]]\nto = \"privat\"\naction = \"direct\"\n")?;
    running.signal(Signal::SIGHUP)?;
    let expected =
        "nothing is changed: /tmp/home.toml:2:6: no class of networks is called `privat`";
    ensure_says(&line(&mut complained)?, expected)?;
    ensure_redirected(&setup, true, 1).context("after a mistake")?;
    write("[[rule]]\nto = \"private\"\naction = \"direct\"\n")?;
    running.signal(Signal::SIGHUP)?;
    ensure_says(&line(&mut said)?, "5 rules, 0 upstreams, read again")?;
    ensure_redirected(&setup, false, 2).context("read again")?;
    write(&text("web"))?;
    running.signal(Signal::SIGHUP)?;
    line(&mut said)?;
    ensure_redirected(&setup, true, 3).context("and again")?;
    running.signal(Signal::SIGTERM)?;
    let status = running.0.wait()?;
    ensure!(status.success(), "after SIGTERM: {status}");
    let mut rest = String::new();
    complained.read_to_string(&mut rest)?;
    ensure!(rest.is_empty(), "it complained: {rest}");
    ensure_redirected(&setup, false, 4).context("ended")?;
    // However it ends.
    let mut running = Running::start(&setup)?;
    let mut said = BufReader::new(running.0.stdout.take().ok_or_else(missing)?);
    line(&mut said)?;
    ensure_redirected(&setup, true, 5).context("running again")?;
    running.signal(Signal::SIGKILL)?;
    running.0.wait()?;
    ensure_redirected(&setup, false, 6).context("killed")?;
    setup.finish()
}

/// Whether it was killed before it ended.
fn kill_at_call(number: usize) -> Result<bool> {
    let script = format!("kill -STOP $$; exec {MPROX} apply {FILE} > /dev/null");
    let mut child = Command::new("/bin/sh").args(["-c", &script]).spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
    ensure!(
        matches!(stopped, WaitStatus::Stopped(..)),
        "expected it to stop, got {stopped:?}"
    );
    ptrace::attach(pid)?;
    waitpid(pid, None)?;
    ptrace::setoptions(
        pid,
        ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_TRACEEXEC,
    )?;
    let began = Instant::now();
    // A call stops twice: before it and behind it.
    let mut stops = None;
    let mut pass_on = None;
    loop {
        ensure!(began.elapsed() < PATIENCE, "it does not end");
        ptrace::syscall(pid, pass_on.take())?;
        match waitpid(pid, None)? {
            WaitStatus::PtraceEvent(_, _, event) if event == EXEC => stops = Some(0),
            WaitStatus::PtraceSyscall(_) => {
                if let Some(stops) = &mut stops {
                    *stops += 1;
                    if *stops == number {
                        child.kill()?;
                        child.wait()?;
                        return Ok(true);
                    }
                }
            }
            WaitStatus::Exited(_, 0) => return Ok(false),
            WaitStatus::Stopped(_, Signal::SIGCONT | Signal::SIGSTOP | Signal::SIGTRAP) => {}
            WaitStatus::Stopped(_, signal) => pass_on = Some(signal),
            other => bail!("at stop {stops:?}: {other:?}"),
        }
    }
}

const EXEC: i32 = ptrace::Event::PTRACE_EVENT_EXEC as i32;

fn killed() -> Result<()> {
    let setup = Setup::new()?;
    let home = ContextName::new(b"home").context("a name")?;
    let named = Commit {
        context: Some(home),
        ..Commit::default()
    };
    let old = configuration(Selection::Random, &all_rules());
    write(&text("web"))?;
    let (mut before, mut after) = (0, 0);
    let mut client = setup.layout.router.run(|| Ok(Client::open()?))?;
    client.stage(&old)?;
    client.commit(&named)?;
    for number in 1.. {
        let was_killed = setup.layout.router.run(|| kill_at_call(number));
        if !was_killed.with_context(|| format!("killed at stop {number}"))? {
            break;
        }
        let there = client.configuration(Some(&home))?;
        if there == old {
            before += 1;
            ensure!(after == 0, "stop {number}: the old one is there again");
            continue;
        }
        after += 1;
        let labels: Vec<_> = there.rules.iter().map(|rule| rule.label).collect();
        let labels: Vec<_> = labels.iter().map(|label| label.as_str()).collect();
        ensure!(
            labels == ["web-4", "web-6"] && there.groups.len() == 2,
            "stop {number}: neither the old nor the new one: {there:?}"
        );
        client.stage(&old)?;
        client.commit(&named)?;
    }
    ensure!(
        before > 20 && after > 0,
        "{before} stops left the old one, {after} the new one"
    );
    client.delete(&home)?;
    drop(client);
    setup.finish()
}

/// Networks of which none is near another, in a file of their own, and a file with so many rules.
fn write_networks(count: u32, rules: u16) -> Result<String> {
    let mut lines = String::new();
    for number in 0..count {
        let address = std::net::Ipv4Addr::from(0x1400_0000 + (number << 8));
        lines += &format!("{address}/25\n");
    }
    fs::write("/tmp/far.txt", lines)?;
    let mut text = String::from("[sets.far]\nnetworks-file = \"far.txt\"\n");
    for number in 0..rules {
        text += &format!(
            "[[rule]]\nip = 4\nto = \"@far\"\nports = {}\naction = \"drop\"\n",
            10_000 + number
        );
    }
    Ok(text)
}

fn networks() -> Result<()> {
    let setup = Setup::new()?;
    let (count, rules) = sized((100_000, 4000), (20_000, 1000))?;
    let many = write_networks(count, rules)? + &self::text("web");
    write(&many)?;
    for sequence in 0..3 {
        let began = Instant::now();
        let said = succeeds(&setup, &["apply", FILE])?;
        ensure_says(&said, "2 upstreams")?;
        ensure!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
        ensure_redirected(&setup, true, sequence)?;
    }
    // The same again is no more than there is already; beside it, there is no room for so many rules.
    let said = succeeds(&setup, &["check", FILE])?;
    ensure_says(&said, "the kernel would take it")?;
    if usize::from(rules) > MAX_RULES / 2 {
        let said = fails(&setup, &["check", "--name", "another", FILE])?;
        ensure_says(&said, "the kernel refuses it")?;
    }
    let shown = succeeds(&setup, &["show", "home", "--json"])?;
    ensure_says(
        &shown,
        &format!("\"of\":\"addresses\",\"elements\":{count}"),
    )?;
    // What is told of it is what was said.
    let file = ProxyFile::load(Path::new(FILE))?;
    let home = ContextName::new(b"home").context("a name")?;
    let mut client = setup.layout.router.run(|| Ok(Client::open()?))?;
    let told = client.configuration(Some(&home))?;
    ensure!(told == file.configuration, "it is told as another");
    succeeds(&setup, &["delete", "home"])?;
    setup.finish()
}
