// SPDX-License-Identifier: MIT OR Apache-2.0

//! The steps of a subject: each is of one kind, and names files that are there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use minijinja::Value;
use mutexlab_protocol::datapath::{file_path, program_path, Attach, Daemon, Deed, Machine, Script};
use mutexlab_scenario::{Mistake, Place};

use crate::file::Up;
use crate::template;

/// Our own program's name among daemons.
const AGENT: &str = "agent";
/// Where the agent lies for itself.
const AGENT_PATH: &str = "/proc/self/exe";
/// Links of the router's.
const LINKS: [&str; 2] = [
    mutexlab_protocol::addresses::CLIENTS_LINK,
    mutexlab_protocol::addresses::SERVERS_LINK,
];

/// A file of a subject's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// As the subject names it.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// A step that can be taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A module of sources, or one that is built.
    Module {
        /// Below the directory.
        source: PathBuf,
        /// The module's name.
        name: String,
        /// Each a template.
        parameters: BTreeMap<String, String>,
    },
    Mprox {
        file: Text,
        /// Each a template.
        parameters: BTreeMap<String, String>,
    },
    Nft {
        machine: Machine,
        rules: Text,
    },
    Daemon {
        machine: Machine,
        program: Program,
        arguments: Vec<String>,
        input: Option<Text>,
        listens: Option<u16>,
        resident: bool,
    },
    Run {
        machine: Machine,
        up: Text,
        down: Option<Text>,
    },
    Bpf {
        /// Below the directory.
        source: PathBuf,
        attach: Attach,
        link: String,
    },
}

/// What a daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// The agent itself.
    Agent,
    /// One that is installed.
    Installed(String),
    /// A file of the directory.
    Own(PathBuf),
}

/// The kinds of steps, and the keys that each may have.
const KINDS: [(&str, &[&str]); 6] = [
    ("module", &["parameters"]),
    ("mprox", &["parameters"]),
    ("nft", &["in"]),
    (
        "daemon",
        &["in", "arguments", "input", "listens", "resident"],
    ),
    ("run", &["in", "down"]),
    ("bpf", &["attach", "link"]),
];

/// The keys of `up` that are there.
fn keys(up: &Up) -> Vec<&'static str> {
    [
        ("module", up.module.is_some()),
        ("mprox", up.mprox.is_some()),
        ("nft", up.nft.is_some()),
        ("daemon", up.daemon.is_some()),
        ("run", up.run.is_some()),
        ("bpf", up.bpf.is_some()),
        ("parameters", up.parameters.is_some()),
        ("in", up.machine.is_some()),
        ("arguments", up.arguments.is_some()),
        ("input", up.input.is_some()),
        ("listens", up.listens.is_some()),
        ("resident", up.resident.is_some()),
        ("down", up.down.is_some()),
        ("attach", up.attach.is_some()),
        ("link", up.link.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect()
}

/// The step that `up`, the `index`-th one, is, with what it names below `directory`.
///
/// # Errors
/// The first thing that cannot be meant.
pub fn of(up: &Up, index: usize, directory: &Path) -> Result<Step, Mistake> {
    let at = |key: Option<&str>, message: String| Mistake {
        at: [Place::from("up"), Place::from(index)]
            .into_iter()
            .chain(key.map(Place::from))
            .collect(),
        message,
    };
    let there = keys(up);
    let mut kinds = KINDS.iter().filter(|(kind, _)| there.contains(kind));
    let (Some((kind, allowed)), None) = (kinds.next(), kinds.next()) else {
        let message = "a step is just one of module, mprox, nft, daemon, run and bpf";
        return Err(at(None, message.to_owned()));
    };
    if let Some(key) = there
        .iter()
        .find(|key| *key != kind && !allowed.contains(key))
    {
        let message = format!("`{key}` does not belong to a step that is {kind}");
        return Err(at(Some(key), message));
    }
    let below = |key: &str, name: &str| -> Result<PathBuf, Mistake> {
        let path = Path::new(name);
        let stays = path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !stays {
            let message = format!("{name:?} has to lie in the subject's own directory");
            return Err(at(Some(key), message));
        }
        if !directory.join(path).exists() {
            let message = format!("there is no {name:?} in {}", directory.display());
            return Err(at(Some(key), message));
        }
        Ok(path.to_owned())
    };
    let text = |key: &str, name: &str| -> Result<Text, Mistake> {
        let path = directory.join(below(key, name)?);
        let text = fs::read_to_string(&path).map_err(|error| {
            at(
                Some(key),
                format!("cannot read {}: {error}", path.display()),
            )
        })?;
        Ok(Text {
            name: name.to_owned(),
            text,
        })
    };
    let machine = up.machine.unwrap_or_default();
    let parameters = up.parameters.iter().flatten();
    let parameters = parameters
        .map(|(name, value)| (name.clone(), value.to_string()))
        .collect();
    if let Some(name) = &up.module {
        let source = below("module", name)?;
        let name = module_name(&directory.join(&source))
            .map_err(|error| at(Some("module"), format!("{error:#}")))?;
        return Ok(Step::Module {
            source,
            name,
            parameters,
        });
    }
    if let Some(name) = &up.mprox {
        let file = text("mprox", name)?;
        return Ok(Step::Mprox { file, parameters });
    }
    if let Some(name) = &up.nft {
        let rules = text("nft", name)?;
        return Ok(Step::Nft { machine, rules });
    }
    if let Some(name) = &up.daemon {
        let program = match name.as_str() {
            AGENT => Program::Agent,
            own if own.contains('/') => Program::Own(below("daemon", own)?),
            installed => Program::Installed(installed.to_owned()),
        };
        // Before it listens, its libraries may not be there yet.
        if up.resident == Some(true) && up.listens.is_none() {
            let message =
                "what is kept in memory is looked at once the daemon listens: say `listens`, too";
            return Err(at(Some("resident"), message.to_owned()));
        }
        let input = up.input.as_deref().map(|name| text("input", name));
        return Ok(Step::Daemon {
            machine,
            program,
            arguments: up.arguments.clone().unwrap_or_default(),
            input: input.transpose()?,
            listens: up.listens,
            resident: up.resident.unwrap_or(up.listens.is_some()),
        });
    }
    if let Some(name) = &up.run {
        let down = up.down.as_deref().map(|name| text("down", name));
        return Ok(Step::Run {
            machine,
            up: text("run", name)?,
            down: down.transpose()?,
        });
    }
    let name = up.bpf.as_deref().unwrap_or_default();
    let source = below("bpf", name)?;
    let link = up.link.clone().unwrap_or_else(|| LINKS[0].to_owned());
    if !LINKS.contains(&link.as_str()) {
        let message = format!(
            "the router has no link {link:?}: they are {}",
            LINKS.join(" and ")
        );
        return Err(at(Some("link"), message));
    }
    Ok(Step::Bpf {
        source,
        attach: up.attach.unwrap_or(Attach::Xdp),
        link,
    })
}

/// The name of the module in `path`: that of the `.ko`, or what the Kbuild file there has as its only object.
fn module_name(path: &Path) -> Result<String> {
    if path.is_file() {
        let stem = path
            .file_stem()
            .filter(|_| path.extension().is_some_and(|extension| extension == "ko"));
        let stem = stem.context("a module is a directory of sources, or a file NAME.ko")?;
        return Ok(stem.to_string_lossy().into_owned());
    }
    let mut files = ["Kbuild", "Makefile"]
        .map(|name| path.join(name))
        .into_iter();
    let file = files
        .find(|file| file.is_file())
        .context("a module's directory has a Kbuild file with `obj-m := NAME.o`")?;
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut objects = text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        let is_module = name.trim_end_matches([':', '+', ' ', '\t']) == "obj-m";
        is_module.then(|| value.trim().to_owned())
    });
    let object = objects
        .next()
        .with_context(|| format!("{} has no line `obj-m := NAME.o`", file.display()))?;
    let name = object
        .strip_suffix(".o")
        .filter(|name| !name.contains(char::is_whitespace));
    name.map(str::to_owned).with_context(|| {
        format!(
            "{}: obj-m is to be one NAME.o, not {object:?}",
            file.display()
        )
    })
}

impl Step {
    /// What the agent is to do for traffic that templates know as `known`; `place` tells files' names.
    ///
    /// # Errors
    /// If a template cannot be filled in.
    pub fn render(
        &self,
        subject: &str,
        place: &dyn Fn(&str) -> String,
        known: &Value,
    ) -> Result<Deed> {
        let fill = |Text { name, text }: &Text| template::render(text, &place(name), known);
        let script = |text: &Text| -> Result<Script> {
            Ok(Script {
                name: text.name.clone(),
                text: fill(text)?,
            })
        };
        let fill_all = |texts: &BTreeMap<String, String>| -> Result<BTreeMap<String, String>> {
            let fill = |(name, text): (&String, &String)| {
                let value = template::render(text, &place("subject.toml"), known)?;
                Ok((name.clone(), value))
            };
            texts.iter().map(fill).collect()
        };
        Ok(match self {
            Self::Module {
                name, parameters, ..
            } => Deed::Module {
                path: file_path(subject, &format!("{name}.ko")),
                parameters: fill_all(parameters)?,
            },
            Self::Mprox { file, parameters } => Deed::Mprox {
                file: script(file)?,
                parameters: fill_all(parameters)?,
            },
            Self::Nft { machine, rules } => Deed::Nft {
                machine: *machine,
                rules: fill(rules)?,
            },
            Self::Daemon {
                machine,
                program,
                arguments,
                input,
                listens,
                resident,
            } => Deed::Daemon(Daemon {
                machine: *machine,
                program: match program {
                    Program::Agent => AGENT_PATH.to_owned(),
                    Program::Installed(name) => program_path(name),
                    Program::Own(path) => file_path(subject, &path.to_string_lossy()),
                },
                arguments: arguments
                    .iter()
                    .map(|text| template::render(text, &place("subject.toml"), known))
                    .collect::<Result<_>>()?,
                input: input.as_ref().map(fill).transpose()?.unwrap_or_default(),
                listens: *listens,
                // Our own program sees to that itself.
                resident: *resident && *program != Program::Agent,
            }),
            Self::Run { machine, up, down } => Deed::Run {
                machine: *machine,
                up: script(up)?,
                down: down.as_ref().map(script).transpose()?,
            },
            Self::Bpf {
                source,
                attach,
                link,
            } => Deed::Bpf {
                path: file_path(subject, &object_name(source)),
                attach: *attach,
                link: link.clone(),
            },
        })
    }

    /// What messages call it.
    pub fn name(&self) -> String {
        match self {
            Self::Module { source, .. } | Self::Bpf { source, .. } => {
                source.to_string_lossy().into_owned()
            }
            Self::Mprox { file, .. } => file.name.clone(),
            Self::Nft { rules, .. } => rules.name.clone(),
            Self::Daemon { program, .. } => match program {
                Program::Agent => AGENT.to_owned(),
                Program::Installed(name) => name.clone(),
                Program::Own(path) => path.to_string_lossy().into_owned(),
            },
            Self::Run { up, .. } => up.name.clone(),
        }
    }
}

/// What a BPF program's object is called: one in C is `name.bpf.c`, as libbpf's are.
pub fn object_name(source: &Path) -> String {
    source.with_extension("o").to_string_lossy().into_owned()
}
