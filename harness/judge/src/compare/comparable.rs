// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether two runs may be compared at all: what must be the same for a difference to be the
//! program's, and what is only worth knowing.

use std::collections::BTreeSet;

use mutexlab_model::accelerator::Accelerator;
use mutexlab_model::mode::Mode;
use mutexlab_results::closure::{Closure, KernelClosure, ProgramClosure};
use mutexlab_results::slim::Run;

/// What stands against comparing, and what should be known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparable {
    /// Why not, a line each; empty if nothing stands against it.
    pub refusals: Vec<String>,
    /// What may explain a difference, or makes it less certain.
    pub notes: Vec<String>,
}

impl Comparable {
    /// Looks at the cells that `a` and `b` have in common. With `force_kernels` other kernels are
    /// noted and not refused.
    pub fn check(a: &Run, b: &Run, force_kernels: bool) -> Self {
        let mut found = Self::default();
        let common: Vec<_> = a
            .cells
            .iter()
            .filter_map(|(id, cell)| Some((id, cell, b.cells.get(id)?)))
            .collect();
        if common.is_empty() {
            found.refuse(format!(
                "no cell is in both: A has {} of scenario {:?}, B {} of {:?}",
                a.cells.len(),
                a.scenario,
                b.cells.len(),
                b.scenario
            ));
        }
        if a.mode == b.mode {
            found.machines(a.mode, &a.closure, &b.closure);
        } else {
            found.refuse(format!(
                "mode: A counts {}, B {}",
                counted(a.mode),
                counted(b.mode)
            ));
        }
        for (id, ours, theirs) in &common {
            if ours.traffic != theirs.traffic {
                found.refuse(format!(
                    "cell {id}: other traffic under the same name: A {:?}, B {:?}",
                    ours.traffic, theirs.traffic
                ));
            }
        }
        let kernels: BTreeSet<_> = common.iter().map(|(_, cell, _)| &cell.kernel).collect();
        for name in kernels {
            let of = |run: &Run| run.closure.kernels.get(name).cloned();
            match (of(a), of(b)) {
                (Some(ours), Some(theirs)) => found.kernels(name, &ours, &theirs, force_kernels),
                _ => found.refuse(format!("kernel {name}: a closure does not tell of it")),
            }
        }
        found.programs(&a.closure, &b.closure);
        if let (Some(ours), Some(theirs)) = (a.lens, b.lens)
            && ours != theirs
        {
            found.refuse(format!("the lens's caches: A {ours:?}, B {theirs:?}"));
        }
        found
    }

    fn refuse(&mut self, why: String) {
        self.refusals.push(why);
    }

    fn note(&mut self, what: String) {
        self.notes.push(what);
    }

    fn machines(&mut self, mode: Mode, a: &Closure, b: &Closure) {
        for (side, closure) in [("A", a), ("B", b)] {
            if closure.qemu.accelerator == Accelerator::Tcg {
                self.refuse(format!(
                    "accelerator: {side} was emulated in real time, which shows that a scenario \
                     works, and no more"
                ));
            }
        }
        for (what, ours, theirs) in [
            ("CPU model", &a.qemu.cpu_model, &b.qemu.cpu_model),
            ("QEMU's arguments", &a.qemu.arguments, &b.qemu.arguments),
        ] {
            if ours != theirs {
                self.refuse(format!("{what}: A {ours:?}, B {theirs:?}"));
            }
        }
        if a.qemu.accelerator != b.qemu.accelerator {
            self.refuse(format!(
                "accelerator: A {:?}, B {:?}",
                a.qemu.accelerator, b.qemu.accelerator
            ));
        }
        let real_time = mode == Mode::Wall;
        for (what, ours, theirs) in [
            ("QEMU", &a.qemu.version, &b.qemu.version),
            ("the host's kernel", &a.host.kernel, &b.host.kernel),
            ("the host's CPU", &a.host.cpu, &b.host.cpu),
            (
                "the host's number of CPUs",
                &a.host.cpus.to_string(),
                &b.host.cpus.to_string(),
            ),
            (
                "the host's architecture",
                &a.host.architecture,
                &b.host.architecture,
            ),
        ] {
            if ours == theirs {
                continue;
            }
            let line = format!("{what}: A {ours}, B {theirs}");
            if real_time {
                self.refuse(format!("{line}; real time is of one machine"));
            } else {
                self.note(format!("{line}; instructions should not depend on it"));
            }
        }
        if a.seeds != b.seeds {
            self.note(format!("seeds: A {:?}, B {:?}", a.seeds, b.seeds));
        }
    }

    fn kernels(&mut self, name: &str, a: &KernelClosure, b: &KernelClosure, force: bool) {
        for (side, kernel) in [("A", a), ("B", b)] {
            if let Some(stand_in) = &kernel.stand_in {
                self.note(format!(
                    "kernel {name}: {side} is not of the pinned source, but of {}",
                    stand_in.describe()
                ));
            }
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let source = |kernel: &KernelClosure| {
            let hash = kernel.source_sha256.clone();
            // Nothing else is known of a tree of the user's.
            hash.unwrap_or_else(|| format!("a tree whose image is {}", kernel.image_sha256))
        };
        for (what, ours, theirs) in [
            ("release", a.release.clone(), b.release.clone()),
            ("source", source(a), source(b)),
            (
                "configuration",
                a.config_sha256.clone(),
                b.config_sha256.clone(),
            ),
            ("C compiler", text(&a.compiler), text(&b.compiler)),
            ("Rust compiler", text(&a.rustc), text(&b.rustc)),
            ("bindgen", text(&a.bindgen), text(&b.bindgen)),
        ] {
            if ours == theirs {
                continue;
            }
            let line = format!("kernel {name}, {what}: A {ours}, B {theirs}");
            if force {
                self.note(line);
            } else {
                self.refuse(format!("{line} (--force-kernels compares all the same)"));
            }
        }
    }

    fn programs(&mut self, a: &Closure, b: &Closure) {
        for (side, closure) in [("A", a), ("B", b)] {
            if closure.dirty {
                self.note(format!(
                    "{side} was measured with files that differ from its commit"
                ));
            }
        }
        if !a.measured_alike(b) {
            self.note(
                "A and B were measured by different builds of the agent: what changed may be what measures"
                    .to_owned(),
            );
        }
        for (what, ours, theirs) in [
            ("nft", &a.nft, &b.nft),
            ("virtme-ng", &a.virtme_ng, &b.virtme_ng),
        ] {
            if ours != theirs {
                self.note(format!("{what}: A {ours}, B {theirs}"));
            }
        }
        let names: BTreeSet<_> = a.programs.keys().chain(b.programs.keys()).collect();
        for name in names {
            let (ours, theirs) = (a.programs.get(name), b.programs.get(name));
            if ours != theirs {
                let other = other_files(ours, theirs);
                let [ours, theirs] = [ours, theirs].map(version);
                self.note(format!("{name}: A {ours}, B {theirs}{other}"));
            }
        }
        let names: BTreeSet<_> = a.subjects.keys().chain(b.subjects.keys()).collect();
        for name in names {
            // Results of before subjects were directories do not say.
            if let (Some(ours), Some(theirs)) = (a.subjects.get(name), b.subjects.get(name))
                && ours != theirs
            {
                self.note(format!("the directory of the subject {name} differs"));
            }
        }
        if a.scenario_text != b.scenario_text {
            self.note("the scenario's text differs".to_owned());
        }
    }
}

/// Of which version a program is, as far as is known.
fn version(program: Option<&ProgramClosure>) -> &str {
    program
        .and_then(|program| program.version.as_deref())
        .unwrap_or("of unknown version")
}

/// Which of two programs' files differ, if both are known.
fn other_files(a: Option<&ProgramClosure>, b: Option<&ProgramClosure>) -> String {
    let (Some(a), Some(b)) = (a, b) else {
        return String::new();
    };
    let mut files = Vec::new();
    if a.sha256 != b.sha256 {
        files.push("itself");
    }
    let names: BTreeSet<_> = a.libraries.keys().chain(b.libraries.keys()).collect();
    let differ = |name: &&&String| a.libraries.get(**name) != b.libraries.get(**name);
    files.extend(names.iter().filter(differ).map(|name| name.as_str()));
    format!("; other files: {}", files.join(", "))
}

const fn counted(mode: Mode) -> &'static str {
    match mode {
        Mode::Virtual => "instructions",
        Mode::Wall => "real time",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_model::stand_in::StandIn;
    use mutexlab_model::traffic::Payload;
    use mutexlab_results::sample::{exact, run};

    fn base() -> Run {
        run(&[("a", &[&[exact("m", 1.0)]])])
    }

    fn check(change: impl FnOnce(&mut Run)) -> Comparable {
        let (a, mut b) = (base(), base());
        change(&mut b);
        Comparable::check(&a, &b, false)
    }

    #[test]
    fn the_same_is_comparable() {
        assert_eq!(check(|_| ()), Comparable::default());
    }

    #[test]
    fn what_makes_other_numbers_is_refused() {
        type Spoil = fn(&mut Run);
        let cases: [(&str, Spoil); 9] = [
            ("mode: A counts instructions, B real time", |run| {
                run.mode = Mode::Wall
            }),
            ("no cell is in both", |run| run.cells.clear()),
            ("other traffic under the same name", |run| {
                run.cells.get_mut("a").unwrap().traffic.payload = Payload::Bytes(65);
            }),
            ("accelerator: B was emulated in real time", |run| {
                run.closure.qemu.accelerator = Accelerator::Tcg;
            }),
            ("CPU model", |run| run.closure.qemu.cpu_model.push('x')),
            ("QEMU's arguments", |run| {
                run.closure.qemu.arguments.push('x')
            }),
            ("kernel 7.3, configuration", |run| {
                run.closure.kernels.get_mut("7.3").unwrap().config_sha256 = "0".repeat(64);
            }),
            ("kernel 7.3, Rust compiler", |run| {
                run.closure.kernels.get_mut("7.3").unwrap().rustc = None;
            }),
            ("kernel 7.3: a closure does not tell", |run| {
                run.closure.kernels.clear()
            }),
        ];
        for (part, spoil) in cases {
            let found = check(spoil);
            let told = found.refusals.iter().any(|line| line.contains(part));
            assert!(told, "{part}: {found:?}");
        }
    }

    #[test]
    fn other_kernels_can_be_forced() {
        let (a, mut b) = (base(), base());
        b.closure.kernels.get_mut("7.3").unwrap().source_sha256 = Some("0".repeat(64));
        assert_eq!(Comparable::check(&a, &b, false).refusals.len(), 1);
        let forced = Comparable::check(&a, &b, true);
        assert!(forced.refusals.is_empty());
        assert!(forced.notes[0].contains("source"), "{forced:?}");
    }

    #[test]
    fn what_stands_in_for_a_pinned_source_is_told() {
        let found = check(|b| {
            b.closure.kernels.get_mut("7.3").unwrap().stand_in = Some(StandIn {
                package: "linux-source-7.3".into(),
                version: "7.3.9-1".into(),
                suite: "sid".into(),
                signed_by: None,
            });
        });
        let [note] = found.notes.as_slice() else {
            panic!("{found:?}")
        };
        assert!(note.contains("B is not of the pinned source, but of linux-source-7.3 7.3.9-1"));
        assert!(found.refusals.is_empty(), "{found:?}");
    }

    #[test]
    fn another_host_is_noted_in_virtual_mode_and_refused_in_real_time() {
        let other_host = |run: &mut Run| run.closure.host.cpu = "another".into();
        let found = check(other_host);
        assert!(
            found.refusals.is_empty() && found.notes.len() == 1,
            "{found:?}"
        );
        let (mut a, mut b) = (base(), base());
        other_host(&mut b);
        for run in [&mut a, &mut b] {
            run.mode = Mode::Wall;
            run.closure.qemu.accelerator = Accelerator::Kvm;
        }
        let found = Comparable::check(&a, &b, false);
        assert_eq!(found.refusals.len(), 1, "{found:?}");
    }

    #[test]
    fn what_makes_a_number_less_certain_is_noted() {
        let found = check(|run| {
            run.closure.dirty = true;
            run.closure.harness_sha256 = "0".repeat(64);
            run.closure.qemu.version = "QEMU 10".into();
            run.closure.nft = "nftables v2".into();
        });
        assert!(found.refusals.is_empty());
        assert_eq!(found.notes.len(), 4, "{found:?}");
    }

    #[test]
    fn another_directory_of_a_subject_is_noted() {
        let (mut a, mut b) = (base(), base());
        let put = |run: &mut Run, hash: &str| {
            let subjects = &mut run.closure.subjects;
            subjects.insert("mine".into(), hash.repeat(64));
        };
        let notes = |a: &Run, b: &Run| Comparable::check(a, b, false).notes;
        put(&mut a, "a");
        assert!(notes(&a, &b).is_empty(), "the other one does not say");
        put(&mut b, "b");
        let expected = "the directory of the subject mine differs";
        assert_eq!(notes(&a, &b), [expected]);
    }

    #[test]
    fn another_program_of_a_subject_is_noted_with_the_files_that_differ() {
        let program = |version: &str, libc: &str| ProgramClosure {
            version: Some(version.into()),
            sha256: "a".repeat(64),
            libraries: [("libc.so.6".to_owned(), libc.repeat(64))].into(),
        };
        let (mut a, mut b) = (base(), base());
        let put = |run: &mut Run, program| {
            run.closure.programs.insert("redsocks".into(), program);
        };
        put(&mut b, program("0.5-2", "b"));
        let notes = |a: &Run, b: &Run| Comparable::check(a, b, false).notes;
        let unknown = "redsocks: A of unknown version, B 0.5-2";
        assert_eq!(notes(&a, &b), [unknown]);
        put(&mut a, program("0.5-2", "c"));
        let library = "redsocks: A 0.5-2, B 0.5-2; other files: libc.so.6";
        assert_eq!(notes(&a, &b), [library]);
        put(&mut a, program("0.5-2", "b"));
        assert!(notes(&a, &b).is_empty());
    }
}
