// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a file may say.

use std::collections::BTreeMap;

use schemars::{schema_for, JsonSchema, Schema};
use serde::Deserialize;

/// A file of mprox.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileText {
    /// Groups of upstreams, by names that rules use.
    #[serde(default)]
    pub upstreams: BTreeMap<String, UpstreamsText>,
    /// Rules. The first that matches a connection says what becomes of it. A file without any has to say so: `rule = []`.
    pub rule: Option<Vec<RuleText>>,
}

/// Upstreams of which a new connection goes to one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamsText {
    /// The servers.
    pub servers: Vec<ServerText>,
    /// Which of them a new connection goes to.
    #[serde(default)]
    pub select: SelectText,
}

/// Which server a new connection goes to. One that has failed is passed over as long as there is another.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SelectText {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The first one of the list.
    Failover,
    /// Any.
    Random,
}

/// A server: its address and port, as `192.0.2.1:8080` or `[2001:db8::1]:8080`; without a port, the one that the client wanted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ServerText(pub String);

/// Which connections a rule is for, and what becomes of them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleText {
    /// What the rule is called.
    pub name: Option<String>,
    /// 4 or 6; both if it is left out.
    pub ip: Option<u8>,
    /// Both if it is left out.
    pub protocol: Option<ProtocolText>,
    /// Both if it is left out.
    pub direction: Option<DirectionText>,
    /// Where they come from: networks such as `192.0.2.0/24`, addresses, or `local`, `private`, `multicast`.
    pub from: Option<OneOrMany<String>>,
    /// Where they go.
    pub to: Option<OneOrMany<String>>,
    /// To which ports: `80`, or `"8000-8099"`.
    pub ports: Option<OneOrMany<PortText>>,
    /// Through which interface they come in; those of the machine's own, through which they would go out.
    pub interface: Option<String>,
    /// The name of the upstreams to which they are redirected.
    pub via: Option<String>,
    /// What becomes of them if they are not redirected.
    pub action: Option<ActionText>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProtocolText {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// Where a connection's first packet is seen.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DirectionText {
    /// It comes in from outside.
    Forwarded,
    /// It is the machine's own.
    Local,
}

/// What becomes of connections that are not redirected.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActionText {
    /// They go where they go.
    Direct,
}

/// A port, or a range of them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PortText {
    /// One.
    One(u16),
    /// From one to another.
    Range(String),
}

/// One thing, or a list.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of them, each with its place in the list, if it is one.
    pub(crate) fn all(&self) -> Vec<(Option<usize>, &T)> {
        match self {
            Self::One(one) => vec![(None, one)],
            Self::Many(many) => many
                .iter()
                .enumerate()
                .map(|(place, one)| (Some(place), one))
                .collect(),
        }
    }
}

/// The JSON Schema of files.
pub fn schema() -> Schema {
    schema_for!(FileText)
}
