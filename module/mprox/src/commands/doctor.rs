// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox doctor`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use mprox_client::{Client, Error};

use super::say;
use crate::doctor::{findings, Finding, Proxy, Ruleset, State};
use crate::program::run;

/// What on this machine hinders the proxy
///
/// The module and the right to control it; forwarding, reverse path filters, control groups; the table of flows and what was dropped; and what
/// else changes packets: nftables, iptables, firewalld, docker. Each with what mends it, or what follows of it. Nothing is changed.
///
/// The exit code is 1 if something hinders it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox doctor                                What is wrong here?\n  \
    sudo mprox doctor                           The same, with nftables' rules\n  \
    mprox doctor --json | jq '.[] | select(.state != \"good\")'   For a program")]
pub struct DoctorCommand {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn proxy() -> Proxy {
    let mut client = match Client::open() {
        Ok(client) => client,
        Err(Error::NoModule) => return Proxy::NoModule,
        Err(error) => return Proxy::Failed(error.to_string()),
    };
    match client.statistics() {
        Ok(stats) => Proxy::Active(Box::new(stats)),
        Err(error) => match error.errno() {
            Some(nix::libc::EPERM) => Proxy::NoRight,
            Some(nix::libc::ENOENT) => Proxy::Idle,
            _ => Proxy::Failed(error.to_string()),
        },
    }
}

fn ruleset() -> Ruleset {
    match run("nft", &["-j", "list", "ruleset"]) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ruleset::Unknown("there is no nft here".to_owned())
        }
        Err(error) => Ruleset::Unknown(format!("nft cannot be started: {error}")),
        Ok(output) if output.status.success() => {
            Ruleset::Listed(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let first = said.lines().next().unwrap_or("it says nothing").to_owned();
            Ruleset::Unknown(format!("nft fails: {first}"))
        }
    }
}

impl DoctorCommand {
    pub fn run(&self) -> Result<ExitCode> {
        let all = findings(Path::new("/"), &proxy(), &ruleset());
        match self.json {
            true => say(&serde_json::to_string(&all)?)?,
            false => all.iter().try_for_each(|one| say(&line(one)))?,
        }
        Ok(match all.iter().any(|one| one.state == State::Hinders) {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        })
    }
}

fn line(finding: &Finding) -> String {
    let state = match finding.state {
        State::Good => "good",
        State::Note => "note",
        State::Hinders => "HINDERS",
        State::Unknown => "unknown",
    };
    let Finding {
        what, found, mend, ..
    } = finding;
    let mut line = format!("{state:<9}{what}: {found}");
    if let Some(mend) = mend {
        line += &format!("\n{:<9}  {mend}", "");
    }
    line
}
