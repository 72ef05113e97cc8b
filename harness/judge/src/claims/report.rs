// SPDX-License-Identifier: MIT OR Apache-2.0

//! The file below `results/claims/`: the verdicts and all that they were taken from.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::claim::Judged;
use mutexlab_protocol::StepTimes;
use mutexlab_results::closure::Closure;

/// Version of the format; raised whenever a reader of the old one would misread the new one.
pub const SCHEMA: u32 = 1;

/// All that `mutexlab claims` found out.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[schemars(title = "mutexlab claims")]
pub struct Report<'a> {
    /// [`SCHEMA`].
    #[schemars(extend("const" = SCHEMA))]
    pub schema: u32,
    /// When measuring began, RFC 3339, UTC.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"))]
    pub started: String,
    /// Everything that the numbers depend on; of the three scenarios that of the first, which
    /// differs from the others' in the scenario's text alone.
    pub closure: &'a Closure,
    /// The results files of the three scenarios, relative to the repository.
    pub results: Vec<PathBuf>,
    /// The claims, in the order of branch 13.
    pub claims: &'a [Judged],
    /// What single steps took, in instructions.
    pub steps: &'a [StepTimes],
}

#[cfg(test)]
mod tests {
    use serde_json::{json, Value};

    use super::*;
    use crate::claims::claim::{Claim, Evidence, Pair, Unit, Unseen};
    use mutexlab_results::sample::run;

    fn report() -> Value {
        let closure = run(&[]).closure;
        let evidence = Evidence {
            metric: "a hit".into(),
            unit: Unit::InstructionsPerPacket,
            off: "off".into(),
            on: "on".into(),
            pairs: vec![Pair {
                at: "64".into(),
                off: 300.0,
                on: 100.0,
            }],
        };
        let unseen = Unseen {
            could_help: false,
            could_hurt: true,
        };
        let judged = [
            Claim::Lookup,
            Claim::Creation,
            Claim::Latency,
            Claim::Throughput,
            Claim::Scaling,
        ]
        .map(|claim| Judged::new(claim, evidence.clone(), Vec::new(), unseen, vec![]));
        let step = StepTimes {
            step: "nothing".into(),
            size: None,
            samples: 255,
            min: 1,
            median: 2,
            max: 3,
            sum: 510,
        };
        serde_json::to_value(Report {
            schema: SCHEMA,
            started: "2026-11-23T10:00:00Z".into(),
            closure: &closure,
            results: vec!["results/a.json".into()],
            claims: &judged,
            steps: &[step],
        })
        .unwrap()
    }

    #[test]
    fn a_file_is_as_its_schema_says() {
        let schema = serde_json::to_value(schemars::schema_for!(Report<'_>)).unwrap();
        let schema = jsonschema::validator_for(&schema).unwrap();
        let good = report();
        let errors: Vec<_> = schema.iter_errors(&good).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        for (pointer, value) in [
            ("/schema", json!(SCHEMA + 1)),
            ("/started", json!("yesterday")),
            ("/claims/0/verdict", json!("perhaps")),
            ("/claims/0/gains", json!([1.0])),
            ("/claims/0/evidence/0/unit", json!("seconds")),
            ("/steps/0/median", json!("2")),
            ("/closure/commit", json!("HEAD")),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = value;
            assert!(!schema.is_valid(&bad), "{pointer}");
        }
    }
}
