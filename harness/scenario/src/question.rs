// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a scenario's file says.

use std::collections::BTreeMap;

use mutexlab_model::mode::Mode;
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::{Checksum, Cloned, Ends, Family, Payload, Protocol, Steering, Way};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::caches::Machine;
use crate::named::Named;
use crate::parameter::{ParameterValue, Parameters};
use crate::traffic::TrafficMatrix;
use crate::values::{once, Values};

/// What a scenario's file says.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(title = "mutexlab scenario")]
pub struct Scenario {
    /// The question, for a person.
    pub question: String,
    /// What time is counted in.
    pub mode: Mode,
    /// Kernels by their names in images/kernels.toml.
    pub kernels: Values<String>,
    /// Numbers of CPUs.
    pub cpus: Values<u32>,
    /// How often each boot is repeated; the unit of repetition is the boot.
    #[serde(default = "once")]
    #[schemars(range(min = 1))]
    pub boots: u32,
    /// Seeds of random numbers, each of which is another boot; in virtual mode only, where the boots of one seed are the
    /// same boot.
    pub seeds: Option<Values<u32>>,
    /// What is measured.
    pub subjects: Values<Named>,
    /// Which combinations of the parameters' values are measured.
    #[serde(default)]
    pub combine: Combine,
    /// Parameters of the module, each with its values, the first one being the default; and by their names
    /// tables with those of other subjects.
    #[serde(default)]
    pub parameters: Parameters,
    /// Cells that are left out.
    #[serde(default)]
    pub exclude: Vec<Exclusion>,
    /// The caches that the lens models. It looks on if this is there, be it empty.
    pub lens: Option<Machine>,
    /// The packets.
    pub traffic: TrafficMatrix,
}

/// Which combinations of parameters are measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// All.
    #[default]
    Full,
    /// The defaults, and each other value alone among defaults.
    Alone,
    /// The same, and every two other values together.
    Pairs,
    /// Few, among which every two values of two parameters occur together somewhere: a covering
    /// array of strength 2.
    Pairwise,
}

/// Cells that are left out: those that agree with all that is given here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Exclusion {
    /// The kernel.
    pub kernel: Option<String>,
    /// The number of CPUs.
    pub cpus: Option<u32>,
    /// What is measured, by its name.
    pub subject: Option<Subject>,
    /// Values of parameters.
    pub parameters: BTreeMap<String, ParameterValue>,
    /// Who makes the packets.
    pub ends: Option<Ends>,
    /// Where the client is.
    pub way: Option<Way>,
    /// The IP version.
    pub family: Option<Family>,
    /// The transport protocol.
    pub protocol: Option<Protocol>,
    /// The payload.
    pub payload: Option<Payload>,
    /// The number of flows.
    pub flows: Option<u32>,
    /// The number of flows for each CPU.
    pub flows_per_cpu: Option<u32>,
    /// Which CPU answers come to.
    pub steering: Option<Steering>,
    /// The checksum status.
    pub checksum: Option<Checksum>,
    /// What packets share with clones.
    pub cloned: Option<Cloned>,
    /// The open loop's rate.
    pub rate: Option<u32>,
    /// The open loop's new flows a second.
    pub churn: Option<u32>,
}
