// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox sysdump`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::say;
use crate::program::run;

/// Gather what a report of a fault needs
///
/// Versions, the module's parameters and counters, its contexts, what mprox doctor says, nftables' rules, addresses, routes and policy
/// rules, and what the kernel's log says of the module. So it tells of this machine's networks: look it through before you
/// pass it on. Files that configure the proxy are not in it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox sysdump -o report.txt                 Into a new file that only its owner reads\n  \
    mprox sysdump | less                        To look at")]
pub struct SysdumpCommand {
    /// Write it to this file, which must not be there yet [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Where something is from.
enum Source {
    File(&'static str),
    /// Each file there.
    Files(&'static str),
    Command(&'static [&'static str]),
    /// Lines of what a command prints that have this word.
    Lines(&'static [&'static str], &'static str),
}

const PARTS: [Source; 17] = [
    Source::Command(&["mprox", "--version"]),
    Source::Command(&["uname", "-a"]),
    Source::File("/etc/os-release"),
    Source::File("/sys/module/mutex_proxy/srcversion"),
    Source::Files("/sys/module/mutex_proxy/parameters"),
    Source::Files("/proc/thread-self/net/mutex_proxy"),
    Source::Command(&["mprox", "show"]),
    Source::Command(&["mprox", "stats"]),
    Source::Command(&["mprox", "doctor"]),
    Source::Command(&["nft", "list", "ruleset"]),
    Source::Command(&["ip", "-d", "address"]),
    Source::Command(&["ip", "rule"]),
    Source::Command(&["ip", "route", "show", "table", "all"]),
    Source::Command(&["ip", "-6", "rule"]),
    Source::Command(&["ip", "-6", "route", "show", "table", "all"]),
    Source::Files("/proc/sys/net/ipv4/conf/all"),
    Source::Lines(&["dmesg"], "mutex_proxy"),
];

impl SysdumpCommand {
    pub fn run(&self) -> Result<()> {
        let mut text = String::new();
        for part in &PARTS {
            part.add(&mut text);
        }
        let Some(path) = &self.output else {
            return say(&text.trim_end());
        };
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        say(&format_args!(
            "{} tells of this machine's networks: look it through before you pass it on",
            path.display()
        ))
    }
}

impl Source {
    fn add(&self, text: &mut String) {
        match self {
            Self::File(path) => section(text, path, &read(Path::new(path))),
            Self::Files(directory) => {
                let entries = fs::read_dir(directory).map(|all| {
                    let mut paths: Vec<PathBuf> = all.flatten().map(|entry| entry.path()).collect();
                    paths.sort();
                    paths
                });
                match entries {
                    Ok(paths) => {
                        for path in paths.iter().filter(|path| path.is_file()) {
                            section(text, &path.display().to_string(), &read(path));
                        }
                    }
                    Err(error) => section(text, directory, &format!("({error})")),
                }
            }
            Self::Command(words) => section(text, &words.join(" "), &output(words)),
            Self::Lines(words, wanted) => {
                let all = output(words);
                let lines = all.lines().filter(|line| line.contains(wanted));
                let title = format!("{}, of {wanted}", words.join(" "));
                section(text, &title, &lines.collect::<Vec<_>>().join("\n"));
            }
        }
    }
}

fn section(text: &mut String, title: &str, body: &str) {
    *text += &format!("== {title}\n{}\n\n", body.trim_end());
}

fn read(path: &Path) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("({error})"),
    }
}

/// What a command prints, and how it ended if not well.
fn output(words: &[&str]) -> String {
    let [program, arguments @ ..] = words else {
        return String::new();
    };
    // This program itself, by whatever name it was started.
    let program = match *program {
        "mprox" => "/proc/self/exe",
        other => other,
    };
    let ran = run(program, arguments);
    match ran {
        Err(error) => format!("({error})"),
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            let mut text = String::from_utf8_lossy(&said).into_owned();
            if !output.status.success() {
                text += &format!("({})", output.status);
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_says_why() {
        let mut text = String::new();
        Source::File("/no/such/file").add(&mut text);
        Source::Files("/no/such/directory").add(&mut text);
        Source::Command(&["/no/such/program"]).add(&mut text);
        Source::Command(&["false"]).add(&mut text);
        Source::Lines(&["printf", "one\\ntwo\\n"], "tw").add(&mut text);
        assert_eq!(
            text.matches("(No such file or directory").count(),
            3,
            "{text}"
        );
        assert!(text.contains("== false\n(exit status: 1)\n"), "{text}");
        assert!(text.ends_with("of tw\ntwo\n\n"), "{text}");
    }
}
