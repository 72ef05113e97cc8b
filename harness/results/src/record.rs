// SPDX-License-Identifier: MIT OR Apache-2.0

//! The records of a results file.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::closure::Closure;
use crate::metric::Metric;
use mutexlab_model::complaint::Complaint;
use mutexlab_model::histogram::Histogram;
use mutexlab_model::measured::{Delivery, HookCost};
use mutexlab_model::mode::Mode;
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::Traffic;
use mutexlab_model::verdict::Verdict;
use mutexlab_scenario::caches::Machine;
use mutexlab_scenario::plan::Filter;

/// Version of the format; raised whenever a reader of the old one would misread the new one.
pub const SCHEMA: u32 = 2;

/// All of one run. Written anew and put in place as a whole whenever a cell ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "mutexlab results")]
pub struct Results {
    /// [`SCHEMA`].
    #[schemars(extend("const" = SCHEMA))]
    pub schema: u32,
    /// The scenario's name.
    pub scenario: String,
    /// Its question.
    pub question: String,
    /// What time is counted in.
    pub mode: Mode,
    /// When the run began, RFC 3339, UTC.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"))]
    pub started: String,
    /// Which cells were chosen of the scenario's: a part of their ids, or behind `!` what is no part of
    /// them. Null if all were.
    pub filter: Option<Filter>,
    /// Which part of them, such as 2/5. Null if all were.
    pub shard: Option<String>,
    /// The caches that the lens modelled; absent if it did not look on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lens: Option<Machine>,
    /// Everything that the numbers depend on.
    pub closure: Closure,
    /// The boots, in order.
    pub boots: Vec<BootRecord>,
    /// The cells, in the order in which they ended.
    pub cells: Vec<CellRecord>,
}

impl Results {
    /// Which cells of the scenario the run is to have.
    pub fn selection(&self) -> Selection {
        Selection {
            filter: self.filter.clone(),
            shard: self.shard.clone(),
        }
    }
}

/// Which cells of a scenario a run is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// [`Results::filter`].
    pub filter: Option<Filter>,
    /// [`Results::shard`].
    pub shard: Option<String>,
}

/// One boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BootRecord {
    /// Its name in the plan.
    pub id: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, unless it is ok.
    pub reason: Option<String>,
    /// What the kernel complained of.
    pub reports: Vec<Complaint>,
    /// How long it took, in seconds of the host's time.
    pub seconds: f64,
    /// QEMU's command line, with `$RUN` for the run's temporary directory and `$CACHE` for the cache; empty if QEMU never ran.
    pub qemu: Vec<String>,
    /// Where its console went, relative to the repository.
    pub console_log: String,
    /// Which boot it is the second try of; that one's record says why it ended. Null if it is a first
    /// try. There is one second try, of cells that ended as `infra` alone.
    #[serde(default)]
    pub retry_of: Option<String>,
}

/// One cell of one boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CellRecord {
    /// Its name in the plan; the same in every repetition.
    pub id: String,
    /// The boot's name.
    pub boot: String,
    /// The kernel's name.
    pub kernel: String,
    /// Number of CPUs.
    #[schemars(range(min = 1))]
    pub cpus: u32,
    /// Which repetition it is, from 1.
    #[schemars(range(min = 1))]
    pub repetition: u32,
    /// What was measured.
    pub subject: Subject,
    /// The module's parameters.
    pub parameters: BTreeMap<String, String>,
    /// The packets.
    pub traffic: Traffic,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, unless it is ok.
    pub reason: Option<String>,
    /// Where the packets went; null if that was not heard.
    pub delivery: Option<Delivery>,
    /// What came out; empty unless it is ok.
    pub metrics: Vec<Metric>,
    /// What the percentiles were taken from; null unless it is ok.
    pub hook_cost: Option<Directions>,
    /// What the latency's percentiles were taken from: nanoseconds of the guest's clock, there and
    /// back. Null if they were not taken.
    #[serde(default)]
    pub latency: Option<Histogram>,
    /// The subject's counters over the cell.
    pub counters: BTreeMap<String, u64>,
}

impl CellRecord {
    /// The subject with the parameters that its scenario chose, such as `module,cache=N`: a part
    /// of the id, from [`mutexlab_scenario::plan::variant`].
    pub fn variant(&self) -> &str {
        let part = self.id.split('/').nth(2);
        part.unwrap_or(self.subject.name())
    }

    /// The value of the metric called `name`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics
            .iter()
            .find(|metric| metric.name == name)
            .map(|metric| metric.value)
    }
}

/// Histograms by direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Directions {
    /// Packets from the client.
    pub original: HookCost,
    /// Packets to the client.
    pub reply: HookCost,
}
