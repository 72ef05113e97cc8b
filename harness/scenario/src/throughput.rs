// SPDX-License-Identifier: MIT OR Apache-2.0

//! Searches that a scenario asks for.

use schemars::JsonSchema;
use serde::Deserialize;

use mutexlab_model::rfc2544::throughput::Goal;

/// The greatest rates at which no more packets are lost than may be: one search for each loss.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SearchMatrix {
    /// Packets that may be lost, in percent, at least a ten-thousandth if not 0: 0 is the throughput of
    /// RFC 2544.
    #[serde(default = "none")]
    #[schemars(inner(range(min = 0, max = 50)))]
    pub loss: Vec<f64>,
    /// The least rate of interest, in packets a second.
    #[schemars(range(min = 1))]
    pub from: u32,
    /// The greatest.
    pub to: u32,
    /// How near the result is to the rate that is looked for, in packets a second.
    #[schemars(range(min = 1))]
    pub resolution: u32,
    /// How long a trial takes, in milliseconds of the guest's time.
    #[serde(default = "a_second")]
    #[schemars(range(min = 1))]
    pub trial_ms: u32,
    /// How many trials at the result must have been good.
    #[serde(default = "three")]
    #[schemars(range(min = 1))]
    pub repeats: u32,
}

fn none() -> Vec<f64> {
    vec![0.0]
}

const fn a_second() -> u32 {
    1_000
}

const fn three() -> u32 {
    3
}

impl SearchMatrix {
    /// What each search looks for.
    pub fn goals(&self) -> impl Iterator<Item = Goal> + '_ {
        self.loss.iter().map(|&percent| Goal {
            from: self.from,
            to: self.to,
            resolution: self.resolution,
            // Checked to be between 0 and 50 percent.
            loss_ppm: (percent * 1e4).round() as u32,
            repeats: self.repeats,
            trial_ms: self.trial_ms,
        })
    }

    /// What cannot be meant, if anything.
    pub(super) fn mistake(&self) -> Option<String> {
        if self.from == 0 || self.from > self.to {
            return Some(format!(
                "rates from {} to {} are none: from is at least 1, and to is not less",
                self.from, self.to
            ));
        }
        if [self.resolution, self.trial_ms, self.repeats].contains(&0) {
            return Some("resolution, trial-ms and repeats are at least 1".to_owned());
        }
        if self.loss.is_empty() {
            return Some("loss is empty, so there is nothing to look for".to_owned());
        }
        self.loss
            .iter()
            .find(|&&percent| percent != 0.0 && !(1e-4..=50.0).contains(&percent))
            .map(|percent| format!("{percent} % of loss is neither 0 nor between 0.0001 and 50"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ScenarioFile;
    use mutexlab_model::traffic::Load;

    fn parse(search: &str) -> Result<ScenarioFile, String> {
        let text = format!(
            "question = \"?\"\nmode = \"wall\"\nkernels = [\"7.3\"]\ncpus = [1]\nsubjects = [\"none\"]\n\
             [traffic]\nways = [\"forward\"]\nfamilies = [\"v4\"]\nprotocols = [\"udp\"]\npayloads = [64]\n\
             warm-up = 1\nsearch = {search}\n"
        );
        ScenarioFile::parse("a".to_owned(), "a.toml".to_owned(), text)
            .map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn there_is_a_search_for_each_loss() {
        let text = "{ loss = [0, 0.1], from = 1000, to = 9000, resolution = 10, trial-ms = 50 }";
        let loads = parse(text).unwrap().scenario.traffic.loads();
        let losses: Vec<u32> = loads
            .iter()
            .map(|load| match load {
                Load::Search(goal) => goal.loss_ppm,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(losses, [0, 1_000]);
    }

    #[test]
    fn bursts_are_a_load_of_their_own_and_repeated_as_the_rfc_says() {
        let search = "{ from = 1, to = 9, resolution = 1 }\nback-to-back = ";
        let good = format!("{search}{{ rate = 1000, longest = 50 }}");
        let loads = parse(&good).unwrap().scenario.traffic.loads();
        let Some(Load::BackToBack(goal)) = loads.last() else {
            panic!("{loads:?}");
        };
        assert_eq!((goal.tests, goal.step, goal.pause_ms), (50, 1, 2_000));
        let none = format!("{search}{{ rate = 0, longest = 50 }}");
        let error = parse(&none).unwrap_err();
        assert!(error.contains("rate, longest, step, tests"), "{error}");
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        for (search, part) in [
            ("{ from = 0, to = 9, resolution = 1 }", "rates from 0 to 9"),
            ("{ from = 9, to = 1, resolution = 1 }", "rates from 9 to 1"),
            ("{ from = 1, to = 9, resolution = 0 }", "at least 1"),
            (
                "{ from = 1, to = 9, resolution = 1, repeats = 0 }",
                "at least 1",
            ),
            (
                "{ loss = [], from = 1, to = 9, resolution = 1 }",
                "loss is empty",
            ),
            (
                "{ loss = [60], from = 1, to = 9, resolution = 1 }",
                "60 % of loss",
            ),
            (
                "{ loss = [-1], from = 1, to = 9, resolution = 1 }",
                "-1 % of loss",
            ),
            (
                "{ from = 1, to = 9, resolution = 1, trials = 3 }",
                "unknown field `trials`",
            ),
        ] {
            let error = parse(search).unwrap_err();
            assert!(error.starts_with("a.toml:12:"), "{error}");
            assert!(error.contains(part), "{error}");
        }
    }
}
