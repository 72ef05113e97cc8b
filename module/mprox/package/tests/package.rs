// SPDX-License-Identifier: MIT OR Apache-2.0

//! The package: of the same commit the same bytes, installed and removed by dpkg, with a unit that systemd takes.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use tempfile::TempDir;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The output of a program that succeeds, or nothing if it is not on this machine.
fn try_output(command: &mut Command) -> Option<Output> {
    let output = match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("NOT TESTED: {command:?} is not here");
            return None;
        }
        output => output.unwrap(),
    };
    assert!(output.status.success(), "{command:?}: {output:?}");
    Some(output)
}

fn output(command: &mut Command) -> Output {
    try_output(command).unwrap()
}

/// The package of the sources in `source`, made below `directory`, with the mask `umask` for new files.
fn package(source: &Path, directory: &Path, umask: &str) -> PathBuf {
    let script = format!("umask {umask}; exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_mprox-package")]);
    command.arg("--source").arg(source);
    command.arg("--output").arg(directory);
    text(&output(&mut command).stdout).trim_end().into()
}

// The first build takes long, and is the same for all tests.
static PACKAGE: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let path = package(Path::new(SOURCE), directory.path(), "022");
    (directory, path)
});

#[test]
fn when_and_as_whom_it_is_packaged_makes_no_difference() {
    let first = &PACKAGE.1;
    let directory = tempfile::tempdir().unwrap();
    let again = package(Path::new(SOURCE), &directory.path().join("new"), "077");
    assert_eq!(first.file_name(), again.file_name());
    assert!(fs::read(first).unwrap() == fs::read(again).unwrap());
}

#[test]
#[ignore = "builds mprox twice from nothing, which takes minutes"]
fn two_builds_in_different_directories_are_the_same_bytes() {
    let packages = ["here", "or/somewhere/else"].map(|place| {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join(place);
        output(
            Command::new("git")
                .args(["clone", "--quiet", SOURCE])
                .arg(&source),
        );
        fs::read(package(&source, directory.path(), "022")).unwrap()
    });
    assert!(packages[0] == packages[1]);
}

#[test]
fn sources_of_something_else_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mprox-package"))
        .arg("--source")
        .arg(directory.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains("could not find `Cargo.toml`"), "{told}");
    assert!(
        told.ends_with("mprox-package: cargo failed: exit status: 101\n"),
        "{told}"
    );
}

/// A root directory with nothing in it but a database of dpkg's.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let database = root.path().join("var/lib/dpkg");
        fs::create_dir_all(database.join("info")).unwrap();
        fs::create_dir_all(database.join("updates")).unwrap();
        fs::write(database.join("status"), "").unwrap();
        fs::write(database.join("available"), "").unwrap();
        Self(root)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn dpkg(&self, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new("dpkg");
        let root = format!("--root={}", self.0.path().display());
        // The log would be this machine's.
        command.arg("--log=/dev/null");
        // Neither shell nor libraries are there, nor, maybe, are we root.
        command.args(["--force-script-chrootless,depends,not-root,bad-path", &root]);
        let output = try_output(command.args(arguments))?;
        Some(text(&output.stdout))
    }

    /// What there is beside the database.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut left = vec![self.0.path().to_owned()];
        while let Some(directory) = left.pop() {
            for one in fs::read_dir(&directory).unwrap() {
                let path = one.unwrap().path();
                let name = path.strip_prefix(self.0.path()).unwrap();
                if name.starts_with("var/lib/dpkg") {
                    continue;
                }
                match path.is_dir() && !path.is_symlink() {
                    true => left.push(path),
                    false => found.push(name.display().to_string()),
                }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn it_installs_and_removes_clean() {
    let root = Root::new();
    let deb = PACKAGE.1.to_str().unwrap();
    if root.dpkg(&["--install", deb]).is_none() {
        return;
    }
    for expected in [
        "etc/mprox/default.toml",
        "usr/lib/systemd/system/mprox@.service",
        "usr/sbin/mprox",
        "usr/share/bash-completion/completions/mprox",
        "usr/share/doc/mprox/changelog.gz",
        "usr/share/doc/mprox/copyright",
        "usr/share/doc/mprox/mprox.md",
        "usr/share/doc/mprox/recipes.md",
        "usr/share/fish/vendor_completions.d/mprox.fish",
        "usr/share/man/man5/mprox.conf.5.gz",
        "usr/share/man/man8/mprox-run.8.gz",
        "usr/share/man/man8/mprox.8.gz",
        "usr/share/mprox/mprox.schema.json",
        "usr/share/zsh/vendor-completions/_mprox",
    ] {
        assert!(root.path(expected).is_file(), "{expected}");
    }
    // Every file is as md5sums has it.
    assert_eq!(root.dpkg(&["--verify", "mprox"]).unwrap(), "");
    let program = root.path("usr/sbin/mprox");
    let version = text(&output(Command::new(&program).arg("--version")).stdout);
    let status = root.dpkg(&["--status", "mprox"]).unwrap();
    let expected = version.trim_end().replace("mprox ", "\nVersion: ");
    assert!(status.contains(&expected), "{status}");
    assert!(status.contains("\nDepends: libc6 (>= 2."), "{status}");

    // What somebody has written outlives another version, and the package's removal, but not its purge.
    let default = root.path("etc/mprox/default.toml");
    let own = fs::read_to_string(&default).unwrap() + "# Mine.\n";
    fs::write(&default, &own).unwrap();
    root.dpkg(&["--install", deb]);
    assert_eq!(fs::read_to_string(&default).unwrap(), own);
    let wants = root.path("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    let enabled = wants.join("mprox@default.service");
    symlink("/usr/lib/systemd/system/mprox@.service", &enabled).unwrap();
    root.dpkg(&["--remove", "mprox"]);
    let link = "etc/systemd/system/multi-user.target.wants/mprox@default.service";
    assert_eq!(root.files(), ["etc/mprox/default.toml", link]);
    root.dpkg(&["--purge", "mprox"]);
    assert_eq!(root.files(), [""; 0]);
    assert!(!root.path("etc/mprox").exists() && !root.path("usr").exists());
}

#[test]
fn the_file_that_comes_with_it_redirects_nothing_and_its_example_is_good() {
    let root = Root::new();
    if root
        .dpkg(&["--install", PACKAGE.1.to_str().unwrap()])
        .is_none()
    {
        return;
    }
    let check = |file: &Path| {
        let mut command = Command::new(root.path("usr/sbin/mprox"));
        text(&output(command.args(["check", "--offline"]).arg(file)).stdout)
    };
    let default = root.path("etc/mprox/default.toml");
    let told = check(&default);
    assert!(
        told.ends_with("default.toml: 0 rules, 0 upstreams\n"),
        "{told}"
    );
    // As its comments say: examples are lines that have no space behind the "#".
    let lines = fs::read_to_string(&default).unwrap();
    let lines = lines.lines().filter(|line| *line != "rule = []");
    let lines = lines.map(|line| match line.strip_prefix('#') {
        Some(example) if !example.starts_with([' ', ':']) => example,
        _ => line,
    });
    let example = root.path("etc/mprox/example.toml");
    fs::write(&example, lines.collect::<Vec<_>>().join("\n")).unwrap();
    let told = check(&example);
    assert!(
        told.ends_with("1 upstream\n") && !told.contains(" 0 rules"),
        "{told}"
    );
}

#[test]
fn systemd_takes_the_unit() {
    let unit = include_str!("../files/mprox@.service");
    let directory = tempfile::tempdir().unwrap();
    // The program is not installed here, and neither are the manual pages.
    let unit = unit.replace("/usr/sbin/mprox", "/bin/true");
    fs::write(directory.path().join("mprox@.service"), unit).unwrap();
    let instance = directory.path().join("mprox@home.service");
    symlink("mprox@.service", &instance).unwrap();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]).arg(&instance);
    if let Some(output) = try_output(&mut command) {
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn shells_take_the_scripts() {
    for script in ["postinst", "prerm", "postrm"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("files")
            .join(script);
        output(Command::new("sh").arg("-n").arg(path));
    }
}
