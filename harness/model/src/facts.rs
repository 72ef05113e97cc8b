// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is known of a subject before it is measured: where packets arrive, and which counts repeat.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::subject::ModuleRules;

/// One of the two servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Where the client sends packets.
    #[default]
    Original,
    /// Where they are redirected.
    Upstream,
}

/// Whom a server's stack sees as the sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The client itself.
    #[default]
    Client,
    /// The router, with any port: a proxy there has made the connection.
    Router,
    /// The upstream, with any port: a server there has made it.
    Upstream,
}

/// Where packets arrive while a subject is up, and from whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Arrival {
    /// The server that they come to.
    pub at: Place,
    /// Whom it sees as the sender.
    pub from: Origin,
}

impl From<Place> for Arrival {
    fn from(at: Place) -> Self {
        Self {
            at,
            ..Self::default()
        }
    }
}

/// What a subject's numbers are, and what has to be made ready for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Counts {
    /// Whether the kernel tracks connections, which picks numbers at random in every boot: the key of its hash, and
    /// each connection's own. Room is made for many flows, and counts of them are sampled.
    pub conntrack: bool,
    /// A promise that counts of a packet are the same in every boot; without it all are sampled.
    pub exact: bool,
    /// Whether packets come by the hooks that are measured; if not, only whole paths between sockets are.
    pub hooks: bool,
    /// Whether each connection has to be in a flow table while it is measured: conntrack is asked.
    pub offloaded: bool,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            conntrack: false,
            exact: false,
            hooks: true,
            offloaded: false,
        }
    }
}

/// All that is known of a subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Where packets arrive.
    pub arrives: Arrival,
    /// What its numbers are.
    pub counts: Counts,
}

impl Facts {
    /// Those of mutex_proxy.ko with such rules.
    pub fn of_module(rules: ModuleRules) -> Self {
        let at = match rules {
            ModuleRules::Redirect => Place::Upstream,
            ModuleRules::Unmatched | ModuleRules::Direct => Place::Original,
        };
        Self {
            arrives: at.into(),
            counts: Counts {
                exact: true,
                ..Counts::default()
            },
        }
    }

    /// Whether packets reach another server than they were sent to.
    pub fn redirects(&self) -> bool {
        self.arrives.at == Place::Upstream
    }
}
