// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the traffic of a cell starts and ends, and what stops it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::anyhow;

use mutexlab_model::facts::{Arrival, Place};
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::{Family, Traffic};
use mutexlab_protocol::addresses::{
    self, Host, ORIGINAL_PORT, UPSTREAM_PORT, WIRE_ORIGINAL, WIRE_UPSTREAM,
};

/// How long an answer may take until it is given up for lost. The longest round trip in a slow
/// guest takes a few milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// One of the two places on the server's net where packets can arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Where the client sends them.
    Original,
    /// Where they are redirected.
    Upstream,
}

impl Target {
    /// The machine on the wire.
    pub const fn host(self) -> Host {
        match self {
            Self::Original => WIRE_ORIGINAL,
            Self::Upstream => WIRE_UPSTREAM,
        }
    }

    /// Its address and port on the wire.
    pub fn socket(self, family: Family) -> SocketAddr {
        self.host().socket(family, self.port())
    }

    /// Its address and port for `traffic`.
    pub fn address(self, traffic: &Traffic) -> SocketAddr {
        addresses::place(self.into(), traffic)
    }

    const fn port(self) -> u16 {
        match self {
            Self::Original => ORIGINAL_PORT,
            Self::Upstream => UPSTREAM_PORT,
        }
    }

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Original => Self::Upstream,
            Self::Upstream => Self::Original,
        }
    }

    /// What has arrived there.
    pub fn count(self, delivery: &mut Delivery) -> &mut u64 {
        match self {
            Self::Original => &mut delivery.at_original,
            Self::Upstream => &mut delivery.at_upstream,
        }
    }
}

impl From<Place> for Target {
    fn from(place: Place) -> Self {
        match place {
            Place::Original => Self::Original,
            Place::Upstream => Self::Upstream,
        }
    }
}

impl From<Target> for Place {
    fn from(target: Target) -> Self {
        match target {
            Target::Original => Self::Original,
            Target::Upstream => Self::Upstream,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Original => "original destination",
            Self::Upstream => "upstream",
        })
    }
}

impl From<Target> for Arrival {
    fn from(target: Target) -> Self {
        Place::from(target).into()
    }
}

/// Whose fault it is that traffic stopped before its time.
#[derive(Debug)]
pub enum Stop {
    /// The subject's: something arrived wrong or not at all.
    Subject(String),
    /// The agent's or the machine's.
    Infra(anyhow::Error),
}

impl Stop {
    /// Something did not arrive.
    pub fn lost(what: &str) -> Self {
        Self::Subject(format!("{what} did not come within {PATIENCE:?}"))
    }
}

impl Stop {
    /// What went wrong, whosever fault it is.
    pub fn into_error(self) -> anyhow::Error {
        match self {
            Self::Subject(reason) => anyhow!(reason),
            Self::Infra(error) => error,
        }
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Infra(error)
    }
}
