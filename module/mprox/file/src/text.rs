// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a file may say.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::de::value::{I64Deserializer, StrDeserializer};
use serde::de::{Error, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A file of mprox.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "file of mprox")]
pub struct FileText {
    /// Groups of upstreams, by names that rules use.
    #[serde(default)]
    pub upstreams: BTreeMap<String, UpstreamsText>,
    /// Sets, by names that rules use with an `@` before them.
    #[serde(default)]
    pub sets: BTreeMap<String, SetText>,
    /// Rules. The first that matches a connection says what becomes of it. A file without any has to say so: `rule = []`.
    #[schemars(required)]
    pub rule: Option<Vec<RuleText>>,
}

/// A set, of one sort of things.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(rename = "set")]
pub struct SetText {
    /// Networks such as `192.0.2.0/24`, addresses, or `local`, `private`, `multicast`: for `from` and `to`.
    pub networks: Option<OneOrMany<String>>,
    /// A file with such networks, one in a line; what is behind a `#` is not read. Its path is relative to this file's directory.
    pub networks_file: Option<String>,
    /// Ports: `80`, or `"8000-8099"`.
    pub ports: Option<OneOrMany<NumberText>>,
    /// Names of interfaces.
    pub interfaces: Option<OneOrMany<String>>,
    /// Users: their names, numbers, or ranges of these.
    pub users: Option<OneOrMany<NumberText>>,
    /// Groups of users: their names, numbers, or ranges of these.
    pub groups: Option<OneOrMany<NumberText>>,
    /// Control groups of version 2: their paths.
    pub cgroups: Option<OneOrMany<String>>,
    /// Names of programs.
    pub programs: Option<OneOrMany<String>>,
}

/// Upstreams of which a new connection goes to one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "upstreams")]
pub struct UpstreamsText {
    /// The servers, 256 at most.
    pub servers: Vec<ServerText>,
    /// How many new connections each of them gets, in proportion: a number from 1 to 255 for each server, in their order; all the same if
    /// it is left out.
    pub weights: Option<Vec<u8>>,
    /// Which of them a new connection goes to.
    #[serde(default)]
    pub select: SelectText,
}

/// Which server a new connection goes to. One that has failed is passed over as long as there is another.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "select")]
pub enum SelectText {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The first one of the list.
    Failover,
    /// Any.
    Random,
    /// The same one for a client as long as it works, by the client's address.
    SourceHash,
}

/// A server: its address and port, as `192.0.2.1:8080` or `[2001:db8::1]:8080`; without a port, the one that the client wanted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "server")]
pub struct ServerText(pub String);

/// Which connections a rule is for, and what becomes of them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(rename = "rule")]
pub struct RuleText {
    /// What the rule is called.
    pub name: Option<String>,
    /// Over which IP version they are made, 4 or 6; both if it is left out.
    #[schemars(extend("enum" = [4, 6]))]
    pub ip: Option<u8>,
    /// Over which transport protocol they are made; both if it is left out.
    pub protocol: Option<ProtocolText>,
    /// Whether they come in from outside or are the machine's own; both if it is left out.
    pub direction: Option<DirectionText>,
    /// Where they come from: networks such as `192.0.2.0/24`, addresses, or `local`, `private`, `multicast`; or `"@name"` of a set.
    pub from: Option<OneOrMany<String>>,
    /// Where they do not come from: as `from`.
    pub not_from: Option<OneOrMany<String>>,
    /// Where they go: as `from`.
    pub to: Option<OneOrMany<String>>,
    /// Where they do not go: as `from`.
    pub not_to: Option<OneOrMany<String>>,
    /// To which ports: `80`, or `"8000-8099"`; or `"@name"` of a set.
    pub ports: Option<OneOrMany<NumberText>>,
    /// To which ports they do not go: as `ports`.
    pub not_ports: Option<OneOrMany<NumberText>>,
    /// From which of the client's ports they come: as `ports`.
    pub source_ports: Option<OneOrMany<NumberText>>,
    /// Through which interfaces they come in; those of the machine's own, through which they would go out: names, or `"@name"` of a set.
    pub interface: Option<OneOrMany<String>>,
    /// Through which interfaces they do not: as `interface`.
    pub not_interface: Option<OneOrMany<String>>,
    /// What their first packet is marked with: a number, or `"0x100/0xff00"` with the bits that count.
    pub mark: Option<NumberText>,
    /// The differentiated services code point of their first packet: 0 to 63, or a name such as `"ef"`, `"af41"`, `"cs1"`.
    pub dscp: Option<NumberText>,
    /// Whose they are, of the machine's own: names of users, their numbers, or ranges of these; or `"@name"` of a set.
    pub users: Option<OneOrMany<NumberText>>,
    /// Whose they are not, of the machine's own: as `users`.
    pub not_users: Option<OneOrMany<NumberText>>,
    /// Of the machine's own: to which groups of users who opened the socket belongs, by its first group: as `users`.
    pub groups: Option<OneOrMany<NumberText>>,
    /// Of the machine's own: to which groups who opened the socket does not belong: as `users`.
    pub not_groups: Option<OneOrMany<NumberText>>,
    /// Of the machine's own: in which control groups of version 2, or below them, they are made: paths, such as `"/user.slice"`; or `"@name"` of a set.
    pub cgroups: Option<OneOrMany<String>>,
    /// Of the machine's own: in which control groups they are not made: as `cgroups`.
    pub not_cgroups: Option<OneOrMany<String>>,
    /// Of the machine's own: the number of the process that makes them, or that those descend from which do.
    pub process: Option<u32>,
    /// Of the machine's own: the names of programs that make them, those of their processes, as `ps -o comm` shows them, at most 15 bytes; or `"@name"` of a set.
    pub programs: Option<OneOrMany<String>>,
    /// Of the machine's own: the names of programs that do not make them: as `programs`.
    pub not_programs: Option<OneOrMany<String>>,
    /// The name of the upstreams to which they are redirected.
    pub via: Option<String>,
    /// What becomes of them if they are not redirected.
    pub action: Option<ActionText>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "protocol")]
pub enum ProtocolText {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// Where a connection's first packet is seen.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "direction")]
pub enum DirectionText {
    /// It comes in from outside.
    Forwarded,
    /// It is the machine's own.
    Local,
}

/// What becomes of connections that are not redirected.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "action")]
pub enum ActionText {
    /// They go where they go.
    Direct,
    /// Their packets are dropped.
    Drop,
    /// Their packets are dropped, and who sends them is told: by a TCP reset, or that the port is unreachable.
    Reject,
}

/// A number, or a text: a range of numbers such as `"8000-8099"`, or a name.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "number")]
pub enum NumberText {
    /// A number.
    One(u32),
    /// A range, or a name.
    Text(String),
}

impl<'de> Deserialize<'de> for NumberText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = NumberText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number such as 80, or a text such as \"8000-8099\"")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<NumberText, E> {
                let unfit =
                    |_| E::custom(format!("the number {number} is less than 0 or too great"));
                u32::try_from(number).map(NumberText::One).map_err(unfit)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<NumberText, E> {
                Ok(NumberText::Text(text.to_owned()))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

/// One thing, or a list.
#[derive(Clone, Debug, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "list-of-{T}")]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// A list.
    Many(Vec<T>),
}

/// What lists are of.
trait Listed {
    /// What is expected where there may be one, or a list.
    const EXPECTED: &'static str;
}

impl Listed for String {
    const EXPECTED: &'static str = "a text in quotes, or a list of these";
}

impl Listed for NumberText {
    const EXPECTED: &'static str =
        "a number such as 80, a text such as \"8000-8099\", or a list of these";
}

// An untagged enum of serde's would say of what is neither only that it matches no variant.
impl<'de, T: Listed + Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Listed + Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<OneOrMany<T>, E> {
                let one: I64Deserializer<E> = number.into_deserializer();
                T::deserialize(one).map(OneOrMany::One)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany<T>, E> {
                let one: StrDeserializer<'_, E> = text.into_deserializer();
                T::deserialize(one).map(OneOrMany::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany<T>, A::Error> {
                let mut many = Vec::new();
                while let Some(one) = list.next_element()? {
                    many.push(one);
                }
                Ok(OneOrMany::Many(many))
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T> OneOrMany<T> {
    /// What `change` makes of each.
    pub(crate) fn map<R>(&self, change: impl Fn(&T) -> R) -> OneOrMany<R> {
        match self {
            Self::One(one) => OneOrMany::One(change(one)),
            Self::Many(many) => OneOrMany::Many(many.iter().map(change).collect()),
        }
    }

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
