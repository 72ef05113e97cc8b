// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox exec`.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;

use anyhow::{anyhow, Context, Result};
use clap::Args;
use mprox_client::{
    Action, Commit, Condition, Conditions, Configuration, Family, Field, Group, Label, Protocol,
    Rule, Selection, Values,
};
use mprox_file::{class, server, Machine, System};
use nix::sys::signal::{kill, Signal};
use nix::unistd::{Pid, User};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::{open, without_right};
use crate::cgroup::ControlGroup;

/// Run a command with only its connections redirected
///
/// The command and all that it starts are in a control group of their own, and the kernel redirects what these processes connect to:
/// whatever they are made with, static programs and children, too. Connections to this machine itself are left alone. Connections
/// over an IP version that no server has are refused, so that none goes past the servers. When the command has ended, this
/// waits until all that it started has; Ctrl-C ends them.
///
/// The exit code is the command's, or 128 and the number of the signal that ended it. Needs root, or else CAP_NET_ADMIN and the right to
/// make control groups.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox exec --via 192.0.2.10:3128 -- curl http://example.org    One command\n  \
    mprox exec --via 192.0.2.10:3128 --user alice -- ssh host      As another user\n  \
    mprox exec --via 192.0.2.10 --via 192.0.2.11 -- bash           A shell, and all that is called there\n  \
    mprox exec --via 192.0.2.53:53 --udp -- dig example.org        Datagrams, too")]
pub struct ExecCommand {
    /// A server to which connections are redirected: its address and port, or without a port the one that the command wants. Several take
    /// turns
    #[arg(long, required = true, value_name = "SERVER", value_parser = server)]
    via: Vec<mprox_client::Upstream>,
    /// Redirect datagrams, too
    #[arg(long)]
    udp: bool,
    /// Run the command as this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The command, with what it is given
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

// Rules for what this control group's processes connect to, and nothing else.
fn configuration(
    servers: &[mprox_client::Upstream],
    udp: bool,
    group: u64,
) -> Result<Configuration> {
    let mut conditions = Conditions::NONE;
    let condition = Condition {
        field: Field::ControlGroup,
        not: false,
        mask: u32::MAX,
        values: Values::Range {
            first: group,
            last: group,
        },
    };
    if !conditions.push(condition) {
        return Err(anyhow!("a rule takes no condition"));
    }
    const LOCAL_OUT: u8 = mprox_client::HOOK_LOCAL_OUT;
    let like = |family| Rule {
        hooks: LOCAL_OUT,
        conditions,
        ..Rule::any(family)
    };
    let mut rules = Vec::new();
    for network in class("local") {
        rules.push(Rule {
            destination: network.address,
            destination_prefix: network.prefix,
            ..like(network.family)
        });
    }
    let protocols = match udp {
        true => &[Protocol::Tcp, Protocol::Udp][..],
        false => &[Protocol::Tcp],
    };
    for family in [Family::V4, Family::V6] {
        let has_server = servers.iter().any(|one| one.family == family);
        for &protocol in protocols {
            rules.push(Rule {
                protocol: Some(protocol),
                action: match has_server {
                    true => Action::Redirect,
                    false => Action::Reject,
                },
                ..like(family)
            });
        }
    }
    let group = Group {
        label: Label::NONE,
        selection: Selection::RoundRobin,
        upstreams: servers.to_vec(),
    };
    Ok(Configuration {
        groups: vec![group],
        rules,
        ..Configuration::default()
    })
}

// The command's exit code, as a shell has it.
fn code(status: ExitStatus) -> ExitCode {
    let signal = status.signal().map(|signal| 128 + signal);
    let code = status.code().or(signal).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Hands signals on to the command; when it has ended, they end those that it has left.
struct Relay {
    handle: Handle,
    thread: Option<thread::JoinHandle<()>>,
    ended: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
}

impl Relay {
    fn new(mut signals: Signals, child: &Child) -> Result<Self> {
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let (ended, asked) = (Arc::default(), Arc::default());
        let handle = signals.handle();
        let thread = {
            let (ended, asked) = (Arc::clone(&ended), Arc::clone(&asked));
            thread::spawn(move || {
                for signal in signals.forever() {
                    if AtomicBool::load(&ended, Ordering::SeqCst) {
                        AtomicBool::store(&asked, true, Ordering::SeqCst);
                        continue;
                    }
                    // The terminal gives its own to all who are in the foreground.
                    if let (true, Ok(signal)) = (signal != SIGINT, Signal::try_from(signal)) {
                        let _ = kill(pid, signal);
                    }
                }
            })
        };
        Ok(Self {
            handle,
            thread: Some(thread),
            ended,
            asked,
        })
    }

    // From now on there is no command to hand signals to, whose number may become another's.
    fn command_ended(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    fn is_asked_to_end(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn wait_for_rest(group: &ControlGroup, relay: &Relay) -> Result<()> {
    const WHAT: &str = "cannot see who is left in the control group";
    let mut told = false;
    while !group.wait_until_empty().context(WHAT)? {
        if relay.is_asked_to_end() {
            group
                .kill()
                .context("cannot end what the command has left")?;
        } else if !told {
            let count = super::count(group.processes().context(WHAT)?, "process");
            let count = count.replace("processs", "processes");
            eprintln!("mprox: the command has ended, and left {count}: waiting for them, or for Ctrl-C, which ends them");
            told = true;
        }
    }
    Ok(())
}

impl ExecCommand {
    pub fn run(&self) -> Result<ExitCode> {
        // Before there is anything to clean up.
        let signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        let [program, arguments @ ..] = &self.command[..] else {
            return Err(anyhow!("there is no command"));
        };
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(name) = &self.user {
            Machine.user(name).map_err(|message| anyhow!(message))?;
            if let Some(user) = User::from_name(name)? {
                command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
                command
                    .env("HOME", &user.dir)
                    .env("USER", name)
                    .env("LOGNAME", name);
            }
        }
        let mut client = open()?;
        let group = ControlGroup::new()?;
        let configuration = configuration(&self.via, self.udp, group.number)?;
        let staged = client.stage(&configuration);
        let done = staged.and_then(|()| client.commit(&Commit::default()));
        done.map_err(without_right)?;
        let mut child = group.within(|| {
            let what = || format!("cannot run {}", program.to_string_lossy());
            command.spawn().with_context(what)
        })?;
        let relay = Relay::new(signals, &child)?;
        let status = child.wait().context("cannot wait for the command")?;
        relay.command_ended();
        wait_for_rest(&group, &relay)?;
        Ok(code(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_group_is_redirected_and_nothing_goes_past_the_servers() {
        let servers = ["192.0.2.1:80", "192.0.2.2"].map(|text| server(text).unwrap());
        let configuration = configuration(&servers, false, 77).unwrap();
        assert!(configuration.rules.iter().all(|rule| {
            rule.hooks == mprox_client::HOOK_LOCAL_OUT && rule.conditions.iter().count() == 1
        }));
        let last: Vec<_> = configuration
            .rules
            .iter()
            .filter(|rule| rule.destination_prefix == 0)
            .map(|rule| (rule.family, rule.protocol, rule.action))
            .collect();
        assert_eq!(
            last,
            [
                (Family::V4, Some(Protocol::Tcp), Action::Redirect),
                (Family::V6, Some(Protocol::Tcp), Action::Reject)
            ]
        );
        assert_eq!(configuration.groups[0].upstreams.len(), 2);
    }

    #[test]
    fn exit_codes_are_a_shells() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), ExitCode::from(7));
        assert_eq!(code(ExitStatus::from_raw(15)), ExitCode::from(143));
    }
}
