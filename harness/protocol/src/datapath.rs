// SPDX-License-Identifier: MIT OR Apache-2.0

//! How the agent puts up what is measured: steps that the host has finished, so that the guest only carries them out.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use mutexlab_model::facts::Facts;
use mutexlab_model::subject::ModuleRules;

/// What is between client and servers, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Datapath {
    /// What is known of it before it is measured.
    pub facts: Facts,
    /// How it is put up.
    pub how: How,
}

impl Datapath {
    /// mutex_proxy.ko with such rules.
    pub fn module(rules: ModuleRules) -> Self {
        Self {
            facts: Facts::of_module(rules),
            how: How::Module(rules),
        }
    }
}

/// How a datapath is put up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// mutex_proxy.ko, with the cell's parameters.
    Module(ModuleRules),
    /// By what its directory declares.
    Declared(Declared),
}

/// What a subject's directory amounts to for one kind of traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// Taken up in this order, and down in the reverse one.
    pub steps: Vec<Step>,
    /// The programs that its scripts find, beside those that are always there.
    pub programs: Vec<String>,
    /// What can be read of it.
    pub read: Readings,
}

/// A step, and where the subject's file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The subject's name, the file, and the place in it, for messages.
    pub place: String,
    /// What is done.
    pub deed: Deed,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// Loads a kernel module; unloads it.
    Module {
        /// Where it lies in the guest.
        path: String,
        /// Its parameters.
        parameters: BTreeMap<String, String>,
    },
    /// Loads the proxy module, which redirects in the router as a file of mprox's says; unloads it.
    Mprox {
        /// The file.
        file: Script,
        /// The module's parameters.
        parameters: BTreeMap<String, String>,
    },
    /// Loads rules of nftables; flushes the machine's rules.
    Nft {
        /// Where.
        machine: Machine,
        /// The rules.
        rules: String,
    },
    /// Starts a program that stays; ends it.
    Daemon(Daemon),
    /// Runs a script of the shell's; runs another one.
    Run {
        /// Where.
        machine: Machine,
        /// What is run going up.
        up: Script,
        /// What is run going down, if anything.
        down: Option<Script>,
    },
    /// Attaches a BPF program to a link of the router's; detaches it.
    Bpf {
        /// Where the object lies in the guest.
        path: String,
        /// To what.
        attach: Attach,
        /// The link's name.
        link: String,
    },
}

/// One of the guest's machines, each a network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Machine {
    /// Where packets come from.
    Client,
    /// Where the subject is.
    #[default]
    Router,
    /// Where both servers are.
    Upstream,
}

/// A program that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Daemon {
    /// Where.
    pub machine: Machine,
    /// Where it lies in the guest.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What it reads on its standard input.
    pub input: String,
    /// The port of TCP at which it listens once it is up.
    pub listens: Option<u16>,
    /// Whether its files are kept in the guest's memory.
    pub resident: bool,
}

/// A text for the shell, or for mprox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Its file's name, which messages have.
    pub name: String,
    /// The text.
    pub text: String,
}

/// Where a BPF program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Attach {
    /// To the driver, or in front of the stack where that cannot (XDP).
    Xdp,
    /// In front of the stack, whatever the driver can.
    XdpGeneric,
    /// To incoming packets of the traffic control (clsact, direct action).
    TcIngress,
}

/// What can be read of a subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Readings {
    /// A file whose lines are a name and a number: its counters.
    pub counters: Option<String>,
    /// What its flows take; told of 1,000 and more.
    pub memory: Option<FlowMemory>,
}

/// What the memory of flows is told from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlowMemory {
    /// The slab cache that flows are of: below /sys/kernel/slab.
    pub slab: String,
    /// A file with the number of flows.
    pub flows: String,
}

/// Where a program of a subject lies in the guest.
pub fn program_path(name: &str) -> String {
    format!("{PROGRAMS}/{name}")
}

/// Where a file of a subject lies in the guest.
pub fn file_path(subject: &str, name: &str) -> String {
    format!("/lab/subjects/{subject}/{name}")
}

/// Where programs of all subjects lie.
const PROGRAMS: &str = "/lab/programs";
