// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the host tells the agent in the guest, and what the agent answers.
//!
//! The host leaves one [`Order`] as JSON in the guest's root. The agent answers with one
//! [`Event`] a line on its standard output, each as soon as it is true, so that what a guest
//! finished before it died is kept.
//!
//! Host and guest meet here and nowhere else. Must not know: who boots a guest, and how the agent does its work.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod addresses;
pub mod datapath;
pub mod frame;
pub mod known_lines;
pub mod log_line;
pub mod measurement;
pub mod memory_map;
pub mod pattern;
pub mod shell_files;
pub mod test_info;
pub mod visit;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::datapath::Datapath;
use crate::log_line::LogLine;
use crate::measurement::Measurement;
use crate::pattern::Pattern;
use crate::visit::Visit;
use mutexlab_model::measured::Delivery;
use mutexlab_model::mode::Mode;
use mutexlab_model::rfc2544::back_to_back::BackToBack;
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::{Load, Traffic};

/// Raised when an old agent could not understand a new host or the reverse.
pub const VERSION: u32 = 6;

/// What the kernel of a guest whose root is in its memory has on its command line. Nobody keeps anything in such a machine.
pub const GUEST_ARGUMENT: &str = "mutexlab.guest";
/// Where the agent lies in the guest.
pub const AGENT_PATH: &str = "/lab/agent";
/// The serial port on which events go out of such a guest: the second one, apart from the console.
pub const EVENT_PORT: &str = "/dev/ttyS1";
/// Where the order lies in the guest.
pub const ORDER_PATH: &str = "/lab/order.json";
/// Where the modules lie in the guest.
pub const PROXY_MODULE_PATH: &str = "/lab/mutex_proxy.ko";
/// See [`PROXY_MODULE_PATH`].
pub const PROBE_MODULE_PATH: &str = "/lab/mutex_probe.ko";
/// Where `ip` of iproute2 lies, if the order is to test.
pub const IPROUTE2: &str = "/usr/sbin/ip";
/// Where the proxy's command line lies, if the order is to test or to give a shell.
pub const MPROX: &str = "/usr/sbin/mprox";
/// Every line of the agent's that is an event starts with this, since a guest's init and its
/// programs may print, too.
pub const EVENT_PREFIX: &str = "@mutexlab ";

/// What the console says, with an exit code, when the agent has ended, which it should not.
pub const AGENT_ENDED: &str = "mutexlab: agent ended with ";
/// What stands on the console before the reason why an order was not carried out.
pub const AGENT_GAVE_UP: &str = "mutexlab agent: ";

/// All that one boot has to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// [`VERSION`] of the host.
    pub version: u32,
    /// The work itself.
    pub work: Work,
}

/// How many flows there are in the cells of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCount {
    /// In the cell with the most.
    pub max: u32,
    /// In all together.
    pub total: u64,
}

impl Order {
    /// The cells that it measures.
    pub fn cells(&self) -> impl Iterator<Item = &GuestCell> {
        let tasks = match &self.work {
            Work::Measure { tasks, .. } => tasks.as_slice(),
            _ => &[],
        };
        tasks.iter().map(|task| &task.cell)
    }

    /// The bursts that its cells search.
    pub fn bursts(&self) -> impl Iterator<Item = BackToBack> + '_ {
        self.cells().filter_map(|cell| match cell.traffic.load {
            Load::BackToBack(goal) => Some(goal),
            _ => None,
        })
    }

    /// How many flows its cells have.
    pub fn flows(&self) -> FlowCount {
        self.cells().fold(FlowCount::default(), |count, cell| {
            let flows = cell.traffic.flows_in_all();
            FlowCount {
                max: count.max.max(flows),
                total: count.total + u64::from(flows),
            }
        })
    }
}

/// What a boot is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Nothing: coming up and going down again answers the question.
    Boot,
    /// Measure cells, in order.
    Measure {
        /// What time is counted in, which says whether waiting costs any.
        mode: Mode,
        /// The cells, each with what is measured there.
        tasks: Vec<Task>,
    },
    /// Measure single steps of the datapath, beside what the kernel offers for the same.
    Micro,
    /// Do what the lens is tested with.
    Patterns(Vec<Pattern>),
    /// Run functional tests.
    Test {
        /// Their names, in order.
        names: Vec<String>,
    },
    /// Misbehave, to show that the host notices.
    Fault(Fault),
    /// Have the module redirect, and let somebody look around.
    Shell(Visit),
}

/// A way to go wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The kernel panics.
    Panic,
    /// The kernel prints a warning with a stack and goes on.
    Warning,
    /// A line is written to the kernel's log as a warning.
    LoggedWarning,
    /// The same, and a signal ends the agent before it has looked at the log.
    LoggedWarningAndCrash,
    /// The agent says nothing any more.
    Silence,
    /// The agent ends without finishing its order.
    AgentExit,
    /// A signal ends the agent.
    AgentCrash,
    /// The agent takes memory until there is none left.
    OutOfMemory,
    /// A CPU spins with interrupts off.
    Lockup,
    /// The kernel reads memory that it has freed.
    UseAfterFree,
}

/// A cell, and how its subject is put up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The cell.
    pub cell: GuestCell,
    /// What is between client and servers.
    pub datapath: Datapath,
}

/// One cell as it is planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct GuestCell {
    /// Stable name of the cell, unique in the order.
    pub id: String,
    /// What is measured.
    pub subject: Subject,
    /// Parameters of the subject that have another value than it gives them; of the module, all that are set.
    pub parameters: BTreeMap<String, String>,
    /// The packets.
    pub traffic: Traffic,
    /// If there is one, each packet costs so many instructions more than the subject takes: to test
    /// the instrument by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ballast: Option<u16>,
    /// If there is any, the agent measures wrong: to test the self check by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sabotage: Option<Sabotage>,
    /// If there is one, the server misbehaves so while the cell is measured: to test the instrument
    /// by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mischief: Option<Mischief>,
    /// Whether the lens looks on: what it sees takes a map of the guest's memory to be understood.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lens: bool,
}

/// A way to measure wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// Every packet takes so many ticks more than it does.
    Skew(u64),
    /// Every packet takes a multiple of so many ticks.
    Coarse(u64),
    /// Whatever is sent is taken to have arrived, once and in order.
    Credulous,
    /// The module is kept in use when it is to go.
    HoldModule,
    /// A warning is written to the log.
    LogWarning,
}

/// What a server does wrong on purpose, with each `every`-th of its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Mischief {
    /// What is done.
    pub deed: Deed,
    /// To which answers: to those whose number within its flow, or in an open loop within the whole
    /// stream, is one less than a multiple of this. At least 1.
    pub every: u32,
}

/// What can be done to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// It is not sent.
    Drop,
    /// It is sent so many nanoseconds later.
    Delay(u64),
    /// It is sent twice.
    Duplicate,
    /// It is sent after the next one; in a closed loop, where there is none, not at all.
    Reorder,
    /// A bit of its payload is changed, and the checksum left as it was.
    Corrupt,
}

/// A line from the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "event")]
#[schemars(deny_unknown_fields)]
pub enum Event {
    /// The agent is up.
    Up {
        /// [`VERSION`] of the agent.
        version: u32,
        /// `uname -r` of the guest.
        kernel: String,
        /// Number of CPUs online.
        cpus: usize,
        /// Frequency of the time-stamp counter in kHz against the guest's monotonic clock, so
        /// that ticks can be told as time; 1,000,000 in virtual mode.
        tsc_khz: u64,
    },
    /// A cell begins.
    CellStarted {
        /// The cell's id.
        id: String,
    },
    /// A cell has ended.
    CellEnded {
        /// The cell's id.
        id: String,
        /// What was measured, or what went wrong.
        outcome: Outcome,
    },
    /// All single steps have been measured.
    Steps {
        /// What each took, in the order of measuring.
        steps: Vec<StepTimes>,
    },
    /// A pattern was done in a window of the lens.
    Pattern {
        /// Which.
        pattern: Pattern,
        /// What it took, in ticks of the time-stamp counter and a constant.
        ticks: u64,
    },
    /// The network is there with the module at work, and somebody may come in.
    LaidOut {
        /// The loaded modules: the addresses of the sections of each, by their names.
        modules: BTreeMap<String, BTreeMap<String, u64>>,
    },
    /// A functional test begins.
    TestStarted {
        /// The test's name.
        name: String,
    },
    /// A functional test has ended.
    TestEnded {
        /// The test's name.
        name: String,
        /// None if it passed, else what went wrong.
        failure: Option<String>,
    },
    /// The log has warnings, or worse, that are not known. What was begun last does not end, and the guest goes down.
    Complaints {
        /// Their lines.
        lines: Vec<LogLine>,
    },
    /// The order is done, and the guest goes down.
    Done,
}

/// What a single step took: ticks, the clock's own cost taken off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepTimes {
    /// The step's name; module/abi/micro.rs says what each does.
    pub step: String,
    /// What it depends on, if it does: a place on a chain or list, or bytes.
    pub size: Option<u32>,
    /// How often it was measured.
    pub samples: u64,
    /// The least.
    pub min: u64,
    /// The middle one.
    pub median: u64,
    /// The most.
    pub max: u64,
    /// Sum of all.
    pub sum: u64,
}

/// How a cell ended in the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub enum Outcome {
    /// Everything arrived as it should.
    Ok(Box<Measurement>),
    /// The subject did something wrong; what was counted until then is kept.
    Failed {
        /// What was wrong.
        reason: String,
        /// Delivery until then.
        delivery: Delivery,
    },
    /// The agent could not do its part.
    Infra {
        /// What it could not do.
        reason: String,
    },
}
