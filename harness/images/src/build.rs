// SPDX-License-Identifier: MIT OR Apache-2.0

//! Building a kernel.

use std::{
    fmt,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{anyhow, Context, Result};

use super::{
    catalog::Recipe,
    config, disk,
    metadata::Metadata,
    progress::Progress,
    store::Cache,
    toolchain::{self, Make, Toolchain},
};
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::leash;

/// What a build takes at its largest, about.
const BUILD_BYTES: u64 = 1 << 30;

/// How many lines of errors are worth repeating.
const ERRORS_SHOWN: usize = 8;

/// What programs say of a full disk: that is not the fault of what is built.
pub(super) const FULL_DISK: &str = "No space left on device";

/// What came out of a build.
pub struct Built {
    /// `uname -r` of the kernel.
    pub release: String,
    /// The configuration, complete.
    pub config: String,
    /// Lines that make printed: what the next build's progress is measured by.
    pub steps: u64,
}

impl Built {
    /// What is kept of it beside the kernel, which was built of pinned sources since `started`.
    pub(super) fn metadata(
        self,
        kernel: &Recipe,
        source_sha256: &Sha256,
        source: &Path,
        toolchain: &Toolchain,
        started: Instant,
    ) -> Metadata {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Metadata {
            name: kernel.name.to_string(),
            release: self.release,
            source_sha256: source_sha256.clone(),
            stand_in: None,
            source: source.to_owned(),
            config_sha256: Sha256::of(&self.config),
            toolchain: toolchain.clone(),
            build_seconds: started.elapsed().as_secs_f64(),
            steps: self.steps,
            built_at: since_1970.map_or(0, |time| time.as_secs()),
        }
    }
}

/// Builds `kernel` from the tree `source` in the directory `objects`, which it makes.
///
/// `steps` is how many lines make is expected to print. All that make says goes to `log`; an
/// error names it and repeats what matters.
pub fn build(
    cache: &Cache,
    kernel: &Recipe,
    source: &Path,
    objects: &Path,
    log: &Path,
    steps: u64,
    interrupt: &Interrupt,
) -> Result<Built> {
    for directory in [Some(objects), log.parent()].into_iter().flatten() {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    }
    disk::require(objects, BUILD_BYTES)?;
    let make = toolchain::make(cache, source, objects)?;
    make.check_rust()?;
    let config = configure(&make, kernel, objects, log)?;
    let steps = compile(&make, kernel, objects, log, steps, interrupt)?;
    let release_path = objects.join("include/config/kernel.release");
    let release = fs::read_to_string(&release_path)
        .with_context(|| format!("cannot read {}", release_path.display()))?;
    Ok(Built {
        release: release.trim().to_owned(),
        config,
        steps,
    })
}

fn configure(make: &Make, kernel: &Recipe, objects: &Path, log: &Path) -> Result<String> {
    let merged = config::merge(&kernel.fragments, kernel.version)?;
    let merged_path = objects.join("merged.config");
    fs::write(&merged_path, merged)
        .with_context(|| format!("cannot write {}", merged_path.display()))?;
    let output = make
        .command(&["allnoconfig"])
        .env("KCONFIG_ALLCONFIG", &merged_path)
        .stderr_to_stdout()
        .stdout_capture()
        .unchecked()
        .run()
        .context("cannot run make")?;
    fs::write(log, &output.stdout).with_context(|| format!("cannot write {}", log.display()))?;
    if !output.status.success() {
        let what = format!("{} cannot be configured", kernel.name);
        return Err(failure(what, log));
    }
    let config_path = objects.join(".config");
    let config = fs::read_to_string(&config_path)
        .with_context(|| format!("cannot read {}", config_path.display()))?;
    if let Err(error) = config::check(&kernel.fragments, kernel.version, &config) {
        // The configuration is there until the next one, which may be another commit's.
        let said = String::from_utf8_lossy(&output.stdout);
        let text = format!("{said}{error}\n\nThe configuration:\n{config}");
        fs::write(log, text).with_context(|| format!("cannot write {}", log.display()))?;
        return Err(DoesNotBuild {
            what: format!("{}; the log is {}", kernel.name, log.display()),
            log: log.to_owned(),
            errors: error.to_string().lines().map(str::to_owned).collect(),
        }
        .into());
    }
    Ok(config)
}

fn compile(
    make: &Make,
    kernel: &Recipe,
    objects: &Path,
    log: &Path,
    steps: u64,
    interrupt: &Interrupt,
) -> Result<u64> {
    let jobs = thread::available_parallelism().map_or(1, |n| n.get());
    let progress = Progress::steps(&format!("building {}", kernel.name), steps);
    let (make, leash) = make.on_leash(&[&format!("-j{jobs}"), "bzImage", "modules"])?;
    let reader = make
        .stderr_to_stdout()
        .unchecked()
        .reader()
        .context("cannot run make")?;
    let cannot_write = || format!("cannot write the log {}", log.display());
    // Not buffered: whoever wonders what takes so long reads it while it grows.
    let mut file = File::options()
        .append(true)
        .open(log)
        .with_context(cannot_write)?;
    let mut lines = BufReader::new(&reader);
    let count = leash::hold(leash, interrupt, || -> Result<u64> {
        let mut line = Vec::new();
        let mut count = 0;
        while lines
            .read_until(b'\n', &mut line)
            .context("cannot read what make prints")?
            > 0
        {
            file.write_all(&line).with_context(cannot_write)?;
            count += 1;
            progress.set(count);
            if let Some(object) = String::from_utf8_lossy(&line).split_whitespace().last() {
                progress.message(object);
            }
            line.clear();
        }
        Ok(count)
    })?;
    interrupt.check()?;
    let status = reader
        .try_wait()
        .context("make")?
        .map(|output| output.status);
    if !status.is_some_and(|status| status.success()) {
        drop(progress);
        let what = format!("{} does not build in {}", kernel.name, objects.display());
        return Err(failure(what, log));
    }
    progress.done();
    Ok(count)
}

/// What make could not build, through no fault of this machine's.
#[derive(Debug)]
pub struct DoesNotBuild {
    what: String,
    /// All that make said.
    pub log: PathBuf,
    /// What of it says why, a line each.
    pub errors: Vec<String>,
}

impl fmt::Display for DoesNotBuild {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:\n  {}", self.what, self.errors.join("\n  "))
    }
}

impl std::error::Error for DoesNotBuild {}

/// An error with the lines of the log that say why.
fn failure(what: String, log: &Path) -> anyhow::Error {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let fault = DoesNotBuild {
        what: format!("{what}; the log is {}", log.display()),
        log: log.to_owned(),
        errors: error_lines(&text).into_iter().map(str::to_owned).collect(),
    };
    if text.contains(FULL_DISK) {
        return anyhow!("{fault}");
    }
    fault.into()
}

/// The first lines that report an error, or else the last lines of all.
fn error_lines(log: &str) -> Vec<&str> {
    let is_error = |line: &&str| {
        line.contains("error:")
            || line.starts_with("error[")
            || line.contains("***")
            || line.contains("undefined symbol")
            || line.contains(FULL_DISK)
            || line.contains("not found")
    };
    let errors: Vec<&str> = log.lines().filter(is_error).take(ERRORS_SHOWN).collect();
    if !errors.is_empty() {
        return errors;
    }
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(ERRORS_SHOWN)..].to_vec()
}

/// Removes what neither booting nor building modules needs, half of what was built.
pub fn trim(objects: &Path) -> Result<()> {
    fs::remove_dir_all(objects.join("rust/host")).ok();
    // Programs that run during the build of a module lie in scripts and tools.
    let kept = [objects.join("scripts"), objects.join("tools")];
    let mut directories = vec![objects.to_owned()];
    while let Some(directory) = directories.pop() {
        let unreadable = || format!("cannot read {}", directory.display());
        for entry in fs::read_dir(&directory).with_context(unreadable)? {
            let entry = entry.with_context(unreadable)?;
            let path: PathBuf = entry.path();
            if entry.file_type().with_context(unreadable)?.is_dir() {
                if !kept.contains(&path) {
                    directories.push(path);
                }
                continue;
            }
            let name = entry.file_name();
            if is_intermediate(&name.to_string_lossy()) {
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// Whether a file of this name is only a step on the way to others.
pub fn is_intermediate(name: &str) -> bool {
    name.starts_with(".tmp_vmlinux")
        || [
            "vmlinux.unstripped",
            "vmlinux.bin",
            "vmlinux.bin.lz4",
            ".vmlinux.export.c",
            "merged.config",
        ]
        .contains(&name)
        || [".o", ".a", ".cmd", ".o.d"]
            .iter()
            .any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_picked_from_a_log() {
        let log =
            "  CC      a.o\na.c:1:2: error: nonsense\n  CC      b.o\nmake: *** [a.o] Error 1\n";
        assert_eq!(
            error_lines(log),
            ["a.c:1:2: error: nonsense", "make: *** [a.o] Error 1"]
        );
        assert_eq!(error_lines("one\ntwo\n"), ["one", "two"]);
        assert_eq!(
            error_lines("ld.lld: write: No space left on device\n"),
            ["ld.lld: write: No space left on device"]
        );
    }

    #[test]
    fn trimming_keeps_what_modules_are_built_with() {
        let directory = tempfile::tempdir().unwrap();
        let kept = [
            "scripts/mod/modpost.o",
            "vmlinux",
            "rust/libcore.rmeta",
            "include/a.h",
        ];
        let removed = [
            "net/core/dev.o",
            "net/.dev.o.cmd",
            "built-in.a",
            "vmlinux.unstripped",
            ".tmp_vmlinux2.kallsyms.S",
            "arch/x86/boot/vmlinux.bin",
        ];
        for path in kept.iter().chain(&removed) {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        trim(directory.path()).unwrap();
        assert!(kept.iter().all(|path| directory.path().join(path).exists()));
        assert!(!removed
            .iter()
            .any(|path| directory.path().join(path).exists()));
    }
}
