// SPDX-License-Identifier: MIT OR Apache-2.0

//! A scenario: one question and what must be measured to answer it, from a TOML file.

mod check;
mod explain;
mod search;
mod values;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use explain::{nearest, Fault, Step};
pub use search::SearchMatrix;
pub use values::{FromNumber, Values};

use crate::guest::protocol::Subject;
use crate::lens::machine::Machine;
use crate::traffic::{Ends, Family, Load, Payload, Popularity, Protocol, Way};

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
    /// What is measured.
    pub subjects: Values<Subject>,
    /// Which combinations of the parameters' values are measured.
    #[serde(default)]
    pub combine: Combine,
    /// Parameters of the module, each with its values; the first one is the default.
    #[serde(default)]
    pub parameters: BTreeMap<String, Values<ParameterValue>>,
    /// Cells that are left out.
    #[serde(default)]
    pub exclude: Vec<Exclusion>,
    /// The caches that the lens models. It looks on if this is there, be it empty.
    pub lens: Option<Machine>,
    /// The packets.
    pub traffic: TrafficMatrix,
}

/// What time is counted in. Results of different modes are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Instructions: the same on every machine.
    Virtual,
    /// Real time: many boots and statistics, and KVM that works.
    Wall,
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

/// The combinations of traffic. Each of `round-trips`, `rates`, `search` and `bulk` that is given is a
/// load of its own.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrafficMatrix {
    /// Who makes the packets.
    #[serde(default = "on_the_wire")]
    pub ends: Values<Ends>,
    /// Where the client is.
    pub ways: Values<Way>,
    /// IP versions.
    pub families: Values<Family>,
    /// Transport protocols.
    pub protocols: Values<Protocol>,
    /// Payloads in bytes, or "imix".
    pub payloads: Values<Payload>,
    /// Numbers of flows, at most 1,000,000.
    #[serde(default = "one")]
    pub flows: Values<u32>,
    /// Which of them a packet is of.
    #[serde(default = "uniform")]
    pub popularity: Values<Popularity>,
    /// Closed loop: round trips that are measured in each cell.
    #[schemars(range(min = 1))]
    pub round_trips: Option<u32>,
    /// Packets of the client in each; more than one reach the router at once. One flow of UDP of
    /// the way "forward" only.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 128))]
    pub burst: u32,
    /// Open loop: packets a second.
    pub rates: Option<Values<u32>>,
    /// Packets that are measured at each of these rates.
    #[schemars(range(min = 1))]
    pub packets: Option<u32>,
    /// New flows a second at each of these rates.
    pub churn: Option<Values<u32>>,
    /// Search: the greatest rates at which no more packets are lost than may be.
    pub search: Option<SearchMatrix>,
    /// Bulk: bytes of one stream of TCP, as fast as it goes. Only between ends of the stack.
    #[schemars(range(min = 1))]
    pub bulk: Option<u64>,
    /// Round trips before what is measured.
    pub warm_up: u32,
}

impl TrafficMatrix {
    /// All loads, in order.
    pub fn loads(&self) -> Vec<Load> {
        let mut loads = Vec::new();
        loads.extend(self.round_trips.map(|round_trips| Load::Closed {
            round_trips,
            burst: self.burst,
        }));
        for &rate in self.rates.iter().flatten() {
            let open = |churn| Load::Open {
                rate,
                packets: self.packets.unwrap_or(1),
                churn,
            };
            match &self.churn {
                Some(churn) => loads.extend(churn.iter().map(|&churn| open(churn))),
                None => loads.push(open(0)),
            }
        }
        let searches = self.search.iter().flat_map(SearchMatrix::goals);
        loads.extend(searches.map(Load::Search));
        loads.extend(self.bulk.map(|bytes| Load::Bulk { bytes }));
        loads
    }
}

/// Cells that are left out: those that agree with all that is given here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Exclusion {
    /// The kernel.
    pub kernel: Option<String>,
    /// The number of CPUs.
    pub cpus: Option<u32>,
    /// What is measured.
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
    /// The open loop's rate.
    pub rate: Option<u32>,
    /// The open loop's new flows a second.
    pub churn: Option<u32>,
}

/// A value of a module parameter; sysfs takes them all as text.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ParameterValue {
    /// `true` is `Y` to the kernel.
    Bool(bool),
    /// A number.
    Integer(i64),
    /// Anything else.
    Text(String),
}

impl Display for ParameterValue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(true) => formatter.write_str("Y"),
            Self::Bool(false) => formatter.write_str("N"),
            Self::Integer(number) => number.fmt(formatter),
            Self::Text(text) => text.fmt(formatter),
        }
    }
}

impl FromNumber for ParameterValue {
    fn from_number(number: u32) -> Option<Self> {
        Some(Self::Integer(number.into()))
    }
}

impl FromNumber for Payload {
    fn from_number(number: u32) -> Option<Self> {
        u16::try_from(number).ok().map(Self::Bytes)
    }
}

const fn once() -> u32 {
    1
}

fn one() -> Values<u32> {
    Values(vec![1])
}

fn on_the_wire() -> Values<Ends> {
    Values(vec![Ends::Wire])
}

fn uniform() -> Values<Popularity> {
    Values(vec![Popularity::Uniform])
}

/// A scenario with the text that it came from, which goes into the results.
#[derive(Clone, Debug)]
pub struct ScenarioFile {
    /// The file's name without directory and `.toml`.
    pub name: String,
    /// The file, as errors name it.
    pub file: String,
    /// The whole text.
    pub text: String,
    /// What it says.
    pub scenario: Scenario,
}

impl ScenarioFile {
    /// Reads a scenario.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, names a key that does not exist, or asks for nothing.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the scenario {}", path.display()))?;
        let name = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .with_context(|| format!("{} is no file name", path.display()))?;
        Self::parse(name, path.display().to_string(), text)
    }

    /// A scenario called `name` from its text; `file` names it in errors.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(name: String, file: String, text: String) -> Result<Self> {
        Ok(Self {
            scenario: parse(&text, &file)?,
            name,
            file,
            text,
        })
    }

    /// Has the lens look on, if it does not already.
    ///
    /// # Errors
    /// If it cannot look on what this asks for.
    pub fn look(&mut self) -> Result<()> {
        self.scenario.lens.get_or_insert_default();
        self.scenario.check().map_err(|fault| self.explain(&fault))
    }

    /// `fault` with its place in the text.
    pub fn explain(&self, fault: &Fault) -> anyhow::Error {
        fault.explain(&self.text, &self.file)
    }
}

/// Parses a scenario's text; `file` names it in errors.
fn parse(text: &str, file: &str) -> Result<Scenario> {
    let scenario: Scenario =
        toml::from_str(text).map_err(|error| explain::syntax(&error, text, file))?;
    scenario
        .check()
        .map_err(|fault| fault.explain(text, file))?;
    Ok(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = r#"
question = "?"
mode = "virtual"
kernels = ["7.3"]
cpus = [1]
subjects = ["none", "module"]
[parameters]
cache = [true, false]
[traffic]
ways = ["forward"]
families = ["v4"]
protocols = ["udp"]
payloads = [64]
round-trips = 10
warm-up = 1
"#;

    fn error(from: &str, to: &str) -> String {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from:?} does not occur");
        format!("{:#}", parse(&text, "a.toml").unwrap_err())
    }

    #[test]
    fn a_good_scenario_is_understood() {
        let scenario = parse(GOOD, "a.toml").unwrap();
        assert_eq!(scenario.boots, 1);
        assert_eq!(*scenario.subjects, [Subject::None, Subject::Module]);
        assert_eq!(scenario.parameters["cache"][1].to_string(), "N");
    }

    #[test]
    fn a_misspelt_key_is_found_and_put_right() {
        let text = error("payloads", "payload");
        assert!(
            text.starts_with("a.toml:13:1: unknown field `payload`"),
            "{text}"
        );
        assert!(text.ends_with("did you mean `payloads`?"), "{text}");
        let text = error("\nkernels", "\nkernel");
        assert!(text.starts_with("a.toml:4:1:"), "{text}");
        assert!(text.ends_with("did you mean `kernels`?"), "{text}");
    }

    #[test]
    fn a_misspelt_value_is_found_and_put_right() {
        let text = error("\"forward\"", "\"foward\"");
        assert!(text.starts_with("a.toml:10:9:"), "{text}");
        assert!(text.ends_with("did you mean `forward`?"), "{text}");
    }

    #[test]
    fn a_parameter_that_the_module_does_not_have_is_found() {
        let there = ["cache_size".to_owned(), "pool".to_owned()];
        let fault = |text: &str| {
            let file = ScenarioFile::parse("a".into(), "a.toml".into(), text.into()).unwrap();
            let fault = file.scenario.check_parameters(&there).unwrap_err();
            file.explain(&fault).to_string()
        };
        let text = GOOD.replace("cache =", "pool = [1]\ncache_sise =");
        assert_eq!(
            fault(&text),
            "a.toml:9:14: the module has no parameter `cache_sise`; did you mean `cache_size`?"
        );
        let text = GOOD.replace("cache =", "pool =") + "[[exclude]]\nparameters = { pol = 1 }\n";
        assert_eq!(
            fault(&text),
            "a.toml:17:22: the module has no parameter `pol`; did you mean `pool`?"
        );
    }

    #[test]
    fn every_fault_is_shown_where_it_is() {
        for (from, to, place) in [
            ("[1]", "[1, 1]", "5:12"),
            ("[1]", "[1, 0]", "5:12"),
            ("[64]", "[64, 15]", "13:17"),
            ("[64]", "[]", "13:12"),
            ("= 10", "= 0", "14:15"),
            (", \"module\"", "", "7:1"),
        ] {
            let text = error(from, to);
            assert!(text.starts_with(&format!("a.toml:{place}: ")), "{text}");
        }
    }

    #[test]
    fn a_key_far_from_all_others_is_not_guessed() {
        assert!(!error("\nkernels", "\nxyzzy").contains("did you mean"));
    }

    #[test]
    fn a_missing_key_is_named() {
        assert!(error("cpus = [1]", "").contains("missing field `cpus`"));
    }

    #[test]
    fn nonsense_is_refused() {
        for (from, to, part) in [
            ("[\"7.3\"]", "[]", "kernels is empty"),
            ("[1]", "[1, 1]", "twice"),
            ("[1]", "[0]", "at least one CPU"),
            ("[64]", "[15]", "between 16 and"),
            ("[64]", "[1401]", "between 16 and"),
            ("= 10", "= 0", "at least 1"),
            (", \"module\"", "", "parameters are the module's"),
            ("[true, false]", "[]", "parameters.cache is empty"),
        ] {
            let text = error(from, to);
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn flows_are_one_unless_told() {
        assert_eq!(parse(GOOD, "a.toml").unwrap().traffic.flows[..], [1]);
        let text = GOOD.replace("[64]", "[64]\nflows = [1, 1_000, 1_000_000]");
        let flows = parse(&text, "a.toml").unwrap().traffic.flows;
        assert_eq!(flows[..], [1, 1_000, 1_000_000]);
        let text = GOOD
            .replace("[64]", "[64]\nflows = [1]")
            .replace("[\"forward\"]", "[\"forward\", \"local\"]");
        assert!(parse(&text, "a.toml").is_ok());
    }

    #[test]
    fn bad_numbers_of_flows_are_shown_where_they_are() {
        for (flows, place, part) in [
            ("[1, 0]", "14:13", "0 flows are not between 1 and 1000000"),
            ("[1000001]", "14:10", "1000001 flows are not between"),
            ("[1, -1]", "14:13", "invalid value"),
            ("[]", "", "traffic.flows is empty"),
            ("[1, 1]", "", "traffic.flows lists 1 twice"),
        ] {
            let text = error("[64]", &format!("[64]\nflows = {flows}"));
            assert!(text.starts_with(&format!("a.toml:{place}")), "{text}");
            assert!(text.contains(part), "{text}");
        }
        let text = GOOD
            .replace("[64]", "[64]\nflows = [1, 2]")
            .replace("[\"forward\"]", "[\"forward\", \"local\"]");
        let planned = |text: String| {
            let file = ScenarioFile::parse("a".into(), "a.toml".into(), text).unwrap();
            let plan = crate::plan::Plan::new(&file.scenario);
            plan.map_err(|fault| file.explain(&fault).to_string())
        };
        let error = planned(text.clone()).unwrap_err();
        assert!(
            error.starts_with("a.toml:14:13: with the way \"local\" there can be only 1 flow"),
            "{error}"
        );
        assert!(planned(text + "[[exclude]]\nway = \"local\"\nflows = 2\n").is_ok());
    }

    #[test]
    fn bursts_are_of_one_flow_of_forwarded_udp() {
        assert_eq!(parse(GOOD, "a.toml").unwrap().traffic.burst, 1);
        let text = GOOD.replace("[64]", "[64]\nflows = [1]\nburst = 128");
        assert_eq!(parse(&text, "a.toml").unwrap().traffic.burst, 128);
        for (from, to, part) in [
            ("[64]", "[64]\nburst = 0", "traffic.burst: 1, or"),
            ("[64]", "[64]\nburst = 129", "at most 128"),
            ("[64]", "[\"imix\"]\nburst = 2", "all of one size"),
            (
                "[64]",
                "[1000]\nburst = 66",
                "traffic.burst: payloads of 1000",
            ),
            (
                "[\"udp\"]",
                "[\"udp\", \"tcp\"]\nburst = 2",
                "forwarded UDP only",
            ),
            (
                "[\"forward\"]",
                "[\"local\"]\nburst = 2",
                "forwarded UDP only",
            ),
        ] {
            let text = error(from, to);
            assert!(text.contains(part), "{text}");
        }
        let text = error("[64]", "[64]\nflows = [1, 2]\nburst = 2");
        assert!(
            text.starts_with("a.toml:14:13: with traffic.burst there can be only 1 flow"),
            "{text}"
        );
    }

    #[test]
    fn the_scenarios_of_the_repository_are_good() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let mut count = 0;
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                let file = ScenarioFile::load(&path).unwrap();
                let plan = crate::plan::Plan::new(&file.scenario);
                assert!(
                    plan.is_ok_and(|plan| plan.cells() > 0),
                    "{}",
                    path.display()
                );
                count += 1;
            }
        }
        assert!(count > 0);
    }

    proptest! {
        #[test]
        fn any_damage_is_explained(
            at: prop::sample::Index,
            length in 0_usize..9,
            new in prop_oneof![any::<String>(), "[\\[\\]=\"'`#, a-z0-9\né]{0,6}"],
        ) {
            let at = at.index(GOOD.len());
            let mut damaged = GOOD.to_owned();
            damaged.replace_range(at..GOOD.len().min(at + length), &new);
            if let Err(error) = parse(&damaged, "a.toml") {
                let explanation = format!("{error:#}");
                prop_assert!(explanation.starts_with("a.toml"), "{}", explanation);
            }
        }
    }
}
