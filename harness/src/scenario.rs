// SPDX-License-Identifier: MIT OR Apache-2.0

//! A scenario: one question and what must be measured to answer it, from a TOML file.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::Path;

use anyhow::{anyhow, bail, Context, Result};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::guest::flows;
use crate::guest::protocol::{Family, Protocol, Subject, Way, MAX_BURST, MAX_BURST_BYTES};

/// The least payload: the agent puts flow, sequence number and seed into it.
const MIN_PAYLOAD: u16 = 16;
/// The most that fits a packet of 1500 bytes with the longest headers, IPv6 and TCP with options.
const MAX_PAYLOAD: u16 = 1500 - 40 - 60;
/// A misspelt name is put right if at most this many letters are wrong.
const MAX_TYPOS: usize = 4;

/// What a scenario's file says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// The question, for a person.
    pub question: String,
    /// What time is counted in.
    pub mode: Mode,
    /// Kernels by their names in images/kernels.toml.
    pub kernels: Vec<String>,
    /// Numbers of CPUs.
    pub cpus: Vec<u32>,
    /// How often each boot is repeated; the unit of repetition is the boot.
    #[serde(default = "once")]
    pub boots: u32,
    /// What is measured.
    pub subjects: Vec<Subject>,
    /// Parameters of the module, each with its values.
    #[serde(default)]
    pub parameters: BTreeMap<String, Vec<ParameterValue>>,
    /// The packets.
    pub traffic: TrafficMatrix,
}

/// What time is counted in. Results of different modes are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Instructions.
    Virtual,
    /// Real time.
    Wall,
}

/// The combinations of traffic.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrafficMatrix {
    /// Where the client is.
    pub ways: Vec<Way>,
    /// IP versions.
    pub families: Vec<Family>,
    /// Transport protocols.
    pub protocols: Vec<Protocol>,
    /// Payloads in bytes.
    pub payloads: Vec<u16>,
    /// Numbers of flows.
    #[serde(default = "one_flow")]
    pub flows: Vec<u32>,
    /// Round trips that are measured, in each cell.
    pub round_trips: u32,
    /// Round trips before them.
    pub warm_up: u32,
    /// Packets of the client in each; more than one reach the router at once. One flow of UDP of
    /// the way `forward` only.
    #[serde(default = "once")]
    pub burst: u32,
}

/// A value of a module parameter; sysfs takes them all as text.
#[derive(Clone, Debug, PartialEq, Deserialize)]
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

const fn once() -> u32 {
    1
}

fn one_flow() -> Vec<u32> {
    vec![1]
}

/// A scenario with the text that it came from, which goes into the results.
#[derive(Clone, Debug)]
pub struct ScenarioFile {
    /// The file's name without directory and `.toml`.
    pub name: String,
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
        Ok(Self {
            scenario: parse(&text, &path.display().to_string())?,
            name,
            text,
        })
    }
}

/// Parses a scenario's text; `file` names it in errors.
fn parse(text: &str, file: &str) -> Result<Scenario> {
    let scenario: Scenario = toml::from_str(text).map_err(|error| explain(&error, text, file))?;
    scenario.check().with_context(|| file.to_owned())?;
    if let Some((index, message)) = scenario.traffic.bad_flows() {
        bail!("{}: {message}", place_of_flows(text, index, file));
    }
    Ok(scenario)
}

/// `file:line:column` of the given element of `traffic.flows`.
fn place_of_flows(text: &str, index: usize, file: &str) -> String {
    #[derive(Deserialize)]
    struct Places {
        traffic: TrafficPlaces,
    }
    #[derive(Deserialize)]
    struct TrafficPlaces {
        flows: Vec<Spanned<u32>>,
    }
    // It was understood before.
    let places = toml::from_str(text).map_or(Vec::new(), |places: Places| places.traffic.flows);
    match places.get(index) {
        Some(place) => self::place(text, place.span().start, file),
        None => file.to_owned(),
    }
}

impl TrafficMatrix {
    /// The first number of flows that cannot be, by its index, and why.
    fn bad_flows(&self) -> Option<(usize, String)> {
        let local = self.ways.contains(&Way::Local);
        self.flows.iter().enumerate().find_map(|(index, &flows)| {
            let max = flows::MAX;
            if !(1..=max).contains(&flows) {
                return Some((index, format!("{flows} flows are not between 1 and {max}")));
            }
            let message =
                "with the way \"local\" there can be only 1 flow: each would need a socket";
            if local && flows != 1 {
                return Some((index, message.to_owned()));
            }
            let message =
                "with traffic.burst there can be only 1 flow: a burst is sent as one packet";
            (self.burst != 1 && flows != 1).then(|| (index, message.to_owned()))
        })
    }
}

impl Scenario {
    fn check(&self) -> Result<()> {
        let traffic = &self.traffic;
        check_list("kernels", &self.kernels)?;
        check_list("cpus", &self.cpus)?;
        check_list("subjects", &self.subjects)?;
        check_list("traffic.ways", &traffic.ways)?;
        check_list("traffic.families", &traffic.families)?;
        check_list("traffic.protocols", &traffic.protocols)?;
        check_list("traffic.payloads", &traffic.payloads)?;
        check_list("traffic.flows", &traffic.flows)?;
        for (name, values) in &self.parameters {
            check_list(&format!("parameters.{name}"), values)?;
        }
        if self.cpus.contains(&0) {
            bail!("cpus: a guest needs at least one CPU");
        }
        if self.boots == 0 || traffic.round_trips == 0 {
            bail!("boots and traffic.round-trips must be at least 1");
        }
        let bursts = (2..=MAX_BURST).contains(&traffic.burst)
            && traffic.ways == [Way::Forward]
            && traffic.protocols == [Protocol::Udp];
        if traffic.burst != 1 && !bursts {
            bail!("traffic.burst: 1, or for forwarded UDP only at most {MAX_BURST}");
        }
        for payload in &traffic.payloads {
            if !(MIN_PAYLOAD..=MAX_PAYLOAD).contains(payload) {
                bail!("traffic.payloads: {payload} is not between {MIN_PAYLOAD} and {MAX_PAYLOAD}");
            }
            if u32::from(*payload) * traffic.burst > MAX_BURST_BYTES {
                bail!("traffic.burst: payloads of {payload} are more than {MAX_BURST_BYTES} bytes together");
            }
        }
        if !self.parameters.is_empty() && !self.subjects.iter().any(|subject| subject.is_module()) {
            bail!("parameters are the module's, but subjects does not list \"module\"");
        }
        Ok(())
    }
}

fn check_list<T: PartialEq + std::fmt::Debug>(key: &str, values: &[T]) -> Result<()> {
    if values.is_empty() {
        bail!("{key} is empty, so there is nothing to measure");
    }
    for (index, value) in values.iter().enumerate() {
        if values.iter().take(index).any(|earlier| earlier == value) {
            bail!("{key} lists {value:?} twice");
        }
    }
    Ok(())
}

/// An error as `file:line:column: what; did you mean …`.
fn explain(error: &toml::de::Error, text: &str, file: &str) -> anyhow::Error {
    let message = error.message();
    let hint = suggestion(message)
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default();
    let Some(span) = error.span() else {
        return anyhow!("{file}: {message}{hint}");
    };
    let place = place(text, span.start, file);
    anyhow!("{place}: {message}{hint}")
}

/// An offset into the text as `file:line:column`.
fn place(text: &str, offset: usize, file: &str) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .chars()
        .rev()
        .take_while(|&char| char != '\n')
        .count()
        + 1;
    format!("{file}:{line}:{column}")
}

/// The valid name nearest to the wrong one in serde's "unknown field `a`, expected one of `b`,
/// `c`"; `None` for other errors, and if nothing is near.
fn suggestion(message: &str) -> Option<&str> {
    if !message.starts_with("unknown ") {
        return None;
    }
    // Between backticks: every second piece.
    let mut names = message.split('`').skip(1).step_by(2);
    let wrong = names.next()?;
    names
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|&(distance, name)| distance <= MAX_TYPOS.min(name.len() / 2))
        .min()
        .map(|(_, name)| name)
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
        assert_eq!(scenario.subjects, [Subject::None, Subject::Module]);
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
        assert_eq!(parse(GOOD, "a.toml").unwrap().traffic.flows, [1]);
        let text = GOOD.replace("[64]", "[64]\nflows = [1, 1_000, 1_000_000]");
        let flows = parse(&text, "a.toml").unwrap().traffic.flows;
        assert_eq!(flows, [1, 1_000, 1_000_000]);
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
        let text = format!("{:#}", parse(&text, "a.toml").unwrap_err());
        assert!(
            text.starts_with("a.toml:14:13: with the way \"local\" there can be only 1 flow"),
            "{text}"
        );
    }

    #[test]
    fn bursts_are_of_one_flow_of_forwarded_udp() {
        assert_eq!(parse(GOOD, "a.toml").unwrap().traffic.burst, 1);
        let text = GOOD.replace("[64]", "[64]\nflows = [1]\nburst = 128");
        assert_eq!(parse(&text, "a.toml").unwrap().traffic.burst, 128);
        for (from, to, part) in [
            ("[64]", "[64]\nburst = 0", "traffic.burst: 1, or"),
            ("[64]", "[64]\nburst = 129", "at most 128"),
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
            ScenarioFile::load(&entry.unwrap().path()).unwrap();
            count += 1;
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
