// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine whose caches are modelled, as a scenario describes it.

use mutexlab_lens_recording::settings::{Cache, Caches};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Its caches. What is not given is of the size that a server's CPU of today has; the crate `mutex_lens` says why the
/// first level is fully associative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Machine {
    /// First level, instructions; each CPU's own.
    pub l1i: Shape,
    /// First level, data; each CPU's own.
    pub l1d: Shape,
    /// Second level; each CPU's own.
    pub l2: Shape,
    /// The last level, which all CPUs share.
    pub last: Shape,
}

/// Size and shape of a cache. Sets are a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// 1024 bytes.
    #[schemars(range(min = 1))]
    pub kib: u32,
    /// Lines of 64 bytes in a set.
    #[schemars(range(min = 1))]
    pub ways: u32,
}

impl Default for Machine {
    fn default() -> Self {
        let Caches { l1i, l1d, l2, last } = Caches::default();
        let [l1i, l1d, l2, last] = [l1i, l1d, l2, last].map(|cache| Shape {
            // None of them is as large as 4 TiB.
            kib: u32::try_from(cache.size >> 10).unwrap_or(u32::MAX),
            ways: cache.ways,
        });
        Self { l1i, l1d, l2, last }
    }
}

impl Machine {
    /// As the plugin is told.
    pub fn caches(&self) -> Caches {
        let cache = |shape: Shape| Cache {
            size: u64::from(shape.kib) << 10,
            ways: shape.ways,
        };
        Caches {
            l1i: cache(self.l1i),
            l1d: cache(self.l1d),
            l2: cache(self.l2),
            last: cache(self.last),
        }
    }

    /// The first cache that there cannot be, and why.
    pub fn mistake(&self) -> Option<(&'static str, String)> {
        let all = [
            ("l1i", self.l1i),
            ("l1d", self.l1d),
            ("l2", self.l2),
            ("last", self.last),
        ];
        all.into_iter().find_map(|(name, Shape { kib, ways })| {
            let lines = (u64::from(kib) << 10) / Caches::LINE;
            let ways = u64::from(ways);
            let whole = ways > 0 && lines.is_multiple_of(ways);
            let possible = whole && (lines / ways).is_power_of_two();
            let message = format!(
                "{kib} KiB of {ways} ways are no power of two of sets: a set has as many lines of {} bytes as ways",
                Caches::LINE
            );
            (!possible).then_some((name, message))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::ScenarioFile;

    #[test]
    fn the_default_is_the_plugin_s() {
        assert_eq!(Machine::default().caches(), Caches::default());
        assert_eq!(Machine::default().mistake(), None);
    }

    #[test]
    fn what_is_not_given_is_the_default() {
        let machine: Machine = toml::from_str("l2 = { kib = 2048, ways = 16 }").unwrap();
        assert_eq!(machine.caches().l2.size, 2 << 20);
        assert_eq!(machine.l1d, Machine::default().l1d);
        assert!(toml::from_str::<Machine>("l3 = { kib = 1, ways = 1 }").is_err());
    }

    #[test]
    fn caches_have_a_power_of_two_of_sets() {
        for (kib, ways, good) in [
            (48, 12, true),
            (48, 8, false),
            (1, 16, true),
            (1, 0, false),
            (1, 32, false),
        ] {
            let machine = Machine {
                l1d: Shape { kib, ways },
                ..Machine::default()
            };
            assert_eq!(machine.mistake().is_none(), good, "{kib} KiB, {ways} ways");
        }
    }

    #[test]
    fn a_scenario_asks_for_the_lens() {
        let text = r#"
question = "?"
mode = "virtual"
kernels = ["7.3"]
cpus = [1]
subjects = ["module"]
[lens]
l1d = { kib = 32, ways = 8 }
[traffic]
ways = ["forward"]
families = ["v4"]
protocols = ["udp"]
payloads = [64]
round-trips = 10
warm-up = 1
"#;
        let parsed = |from: &str, to: &str| {
            let text = text.replace(from, to);
            let file = ScenarioFile::parse("a".into(), "a.toml".into(), text)?;
            let plan = Plan::new(&file.scenario).map_err(|fault| file.explain(&fault))?;
            anyhow::Ok((file.scenario.lens, plan.boots[0].cells[0].lens))
        };
        let (machine, looks) = parsed("", "").unwrap();
        assert_eq!(machine.unwrap().l1d, Shape { kib: 32, ways: 8 });
        assert!(looks);
        assert_eq!(
            parsed("[lens]\nl1d = { kib = 32, ways = 8 }", "").unwrap(),
            (None, false)
        );
        for (from, to, place, part) in [
            ("ways = 8", "ways = 7", "a.toml:8:", "no power of two"),
            ("\"virtual\"", "\"wall\"", "a.toml:7:", "needs mode"),
            (
                "round-trips = 10",
                "ends = [\"stack\"]\nround-trips = 10",
                "a.toml:7:",
                "on the wire",
            ),
        ] {
            let error = parsed(from, to).unwrap_err().to_string();
            assert!(error.starts_with(place) && error.contains(part), "{error}");
        }
    }
}
