// SPDX-License-Identifier: MIT OR Apache-2.0

//! What guests get for their subjects: programs of this machine, and what is built for each kernel.

use std::collections::BTreeMap;

use anyhow::{bail, Result};

use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::surroundings::Surroundings;
use mutexlab_images::prepared::Kernel;
use mutexlab_images::{own, Cache};
use mutexlab_machine::baggage::{Baggage, Packed};
use mutexlab_machine::program::Program;
use mutexlab_subjects::{OwnModule, Source, Subjects};

/// Gets what guests of `kernels` need for `subjects`, by the kernel's name.
///
/// # Errors
/// If a program is not there, a kernel lacks an option, or something does not build.
pub fn pack(
    subjects: &Subjects,
    kernels: &BTreeMap<String, Kernel>,
    surroundings: &Surroundings,
    interrupt: &Interrupt,
) -> Result<BTreeMap<String, Baggage>> {
    let cache = Cache::of(surroundings);
    let programs = subjects.programs().into_iter();
    let programs = programs.map(|name| Program::of_subject(name, surroundings));
    let programs: Vec<Program> = programs.collect::<Result<_>>()?;
    let mut files = Vec::new();
    for file in subjects.files() {
        files.push(Packed {
            path: file.path,
            file: match file.source {
                Source::File(file) => file,
                Source::BpfSource(source) => own::bpf(&source, &cache, interrupt)?,
            },
        });
    }
    let of_kernel = |kernel: &Kernel| -> Result<Baggage> {
        if let Some((subject, option)) = subjects.lacking(|option| kernel.has_option(option))? {
            bail!(
                "the kernel {} cannot have the subject {subject}: CONFIG_{option} is not built in ({})",
                kernel.name,
                kernel.config().display()
            );
        }
        let mut files = files.clone();
        for module in subjects.modules() {
            let OwnModule {
                sources,
                file,
                path,
                ..
            } = module;
            files.push(Packed {
                file: kernel.build_own(&sources, &file, &cache, interrupt)?,
                path,
            });
        }
        Ok(Baggage {
            programs: programs.clone(),
            files,
        })
    };
    kernels
        .iter()
        .map(|(name, kernel)| Ok((name.clone(), of_kernel(kernel)?)))
        .collect()
}
