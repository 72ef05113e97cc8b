// SPDX-License-Identifier: MIT OR Apache-2.0

//! Documents of commands that boot guests.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use mutex_abi::micro::PLAN;
use mutexlab_lens_analysis::sample::with_more;
use mutexlab_protocol::{Outcome, StepTimes};
use mutexlab_results::file::ResultsFile;
use serde_json::{json, Value};

use crate::lab::{Course, Lab, TESTS};
use crate::seen::Seen;
use crate::{repository, sample};

const TRIAL: &str = "scenarios/trial.toml";

/// What the module's information says of parameters, of which scenarios give some values.
const PARAMETERS: [&str; 8] = [
    "gc_interval",
    "perf_batch_timeout",
    "perf_cache_size",
    "perf_enable_batching",
    "perf_enable_percpu",
    "perf_enable_pool",
    "perf_enable_rcu",
    "perf_enable_zero_copy",
];

/// How scenarios here ask less than those of the repository: of the laboratory's only kernel, and no more than a
/// document needs.
const LESS: [(&str, &str); 4] = [
    ("kernels = ", "[\"k\"]"),
    ("cpus = [1, ", "2]"),
    ("ways = ", "[\"forward\"]"),
    ("payloads = ", "[64]"),
];

/// Adds a scenario of the repository's, which asks less.
fn put_scenario(lab: &Lab, name: &str) {
    let file = repository().join("scenarios").join(name);
    let text = fs::read_to_string(file).unwrap();
    let mut less = String::new();
    for line in text.lines() {
        let found = LESS.iter().find(|(begin, _)| line.starts_with(begin));
        less += &found.map_or_else(|| line.to_owned(), |(begin, end)| format!("{begin}{end}"));
        less.push('\n');
    }
    lab.write(&format!("repository/scenarios/{name}"), &less);
    let parameters = PARAMETERS.map(|name| format!("\0parm={name}:A parameter\0"));
    lab.write("proxy", &parameters.concat());
}

pub fn bench(seen: &mut Seen) {
    for course in [Course::Well, Course::Wrong, Course::Warns, Course::Dies] {
        let lab = Lab::new(&[course]);
        let document = seen.document(&mut lab.command(&["bench", TRIAL, "--jobs", "1", "--json"]));
        assert_eq!(document["cells"].as_array().unwrap().len(), 4);
    }
}

pub fn plan(seen: &mut Seen) {
    let lab = Lab::new(&[]);
    let document = seen.document(&mut lab.command(&["bench", TRIAL, "--plan", "--json"]));
    assert_eq!(document["boots"][0]["cells"].as_array().unwrap().len(), 4);
}

pub fn trees(seen: &mut Seen) {
    let lab = Lab::new(&[Course::Well, Course::Wrong]);
    lab.tree("a");
    lab.tree("b");
    lab.write("b/picture", "of another kernel");
    let trees = ["--tree", "before=../a", "--tree", "after=../b"];
    let arguments = [&["bench", TRIAL, "--jobs", "1", "--json"][..], &trees].concat();
    let document = seen.document(&mut lab.command(&arguments));
    assert_ne!(document["beside"]["rows"].as_array().unwrap().len(), 0);

    let lab = with_lens();
    lab.tree("a");
    lab.tree("b");
    let arguments = [&arguments[..], &["--lens", "--filter", "module"]].concat();
    let document = seen.document(&mut lab.command(&arguments));
    let function = &document["functions"][0]["cells"][0]["functions"][0];
    assert_eq!(function["hooks"]["b"], 43.0, "{function}");
}

pub fn series(seen: &mut Seen) {
    let lab = Lab::new(&[Course::Well, Course::Wrong]);
    lab.tree("linux");
    lab.git("linux", &["init", "--quiet"]);
    for (file, subject) in [
        ("README", "First"),
        ("broken", "Break"),
        ("picture", "Change"),
    ] {
        lab.write(&format!("linux/{file}"), subject);
        if file == "picture" {
            fs::remove_file(lab.path("linux/broken")).unwrap();
        }
        lab.git("linux", &["add", "--all"]);
        lab.git("linux", &["commit", "--quiet", "-m", subject]);
    }
    let range = ["series", "HEAD~2..HEAD", TRIAL, "--linux", "../linux"];
    let how = ["--jobs", "1", "--exact-only", "--json"];
    let document = seen.document(&mut lab.command(&[&range[..], &how].concat()));
    assert_eq!(document["commits"].as_array().unwrap().len(), 3);
}

pub fn matrix(seen: &mut Seen) {
    let lab = Lab::new(&[]);
    put_scenario(&lab, "matrix.toml");
    let document = seen.document(&mut lab.command(&["matrix", "--json"]));
    assert_ne!(document["splits"].as_array().unwrap().len(), 0);
}

/// A laboratory whose kernel has symbols, and whose guests tell what the lens wants to know, and more.
fn with_lens() -> Lab {
    let lab = Lab::new(&[]);
    let mut cc = Command::new("cc");
    cc.args(["-x", "c", "-c", "-", "-o"])
        .arg(lab.path("vmlinux"));
    let mut cc = cc.stdin(Stdio::piped()).spawn().unwrap();
    let source = b"int a_function(void) { return 0; }";
    cc.stdin.take().unwrap().write_all(source).unwrap();
    assert!(cc.wait().unwrap().success());
    let write = |name, text: serde_json::Result<String>| lab.write(name, &text.unwrap());
    write("recording.json", serde_json::to_string(&with_more(0)));
    write("after.json", serde_json::to_string(&with_more(30)));
    // A subject takes something.
    write("nothing.json", serde_json::to_string(&with_more(-50)));
    let mut measurement = sample::measurement(100);
    measurement.memory_map = Some(Box::default());
    measurement.router = Some(5_000);
    for counter in ["packets_reply", "lock_acquisitions"] {
        measurement.counters.insert(counter.to_owned(), 1_000);
    }
    let ok = Outcome::Ok(Box::new(measurement));
    write("ok.json", serde_json::to_string(&ok));
    let steps = PLAN.iter().zip(50..).map(|(step, ticks)| StepTimes {
        step: step.name().to_owned(),
        size: step.size(),
        samples: 255,
        min: ticks,
        median: ticks,
        max: ticks,
        sum: 255 * ticks,
    });
    let steps: Vec<_> = steps.collect();
    write("steps.json", serde_json::to_string(&steps));
    lab
}

pub fn claims(seen: &mut Seen) {
    let lab = with_lens();
    for name in ["claims.toml", "claims-bulk.toml", "claims-scaling.toml"] {
        put_scenario(&lab, name);
    }
    let document = seen.document(&mut lab.command(&["claims", "--json"]));
    assert_eq!(document["claims"].as_array().unwrap().len(), 5);
}

pub fn lens(seen: &mut Seen) {
    let lab = with_lens();
    let document = seen.document(&mut lab.command(&["lens", TRIAL, "--json"]));
    assert_eq!(document.as_array().unwrap().len(), 4);
}

pub fn test(seen: &mut Seen) {
    for course in [Course::Well, Course::Wrong, Course::Dies] {
        let lab = Lab::new(&[course]);
        let arguments = [&["test", "--json"][..], &TESTS].concat();
        let document = seen.document(&mut lab.command(&arguments));
        assert_eq!(document["tests"].as_array().unwrap().len(), 3);
    }
}

pub fn test_list(seen: &mut Seen) {
    let lab = Lab::new(&[]);
    seen.document(&mut lab.command(&["test", "--list", "--json"]));
}

pub fn reproduce(seen: &mut Seen) {
    let lab = Lab::new(&[]);
    seen.document(&mut lab.command(&["bench", TRIAL, "--json"]));
    let results = ResultsFile::newest(&lab.path("repository/results"), "trial").unwrap();
    let results = results.to_str().unwrap();
    let document = seen.document(&mut lab.command(&["reproduce", results, "--json"]));
    assert_eq!(document["equal"], true, "{document}");
    // And if it is not.
    let ok = fs::read_to_string(lab.path("ok.json")).unwrap();
    let mut slower: Value = serde_json::from_str(&ok).unwrap();
    slower["ok"]["original"]["sum"] = json!(1);
    lab.write("ok.json", &slower.to_string());
    let document = seen.document(&mut lab.command(&["reproduce", results, "--json"]));
    assert_eq!(document["equal"], false, "{document}");
}

pub fn selfcheck(seen: &mut Seen) {
    let lab = Lab::new(&[]);
    put_scenario(&lab, "selfcheck.toml");
    let selfcheck = ["selfcheck", "--json", "--filter", "forward-v4-udp"];
    let document = seen.document(&mut lab.command(&selfcheck));
    assert_eq!(document["checks"].as_array().unwrap().len(), 4);
}

pub fn boot(seen: &mut Seen) {
    let lab = Lab::new(&[Course::Wrong, Course::Warns, Course::Wrong]);
    let plan = seen.document(&mut lab.command(&["bench", TRIAL, "--plan", "--json"]));
    let image = seen.document(&mut lab.command(&["image", "build", "k", "--json"]));
    let kernel = format!(
        "{}/arch/x86/boot/bzImage",
        image["directory"].as_str().unwrap()
    );
    let cells = plan["boots"][0]["cells"].as_array().unwrap();
    let facts = json!({"arrives": {"at": "upstream"}, "counts": {"exact": true}});
    let datapath = json!({"facts": facts, "how": {"module": "redirect"}});
    let tasks = cells
        .iter()
        .map(|cell| json!({"cell": cell, "datapath": datapath}));
    let tasks: Vec<Value> = tasks.collect();
    let measure = json!({"measure": {"mode": "virtual", "tasks": tasks}});
    let test = json!({"test": {"names": ["rule-bypass"]}});
    for (work, verdict, events) in [
        (json!("boot"), "ok", 2),
        (measure.clone(), "ok", 10),
        (measure, "splat", 3),
        (test, "ok", 4),
    ] {
        let work = work.to_string();
        let document =
            seen.document(&mut lab.command(&["boot", "--work", &work, "--json", &kernel]));
        assert_eq!(document["verdict"], verdict, "{document}");
        assert_eq!(document["events"].as_array().unwrap().len(), events);
    }
}
