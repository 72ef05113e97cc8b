// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `mutexlab bench` does with trees that it builds: kernels beside each other on one scenario.

use std::path::Path;

use anyhow::{bail, ensure, Result};
use schemars::JsonSchema;
use serde::Serialize;

use super::functions::{self, OfCell, Side};
use super::json;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_images::manifest::BOOTED;
use mutexlab_images::prepared::{Kernel, NamedTree};
use mutexlab_images::{labelled, tree, Catalog};
use mutexlab_judge::trees::{side, Beside};
use mutexlab_report::terminal::{moved, trees};
use mutexlab_results::file::ResultsFile;
use mutexlab_results::slim::Run;
use mutexlab_scenario::plan::Plan;
use mutexlab_scenario::ScenarioFile;

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
    /// The trees that are to be built for `plan`; none if there is none, or if their names are those of kernels of the
    /// catalogue, for which somebody else has built them.
    ///
    /// # Errors
    /// If it is not clear what is meant, or one is no kernel tree.
    pub fn of(
        trees: &'a [NamedTree],
        repository: &Path,
        scenario: &ScenarioFile,
        plan: &Plan,
    ) -> Result<Option<Self>> {
        for (index, tree) in trees.iter().enumerate() {
            if let Some(other) = trees
                .iter()
                .take(index)
                .find(|other| other.name == tree.name)
            {
                bail!(
                    "--tree {0}=… is given twice, with {1} and {2}: give each tree a label of its own",
                    tree.name,
                    other.directory.display(),
                    tree.directory.display()
                );
            }
        }
        if trees.is_empty() {
            return Ok(None);
        }
        let catalog = Catalog::load(repository)?;
        let kernels = catalog.kernels();
        let is_kernel = |tree: &&NamedTree| kernels.iter().any(|one| one.name.kernel == tree.name);
        let (of_kernels, labelled): (Vec<_>, Vec<_>) = trees.iter().partition(is_kernel);
        let Some(label) = labelled.first() else {
            is_built(&of_kernels)?;
            return Ok(None);
        };
        if let Some(tree) = of_kernels.first() {
            bail!(
                "--tree {0}={1}: {0} is a kernel of images/kernels.toml, and so no label for a tree beside {2}: call \
                 it otherwise, such as before={1}",
                tree.name,
                tree.directory.display(),
                label.name
            );
        }
        let like = only_kernel(scenario, plan)?;
        for NamedTree { name, directory } in trees {
            ensure!(
                name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && !name.is_empty(),
                "--tree {name}=…: a label is made of letters, digits, '.', '_' and '-', since it is a part of cells' \
                 names"
            );
            // Better now than when others have been built.
            tree::kernel(&catalog, name, &like, directory)?;
        }
        Ok(Some(Self { like, trees }))
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
    pub fn build(&self, repository: &Path, interrupt: &Interrupt) -> Result<Vec<Kernel>> {
        let build = |tree: &NamedTree| {
            let NamedTree { name, directory } = tree;
            labelled::kernel(name, &self.like, directory, repository, interrupt)
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
        for other in labels
            .iter()
            .skip(1)
            .filter(|other| boots_the_same(&run, labels[0], other))
        {
            println!("{other} boots what {} does, to the last bit.", labels[0]);
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

/// Whether two kernels of a run had the same image and modules.
fn boots_the_same(run: &Run, one: &str, other: &str) -> bool {
    let of = |name: &str| {
        let kernel = run.closure.kernels.get(name)?;
        Some((&kernel.image_sha256, &kernel.modules))
    };
    of(one) == of(other)
}

/// Fails if a tree that is to be booted in a kernel's place was not built, perhaps since that was not meant.
fn is_built(trees: &[&NamedTree]) -> Result<()> {
    for NamedTree { name, directory } in trees {
        ensure!(
            directory.join(BOOTED).is_file(),
            "--tree {name}={directory}: {name} is a kernel of images/kernels.toml, in whose place {directory} is \
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
