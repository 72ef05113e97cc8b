// SPDX-License-Identifier: MIT OR Apache-2.0

//! What goes wrong on the host: each is told at once, by its name, and harms nothing. What goes wrong in
//! guests is injected by `mutexlab test`; what follows from it is tried here, with guests that are scripts.

mod again;
mod cut_short;
mod lab;
#[path = "../sample/mod.rs"]
mod sample;
mod series;
mod trees;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use mutexlab_results::file::ResultsFile;
use mutexlab_results::record::{Results, SCHEMA};
use mutexlab_scenario::plan::Plan;
use mutexlab_scenario::ScenarioFile;

use crate::lab::{Course, Lab};

/// What needs no guest has this long to end.
const AT_ONCE: Duration = Duration::from_secs(20);

fn results() -> Results {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/quick.toml");
    let scenario = ScenarioFile::load(Path::new(path)).unwrap();
    let plan = Plan::new(&scenario.scenario).unwrap();
    sample::results(&scenario, &plan)
}

/// A directory that looks like the repository.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["module", "harness", "scenarios", "results", "programs"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn mutexlab(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mutexlab"));
        command.args(arguments).current_dir(self.0.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        end(&mut self.mutexlab(arguments))
    }
}

fn end(command: &mut Command) -> (i32, String) {
    let started = Instant::now();
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    (status.code().unwrap(), text)
}

/// Boots `kernel` where PATH has nothing but a virtme-ng, which is never started.
#[inline(never)]
fn boot_without_qemu(place: &Place, kernel: &str) -> (i32, String) {
    let vng = place.path("programs/vng");
    fs::write(&vng, "#!/bin/false\n").unwrap();
    fs::set_permissions(&vng, fs::Permissions::from_mode(0o755)).unwrap();
    end(place
        .mutexlab(&["boot", "--log", "log", kernel])
        .env("PATH", place.path("programs")))
}

#[test]
fn without_qemu_a_boot_is_infra_and_says_what_to_install() {
    let place = Place::new();
    let mut kernel = vec![0; 0x400];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    fs::write(place.path("bzImage"), kernel).unwrap();
    let (code, text) = boot_without_qemu(&place, "bzImage");
    assert_eq!(code, 1, "{text}");
    assert!(text.starts_with("infra"), "{text}");
    assert!(text.contains("apt-get install qemu-system-x86"), "{text}");
}

#[test]
fn a_newer_results_file_is_refused_by_its_schema() {
    let place = Place::new();
    let file = place.path("results/20990101T000000Z-0000000-quick.json");
    ResultsFile::write(&file, results()).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let newer = SCHEMA + 7;
    value["schema"] = newer.into();
    fs::write(&file, value.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let says = format!("schema {newer}");
    for arguments in [
        &["compare", file, file][..],
        &["golden", "--from", file],
        &["reproduce", file],
        &["merge", file, "-o", "merged.json"],
    ] {
        let (code, text) = place.run(arguments);
        assert_eq!(code, 2, "{arguments:?}: {text}");
        let is_told = text.contains(&says) && text.contains(file);
        assert!(is_told, "{arguments:?}: {text}");
    }
    // A report is made of many files, and names those that it leaves out.
    let (_, text) = place.run(&["report", file]);
    assert!(text.contains("left out") && text.contains(&says), "{text}");
    assert!(!place.path("merged.json").exists());
}

#[test]
fn a_full_disk_harms_no_results() {
    let place = Place::new();
    ResultsFile::write(&place.path("a.json"), results()).unwrap();
    let target = place.path("results/joined.json");
    fs::write(&target, "what was there").unwrap();
    // A file that may not grow further is what a full disk is like; SIGXFSZ would tell of the limit only.
    let script = r#"trap "" XFSZ; ulimit -f 4; exec "$0" merge a.json -o results/joined.json"#;
    let (code, text) = end(Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_mutexlab")])
        .current_dir(place.0.path()));
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("joined.json"), "{text}");
    assert!(text.contains("File too large"), "{text}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "what was there");
    let left: Vec<_> = fs::read_dir(place.path("results")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let place = Place::new();
    ResultsFile::write(&place.path("a.json"), results()).unwrap();
    // Not even root can make a file there.
    let (code, text) = place.run(&["merge", "a.json", "-o", "/proc/results.json"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("cannot write /proc/results.json"), "{text}");
}

#[test]
fn a_bench_that_cannot_write_its_results_says_so_and_ends() {
    // From the start on: nothing is locked or built for it.
    let lab = Lab::new(&[Course::Well]);
    let (code, said) =
        end(&mut lab.command(&["bench", "scenarios/trial.toml", "--results", "/proc/lab"]));
    assert_eq!((code, lab.guests()), (2, 0), "{said}");
    assert!(said.contains("cannot write results to /proc/lab"), "{said}");
    assert!(!lab.path("cache/images").exists(), "{said}");
    // And from its first cell on, with a guest that would not end.
    let lab = Lab::new(&[Course::Spoils]);
    let (code, said) = lab.run(&["bench", "scenarios/trial.toml", "--jobs", "1"]);
    assert_eq!((code, lab.guests()), (Some(2), 1), "{said}");
    assert!(said.contains("cannot write"), "{said}");
    assert!(said.contains("repository/results/"), "{said}");
}

#[test]
fn a_results_file_that_is_cut_short_is_named() {
    let place = Place::new();
    let file = place.path("a.json");
    ResultsFile::write(&file, results()).unwrap();
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let (code, text) = place.run(&["merge", "a.json", "-o", "b.json"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("a.json is no JSON"), "{text}");
}

#[test]
fn a_scenario_that_cannot_be_read_is_named() {
    let place = Place::new();
    fs::write(place.path("bytes.toml"), [0xff, 0xfe]).unwrap();
    fs::write(place.path("empty.toml"), "").unwrap();
    fs::write(place.path("broken.toml"), "question = \"?\nmode").unwrap();
    for (name, says) in [
        ("missing.toml", "cannot read the scenario missing.toml"),
        ("scenarios", "cannot read the scenario scenarios"),
        ("bytes.toml", "cannot read the scenario bytes.toml"),
        ("empty.toml", "empty.toml"),
        ("broken.toml", "broken.toml:2:5:"),
    ] {
        let (code, text) = place.run(&["bench", name]);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains(says), "{text}");
    }
}

/// Built with DWARF as a kernel may be, this program's own functions stand in for a kernel's; the one that is
/// looked for must not be inlined.
#[test]
fn a_trace_is_decoded_to_file_and_line() {
    use object::{Object, ObjectSymbol};
    let program = mutexlab_host::paths::this_program();
    let bytes = fs::read(&program).unwrap();
    let file = object::read::elf::ElfFile64::<object::Endianness>::parse(&*bytes).unwrap();
    let own = "faults::boot_without_qemu";
    let symbol = file.symbols().find(|symbol| {
        let name = symbol.name().unwrap_or_default();
        rustc_demangle::demangle(name).to_string().contains(own) && symbol.size() > 0
    });
    let symbol = symbol.unwrap();
    let place = Place::new();
    let log = place.path("x.console.log");
    let (name, size) = (symbol.name().unwrap(), symbol.size());
    fs::write(&log, format!("[    1.0]  {name}+0x4/{size:#x}\n")).unwrap();
    let surroundings = mutexlab::environment::surroundings().unwrap();
    mutexlab_machine::decode::write(&log, Some(&program), &surroundings).unwrap();
    let decoded = fs::read_to_string(mutexlab_machine::decode::beside(&log)).unwrap();
    assert!(decoded.contains(own), "{decoded}");
    assert!(decoded.contains("tests/faults/main.rs:"), "{decoded}");
}
