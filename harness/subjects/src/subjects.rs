// SPDX-License-Identifier: MIT OR Apache-2.0

//! All subjects of a scenario.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use mutexlab_model::facts::Facts;
use mutexlab_model::subject::{ModuleRules, Subject};
use mutexlab_model::traffic::Traffic;
use mutexlab_protocol::datapath::{file_path, Datapath};
use mutexlab_protocol::{GuestCell, Task};
use mutexlab_scenario::plan::{Plan, PlannedBoot};
use mutexlab_scenario::{nearest, Mistake, Named, Parameters, ScenarioFile};

use crate::choice;
use crate::directory::{Directory, FILE};
use crate::steps::{object_name, Program, Step};

/// Where subjects lie that have a name alone, below the repository.
const SHIPPED: &str = "scenarios/subjects";

/// How a subject is told of.
#[derive(Clone, Debug)]
enum Definition {
    /// It is code.
    Module(ModuleRules),
    /// By a directory.
    Directory(Box<Directory>),
}

/// Subjects, by name.
#[derive(Clone, Debug, Default)]
pub struct Subjects(BTreeMap<Subject, Definition>);

/// A file that is installed in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InGuest {
    /// Where it lies in the guest.
    pub path: String,
    /// What it is.
    pub source: Source,
}

/// What a guest's file is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This file.
    File(PathBuf),
    /// A BPF program in C, which has to be compiled.
    BpfSource(PathBuf),
}

/// A kernel module of a subject's, which has to be built for each kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnModule {
    /// Whose it is.
    pub subject: Subject,
    /// Its sources.
    pub sources: PathBuf,
    /// The file that their build gives.
    pub file: String,
    /// Where that lies in the guest.
    pub path: String,
}

impl Subjects {
    /// Those that `scenario` names.
    ///
    /// # Errors
    /// If there is no such subject, or its directory says what cannot be meant: with the place.
    pub fn of(scenario: &ScenarioFile, repository: &Path) -> Result<Self> {
        let mut all = BTreeMap::new();
        for (index, named) in scenario.scenario.subjects.iter().enumerate() {
            let at = |message: String| {
                scenario.explain(&Mistake::at("subjects", message).element(index))
            };
            let Named { subject, directory } = named;
            let path = match directory {
                Some(directory) => scenario.directory.join(directory),
                None => repository.join(SHIPPED).join(subject.name()),
            };
            let definition = match subject.module_rules() {
                Some(rules) => Definition::Module(rules),
                None if !path.join(FILE).is_file() => {
                    return Err(at(unknown(named, &path, repository)));
                }
                None => Definition::Directory(Box::new(Directory::load(subject, &path)?)),
            };
            all.insert(subject.clone(), definition);
        }
        let all = Self(all);
        all.check_parameters(&scenario.scenario.parameters)
            .map_err(|fault| scenario.explain(&fault))?;
        Ok(all)
    }

    /// Whether subjects declare what a scenario has values for.
    fn check_parameters(&self, parameters: &Parameters) -> Result<(), Mistake> {
        for directory in self.directories() {
            let name = directory.subject.name();
            for (parameter, values) in parameters.owned.get(name).into_iter().flatten() {
                for (index, value) in values.iter().enumerate() {
                    let declared = &directory.file.parameters;
                    if let Some(reason) = choice::refusal(declared, parameter, value) {
                        let message = format!("the subject {name}: {reason}");
                        let key = format!("parameters.{name}.{parameter}");
                        return Err(Mistake::at(&key, message).element(index));
                    }
                }
            }
        }
        Ok(())
    }

    /// All that the repository has.
    ///
    /// # Errors
    /// If a directory says what cannot be meant.
    pub fn shipped(repository: &Path) -> Result<Self> {
        let mut all = BTreeMap::new();
        for subject in Subject::OF_MODULE {
            if let Some(rules) = subject.module_rules() {
                all.insert(subject, Definition::Module(rules));
            }
        }
        for name in names(repository) {
            let path = repository.join(SHIPPED).join(&name);
            let subject = Subject::named(&name)
                .with_context(|| format!("{} is called what no subject is", path.display()))?;
            let directory = Directory::load(&subject, &path)?;
            all.insert(subject, Definition::Directory(Box::new(directory)));
        }
        Ok(Self(all))
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &Subject> {
        self.0.keys()
    }

    /// Fails if a cell of `plan` is one that its subject cannot have, or what its subject is told by
    /// cannot be filled in for it.
    ///
    /// # Errors
    /// With the place in `scenario`, or in the subject's own files.
    pub fn check(&self, plan: &Plan, scenario: &ScenarioFile) -> Result<()> {
        let mut seen = BTreeSet::new();
        for cell in plan.boots.iter().flat_map(|boot| &boot.cells) {
            if !seen.insert((&cell.subject, &cell.parameters, cell.traffic.name())) {
                continue;
            }
            if let Some(reason) = self.refusal(&cell.subject, &cell.traffic) {
                let message = format!(
                    "{} cannot have the traffic {}: {reason} (or [[exclude]] it)",
                    cell.subject,
                    cell.traffic.name()
                );
                let mut subjects = scenario.scenario.subjects.iter();
                let index = subjects.position(|named| named.subject == cell.subject);
                let fault = Mistake::at("subjects", message).element(index.unwrap_or(0));
                return Err(scenario.explain(&fault));
            }
            self.datapath(cell)?;
        }
        Ok(())
    }

    /// Why a subject cannot have such traffic; `None` if it can.
    pub fn refusal(&self, subject: &Subject, traffic: &Traffic) -> Option<String> {
        match self.0.get(subject)? {
            Definition::Module(_) => None,
            Definition::Directory(directory) => directory.refusal(traffic),
        }
    }

    /// What is known of a subject.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn facts(&self, subject: &Subject) -> Result<Facts> {
        Ok(match self.get(subject)? {
            Definition::Module(rules) => Facts::of_module(*rules),
            Definition::Directory(directory) => directory.facts(),
        })
    }

    /// How the subject of a cell is put up.
    ///
    /// # Errors
    /// If it is none of these, or a template cannot be filled in.
    pub fn datapath(&self, cell: &GuestCell) -> Result<Datapath> {
        match self.get(&cell.subject)? {
            Definition::Module(rules) => Ok(Datapath::module(*rules)),
            Definition::Directory(directory) => directory.datapath(&cell.traffic, &cell.parameters),
        }
    }

    /// The cells of a boot as the agent gets them.
    ///
    /// # Errors
    /// As [`Self::datapath`].
    pub fn tasks(&self, boot: &PlannedBoot) -> Result<Vec<Task>> {
        let tasks = boot.cells.iter().map(|cell| {
            Ok(Task {
                cell: cell.clone(),
                datapath: self.datapath(cell)?,
            })
        });
        tasks.collect()
    }

    /// The installed programs that they need, each once.
    pub fn programs(&self) -> BTreeSet<&str> {
        self.directories().flat_map(Directory::programs).collect()
    }

    /// The first option that the kernel must have and, as `has` says of it, has not, with the subject that needs it.
    ///
    /// # Errors
    /// If `has` fails.
    pub fn lacking(&self, has: impl Fn(&str) -> Result<bool>) -> Result<Option<(&Subject, &str)>> {
        for directory in self.directories() {
            for option in &directory.file.kernel.options {
                if !has(option)? {
                    return Ok(Some((&directory.subject, option)));
                }
            }
        }
        Ok(None)
    }

    /// Files that are installed as they are, or compiled whatever the kernel.
    pub fn files(&self) -> Vec<InGuest> {
        let mut files = Vec::new();
        for directory in self.directories() {
            let path = |name: &str| file_path(directory.subject.name(), name);
            for step in &directory.steps {
                files.extend(match step {
                    Step::Daemon {
                        program: Program::Own(own),
                        ..
                    } => Some(InGuest {
                        path: path(&own.to_string_lossy()),
                        source: Source::File(directory.path.join(own)),
                    }),
                    Step::Module { source, name, .. } if directory.path.join(source).is_file() => {
                        Some(InGuest {
                            path: path(&format!("{name}.ko")),
                            source: Source::File(directory.path.join(source)),
                        })
                    }
                    Step::Bpf { source, .. } => {
                        let file = directory.path.join(source);
                        let is_c = file.extension().is_some_and(|extension| extension == "c");
                        Some(InGuest {
                            path: path(&object_name(source)),
                            source: if is_c {
                                Source::BpfSource(file)
                            } else {
                                Source::File(file)
                            },
                        })
                    }
                    _ => None,
                });
            }
        }
        files
    }

    /// Modules that have to be built for each kernel.
    pub fn modules(&self) -> Vec<OwnModule> {
        let mut modules = Vec::new();
        for directory in self.directories() {
            for step in &directory.steps {
                let Step::Module { source, name, .. } = step else {
                    continue;
                };
                let sources = directory.path.join(source);
                if sources.is_dir() {
                    let file = format!("{name}.ko");
                    modules.push(OwnModule {
                        subject: directory.subject.clone(),
                        sources,
                        path: file_path(directory.subject.name(), &file),
                        file,
                    });
                }
            }
        }
        modules
    }

    /// Hashes of the directories, by the subject's name.
    pub fn hashes(&self) -> BTreeMap<String, String> {
        self.directories()
            .map(|directory| {
                let name = directory.subject.name().to_owned();
                (name, directory.sha256.as_str().to_owned())
            })
            .collect()
    }

    fn directories(&self) -> impl Iterator<Item = &Directory> {
        self.0.values().filter_map(|definition| match definition {
            Definition::Module(_) => None,
            Definition::Directory(directory) => Some(directory.as_ref()),
        })
    }

    fn get(&self, subject: &Subject) -> Result<&Definition> {
        let found = self.0.get(subject);
        found.with_context(|| format!("nothing tells of the subject {subject}"))
    }
}

/// The names of the repository's directories.
fn names(repository: &Path) -> Vec<String> {
    let entries = fs::read_dir(repository.join(SHIPPED));
    let mut names: Vec<String> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join(FILE).is_file())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

/// What is said of a subject that nothing tells of.
fn unknown(named: &Named, path: &Path, repository: &Path) -> String {
    if named.directory.is_some() {
        return format!("there is no {}", path.join(FILE).display());
    }
    let mut known = names(repository);
    known.extend(
        Subject::OF_MODULE
            .iter()
            .map(|subject| subject.name().to_owned()),
    );
    let name = named.subject.name();
    let hint = nearest(name, known.iter().map(String::as_str))
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default();
    format!(
        "there is no subject `{name}`{hint} There are {}, and directories of your own, whose paths have a `/`",
        known.join(", ")
    )
}
