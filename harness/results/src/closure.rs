// SPDX-License-Identifier: MIT OR Apache-2.0

//! Everything that a number depends on, so that whoever doubts it can make it again.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use mutexlab_model::accelerator::Accelerator;
use mutexlab_model::stand_in::StandIn;

/// What a hash looks like.
const SHA256: &str = "^[0-9a-f]{64}$";

/// Everything that the numbers of a run depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Closure {
    /// The commit, in full.
    #[schemars(regex(pattern = r"^[0-9a-f]{40}([0-9a-f]{24})?$"))]
    pub commit: String,
    /// Whether files differed from it.
    pub dirty: bool,
    /// The tree of harness and probe, if the proxy is of another, which `commit` and `dirty` then
    /// tell of; absent if all is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness: Option<Tree>,
    /// Hash of the host's program, which was the agent as well where `agent_sha256` is absent.
    #[schemars(regex(pattern = SHA256))]
    pub harness_sha256: String,
    /// Hash of the agent's program, which measures; absent from results of before it was one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SHA256))]
    pub agent_sha256: Option<String>,
    /// Hash of the plugin of emulators whose boots repeat; absent from results of before it was told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SHA256))]
    pub plugin_sha256: Option<String>,
    /// How metrics were derived from what the agent told: [`DERIVATION`] of the host's program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derivation: Option<u32>,
    /// By name in the scenario.
    pub kernels: BTreeMap<String, KernelClosure>,
    /// What virtme-ng says of its version.
    pub virtme_ng: String,
    /// What nft says of its version.
    pub nft: String,
    /// Programs of others that are a part of the scenario's subjects, by name; absent if there are none,
    /// and from results of before they were told of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub programs: BTreeMap<String, ProgramClosure>,
    /// Hashes of the directories that tell of the scenario's subjects, by name; absent if all are the module, and
    /// from results of before subjects were directories.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub subjects: BTreeMap<String, String>,
    /// The virtual machine.
    pub qemu: QemuClosure,
    /// The machine underneath.
    pub host: Host,
    /// Seeds of random numbers, by what they are for.
    pub seeds: BTreeMap<String, u32>,
    /// The scenario's file.
    pub scenario_text: String,
}

/// Raised when the same measurement gives other metrics than before.
pub const DERIVATION: u32 = 2;

/// A work tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// The commit, in full.
    #[schemars(regex(pattern = r"^[0-9a-f]{40}([0-9a-f]{24})?$"))]
    pub commit: String,
    /// Whether files differed from it.
    pub dirty: bool,
}

/// A kernel and the modules built against it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelClosure {
    /// What `uname -r` says.
    pub release: String,
    /// Hash of the source archive; of a source tree of the user's, of its files' names, sizes and times, or of git's
    /// hash of the commit's files. Null for a kernel that somebody else has built.
    #[schemars(regex(pattern = SHA256))]
    pub source_sha256: Option<String>,
    /// The commit that the source is of, if it is a tree that git knows; absent from any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Tree>,
    /// What stood in for the pinned source, which was gone; absent if it is the pinned one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stand_in: Option<StandIn>,
    /// Hash of `.config`.
    #[schemars(regex(pattern = SHA256))]
    pub config_sha256: String,
    /// Hash of the bzImage.
    #[schemars(regex(pattern = SHA256))]
    pub image_sha256: String,
    /// The C compiler, as `.config` has it.
    pub compiler: Option<String>,
    /// The Rust compiler, as `.config` has it.
    pub rustc: Option<String>,
    /// bindgen, as `.config` has it.
    pub bindgen: Option<String>,
    /// Hashes of the modules by name.
    pub modules: BTreeMap<String, String>,
}

/// A program that is a part of a subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProgramClosure {
    /// The version of its Debian package; null if it is of none.
    pub version: Option<String>,
    /// Hash of its file.
    #[schemars(regex(pattern = SHA256))]
    pub sha256: String,
    /// Hashes of the shared libraries that are loaded with it, by file name.
    pub libraries: BTreeMap<String, String>,
}

/// The virtual machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QemuClosure {
    /// The first line of `--version`.
    pub version: String,
    /// How instructions are executed.
    pub accelerator: Accelerator,
    /// The CPU model with its features.
    pub cpu_model: String,
    /// Arguments beyond virtme-ng's; each boot's record has the whole command line.
    pub arguments: String,
}

/// The machine underneath. In virtual mode it must not matter; whether it does can be found out
/// only if it is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Release of its kernel.
    pub kernel: String,
    /// Architecture.
    pub architecture: String,
    /// Model of its CPU.
    pub cpu: String,
    /// How many CPUs this program may use.
    pub cpus: usize,
}

impl Closure {
    /// The commit as file names have it: short, and with `-dirty` if files differed.
    pub fn short_commit(&self) -> String {
        let short: String = self.commit.chars().take(10).collect();
        if self.dirty {
            short + "-dirty"
        } else {
            short
        }
    }

    /// Whether the same programs measured: with the same agent and plugin, and metrics derived in the same way, it
    /// does not matter what else the host's program does.
    pub fn measured_alike(&self, other: &Self) -> bool {
        let of = |closure: &Self| {
            let agent = closure.agent_sha256.clone()?;
            Some((agent, closure.plugin_sha256.clone(), closure.derivation))
        };
        match (of(self), of(other)) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.harness_sha256 == other.harness_sha256,
        }
    }

    /// What differs from `other`, a line each; empty if nothing does that numbers depend on.
    ///
    /// # Errors
    /// If one cannot be written as JSON.
    pub fn differences(&self, other: &Self) -> Result<Vec<String>> {
        let mut sides = [self, other].map(Self::clone);
        if self.measured_alike(other) {
            sides
                .iter_mut()
                .for_each(|side| side.harness_sha256.clear());
        }
        let [ours, theirs] = sides
            .map(|side| serde_json::to_value(side).context("cannot write the closure as JSON"));
        let (ours, theirs) = (ours?, theirs?);
        let mut found = Vec::new();
        compare("", &ours, &theirs, &mut found);
        Ok(found)
    }
}

/// Adds a line for each leaf that differs.
fn compare(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    if ours == theirs {
        return;
    }
    let (Value::Object(ours), Value::Object(theirs)) = (ours, theirs) else {
        found.push(format!("{path}: {theirs} then, {ours} now"));
        return;
    };
    let mut keys: Vec<_> = ours.keys().chain(theirs.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let get =
            |side: &serde_json::Map<String, Value>| side.get(key).cloned().unwrap_or(Value::Null);
        compare(&path, &get(ours), &get(theirs), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_leaf() {
        let ours = serde_json::json!({"a": {"b": 1, "c": 2}, "d": [1], "e": 0});
        let theirs = serde_json::json!({"a": {"b": 1, "c": 3}, "d": [2], "f": 0});
        let mut found = Vec::new();
        compare("", &ours, &theirs, &mut found);
        assert_eq!(
            found,
            [
                "a.c: 3 then, 2 now",
                "d: [2] then, [1] now",
                "e: null then, 0 now",
                "f: 0 then, null now"
            ]
        );
        found.clear();
        compare("", &ours, &ours, &mut found);
        assert!(found.is_empty());
    }
}
