// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a `subject.toml` says.

use std::collections::BTreeMap;

use mutexlab_model::facts::{Arrival, Counts};
use mutexlab_model::traffic::{Ends, Family, Protocol, Traffic, Way};
use mutexlab_protocol::datapath::{Attach, Machine, Readings};
use mutexlab_scenario::ParameterValue;
use schemars::JsonSchema;
use serde::Deserialize;

/// What a `subject.toml` says.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "mutexlab subject")]
pub struct SubjectFile {
    /// What it is, for a person.
    pub about: String,
    /// Where packets arrive while it is up, and from whom.
    #[serde(default)]
    pub arrives: Arrival,
    /// Which traffic it can have.
    #[serde(default)]
    pub traffic: Accepted,
    /// What its numbers are.
    #[serde(default)]
    pub counts: Counts,
    /// What it needs of the kernel.
    #[serde(default)]
    pub kernel: KernelNeeds,
    /// What a scenario may change of it, in `[parameters.NAME]`, and the value that it has unless told. Templates
    /// know them as `parameters.NAME`.
    #[serde(default)]
    pub parameters: BTreeMap<String, ParameterValue>,
    /// Programs that its scripts call: installed on this machine, and taken along with their libraries.
    #[serde(default)]
    pub programs: Vec<String>,
    /// The steps by which it is put up, in this order; taken down in the reverse one.
    #[serde(default)]
    pub up: Vec<Up>,
    /// What can be read of it.
    #[serde(default)]
    pub read: Readings,
}

/// Which traffic a subject can have; a list that is not there leaves nothing out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Accepted {
    /// Who makes the packets.
    pub ends: Option<Vec<Ends>>,
    /// Where the client is.
    pub ways: Option<Vec<Way>>,
    /// IP versions.
    pub families: Option<Vec<Family>>,
    /// Transport protocols.
    pub protocols: Option<Vec<Protocol>>,
    /// Why other traffic is refused.
    pub because: Option<String>,
}

impl Accepted {
    /// Whether none of the lists leaves `traffic` out.
    pub fn has(&self, traffic: &Traffic) -> bool {
        fn among<T: PartialEq>(list: &Option<Vec<T>>, value: &T) -> bool {
            list.as_ref().is_none_or(|list| list.contains(value))
        }
        among(&self.ends, &traffic.ends)
            && among(&self.ways, &traffic.way)
            && among(&self.families, &traffic.family)
            && among(&self.protocols, &traffic.protocol)
    }
}

/// What a subject needs of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KernelNeeds {
    /// Options that must be built in, without `CONFIG_`.
    pub options: Vec<String>,
}

/// A step: just one of `module`, `mprox`, `nft`, `daemon`, `run` and `bpf`, and what belongs to that.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Up {
    /// A kernel module: a directory of sources, which is built for each kernel, or a `.ko` that is.
    pub module: Option<String>,
    /// A file of mprox's, a template: this repository's proxy module redirects as it says, in the router.
    pub mprox: Option<String>,
    /// A file of rules for nftables, a template.
    pub nft: Option<String>,
    /// A program that stays: one that is installed, `./one` of the subject's directory, or `agent`, which has a
    /// splicing proxy in it.
    pub daemon: Option<String>,
    /// A script for the shell, a template; run as root.
    pub run: Option<String>,
    /// A BPF program in C, which is compiled, or its object.
    pub bpf: Option<String>,

    /// A module's parameters, or with `mprox` the proxy module's; what is text is a template.
    pub parameters: Option<BTreeMap<String, ParameterValue>>,
    /// Where rules, daemon and script are: `router` unless told otherwise.
    #[serde(rename = "in")]
    pub machine: Option<Machine>,
    /// A daemon's arguments, each a template.
    pub arguments: Option<Vec<String>>,
    /// A file that a daemon reads on its standard input, a template.
    pub input: Option<String>,
    /// The port of TCP at which a daemon listens once it is up.
    pub listens: Option<u16>,
    /// Whether a daemon's files are kept in the guest's memory, so that none has to be waited for; they are if it
    /// `listens`.
    pub resident: Option<bool>,
    /// A script for taking down what `run` put up, a template.
    pub down: Option<String>,
    /// Where a BPF program is attached.
    pub attach: Option<Attach>,
    /// The link of the router's that it is attached to: `clients` or `servers`.
    pub link: Option<String>,
}
