// SPDX-License-Identifier: MIT OR Apache-2.0

//! A flow as it is shown.

use std::fmt;
use std::net::SocketAddr;

use mprox_client::{Endpoint, Family, Flow, FlowState, Protocol, ToldFlow};
use serde::Serialize;

use crate::told::address;

/// A flow.
#[derive(Debug, Serialize)]
pub struct FlowLine {
    context: Option<String>,
    protocol: &'static str,
    state: &'static str,
    client: SocketAddr,
    original: SocketAddr,
    // None: it is direct.
    upstream: Option<SocketAddr>,
    // Whom the upstream takes the client for.
    source: Option<SocketAddr>,
    // The numbers of the upstream's group, and of the upstream in there.
    group: Option<u8>,
    member: Option<u8>,
    packets: Directions,
    bytes: Directions,
    idle_ms: u64,
}

/// A counter of each direction.
#[derive(Clone, Copy, Debug, Serialize)]
struct Directions {
    original: u64,
    reply: u64,
}

impl From<[u64; 2]> for Directions {
    fn from([original, reply]: [u64; 2]) -> Self {
        Self { original, reply }
    }
}

fn socket(family: Family, end: &Endpoint) -> SocketAddr {
    SocketAddr::new(address(family, end.address), end.port)
}

impl FlowLine {
    /// What the kernel told of it.
    pub fn new(told: &ToldFlow) -> Self {
        let Flow {
            family,
            protocol,
            client,
            original,
            redirection,
            state,
            packets,
            bytes,
            idle,
        } = &told.flow;
        let end = |end: &Endpoint| socket(*family, end);
        let redirection = redirection.as_ref();
        Self {
            context: told.context.map(|name| format!("{name:?}")),
            protocol: match protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            },
            state: match state {
                FlowState::Opening => "opening",
                FlowState::Established => "established",
                FlowState::Closing => "closing",
                FlowState::Closed => "closed",
            },
            client: end(client),
            original: end(original),
            upstream: redirection.map(|there| end(&there.upstream)),
            source: redirection.map(|there| end(&there.source)),
            group: redirection.map(|there| there.group),
            member: redirection.map(|there| there.member),
            packets: (*packets).into(),
            bytes: (*bytes).into(),
            idle_ms: *idle,
        }
    }

    /// Its protocol and ends, in a line.
    pub fn way(&self) -> String {
        let there = match &self.upstream {
            Some(upstream) => format!(" ({upstream})"),
            None => String::new(),
        };
        format!(
            "{} {} → {}{there}",
            self.protocol, self.client, self.original
        )
    }

    fn cells(&self) -> [String; COLUMNS] {
        let upstream = match &self.upstream {
            Some(upstream) => upstream.to_string(),
            None => "(direct)".to_owned(),
        };
        [
            self.protocol.to_owned(),
            self.state.to_owned(),
            self.client.to_string(),
            self.original.to_string(),
            upstream,
            format!("{}/{}", self.packets.original, self.packets.reply),
            format!(
                "{}/{}",
                amount(self.bytes.original),
                amount(self.bytes.reply)
            ),
            time(self.idle_ms),
            self.context.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

const COLUMNS: usize = 9;
const HEADS: [&str; COLUMNS] = [
    "", "state", "client", "original", "upstream", "packets", "bytes", "idle", "context",
];

/// Bytes in a few letters, by powers of 1024.
pub fn amount(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if bytes < 10_000 {
        return bytes.to_string();
    }
    let mut rest = bytes as f64;
    let mut name = "";
    for unit in UNITS {
        rest /= 1024.0;
        name = unit;
        if rest < 1000.0 {
            break;
        }
    }
    match rest < 10.0 {
        true => format!("{rest:.1}{name}"),
        false => format!("{rest:.0}{name}"),
    }
}

/// Milliseconds as people say them.
fn time(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0..10 => format!("{}.{}s", seconds, milliseconds % 1000 / 100),
        10..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3600),
    }
}

/// Flows as a table.
pub struct FlowTable<'a>(pub &'a [FlowLine]);

impl fmt::Display for FlowTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; COLUMNS]> = self.0.iter().map(FlowLine::cells).collect();
        let mut widths = HEADS.map(str::len);
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.len());
            }
        }
        let heads = HEADS.map(str::to_owned);
        for (number, row) in std::iter::once(&heads).chain(&rows).enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line += &format!("{cell:<width$}  ");
            }
            f.write_str(line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mprox_client::{ContextName, Redirection};

    use super::*;

    fn end(last: u8, port: u16) -> Endpoint {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[192, 0, 2, last]);
        Endpoint { address, port }
    }

    fn flow(redirected: bool) -> ToldFlow {
        ToldFlow {
            context: redirected.then(|| ContextName::new(b"home")).flatten(),
            flow: Flow {
                family: Family::V4,
                protocol: Protocol::Tcp,
                client: end(1, 40_000),
                original: end(2, 80),
                redirection: redirected.then_some(Redirection {
                    upstream: end(3, 3128),
                    source: end(1, 40_000),
                    group: 0,
                    member: 2,
                }),
                state: FlowState::Established,
                packets: [3, 4],
                bytes: [9_999, 20_480],
                idle: 12_345,
            },
        }
    }

    #[test]
    fn flows_are_a_table() {
        let lines = [flow(true), flow(false)].map(|told| FlowLine::new(&told));
        let expected = "     state        client           original      upstream        packets  bytes     idle  context\n\
            tcp  established  192.0.2.1:40000  192.0.2.2:80  192.0.2.3:3128  3/4      9999/20K  12s   home\n\
            tcp  established  192.0.2.1:40000  192.0.2.2:80  (direct)        3/4      9999/20K  12s   -";
        assert_eq!(FlowTable(&lines).to_string(), expected);
    }

    #[test]
    fn a_flow_is_an_object() {
        let told = serde_json::to_value(FlowLine::new(&flow(true))).unwrap();
        assert_eq!(told["client"], "192.0.2.1:40000");
        assert_eq!(told["upstream"], "192.0.2.3:3128");
        assert_eq!(told["packets"]["reply"], 4);
        let told = serde_json::to_value(FlowLine::new(&flow(false))).unwrap();
        assert!(told["upstream"].is_null() && told["context"].is_null());
    }

    #[test]
    fn amounts_and_times_are_short() {
        for (bytes, expected) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "9.8K"),
            (1_000_000, "977K"),
            (1_100_000, "1.0M"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(amount(bytes), expected);
        }
        for (milliseconds, expected) in [
            (0, "0.0s"),
            (1_250, "1.2s"),
            (119_999, "119s"),
            (120_000, "2m"),
            (7_200_000, "2h"),
        ] {
            assert_eq!(time(milliseconds), expected);
        }
    }
}
