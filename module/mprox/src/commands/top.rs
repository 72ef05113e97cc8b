// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox top`.

use std::collections::HashMap;
use std::io::{stdout, IsTerminal};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use clap::Args;
use mprox_client::{Client, Counted, Endpoint, Flow, FlowsMeant, Stats};

use super::{open, say, without_right};
use crate::told::Told;
use crate::told_flow::{amount, FlowLine};

/// Who sends how much, as it goes on
///
/// What all redirected connections of the network namespace send and get each second, the connections that send most, and the rules and
/// upstreams that get the most new ones. A connection that began and ended between two looks is not among them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox top                                   Each second, until Ctrl-C\n  \
    mprox top --every 5 --lines 30              Each 5 seconds, of 30 connections\n  \
    mprox top --times 1                         Once")]
pub struct TopCommand {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3600))]
    every: u32,
    /// How many connections are shown
    #[arg(long, value_name = "NUMBER", default_value_t = 15)]
    lines: usize,
    /// How often it looks [default: until Ctrl-C]
    #[arg(long, value_name = "NUMBER")]
    times: Option<u32>,
}

/// What tells a connection from others.
type Key = (u8, Ends, Ends);
type Ends = ([u8; 16], u16);

fn key(flow: &Flow) -> Key {
    let end = |end: &Endpoint| (end.address, end.port);
    (flow.protocol as u8, end(&flow.client), end(&flow.original))
}

/// One look.
struct Look {
    at: Instant,
    stats: Stats,
    // Of each flow, the bytes of both directions.
    bytes: HashMap<Key, u64>,
    flows: Vec<(Key, FlowLine)>,
    // Of each rule and upstream, a line and its count.
    rules: Vec<(String, u64)>,
    upstreams: Vec<(String, u64)>,
}

impl Look {
    fn new(client: &mut Client) -> Result<Self> {
        let stats = match client.statistics() {
            Ok(stats) => stats,
            Err(error) if error.errno() == Some(nix::libc::ENOENT) => {
                bail!("nothing is redirected in this network namespace: it has no context")
            }
            Err(error) => return Err(without_right(error)),
        };
        let told = client
            .flows(&FlowsMeant::default())
            .map_err(without_right)?;
        let mut look = Self {
            at: Instant::now(),
            stats,
            bytes: told
                .iter()
                .map(|told| (key(&told.flow), told.flow.bytes.iter().sum()))
                .collect(),
            flows: told
                .iter()
                .map(|told| (key(&told.flow), FlowLine::new(told)))
                .collect(),
            rules: Vec::new(),
            upstreams: Vec::new(),
        };
        for info in client.contexts().map_err(without_right)? {
            let Some(name) = info.name else { continue };
            // It may go meanwhile.
            let Ok(counted) = client.counted(Some(&name)) else {
                continue;
            };
            look.count(&format!("{name:?}"), &counted);
        }
        Ok(look)
    }

    fn count(&mut self, name: &str, counted: &Counted) {
        let told = Told::of(&counted.configuration);
        let rules = told.rule_lines().into_iter();
        let rules = rules.map(|line| format!("{name}, {line}"));
        self.rules
            .extend(rules.zip(counted.of_rules.iter().copied()));
        for (group, counts) in counted
            .configuration
            .groups
            .iter()
            .zip(&counted.to_upstreams)
        {
            let servers = group.upstreams.iter().map(crate::told::server);
            let lines = servers.map(|server| format!("{name}, {} {server}", group.label.as_str()));
            self.upstreams.extend(lines.zip(counts.iter().copied()));
        }
    }

    /// What has changed since.
    fn since(&self, before: &Self, lines: usize) -> String {
        let seconds = self.at.duration_since(before.at).as_secs_f64().max(0.001);
        let each = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let (now, then) = (&self.stats, &before.stats);
        let rate = |bytes: f64| format!("{}B/s", amount(bytes as u64));
        let mut text = format!(
            "{} flows, {:.0} new/s; from clients {:.0} packets/s, {}; to clients {:.0} packets/s, {}\n",
            now.flows_current,
            each(now.flows_created, then.flows_created),
            each(now.packets_original, then.packets_original),
            rate(each(now.bytes_original, then.bytes_original)),
            each(now.packets_reply, then.packets_reply),
            rate(each(now.bytes_reply, then.bytes_reply)),
        );
        let mut flows: Vec<(u64, &FlowLine)> = self
            .flows
            .iter()
            .map(|(key, line)| {
                let total = self.bytes.get(key).copied().unwrap_or(0);
                let before = before.bytes.get(key).copied().unwrap_or(0);
                (total.saturating_sub(before), line)
            })
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        flows.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (bytes, line) in flows.into_iter().take(lines) {
            text += &format!("{:>10}  {}\n", rate(bytes as f64 / seconds), line.way());
        }
        for (title, now, then) in [
            ("rules", &self.rules, &before.rules),
            ("upstreams", &self.upstreams, &before.upstreams),
        ] {
            text += &newest(title, now, then, seconds);
        }
        text
    }
}

/// Those that got the most new connections.
fn newest(title: &str, now: &[(String, u64)], then: &[(String, u64)], seconds: f64) -> String {
    const LINES: usize = 5;
    let before: HashMap<&str, u64> = then
        .iter()
        .map(|(line, count)| (line.as_str(), *count))
        .collect();
    let grown = now.iter().map(|(line, count)| {
        let before = before.get(line.as_str()).copied().unwrap_or(0);
        (count.saturating_sub(before), line)
    });
    let mut grown: Vec<(u64, &String)> = grown.filter(|(count, _)| *count > 0).collect();
    grown.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let lines = grown.into_iter().take(LINES);
    let lines: String = lines
        .map(|(count, line)| format!("{:>8.1}/s  {line}\n", count as f64 / seconds))
        .collect();
    match lines.is_empty() {
        true => lines,
        false => format!("new connections, by {title}\n{lines}"),
    }
}

impl TopCommand {
    pub fn run(&self) -> Result<()> {
        let mut client = open()?;
        let mut before = Look::new(&mut client)?;
        let mut left = self.times;
        while left != Some(0) {
            thread::sleep(Duration::from_secs(self.every.into()));
            let now = Look::new(&mut client)?;
            let begin = match stdout().is_terminal() && self.times.is_none() {
                true => super::flows::CLEAR,
                false => "",
            };
            say(&format_args!(
                "{begin}{}",
                now.since(&before, self.lines).trim_end()
            ))?;
            before = now;
            left = left.map(|left| left - 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_grow_most_come_first() {
        let list = |counts: [u64; 3]| -> Vec<(String, u64)> {
            ["a", "b", "c"]
                .map(str::to_owned)
                .into_iter()
                .zip(counts)
                .collect()
        };
        let text = newest("rules", &list([5, 30, 7]), &list([5, 10, 1]), 2.0);
        assert_eq!(
            text,
            "new connections, by rules\n    10.0/s  b\n     3.0/s  c\n"
        );
        assert_eq!(newest("rules", &list([1; 3]), &list([1; 3]), 2.0), "");
    }
}
