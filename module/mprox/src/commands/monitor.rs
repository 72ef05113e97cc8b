// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox monitor`.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use mprox_client::{ContextName, Error, Event, Monitor};
use serde_json::{json, Value};

use super::{say, without_right};
use crate::told::server;

/// Say what happens, as it happens
///
/// Upstreams that fail and work again, packets that are dropped because the table of flows is full, contexts that are deleted: a line each, until
/// Ctrl-C. It is told within a second or so. Upstreams that have failed before anybody listened are told at once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox monitor                               Until Ctrl-C\n  \
    mprox monitor --json | jq 'select(.event == \"upstream-failed\")'   For a program\n  \
    mprox monitor --count 1                     Wait for something to happen")]
pub struct MonitorCommand {
    /// End after so many events
    #[arg(long, value_name = "NUMBER")]
    count: Option<u32>,
    /// Print JSON, an object in each line
    #[arg(long)]
    json: bool,
}

impl MonitorCommand {
    pub fn run(&self) -> Result<()> {
        let mut monitor = Monitor::open().map_err(|error| match error {
            Error::NoModule => {
                anyhow::anyhow!("the module is not there: `modprobe mutex_proxy` loads it")
            }
            other => without_right(other),
        })?;
        let mut left = self.count;
        while left != Some(0) {
            let line = match monitor.wait() {
                Ok(event) => line(&event, self.json),
                Err(error) if error.errno() == Some(nix::libc::ENOBUFS) => match self.json {
                    true => stamped(json!({ "event": "lost" })).to_string(),
                    false => format!("{} events were lost: they came too fast", clock()),
                },
                Err(error) => return Err(without_right(error)),
            };
            say(&line)?;
            left = left.map(|left| left - 1);
        }
        Ok(())
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Seconds since 1970, to the millisecond: what log readers and `date -d @` take.
fn clock() -> String {
    format!("{:.3}", now())
}

fn stamped(mut object: Value) -> Value {
    object["time"] = json!((now() * 1000.0).round() / 1000.0);
    object
}

fn line(event: &Event, is_json: bool) -> String {
    let name = |name: &ContextName| format!("{name:?}");
    if is_json {
        return stamped(match event {
            Event::Upstream {
                context,
                upstream,
                works,
            } => json!({
                "event": if *works { "upstream-back" } else { "upstream-failed" },
                "context": context.as_ref().map(name),
                "group": upstream.group,
                "upstream": server(upstream),
            }),
            Event::TableFull { packets } => json!({ "event": "table-full", "packets": packets }),
            Event::ContextGone { name: gone } => {
                json!({ "event": "context-gone", "context": name(gone) })
            }
        })
        .to_string();
    }
    let what = match event {
        Event::Upstream {
            context,
            upstream,
            works,
        } => {
            let context = match context {
                Some(context) => format!("context {context:?}"),
                None => "a context without a name".to_owned(),
            };
            let state = if *works { "works again" } else { "has failed" };
            format!("{context}: upstream {} {state}", server(upstream))
        }
        Event::TableFull { packets } => {
            format!("the table of flows is full: {packets} packets of new connections were dropped")
        }
        Event::ContextGone { name } => format!("context {name:?}: deleted"),
    };
    format!("{} {what}", clock())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines_or_objects() {
        let upstream = mprox_file::server("192.0.2.10:80").unwrap();
        let home = ContextName::new(b"home");
        let of = |context, works| Event::Upstream {
            context,
            upstream,
            works,
        };
        for (event, text, kind) in [
            (
                of(home, false),
                "context home: upstream 192.0.2.10:80 has failed",
                "upstream-failed",
            ),
            (
                of(None, true),
                "a context without a name: upstream 192.0.2.10:80 works again",
                "upstream-back",
            ),
            (
                Event::TableFull { packets: 7 },
                "the table of flows is full: 7 packets of new connections were dropped",
                "table-full",
            ),
            (
                Event::ContextGone {
                    name: home.unwrap(),
                },
                "context home: deleted",
                "context-gone",
            ),
        ] {
            let told = line(&event, false);
            let (time, what) = told.split_once(' ').unwrap();
            assert_eq!(what, text);
            assert!(time.parse::<f64>().unwrap() > 1e9);
            let object: Value = serde_json::from_str(&line(&event, true)).unwrap();
            assert_eq!(object["event"], kind);
            assert!(object["time"].as_f64().unwrap() > 1e9);
        }
    }
}
