// SPDX-License-Identifier: MIT OR Apache-2.0

//! The walls between the crates, as docs/architecture.md has them: each uses those that are listed here and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Each crate with the crates of this repository that it may use, the lowest first.
const MAY_USE: [(&str, &[&str]); 26] = [
    ("host", &[]),
    ("draw", &[]),
    ("model", &["mutex-abi"]),
    ("wire", &["model"]),
    ("protocol", &["model"]),
    ("lens-recording", &[]),
    ("lens-plugin", &["lens-recording", "mutex-abi"]),
    (
        "scenario",
        &["model", "protocol", "lens-recording", "toml-mistake"],
    ),
    ("subjects", &["scenario", "protocol", "model", "host"]),
    ("results", &["model", "protocol", "scenario"]),
    ("mprox-client", &["mutex-abi"]),
    ("toml-mistake", &[]),
    ("mprox-file", &["mprox-client", "mutex-abi", "toml-mistake"]),
    ("mprox", &["mprox-client", "mprox-file"]),
    ("mprox-package", &[]),
    (
        "guest",
        &[
            "model",
            "protocol",
            "wire",
            "mprox-client",
            "mprox-file",
            "mutex-abi",
        ],
    ),
    (
        "functional",
        &[
            "guest",
            "wire",
            "protocol",
            "model",
            "mprox-client",
            "mprox-file",
            "mutex-abi",
        ],
    ),
    (
        "agent",
        &["functional", "guest", "protocol", "model", "host"],
    ),
    ("images", &["host", "model"]),
    ("machine", &["images", "protocol", "model", "host"]),
    (
        "lens-analysis",
        &["lens-recording", "results", "protocol", "model", "draw"],
    ),
    (
        "measure",
        &[
            "machine",
            "images",
            "lens-analysis",
            "subjects",
            "scenario",
            "results",
            "protocol",
            "model",
            "host",
        ],
    ),
    (
        "judge",
        &[
            "results",
            "scenario",
            "protocol",
            "model",
            "draw",
            "mutex-abi",
        ],
    ),
    (
        "report",
        &[
            "judge",
            "results",
            "scenario",
            "protocol",
            "model",
            "lens-analysis",
            "draw",
            "host",
        ],
    ),
    (
        "suite",
        &[
            "measure",
            "machine",
            "images",
            "lens-analysis",
            "lens-recording",
            "subjects",
            "scenario",
            "results",
            "protocol",
            "model",
            "draw",
            "host",
        ],
    ),
    (
        "harness",
        &[
            "host",
            "draw",
            "model",
            "protocol",
            "subjects",
            "scenario",
            "results",
            "images",
            "machine",
            "lens-analysis",
            "measure",
            "judge",
            "report",
            "suite",
        ],
    ),
];

/// What starts processes, opens sockets, talks to a kernel or prints progress: not for those that only think.
const DOES_THINGS: [&str; 8] = [
    "duct",
    "nix",
    "pnet",
    "netlink-sys",
    "signal-hook",
    "indicatif",
    "clap",
    "tempfile",
];
const THINK: [&str; 7] = [
    "model",
    "protocol",
    "scenario",
    "results",
    "judge",
    "draw",
    "lens-recording",
];

/// The dependencies of each package of the workspace, those for tests left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &Value| {
        let name = value["name"].as_str().unwrap();
        name.strip_prefix("mutexlab-").unwrap_or(name).to_owned()
    };
    let packages = metadata["packages"].as_array().unwrap().iter();
    let all = packages.map(|package| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let needed = dependencies.filter(|dependency| {
            dependency["kind"].is_null() && dependency["optional"] == Value::Bool(false)
        });
        (name(package), needed.map(name).collect())
    });
    all.collect()
}

#[test]
fn crates_use_only_what_they_may() {
    let dependencies = dependencies();
    let ours: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    let listed: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    let others = BTreeSet::from(["mutex-abi", "mutex-datapath"]);
    assert_eq!(ours, listed.union(&others).copied().collect());
    for (name, allowed) in MAY_USE {
        let used = dependencies[name].iter().map(String::as_str);
        let wrong: Vec<&str> = used
            .filter(|used| ours.contains(used) && !allowed.contains(used))
            .collect();
        assert!(
            wrong.is_empty(),
            "{name} uses {wrong:?}: docs/architecture.md"
        );
    }
}

#[test]
fn what_only_thinks_does_nothing() {
    let dependencies = dependencies();
    for name in THINK {
        let wrong: Vec<&str> = DOES_THINGS
            .into_iter()
            .filter(|does| dependencies[name].contains(*does))
            .collect();
        assert!(
            wrong.is_empty(),
            "{name} uses {wrong:?}: docs/architecture.md"
        );
    }
}

#[test]
fn the_document_lists_every_crate_and_each_says_what_it_must_not_know() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("../docs/architecture.md")).unwrap();
    for (name, _) in MAY_USE {
        assert!(document.contains(&format!("`{name}`")), "{name}");
        if name != "harness" {
            let mprox = root.join("../module/mprox");
            let head = match name {
                "mprox" => mprox.join("src/main.rs"),
                "mprox-client" => mprox.join("client/src/lib.rs"),
                "mprox-file" => mprox.join("file/src/lib.rs"),
                "mprox-package" => mprox.join("package/src/main.rs"),
                "toml-mistake" => mprox.join("toml-mistake/src/lib.rs"),
                _ => root.join(name.replace("lens-", "lens/")).join("src/lib.rs"),
            };
            let head = fs::read_to_string(head).unwrap();
            assert!(head.contains("Must not know: "), "{name}");
        }
    }
}
