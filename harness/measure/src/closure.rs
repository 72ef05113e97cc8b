// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds out what the numbers of a run depend on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::utsname::uname;

use mutexlab_host::git::Repository;
use mutexlab_host::hash::Sha256;
use mutexlab_host::paths;
use mutexlab_images::prepared::Kernel;
use mutexlab_machine::program;
use mutexlab_machine::program::Program;
use mutexlab_machine::tools::Tools;
use mutexlab_machine::{guest_root, qemu};
use mutexlab_model::accelerator::Accelerator;
use mutexlab_model::seed;
use mutexlab_results::closure::{
    Closure, Host, KernelClosure, ProgramClosure, QemuClosure, Tree, DERIVATION,
};
use mutexlab_subjects::Subjects;

/// What a run is of.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// The repository that harness and probe are of.
    pub repository: &'a Path,
    /// The repository that the proxy is of, if that is another one.
    pub module_source: Option<&'a Path>,
    /// What is measured.
    pub subjects: &'a Subjects,
    /// The programs that guests get for it.
    pub programs: &'a [Program],
    /// How guests execute instructions.
    pub accelerator: Accelerator,
    /// What random numbers come from, the first boot's first.
    pub seeds: &'a [u32],
    /// The scenario's file.
    pub scenario_text: &'a str,
}

/// Finds everything out that measuring this on `kernels` depends on.
///
/// # Errors
/// If something cannot be found out: a number of unknown origin is worth nothing.
pub fn collect<'a>(
    measured: &Measured<'_>,
    kernels: impl Iterator<Item = &'a Kernel>,
    tools: &Tools,
) -> Result<Closure> {
    let Measured {
        repository,
        module_source,
        subjects,
        programs,
        accelerator,
        seeds,
        scenario_text,
    } = *measured;
    let seed = seeds.first().copied().unwrap_or(seed::USUAL);
    let (module, harness) = match module_source {
        Some(directory) => (tree(directory)?, Some(tree(repository)?)),
        None => (tree(repository)?, None),
    };
    Ok(Closure {
        commit: module.commit,
        dirty: module.dirty,
        harness,
        harness_sha256: Sha256::of_file(&paths::this_program())?.into(),
        agent_sha256: Some(tools.agent.sha256().as_str().to_owned()),
        plugin_sha256: match accelerator {
            Accelerator::TcgIcount => Some(tools.plugin()?.sha256().as_str().to_owned()),
            Accelerator::Tcg | Accelerator::Kvm => None,
        },
        derivation: Some(DERIVATION),
        kernels: kernels
            .map(|kernel| Ok((kernel.name.clone(), of_kernel(kernel)?)))
            .collect::<Result<_>>()?,
        virtme_ng: tools.virtme.version()?,
        nft: guest_root::nft_version(&tools.surroundings)?,
        programs: programs
            .iter()
            .map(|program| Ok((program.name.clone(), of_program(program)?)))
            .collect::<Result<_>>()?,
        subjects: subjects.hashes(),
        qemu: QemuClosure {
            version: qemu::version()?,
            accelerator,
            cpu_model: qemu::cpu_model(accelerator).to_owned(),
            arguments: qemu::arguments(accelerator, seed),
        },
        host: this_machine()?,
        seeds: match seeds {
            [] | [_] => [("qemu".to_owned(), seed)].into(),
            several => (1..)
                .zip(several)
                .map(|(number, &seed)| (format!("boot{number}"), seed))
                .collect(),
        },
        scenario_text: scenario_text.to_owned(),
    })
}

/// The tree in `directory`.
///
/// # Errors
/// If git does not know it.
pub fn tree(directory: &Path) -> Result<Tree> {
    let repository = Repository::new(directory);
    Ok(Tree {
        commit: repository.commit("HEAD")?.hash,
        dirty: repository.is_dirty()?,
    })
}

fn of_program(program: &Program) -> Result<ProgramClosure> {
    let mut libraries = BTreeMap::new();
    for library in program::shared_libraries(&program.file, &program.libraries_beside())? {
        let name = library.file_name().unwrap_or_default();
        libraries.insert(
            name.to_string_lossy().into_owned(),
            Sha256::of_file(&library)?.into(),
        );
    }
    Ok(ProgramClosure {
        version: program.version(),
        sha256: Sha256::of_file(&program.file)?.into(),
        libraries,
    })
}

fn of_kernel(kernel: &Kernel) -> Result<KernelClosure> {
    let path = kernel.config();
    let config =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let option = |name: &str| config_text(&config, name);
    let mut modules = BTreeMap::new();
    if let Some(files) = &kernel.modules {
        for file in [&files.proxy, &files.probe] {
            let name = file
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            modules.insert(name, Sha256::of_file(file)?.into());
        }
    }
    Ok(KernelClosure {
        release: kernel.release.clone(),
        source_sha256: kernel.source_sha256.clone(),
        tree: kernel.revision.as_ref().map(|revision| Tree {
            commit: revision.commit.hash.clone(),
            dirty: revision.dirty,
        }),
        stand_in: kernel.stand_in.clone(),
        config_sha256: Sha256::of_file(&path)?.into(),
        image_sha256: Sha256::of_file(&kernel.bzimage())?.into(),
        compiler: option("CONFIG_CC_VERSION_TEXT"),
        rustc: option("CONFIG_RUSTC_VERSION_TEXT"),
        bindgen: option("CONFIG_BINDGEN_VERSION_TEXT"),
        modules,
    })
}

/// The value of `name="value"` in a kernel's configuration.
fn config_text(config: &str, name: &str) -> Option<String> {
    config
        .lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix("=\"")?
                .strip_suffix('"')
        })
        .map(str::to_owned)
}

fn this_machine() -> Result<Host> {
    let name = uname().context("cannot ask for the kernel's release")?;
    let path = "/proc/cpuinfo";
    let cpus = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let cpu = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    Ok(Host {
        kernel: name.release().to_string_lossy().into_owned(),
        architecture: name.machine().to_string_lossy().into_owned(),
        cpu: cpu.to_owned(),
        cpus: std::thread::available_parallelism()
            .context("cannot count the CPUs")?
            .get(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_host::surroundings::Surroundings;

    #[test]
    fn text_options_are_found() {
        let config = "# CONFIG_A is not set\nCONFIG_CC_VERSION_TEXT=\"clang 22\"\nCONFIG_B=y\n";
        assert_eq!(
            config_text(config, "CONFIG_CC_VERSION_TEXT").as_deref(),
            Some("clang 22")
        );
        assert_eq!(config_text(config, "CONFIG_CC"), None);
        assert_eq!(config_text(config, "CONFIG_B"), None);
    }

    #[test]
    fn a_program_is_told_of_with_its_libraries() {
        let program = Program::of_subject("cat", &Surroundings::usual(Path::new("/none"))).unwrap();
        let closure = of_program(&program).unwrap();
        assert_eq!(
            closure.sha256,
            Sha256::of_file(&program.file).unwrap().as_str()
        );
        let libc = closure
            .libraries
            .iter()
            .find(|(name, _)| name.starts_with("libc.so"));
        assert_eq!(libc.unwrap().1.len(), 64);
    }
}
