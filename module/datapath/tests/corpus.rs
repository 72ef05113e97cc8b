// SPDX-License-Identifier: GPL-2.0

//! The fuzz targets, over the inputs that were kept, and over some that are made up.

use std::path::Path;
use std::{fs, panic};

use proptest::prelude::*;

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

fn inputs(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

#[test]
#[cfg_attr(miri, ignore = "would take hours")]
fn kept_inputs_pass() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, run) in fuzz::TARGETS {
        let inputs = inputs(&corpus.join(name));
        assert!(inputs.len() > 10, "{name} has lost its inputs");
        for (input, bytes) in inputs {
            let passes = panic::catch_unwind(|| run(&bytes)).is_ok();
            assert!(passes, "{}", corpus.join(name).join(input).display());
        }
    }
    let known = fuzz::TARGETS.map(|(name, _)| name);
    for entry in fs::read_dir(&corpus).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            known.contains(&name.as_str()),
            "inputs of no target: {name}"
        );
    }
}

const MOST: usize = if cfg!(miri) { 60 } else { 300 };

proptest! {
    #[test]
    fn any_bytes_pass(bytes in prop::collection::vec(any::<u8>(), 0..MOST)) {
        for (_, run) in fuzz::TARGETS {
            run(&bytes);
        }
    }
}
