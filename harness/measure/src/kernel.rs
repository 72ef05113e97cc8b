// SPDX-License-Identifier: MIT OR Apache-2.0

//! A kernel's results on a scenario: those that there are of what it boots, or new ones.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;

use crate::{measure, skip_finished, Lab};
use mutexlab_host::interrupt::Interrupt;
use mutexlab_images::prepared::Kernel;
use mutexlab_machine::tools::Tools;
use mutexlab_results::closure::{Closure, KernelClosure};
use mutexlab_results::file::ResultsFile;
use mutexlab_results::record::{Results, Selection};
use mutexlab_scenario::plan::Plan;
use mutexlab_scenario::ScenarioFile;
use mutexlab_subjects::Subjects;

/// Asks a scenario's question of one kernel after the other.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The repository of harness and modules.
    pub repository: &'a Path,
    /// What boots guests.
    pub tools: &'a Tools,
    /// The question.
    pub scenario: &'a ScenarioFile,
    /// Of whom it is asked.
    pub subjects: &'a Subjects,
    /// The kernel that it asks it of, in whose place others come.
    pub like: &'a str,
    /// What of it is measured, on that kernel.
    pub plan: &'a Plan,
    /// How that was chosen.
    pub selection: &'a Selection,
    /// Where results are looked for, and kept.
    pub directory: &'a Path,
    /// How many guests run side by side.
    pub jobs: usize,
    /// Ends measuring.
    pub interrupt: &'a Interrupt,
}

impl Asker<'_> {
    /// The results of `kernel`. Those of another name will do, if all is the same that boots and measures; those
    /// that an interruption cut short are gone on with.
    ///
    /// # Errors
    /// If it cannot be measured, results cannot be written, or the user interrupts.
    pub fn ask(&self, kernel: &Kernel) -> Result<ResultsFile> {
        let Self {
            scenario,
            directory,
            interrupt,
            ..
        } = *self;
        let lab = Lab::with(
            self.repository,
            self.tools.clone(),
            scenario,
            self.subjects.clone(),
            vec![kernel.clone()],
            None,
            interrupt,
        )?;
        let mut left = self.plan.on(self.like, &[&kernel.name]);
        let mut begun = None;
        for path in ResultsFile::all(directory, &scenario.name)? {
            // What cannot be read is of no use, and no reason not to measure.
            let Ok(file) = ResultsFile::open(&path) else {
                continue;
            };
            let results = file.results();
            if !self.is_same(&lab, results)? {
                continue;
            }
            if self.is_complete(results) {
                return Ok(file);
            }
            let same_name = results.closure.kernels.contains_key(&kernel.name);
            if same_name && results.selection() == *self.selection {
                begun = Some(file);
                break;
            }
        }
        let mut file = match begun {
            Some(file) => file,
            None => ResultsFile::create(
                directory,
                scenario,
                self.selection.clone(),
                lab.closure.clone(),
                Timestamp::now(),
            )?,
        };
        skip_finished(&mut left, file.results());
        measure(&lab, &left, self.jobs, &mut file)?;
        Ok(file)
    }

    /// The names of the cells that are asked about, without the kernel's.
    pub fn cells(&self) -> BTreeSet<&str> {
        let cells = self.plan.boots.iter().flat_map(|boot| &boot.cells);
        cells
            .filter_map(|cell| cell.id.strip_prefix(self.like)?.strip_prefix('/'))
            .collect()
    }

    /// Whether numbers of these results would be the same now.
    fn is_same(&self, lab: &Lab<'_>, results: &Results) -> Result<bool> {
        let scenario = &self.scenario.scenario;
        let differences = essence(&lab.closure).differences(&essence(&results.closure))?;
        Ok(
            differences.is_empty()
                && (results.mode, results.lens) == (scenario.mode, scenario.lens),
        )
    }

    /// Whether they have all that is to be measured, under whatever name.
    fn is_complete(&self, results: &Results) -> bool {
        let names = results.closure.kernels.keys();
        let names: Vec<&str> = names.map(String::as_str).collect();
        let mut left = self.plan.on(self.like, &names);
        skip_finished(&mut left, results);
        left.boots.is_empty()
    }
}

/// A closure without what is no part of what boots and measures: names, and what things were made from.
fn essence(closure: &Closure) -> Closure {
    let kernels = closure.kernels.values().map(|kernel| {
        let kernel = KernelClosure {
            source_sha256: None,
            tree: None,
            ..kernel.clone()
        };
        (kernel.image_sha256.clone(), kernel)
    });
    Closure {
        commit: String::new(),
        dirty: false,
        harness: None,
        kernels: kernels.collect(),
        ..closure.clone()
    }
}
