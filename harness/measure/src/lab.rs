// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a run measures with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::closure::{self, Measured};
use super::pack::pack;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::surroundings::Surroundings;
use mutexlab_images::modules;
use mutexlab_images::prepared::{Kernel, NamedTree};
use mutexlab_images::{Cache, KernelName};
use mutexlab_machine::baggage::Baggage;
use mutexlab_machine::kvm;
use mutexlab_machine::tools::Tools;
use mutexlab_model::accelerator::Accelerator;
use mutexlab_model::mode::Mode;
use mutexlab_results::closure::Closure;
use mutexlab_scenario::caches::Machine;
use mutexlab_scenario::plan::Plan;
use mutexlab_scenario::ScenarioFile;
use mutexlab_subjects::Subjects;

/// Everything that measuring needs beside a plan.
pub struct Lab<'a> {
    repository: PathBuf,
    /// What boots guests.
    pub(super) tools: Tools,
    /// Whether the user wants no more.
    pub(super) interrupt: &'a Interrupt,
    /// How guests execute instructions.
    pub(super) accelerator: Accelerator,
    /// Which clock is read.
    pub(super) mode: Mode,
    /// The machine whose caches the lens models, if it looks on.
    pub(super) machine: Option<Machine>,
    /// What is measured.
    pub(super) subjects: Subjects,
    /// What guests get for it, by the kernel's name.
    baggage: BTreeMap<String, Baggage>,
    /// The plan's kernels, by name.
    pub(super) kernels: BTreeMap<String, Kernel>,
    /// What the numbers will depend on.
    pub closure: Closure,
}

impl<'a> Lab<'a> {
    /// Gets everything ready for a plan of `scenario`: kernels and modules are built if they were
    /// not, the proxy from `module_source`, a work tree of its own, if there is one.
    ///
    /// # Errors
    /// If something is missing on this machine, does not build, or the user interrupts.
    pub fn open(
        repository: &Path,
        surroundings: &Surroundings,
        scenario: &ScenarioFile,
        plan: &Plan,
        trees: &[NamedTree],
        module_source: Option<&Path>,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        let tools = Tools::find(surroundings)?;
        let subjects = ready(repository, scenario, plan)?;
        let kernels = kernels(plan, trees, repository, surroundings, interrupt)?;
        Self::with(
            repository,
            tools,
            scenario,
            subjects,
            kernels,
            module_source,
            interrupt,
        )
    }

    /// As [`Self::open`], of subjects that [`ready`] has found to be, with kernels that are there.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with(
        repository: &Path,
        tools: Tools,
        scenario: &ScenarioFile,
        subjects: Subjects,
        prepared: Vec<Kernel>,
        module_source: Option<&Path>,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        let surroundings = &tools.surroundings;
        let mut kernels = BTreeMap::new();
        for mut kernel in prepared {
            if let Some(directory) = module_source {
                kernel.take_proxy_of(directory, &Cache::of(surroundings), interrupt)?;
            }
            kernels.insert(kernel.name.clone(), kernel);
        }
        interrupt.check()?;
        for files in kernels
            .values()
            .filter_map(|kernel| kernel.modules.as_ref())
        {
            let there = modules::parameters(&files.proxy)?;
            scenario
                .scenario
                .check_parameters(&there)
                .map_err(|fault| scenario.explain(&fault))?;
        }
        let baggage = pack(&subjects, &kernels, surroundings, interrupt)?;
        let mode = scenario.scenario.mode;
        let accelerator = match mode {
            Mode::Virtual => Accelerator::TcgIcount,
            Mode::Wall => real_time(&kernels, &tools, interrupt)?,
        };
        let machine = scenario.scenario.lens;
        let measured = Measured {
            repository,
            module_source,
            subjects: &subjects,
            programs: baggage
                .values()
                .next()
                .map_or(&[], |baggage| baggage.programs.as_slice()),
            accelerator,
            seeds: scenario.scenario.seeds.as_deref().unwrap_or_default(),
            scenario_text: &scenario.text,
        };
        let closure = closure::collect(&measured, kernels.values(), &tools)?;
        Ok(Self {
            repository: repository.to_owned(),
            tools,
            interrupt,
            accelerator,
            mode,
            machine,
            subjects,
            baggage,
            kernels,
            closure,
        })
    }

    /// What guests of the kernel called `name` get.
    pub(super) fn baggage(&self, name: &str) -> Result<&Baggage> {
        let baggage = self.baggage.get(name);
        baggage.with_context(|| format!("nothing was packed for the kernel {name}"))
    }

    /// As it is told: from the repository on, if it lies there.
    pub(super) fn relative(&self, path: &Path) -> String {
        let path = path.strip_prefix(&self.repository).unwrap_or(path);
        path.to_string_lossy().into_owned()
    }
}

/// The subjects of a plan, once it is known that they can have what it asks of them: told before anything is built, which
/// takes minutes.
///
/// # Errors
/// If a subject is not what the scenario takes it for.
pub fn ready(repository: &Path, scenario: &ScenarioFile, plan: &Plan) -> Result<Subjects> {
    let subjects = Subjects::of(scenario, repository)?;
    subjects.check(plan, scenario)?;
    Ok(subjects)
}

/// The kernels of a plan with their modules, built unless they were: of `trees` those that somebody has built.
///
/// # Errors
/// If one does not build, or the user interrupts.
pub fn kernels(
    plan: &Plan,
    trees: &[NamedTree],
    repository: &Path,
    surroundings: &Surroundings,
    interrupt: &Interrupt,
) -> Result<Vec<Kernel>> {
    let cache = Cache::of(surroundings);
    let prepare = |name: &&str| -> Result<Kernel> {
        // As scenarios have it: a name, which may have a flavour; the user's trees have names of their own.
        let is_own = trees.iter().any(|tree| tree.name == **name);
        let named = match is_own {
            true => KernelName::plain(name),
            false => name.parse()?,
        };
        let KernelName { kernel, flavour } = named;
        let mut kernel = Kernel::prepare(&kernel, flavour, trees, repository, &cache, interrupt)?;
        kernel.name = (*name).to_owned();
        Ok(kernel)
    };
    plan.kernels().iter().map(prepare).collect()
}

/// KVM if it works. Without it times are the emulator's: enough to try the machinery out.
fn real_time(
    kernels: &BTreeMap<String, Kernel>,
    tools: &Tools,
    interrupt: &Interrupt,
) -> Result<Accelerator> {
    let kernel = kernels.values().next().context("there is no kernel")?;
    let probe = kvm::probe(kernel, tools, interrupt)?;
    if !probe.works {
        log::warn!(
            "mutexlab: SMOKE TEST ONLY: KVM does not work here ({}), so times are those of an \
             emulator; they say nothing about a kernel, and `compare` refuses them",
            probe.reason
        );
    }
    Ok(probe.accelerator())
}
