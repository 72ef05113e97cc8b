// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a debugger needs: QEMU's stub, and the symbols of kernel and modules where they are.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use mutexlab_images::prepared::Kernel;
use mutexlab_machine::stub::Stub;

/// Sections of a module that a debugger is told of: what stays in memory and has names.
const SECTIONS: [&str; 6] = [
    ".text",
    ".noinstr.text",
    ".exit.text",
    ".rodata",
    ".data",
    ".bss",
];
/// The one that add-symbol-file has to be told first.
const TEXT: &str = ".text";

/// How a debugger gets at one guest.
#[derive(Clone, Debug)]
pub struct Debugger {
    /// Where it attaches.
    pub stub: Stub,
    /// Whether the guest waits for it before its first instruction.
    pub waits: bool,
    /// The kernel with its symbols.
    pub vmlinux: PathBuf,
    /// The modules' files by their names.
    pub modules: BTreeMap<&'static str, PathBuf>,
    /// Where the script goes that adds the modules' symbols.
    pub script: PathBuf,
}

impl Debugger {
    /// One for a guest of `kernel`.
    pub fn new(stub: Stub, waits: bool, kernel: &Kernel, directory: &Path) -> Self {
        let modules = kernel.modules.iter().flat_map(|modules| {
            [
                ("mutex_proxy", modules.proxy.clone()),
                ("mutex_probe", modules.probe.clone()),
            ]
        });
        Self {
            stub,
            waits,
            vmlinux: kernel.vmlinux(),
            modules: modules.collect(),
            script: directory.join("modules.gdb"),
        }
    }

    /// Arguments to QEMU.
    pub fn qemu_arguments(&self) -> Vec<String> {
        self.stub.qemu_arguments(self.waits)
    }

    /// The command that attaches, without the modules.
    pub fn command(&self) -> String {
        self.stub.command(&self.vmlinux)
    }

    /// What attaches, or what is to be said to the debugger that has, once the script is written.
    pub fn hint(&self) -> String {
        let script = self.script.display();
        if self.waits {
            format!("in gdb, for the modules: source {script}")
        } else {
            format!("{} -x {script}", self.command())
        }
    }

    /// Writes the script for modules whose sections are at these addresses; its lines.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_script(
        &self,
        sections: &BTreeMap<String, BTreeMap<String, u64>>,
    ) -> Result<Vec<String>> {
        let lines: Vec<String> = self
            .modules
            .iter()
            .filter_map(|(name, file)| add_symbols(file, sections.get(*name)?))
            .collect();
        let text = lines.iter().map(|line| format!("{line}\n"));
        fs::write(&self.script, text.collect::<String>())
            .with_context(|| format!("cannot write {}", self.script.display()))?;
        Ok(lines)
    }
}

/// gdb's command that adds a module's symbols; `None` if it has no code.
fn add_symbols(file: &Path, sections: &BTreeMap<String, u64>) -> Option<String> {
    let text = sections.get(TEXT)?;
    let mut line = format!("add-symbol-file {} {text:#x}", file.display());
    for (name, address) in sections {
        if name != TEXT && SECTIONS.contains(&name.as_str()) {
            let _ = write!(line, " -s {name} {address:#x}");
        }
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_added_where_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let debugger = Debugger {
            stub: Stub::Port(1),
            waits: true,
            vmlinux: "/k/vmlinux".into(),
            modules: BTreeMap::from([
                ("mutex_probe", "/p.ko".into()),
                ("mutex_proxy", "/m.ko".into()),
            ]),
            script: directory.path().join("modules.gdb"),
        };
        let sections = [
            (".text", 0x1000),
            (".data", 0x2000),
            (".note.x", 3),
            (".init.text", 4),
        ];
        let sections = sections.map(|(name, address)| (name.to_owned(), address));
        let loaded = BTreeMap::from([("mutex_proxy".to_owned(), sections.into())]);
        let lines = debugger.write_script(&loaded).unwrap();
        assert_eq!(lines, ["add-symbol-file /m.ko 0x1000 -s .data 0x2000"]);
        let written = fs::read_to_string(&debugger.script).unwrap();
        assert_eq!(written, format!("{}\n", lines[0]));
        assert_eq!(debugger.qemu_arguments(), ["-gdb", "tcp:127.0.0.1:1", "-S"]);
        let attach = "gdb -q /k/vmlinux -ex 'target remote 127.0.0.1:1'";
        assert_eq!(debugger.command(), attach);
        assert!(debugger.hint().contains(": source /"));
        let soon = Debugger {
            waits: false,
            ..debugger
        };
        assert!(soon.hint().starts_with(&format!("{attach} -x /")));
    }
}
