// SPDX-License-Identifier: MIT OR Apache-2.0

//! A subject's directory, read and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use mutexlab_host::files;
use mutexlab_host::hash::Sha256;
use mutexlab_model::facts::Facts;
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::{Ends, Traffic};
use mutexlab_protocol::datapath::{Attach, Datapath, Declared, How, Step as TakenStep};
use mutexlab_scenario::{syntax, Mistake, Place};

use crate::choice;
use crate::file::SubjectFile;
use crate::steps::{self, Program, Step};
use crate::template;

/// The file that makes a directory a subject's.
pub const FILE: &str = "subject.toml";
/// More than this is no directory of rules, scripts and sources: somebody's home, perhaps.
const MAX_BYTES: u64 = 64 << 20;
/// See [`MAX_BYTES`].
const MAX_FILES: u32 = 10_000;

/// A subject's directory.
#[derive(Clone, Debug)]
pub struct Directory {
    /// The subject.
    pub subject: Subject,
    /// Where it is.
    pub path: PathBuf,
    /// What its file says.
    pub file: SubjectFile,
    /// Its steps.
    pub(crate) steps: Vec<Step>,
    /// Over the names and contents of all its files.
    pub sha256: Sha256,
}

impl Directory {
    /// Reads the directory `path` of the subject called `subject`.
    ///
    /// # Errors
    /// If it is none, or says what cannot be meant: the message has file, line and column.
    pub fn load(subject: &Subject, path: &Path) -> Result<Self> {
        let file = path.join(FILE);
        let shown = file.display().to_string();
        let text = fs::read_to_string(&file).with_context(|| {
            format!("cannot read {shown}, which tells of the subject {subject}")
        })?;
        let parsed: SubjectFile =
            toml::from_str(&text).map_err(|error| syntax(&error, &text, &shown))?;
        let steps = parsed
            .up
            .iter()
            .enumerate()
            .map(|(index, up)| steps::of(up, index, path))
            .collect::<Result<_, _>>()
            .map_err(|fault| fault.explain(&text, &shown))?;
        check(&parsed)
            .and_then(|()| choice::check(&parsed.parameters))
            .map_err(|fault| fault.explain(&text, &shown))?;
        Ok(Self {
            subject: subject.clone(),
            path: path.to_owned(),
            file: parsed,
            steps,
            sha256: digest(path)?,
        })
    }

    /// What is known of it.
    pub fn facts(&self) -> Facts {
        Facts {
            arrives: self.file.arrives,
            counts: self.file.counts,
        }
    }

    /// Why it cannot have such traffic; `None` if it can.
    pub fn refusal(&self, traffic: &Traffic) -> Option<String> {
        if !self.file.counts.hooks && traffic.ends == Ends::Wire {
            return Some("its packets pass by the hooks that are measured on the wire".to_owned());
        }
        let because = self.file.traffic.because.as_deref();
        (!self.file.traffic.has(traffic)).then(|| {
            because
                .unwrap_or("its [traffic] leaves that out")
                .to_owned()
        })
    }

    /// How it is put up for `traffic`, with these values of its parameters and its own of the others.
    ///
    /// # Errors
    /// If one of its templates cannot be filled in, or it has no such parameter.
    pub fn datapath(
        &self,
        traffic: &Traffic,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Datapath> {
        let parameters = choice::values(&self.file.parameters, parameters)
            .with_context(|| format!("the subject {}", self.subject))?;
        let known = template::known(traffic, parameters);
        let subject = self.subject.name();
        let place = |name: &str| self.path.join(name).display().to_string();
        let steps = self.steps.iter().map(|step| {
            Ok(TakenStep {
                // A guest whose boots repeat must not be told where the directory is on this machine.
                place: format!("{subject}/{}", step.name()),
                deed: step.render(subject, &place, &known)?,
            })
        });
        let programs: BTreeSet<&str> = self.programs().collect();
        Ok(Datapath {
            facts: self.facts(),
            how: How::Declared(Declared {
                steps: steps.collect::<Result<_>>()?,
                programs: programs.into_iter().map(str::to_owned).collect(),
                read: self.file.read.clone(),
            }),
        })
    }

    /// The installed programs that it needs.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        let daemons = self.steps.iter().filter_map(|step| match step {
            Step::Daemon {
                program: Program::Installed(name),
                ..
            } => Some(name.as_str()),
            _ => None,
        });
        let loader = self.steps.iter().filter_map(|step| match step {
            Step::Bpf { attach, .. } => Some(loader(*attach)),
            _ => None,
        });
        let scripts = self.file.programs.iter().map(String::as_str);
        daemons.chain(loader).chain(scripts)
    }
}

/// The program of iproute2 that attaches a BPF program there.
const fn loader(attach: Attach) -> &'static str {
    match attach {
        Attach::Xdp | Attach::XdpGeneric => "ip",
        Attach::TcIngress => "tc",
    }
}

/// The first thing that cannot be meant, whatever the steps are.
fn check(file: &SubjectFile) -> Result<(), Mistake> {
    let empty = [
        (
            "ends",
            file.traffic.ends.as_ref().is_some_and(Vec::is_empty),
        ),
        (
            "ways",
            file.traffic.ways.as_ref().is_some_and(Vec::is_empty),
        ),
        (
            "families",
            file.traffic.families.as_ref().is_some_and(Vec::is_empty),
        ),
        (
            "protocols",
            file.traffic.protocols.as_ref().is_some_and(Vec::is_empty),
        ),
    ];
    if let Some((key, _)) = empty.iter().find(|(_, empty)| *empty) {
        let key = format!("traffic.{key}");
        return Err(Mistake::at(
            &key,
            format!("{key} is empty, so there is no traffic that it can have"),
        ));
    }
    if file.counts.offloaded && !file.counts.conntrack {
        let message = "connections that are offloaded are tracked: say `conntrack = true`, too";
        return Err(Mistake::at("counts.offloaded", message));
    }
    for (index, program) in file.programs.iter().enumerate() {
        if program.is_empty() || program.contains('/') {
            let message = format!("{program:?} is no name of a program: it is looked for where programs are installed");
            return Err(Mistake::at("programs", message).element(index));
        }
    }
    for (index, option) in file.kernel.options.iter().enumerate() {
        if option.starts_with("CONFIG_") {
            return Err(Mistake {
                at: vec![
                    Place::from("kernel"),
                    Place::from("options"),
                    Place::from(index),
                ],
                message: format!("{option}: without CONFIG_"),
            });
        }
    }
    Ok(())
}

/// Over the names and contents of all files below `directory`, in the order of names.
fn digest(directory: &Path) -> Result<Sha256> {
    let (mut files, mut bytes) = (0, 0);
    let found = files::below(directory, |_, metadata| {
        if metadata.is_file() {
            files += 1;
            bytes += metadata.len();
        }
        ensure!(
            bytes <= MAX_BYTES && files <= MAX_FILES,
            "{} is too much for a subject: more than {} MiB, or than {MAX_FILES} files",
            directory.display(),
            MAX_BYTES >> 20
        );
        Ok(true)
    })?;
    files::digest(directory, &found)
}
