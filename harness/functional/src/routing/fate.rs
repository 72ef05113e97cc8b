// SPDX-License-Identifier: MIT OR Apache-2.0

//! What becomes of a packet, and whether two subjects make the same of the same packets.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use anyhow::{bail, ensure, Result};
use nix::errno::Errno;

/// One of the router's links to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// The one that the main table's routes take.
    First,
    /// The one that policy leads to.
    Second,
}

/// Where a packet, or what it caused, was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sight {
    /// At the servers' end of a link.
    Arrived {
        link: Link,
        from: IpAddr,
        to: SocketAddr,
        /// TOS byte; with IPv6 the traffic class and the flow label.
        class: u32,
    },
    /// The same, a piece of a packet.
    Fragment { link: Link, to: IpAddr },
    /// At a socket whose link nobody watches, such as one of the router's.
    Delivered { at: SocketAddr },
    /// At the client, as an error of ICMP about a packet to `about`. Who tells of it differs: nft puts the original
    /// destination's name to errors of the router, and the module leaves them the router's own.
    Reported {
        kind: u8,
        code: u8,
        about: Option<SocketAddr>,
    },
    /// At the client's socket, as an answer.
    Answered { from: SocketAddr },
}

/// What became of one packet. Nothing seen and not refused: it was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// What the sender was told at once.
    pub refused: Option<Errno>,
    /// All that was seen of it, in order.
    pub sights: Vec<Sight>,
}

/// A fate in short, as the expectations of tests name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took this link.
    Took(Link),
    /// Nobody saw it, and nobody was told; the sender may have got an error of its send call.
    Dropped,
    /// The sender was sent an error of this type and code.
    Reported(u8, u8),
    /// The sender was answered.
    Answered,
    /// It came to such a socket.
    Delivered,
    /// Some pieces of it took this link.
    Pieces(Link, usize),
    /// More than one of these.
    Several,
}

impl Fate {
    /// The fate in short.
    pub fn outcome(&self) -> Outcome {
        match self.sights[..] {
            [] => Outcome::Dropped,
            [Sight::Arrived { link, .. }] => Outcome::Took(link),
            [Sight::Reported { kind, code, .. }] => Outcome::Reported(kind, code),
            [Sight::Answered { .. }] => Outcome::Answered,
            [Sight::Delivered { .. }] => Outcome::Delivered,
            [Sight::Fragment { link: first, .. }, ..]
                if self.sights.iter().all(
                    |sight| matches!(sight, Sight::Fragment { link, .. } if *link == first),
                ) =>
            {
                Outcome::Pieces(first, self.sights.len())
            }
            _ => Outcome::Several,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(errno) = self.refused {
            write!(formatter, "refused with {errno:?}; ")?;
        }
        if self.sights.is_empty() {
            return formatter.write_str("dropped");
        }
        for (at, sight) in self.sights.iter().enumerate() {
            if at > 0 {
                formatter.write_str(", and ")?;
            }
            match sight {
                Sight::Arrived {
                    link,
                    from,
                    to,
                    class,
                } => {
                    write!(formatter, "{link:?} link, {from} to {to}, class {class:#x}")?;
                }
                Sight::Fragment { link, to } => {
                    write!(formatter, "{link:?} link, a piece of a packet to {to}")?;
                }
                Sight::Delivered { at } => write!(formatter, "delivered at {at}")?,
                Sight::Reported { kind, code, about } => {
                    write!(formatter, "error {kind}/{code} about ")?;
                    match about {
                        Some(about) => write!(formatter, "a packet to {about}")?,
                        None => formatter.write_str("something else")?,
                    }
                }
                Sight::Answered { from } => write!(formatter, "answer of {from}")?,
            }
        }
        Ok(())
    }
}

/// What was done, step by step, and what became of each packet.
#[derive(Clone, Debug, Default)]
pub struct Trace(Vec<(String, Option<Fate>)>);

impl Trace {
    /// Notes something done that no packet tells of.
    pub fn did(&mut self, what: impl Into<String>) {
        self.0.push((what.into(), None));
    }

    /// Notes what became of a packet.
    pub fn saw(&mut self, what: impl Into<String>, fate: Fate) {
        self.0.push((what.into(), Some(fate)));
    }

    /// The packets' fates in short.
    pub fn outcomes(&self) -> Vec<Outcome> {
        let fates = self.0.iter().filter_map(|(_, fate)| fate.as_ref());
        fates.map(Fate::outcome).collect()
    }

    /// Fails unless those are `expected`.
    pub fn ensure(&self, expected: &[Outcome]) -> Result<()> {
        let found = self.outcomes();
        ensure!(
            found == expected,
            "expected {expected:?}, got\n{}",
            self.text()
        );
        Ok(())
    }

    fn text(&self) -> String {
        let line = |(what, fate): &(String, Option<Fate>)| match fate {
            Some(fate) => format!("  {what}: {fate}\n"),
            None => format!("  {what}\n"),
        };
        counted(self.0.iter().map(line))
    }

    /// Fails unless all is as it was under nft, and prints both.
    pub fn ensure_same(&self, nft: &Self) -> Result<()> {
        let mut differences = 0;
        let mut lines = Vec::new();
        for ((what, ours), (_, theirs)) in self.0.iter().zip(&nft.0) {
            if ours == theirs {
                lines.push(match ours {
                    Some(fate) => format!("  {what}: {fate}\n"),
                    None => format!("  {what}\n"),
                });
            } else {
                differences += 1;
                let tell = |fate: &Option<Fate>| {
                    let fate = fate.as_ref();
                    fate.map_or_else(|| "nothing to see".to_owned(), Fate::to_string)
                };
                let (ours, theirs) = (tell(ours), tell(theirs));
                lines.push(format!("! {what}: {ours}; nft: {theirs}\n"));
            }
        }
        if differences > 0 || self.0.len() != nft.0.len() {
            bail!(
                "{differences} of {} packets fare otherwise than with nft\n{}",
                self.outcomes().len(),
                counted(lines)
            );
        }
        Ok(())
    }
}

/// Lines one after the other, those that are repeated once with their number.
fn counted(lines: impl IntoIterator<Item = String>) -> String {
    let mut text = String::new();
    let mut lines = lines.into_iter().peekable();
    while let Some(line) = lines.next() {
        let mut count = 1;
        while lines.next_if_eq(&line).is_some() {
            count += 1;
        }
        if count > 1 {
            // Writing to a string cannot fail.
            let _ = write!(text, "{count:>3} x");
        }
        text.push_str(&line);
    }
    text
}
