// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab doctor`: is everything there that building and running needs?
//!
//! It reads the same list, `images/tools.list`, that the script `just` installs from.

use crate::environment;
use std::{
    env,
    ffi::OsStr,
    fmt, fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::{bail, Context, Result};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::json;
use mutexlab_images::{free, search_path, Cache};

/// Where the list of tools lies in the repository.
pub const TOOLS_PATH: &str = "images/tools.list";

/// Room for two sources, four images, and the build of one of them.
const DISK_BYTES: u64 = 8 << 30;
/// Memory of this machine that a build and a guest want.
const MEMORY_BYTES: u64 = 4 << 30;

/// Show each prerequisite, whether it is there, and what to do if it is not.
///
/// Ends with an error if anything is missing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mutexlab doctor
  mutexlab doctor --json | jq '.[] | select(.state != \"found\")'")]
pub struct DoctorCommand {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl DoctorCommand {
    /// Looks, for the repository at `root`, and prints.
    pub fn run(&self, root: &Path) -> Result<()> {
        let surroundings = environment::surroundings()?;
        let cache = Cache::of(&surroundings);
        let mut findings: Vec<Finding> = read_tools(root)?
            .iter()
            .map(|tool| tool.examine(&cache))
            .collect::<Result<_>>()?;
        findings.extend(examine_machine(&cache));
        if self.json {
            json::print(&findings)?;
        } else {
            print(&findings, &mut io::stdout().lock())?;
        }
        let missing = findings
            .iter()
            .filter(|f| matches!(f.state, State::Missing { .. }))
            .count();
        match missing {
            0 => Ok(()),
            n => bail!("{n} of {} prerequisites are missing", findings.len()),
        }
    }
}

/// A prerequisite, and what was found of it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Finding {
    /// Its name: a package, a component, a resource.
    name: String,
    /// What it is for.
    purpose: String,
    /// Whether it is there.
    #[serde(flatten)]
    state: State,
}

/// Whether something is there.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "state")]
enum State {
    /// It is there.
    Found {
        /// A version or a place, where that says anything.
        detail: String,
    },
    /// It is not there.
    Missing {
        /// What would help, as a command where one does.
        mend: String,
    },
    /// Everything works without it, worse.
    Optional {
        /// What is not as it should be.
        detail: String,
    },
}

/// Where a tool comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Package,
    Component,
    Crate,
    Wheel,
    Unpacked,
}

/// How a tool is seen to be there.
#[derive(Clone, Debug, PartialEq)]
enum SeenBy {
    Command(String),
    File(PathBuf),
    InSysroot(PathBuf),
    InTools(PathBuf),
    PythonModule(String),
}

/// A line of the list.
#[derive(Clone, Debug, PartialEq)]
struct Tool {
    how: How,
    name: String,
    seen_by: SeenBy,
    why: String,
}

fn read_tools(root: &Path) -> Result<Vec<Tool>> {
    let path = root.join(TOOLS_PATH);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read the list of tools {}", path.display()))?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|(index, line)| {
            Tool::parse(line).with_context(|| format!("{}, line {}", path.display(), index + 1))
        })
        .collect()
}

impl Tool {
    fn parse(line: &str) -> Result<Tool> {
        let mut words = line.split_whitespace();
        let mut next = |what: &str| words.next().with_context(|| format!("no column '{what}'"));
        let how = match next("how")? {
            "deb" => How::Package,
            "component" => How::Component,
            "crate" => How::Crate,
            "wheel" => How::Wheel,
            "unpacked" => How::Unpacked,
            other => bail!("'{other}' is none of deb, component, crate, wheel, unpacked"),
        };
        let name = next("name")?.to_owned();
        let seen_by = match next("seen by")? {
            path if path.starts_with('/') => SeenBy::File(path.into()),
            probe => match probe.split_once(':') {
                Some(("tools", path)) => SeenBy::InTools(path.into()),
                Some(("sysroot", path)) => SeenBy::InSysroot(path.into()),
                Some(("python", module)) => SeenBy::PythonModule(module.to_owned()),
                Some((other, _)) => bail!("'{other}:' is none of tools:, sysroot:, python:"),
                None => SeenBy::Command(probe.to_owned()),
            },
        };
        let why = words.collect::<Vec<_>>().join(" ");
        Ok(Tool {
            how,
            name,
            seen_by,
            why,
        })
    }

    fn examine(&self, cache: &Cache) -> Result<Finding> {
        let tools = cache.directory().join("tools");
        // A tool of ours must be of the version that the list pins. Where nothing is installed,
        // there are none of ours.
        let installed = match self.how {
            How::Crate | How::Wheel if is_debian() => {
                tools.join("installed").join(&self.name).exists()
            }
            _ => true,
        };
        let place = if installed {
            self.find(cache, &tools)?
        } else {
            None
        };
        let state = match place {
            Some(place) => State::Found {
                detail: self.version(&place, cache)?,
            },
            None if self.is_where_debian_has_it() && !is_debian() => State::Optional {
                detail: format!(
                    "not where Debian has it; the compiler has to know: {}",
                    self.mend()
                ),
            },
            None => State::Missing { mend: self.mend() },
        };
        Ok(Finding {
            name: self.name.clone(),
            purpose: self.why.clone(),
            state,
        })
    }

    /// Whether it is a header or a library, which other systems keep elsewhere.
    fn is_where_debian_has_it(&self) -> bool {
        matches!(&self.seen_by, SeenBy::File(path) if !is_in_bin(path))
    }

    fn find(&self, cache: &Cache, tools: &Path) -> Result<Option<PathBuf>> {
        let place = match &self.seen_by {
            SeenBy::File(path) if is_debian() || !is_in_bin(path) => Some(path.clone()),
            SeenBy::File(path) => path
                .file_name()
                .map(|name| find_command(name, cache))
                .transpose()?
                .flatten(),
            SeenBy::InTools(path) if is_debian() => Some(tools.join(path)),
            SeenBy::InTools(path) => path
                .file_name()
                .map(|name| find_command(name, cache))
                .transpose()?
                .flatten(),
            SeenBy::InSysroot(path) => duct::cmd!("rustc", "--print", "sysroot")
                .stderr_null()
                .read()
                .ok()
                .map(|sysroot| Path::new(sysroot.trim()).join(path)),
            SeenBy::PythonModule(module) => {
                // Only needed to make the virtual environment.
                let made = tools.join("venv/bin/pip");
                let found = made.exists()
                    || duct::cmd!("python3", "-c", format!("import {module}"))
                        .stderr_null()
                        .run()
                        .is_ok();
                return Ok(found.then(|| module.into()));
            }
            SeenBy::Command(command) => find_command(command.as_ref(), cache)?,
        };
        Ok(place.filter(|place| place.exists()))
    }

    /// What a program says that it is, or where a file lies.
    fn version(&self, place: &Path, cache: &Cache) -> Result<String> {
        let is_program = match &self.seen_by {
            SeenBy::Command(_) => true,
            SeenBy::File(path) => is_in_bin(path),
            // A library, or a program that knows no such option.
            SeenBy::InTools(_) if self.how == How::Unpacked => false,
            SeenBy::InTools(_) => true,
            SeenBy::InSysroot(_) | SeenBy::PythonModule(_) => false,
        };
        let said = is_program.then(|| {
            duct::cmd!(place, "--version")
                .env("PATH", search_path(cache).unwrap_or_default())
                .stdin_null()
                .stderr_null()
                .read()
        });
        let version = said.and_then(Result::ok).and_then(|text| {
            text.lines()
                .map(str::trim)
                .find(|line| !line.is_empty())
                .map(str::to_owned)
        });
        Ok(version.unwrap_or_else(|| place.display().to_string()))
    }

    fn mend(&self) -> String {
        let name = &self.name;
        match self.how {
            How::Package if is_debian() => format!("apt-get install {name}"),
            How::Package => format!("install what Debian calls {name}"),
            How::Component => format!("rustup component add {name}"),
            How::Crate | How::Wheel | How::Unpacked if is_debian() => {
                "./just installs it".to_owned()
            }
            How::Unpacked => format!("install what Debian calls {name}"),
            How::Crate => format!("cargo install --locked {name}"),
            How::Wheel => format!("pip install {name}"),
        }
    }
}

/// Whether it is a program, and no header or library.
fn is_in_bin(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "bin")
}

/// Looks for a program where builds look, and where only root's PATH leads.
fn find_command(name: &OsStr, cache: &Cache) -> Result<Option<PathBuf>> {
    let path = search_path(cache)?;
    let mut directories = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    Ok(directories.find_map(|directory| {
        let program = directory.join(name);
        program.is_file().then_some(program)
    }))
}

/// Whether `./just` installs what is missing.
fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release")
        .is_ok_and(|text| text.lines().any(|line| line == "ID=debian"))
}

/// What is not a tool: room, memory, virtualization.
fn examine_machine(cache: &Cache) -> Vec<Finding> {
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    let finding = |name: &str, purpose: &str, state| Finding {
        name: name.to_owned(),
        purpose: purpose.to_owned(),
        state,
    };
    let directory = cache.directory();
    // The cache need not exist yet.
    let existing = directory
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    let disk = match free(existing) {
        Ok(bytes) if bytes >= DISK_BYTES => State::Found {
            detail: format!("{} free in {}", gib(bytes), directory.display()),
        },
        Ok(bytes) => State::Missing {
            mend: format!(
                "{} free in {}, {} needed: make room, or set MUTEXLAB_CACHE",
                gib(bytes),
                directory.display(),
                gib(DISK_BYTES)
            ),
        },
        Err(error) => State::Missing {
            mend: format!("{error:#}"),
        },
    };
    let memory = match available_memory() {
        Some(bytes) if bytes >= MEMORY_BYTES => State::Found { detail: gib(bytes) },
        Some(bytes) => State::Optional {
            detail: format!(
                "{} available; builds want {}",
                gib(bytes),
                gib(MEMORY_BYTES)
            ),
        },
        None => State::Optional {
            detail: "/proc/meminfo cannot be read".to_owned(),
        },
    };
    let kvm = match fs::File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => State::Found {
            detail: "/dev/kvm opens; a guest will show whether it works".into(),
        },
        Err(error) => State::Optional {
            detail: format!("/dev/kvm: {error}; guests are emulated"),
        },
    };
    vec![
        finding("disk", "holds sources and built kernels", disk),
        finding("memory", "for compilers and guests", memory),
        finding("kvm", "real time; exact counts do not need it", kvm),
    ]
}

/// Memory that can be had without swapping, in bytes.
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

fn print(findings: &[Finding], out: &mut impl Write) -> Result<()> {
    let colour = io::stdout().is_terminal();
    let width = findings.iter().map(|f| f.name.len()).max().unwrap_or(0);
    for Finding {
        name,
        purpose,
        state,
    } in findings
    {
        let (code, word, detail) = match state {
            State::Found { detail } => (32, "found", detail),
            State::Missing { mend } => (31, "missing", mend),
            State::Optional { detail } => (33, "optional", detail),
        };
        let word: &dyn fmt::Display = if colour {
            &format!("\x1b[{code}m{word:<8}\x1b[0m")
        } else {
            &format!("{word:<8}")
        };
        writeln!(out, "{word}  {name:<width$}  {detail}")?;
        if !matches!(state, State::Found { .. }) {
            writeln!(out, "{:8}  {:<width$}  ({purpose})", "", "")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_the_repository_parses() {
        let tools = read_tools(
            &mutexlab_host::paths::repository_above(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap(),
        )
        .unwrap();
        let bindgen = tools
            .iter()
            .find(|tool| tool.name.starts_with("bindgen-cli@"))
            .unwrap();
        assert_eq!(bindgen.how, How::Crate);
        assert_eq!(bindgen.seen_by, SeenBy::InTools("bin/bindgen".into()));
        assert!(tools.iter().all(|tool| !tool.why.is_empty()));
    }

    #[test]
    fn a_line_is_parsed_or_refused() {
        let tool = Tool::parse("deb gcc gcc compiles  things").unwrap();
        assert_eq!(tool.seen_by, SeenBy::Command("gcc".to_owned()));
        assert_eq!(tool.why, "compiles things");
        assert!(Tool::parse("rpm gcc gcc x").is_err());
        assert!(Tool::parse("deb gcc").is_err());
        assert!(Tool::parse("deb gcc tool:gcc x").is_err());
    }

    #[test]
    fn what_is_not_there_has_a_mend() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path());
        let examine = |line: &str| Tool::parse(line).unwrap().examine(&cache).unwrap().state;
        let State::Missing { mend } = examine("deb nothing no-such-command x") else {
            panic!()
        };
        assert!(mend.contains("nothing"), "{mend}");
        assert!(matches!(examine("deb sh sh x"), State::Found { .. }));
        assert!(matches!(examine("deb sh /bin/sh x"), State::Found { .. }));
    }

    #[test]
    fn a_pinned_tool_of_another_version_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path());
        let tool = Tool::parse("wheel vng==2 tools:bin/vng x").unwrap();
        for path in ["tools/bin/vng", "tools/installed/vng==1"] {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert!(matches!(
            tool.examine(&cache).unwrap().state,
            State::Missing { .. }
        ));
        fs::write(directory.path().join("tools/installed/vng==2"), "").unwrap();
        assert!(matches!(
            tool.examine(&cache).unwrap().state,
            State::Found { .. }
        ));
    }
}
