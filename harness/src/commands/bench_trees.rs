// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `mutexlab bench` does with trees that it builds: kernels beside each other on one scenario.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{bail, ensure, Result};
use schemars::JsonSchema;
use serde::Serialize;

use super::functions::{self, OfCell, Side};
use super::json;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::surroundings::Surroundings;
use mutexlab_images::manifest::BOOTED;
use mutexlab_images::prepared::{Kernel, NamedTree};
use mutexlab_images::tree::Revision;
use mutexlab_images::{labelled, tree, Cache, Catalog};
use mutexlab_judge::series::boots_the_same;
use mutexlab_judge::trees::{side, Beside};
use mutexlab_report::terminal::{moved, trees};
use mutexlab_results::file::ResultsFile;
use mutexlab_results::slim::Run;
use mutexlab_scenario::plan::Plan;
use mutexlab_scenario::ScenarioFile;
use mutexlab_subjects::Subjects;

/// Trees under labels, in the place of the one kernel of a scenario.
#[derive(Debug)]
pub struct Trees<'a> {
    /// That kernel.
    like: String,
    trees: &'a [NamedTree],
}

/// All that comes out, as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Document<'a> {
    /// The results file.
    results: &'a Path,
    /// The trees beside each other.
    beside: &'a Beside<'a>,
    /// What the lens saw; empty if it did not look on.
    functions: &'a [OfTree<'a>],
}

/// Functions of one tree whose instructions are others than on the first.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OfTree<'a> {
    /// The tree's name.
    tree: &'a str,
    /// Its cells.
    cells: Vec<OfCell>,
}

impl<'a> Trees<'a> {
    /// Those that are to be built for `plan` of `scenario`, whose subjects these are.
    ///
    /// # Errors
    /// If the plan has several kernels, one is no kernel tree, or a subject needs more than is kept of it.
    pub fn of(
        trees: &'a [NamedTree],
        repository: &Path,
        scenario: &ScenarioFile,
        plan: &Plan,
        subjects: &Subjects,
    ) -> Result<Self> {
        let catalog = Catalog::load(repository)?;
        let like = only_kernel(scenario, plan)?;
        for NamedTree { name, directory } in trees {
            ensure!(
                name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && !name.is_empty(),
                "--tree {name}=…: a label is made of letters, digits, '.', '_' and '-', since it is a part of cells' \
                 names"
            );
            // Better now than when others have been built.
            tree::kernel(&catalog, name, &like, directory)?;
            if Revision::of(directory).is_some() {
                no_further_modules(subjects)?;
            }
        }
        Ok(Self { like, trees })
    }

    fn labels(&self) -> Vec<&'a str> {
        self.trees.iter().map(|tree| tree.name.as_str()).collect()
    }

    /// The plan with the trees in the kernel's place.
    pub fn plan(&self, plan: &Plan) -> Plan {
        plan.on(&self.like, &self.labels())
    }

    /// Builds them, as far as that was not done.
    ///
    /// # Errors
    /// If one does not build, or the user interrupts.
    pub fn build(
        &self,
        repository: &Path,
        surroundings: &Surroundings,
        interrupt: &Interrupt,
    ) -> Result<Vec<Kernel>> {
        let cache = Cache::of(surroundings);
        let build = |tree: &NamedTree| {
            let NamedTree { name, directory } = tree;
            labelled::kernel(name, &self.like, directory, repository, &cache, interrupt)
        };
        self.trees.iter().map(build).collect()
    }

    /// Prints the trees beside each other.
    ///
    /// # Errors
    /// If results or what the lens kept cannot be read.
    pub fn print(&self, file: &ResultsFile, all: bool, as_json: bool) -> Result<()> {
        let run = Run::read(file.path())?;
        let labels = self.labels();
        let sides: Vec<Run> = labels.iter().map(|label| side(&run, label)).collect();
        let beside = Beside::of(&labels, &sides);
        let functions = self.functions(file)?;
        if as_json {
            return json::print(&Document {
                results: file.path(),
                beside: &beside,
                functions: &functions,
            });
        }
        println!("\n{}\n", file.results().question);
        print!("{}", trees::text(&beside, all));
        if let Some((first, others)) = sides.split_first() {
            for (label, side) in labels.iter().skip(1).zip(others) {
                if boots_the_same(first, side) {
                    println!("{label} boots what {} does, to the last bit.", labels[0]);
                }
            }
        }
        for OfTree { tree, cells } in &functions {
            for OfCell { cell, functions } in cells {
                println!("\n{cell}\n");
                if functions.is_empty() {
                    println!("  No function has more or fewer instructions in {tree}.");
                } else {
                    print!("{}", moved::table(functions, [labels[0], tree]));
                }
            }
        }
        if !functions.is_empty() {
            println!("\n{}", moved::REMARK);
        }
        println!("{}", file.path().display());
        Ok(())
    }

    /// Where counts moved from the first tree to each of the others, if the lens looked on.
    fn functions(&self, file: &ResultsFile) -> Result<Vec<OfTree<'a>>> {
        let labels = self.labels();
        let Some((first, others)) = labels.split_first() else {
            return Ok(Vec::new());
        };
        if file.results().lens.is_none() {
            return Ok(Vec::new());
        }
        let of = |kernel| Side { file, kernel };
        let found = others.iter().map(|tree| {
            Ok(OfTree {
                tree,
                cells: functions::between(of(first), of(tree))?,
            })
        });
        found.collect()
    }
}

/// Whether trees are to be built and set beside each other; else somebody has built them, for kernels of the catalogue or
/// the scenario that have their names.
///
/// # Errors
/// If it is not clear what is meant.
pub fn are_beside(trees: &[NamedTree], repository: &Path, scenario: &ScenarioFile) -> Result<bool> {
    for (index, tree) in trees.iter().enumerate() {
        let mut before = trees.iter().take(index);
        if let Some(other) = before.find(|other| other.name == tree.name) {
            bail!(
                "--tree {0}=… is given twice, with {1} and {2}: give each tree a label of its own",
                tree.name,
                other.directory.display(),
                tree.directory.display()
            );
        }
    }
    if trees.is_empty() {
        return Ok(false);
    }
    let catalog = Catalog::load(repository)?;
    let kernels = catalog.kernels().iter().map(|one| &one.name.kernel);
    let kernels: BTreeSet<&String> = kernels.chain(&scenario.scenario.kernels).collect();
    let is_kernel = |tree: &&NamedTree| kernels.contains(&tree.name);
    let (of_kernels, labelled): (Vec<_>, Vec<_>) = trees.iter().partition(is_kernel);
    let Some(label) = labelled.first() else {
        is_built(&of_kernels)?;
        return Ok(false);
    };
    if let Some(tree) = of_kernels.first() {
        bail!(
            "--tree {0}={1}: {0} is a kernel of images/kernels.toml or of {3}, and so no label for a tree beside {2}: \
             call it otherwise, such as before={1}",
            tree.name,
            tree.directory.display(),
            label.name,
            scenario.file
        );
    }
    Ok(true)
}

/// Fails if a subject is a module of its own: of a kernel that git's commits are built one after the other for, what
/// modules are built against is not kept.
///
/// # Errors
/// Names the subject, and what can be done.
pub fn no_further_modules(subjects: &Subjects) -> Result<()> {
    if let Some(module) = subjects.modules().first() {
        bail!(
            "{} has a module of its own, which cannot be built against a tree of git's here, of which only what boots is \
             kept: leave the subject out, or give a tree without .git to `mutexlab bench --tree` (`git archive` makes one)",
            module.subject
        );
    }
    Ok(())
}

/// Fails if a tree that is to be booted in a kernel's place was not built, perhaps since that was not meant.
fn is_built(trees: &[&NamedTree]) -> Result<()> {
    for NamedTree { name, directory } in trees {
        ensure!(
            directory.join(BOOTED).is_file(),
            "--tree {name}={directory}: {name} is the name of a kernel, in whose place {directory} is \
             booted as it is, but there is no {BOOTED} in it: build it; or to have it built here, give it a label \
             that is no kernel's name, such as after={directory}",
            directory = directory.display()
        );
    }
    Ok(())
}

/// The kernel that a plan is about.
///
/// # Errors
/// If there are several: whose configuration and place others should have is not said then.
pub fn only_kernel(scenario: &ScenarioFile, plan: &Plan) -> Result<String> {
    let mut names = plan.kernels();
    names.sort_unstable();
    names.dedup();
    let [name] = names[..] else {
        bail!(
            "{} asks about several kernels ({}), and trees take the place of one: choose it with --filter '{}/', or \
             take a scenario with one, such as scenarios/quick.toml",
            scenario.file,
            names.join(", "),
            names.first().unwrap_or(&"7.3")
        );
    };
    Ok(name.to_owned())
}
