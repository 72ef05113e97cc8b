// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cache of kernels as processes see it: two at once, one that is killed, damage, mirrors.
//!
//! The kernel is a Makefile that makes what a kernel's build leaves, in no time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mutexlab_host::hash::Sha256;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::Value;

/// How long anything here may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// `TALLY` gets the process id of each make that builds, which then takes `SLEEP` seconds.
const MAKEFILE: &str = r#"
rustavailable modules:
	@true
allnoconfig:
	@cp "$(KCONFIG_ALLCONFIG)" "$(O)/.config"
bzImage:
	@echo $$PPID >>"$(TALLY)"
	@sleep $(SLEEP)
	@mkdir -p "$(O)/arch/x86/boot" "$(O)/include/config"
	@echo "kernel of $(CURDIR)" >"$(O)/arch/x86/boot/bzImage"
	@echo symbols >"$(O)/vmlinux"
	@echo "include $(CURDIR)/Makefile" >"$(O)/Makefile"
	@echo 7.3.9-fake >"$(O)/include/config/kernel.release"
"#;

/// What each tool must be at least: nothing that it is not.
const LEAST: &str = "echo 0.1.0\n";

/// A repository, a cache, and tools that say who they are and do nothing.
struct Lab {
    root: tempfile::TempDir,
}

impl Lab {
    /// With a kernel `k`, whose stanza ends with `source`.
    fn new(source: &str) -> Lab {
        let root = tempfile::tempdir().unwrap();
        let lab = Lab { root };
        for directory in [
            "repository/module",
            "repository/harness",
            "repository/scenarios",
        ] {
            fs::create_dir_all(lab.path(directory)).unwrap();
        }
        lab.write("repository/images/config/a.config", "CONFIG_A=y\n");
        lab.write(
            "repository/images/kernels.toml",
            &format!(
                "default = 'k'\n[flavours]\nplain = ['a']\n[[kernel]]\nname = 'k'\n\
                 version = '7.3'\n{source}\n"
            ),
        );
        lab.write("tree/Makefile", MAKEFILE);
        lab.write("tree/scripts/min-tool-version.sh", LEAST);
        for (tool, says) in [
            ("rustc", "rustc 1.95.0\nLLVM version: 22.1.2"),
            ("clang", "clang version 22.1.8"),
            ("ld.lld", "LLD 22.1.8"),
            ("bindgen", "bindgen 0.73.2"),
        ] {
            let path = format!("cache/tools/bin/{tool}");
            lab.write(&path, &format!("#!/bin/sh\necho '{says}'\n"));
            let status = Command::new("chmod")
                .arg("+x")
                .arg(lab.path(&path))
                .status();
            assert!(status.unwrap().success());
        }
        lab
    }

    /// With a kernel that is built where its tree is.
    fn with_tree() -> Lab {
        Lab::new("source = [{ tree = '../../tree' }]")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn command(&self, arguments: &[&str], sleep: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mutexlab"));
        command
            .arg("image")
            .args(arguments)
            .current_dir(self.path("repository"))
            .env("MUTEXLAB_CACHE", self.path("cache"))
            .env("MUTEXLAB_MIRROR", url(&self.path("mirror/debian")))
            .env("MUTEXLAB_KERNEL_MIRROR", url(&self.path("mirror/linux")))
            .env("MUTEXLAB_KEYRING", self.path("no-keyring"))
            .env("TALLY", self.path("tally"))
            .env("SLEEP", sleep)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments, "0").output().unwrap()
    }

    /// What a command prints that must end with 0.
    fn ok(&self, arguments: &[&str]) -> (String, String) {
        let output = self.run(arguments);
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        (out, err)
    }

    /// What a command complains of that must not end with 0.
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = texts(&output);
        assert!(!output.status.success(), "{arguments:?}: {out}{err}");
        err
    }

    fn image(&self) -> PathBuf {
        PathBuf::from(self.ok(&["path", "k"]).0.trim_end())
    }

    fn metadata(&self) -> Value {
        serde_json::from_slice(&fs::read(self.image().join("image.json")).unwrap()).unwrap()
    }

    /// The processes that have built.
    fn tally(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path("tally")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn partials(&self) -> Vec<PathBuf> {
        ["images", "sources"]
            .iter()
            .flat_map(|name| {
                fs::read_dir(self.path("cache").join(name))
                    .into_iter()
                    .flatten()
            })
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "partial"))
            .collect()
    }

    /// A package `linux-source-7.3` of `version` on the mirror; its path below `debian/`.
    fn package(&self, version: &str) -> String {
        let path = format!("pool/linux-source-7.3_{version}_all.deb");
        let script = r#"
            set -e
            mkdir -p "$2/usr/src" "$(dirname "$3")"
            tar -cJf "$2/usr/src/linux-source-7.3.tar.xz" --transform 's,^tree,linux-7.3,' -C "$1" tree
            tar -cJf "$2/data.tar.xz" -C "$2" ./usr
            echo 2.0 >"$2/debian-binary"
            rm -f "$3"
            cd "$2" && ar rc "$3" debian-binary data.tar.xz
        "#;
        let status = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(self.root.path())
            .arg(self.path(&format!("deb-{version}")))
            .arg(self.path("mirror/debian").join(&path))
            .status();
        assert!(status.unwrap().success());
        path
    }

    /// Makes a suite of the mirror whose index has the packages of these versions.
    fn suite(&self, suite: &str, versions: &[&str]) {
        let mut index = "Package: linux-source-7.2\nVersion: 9\n\n".to_owned();
        for version in versions {
            let path = self.package(version);
            let file = self.path("mirror/debian").join(&path);
            index += &format!(
                "Package: linux-source-7.3\nVersion: {version}\nFilename: {path}\nSize: {}\n\
                 SHA256: {}\n\n",
                fs::metadata(&file).unwrap().len(),
                Sha256::of_file(&file).unwrap()
            );
        }
        let below = format!("mirror/debian/dists/{suite}/main/binary-amd64/Packages");
        self.write(&below, &index);
        let status = Command::new("xz").arg("-f").arg(self.path(&below)).status();
        assert!(status.unwrap().success());
        let hash = Sha256::of_file(&self.path(&format!("{below}.xz"))).unwrap();
        self.write(
            &format!("mirror/debian/dists/{suite}/InRelease"),
            &format!("Suite: {suite}\nSHA256:\n {hash} 1 main/binary-amd64/Packages.xz\n"),
        );
    }
}

fn url(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < DEADLINE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn ends_well(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    out
}

#[test]
fn two_at_once_build_once_and_have_the_same() {
    let lab = Lab::with_tree();
    let first = lab.command(&["build", "k"], "2").spawn().unwrap();
    let second = lab.command(&["build", "k"], "2").spawn().unwrap();
    assert_eq!(ends_well(first), ends_well(second));
    assert_eq!(lab.tally().len(), 1, "one of them has built");
}

#[test]
fn a_build_that_is_killed_harms_nothing() {
    let lab = Lab::with_tree();
    let mut child = lab.command(&["build", "k"], "1000").spawn().unwrap();
    wait_for("the build", || !lab.tally().is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    let make = lab.tally()[0];
    wait_for("make's end", || {
        !Path::new(&format!("/proc/{make}")).exists()
    });
    assert_eq!(lab.partials().len(), 1, "it was in the middle");
    assert!(lab.fails(&["path", "k"]).contains("not built"));
    // Nothing waits for the dead, and nothing of theirs is used.
    lab.ok(&["build", "k"]);
    assert!(lab.partials().is_empty());
    lab.ok(&["verify", "k"]);
}

#[test]
fn a_build_that_is_interrupted_ends_at_once_with_all_that_it_started() {
    let lab = Lab::with_tree();
    let child = lab.command(&["build", "k"], "1000").spawn().unwrap();
    wait_for("the build", || !lab.tally().is_empty());
    let pid = Pid::from_raw(child.id().cast_signed());
    signal::kill(pid, Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", texts(&output).1);
    // Nobody waited for the dead to be reaped: a guard did.
    assert!(!Path::new(&format!("/proc/{}", lab.tally()[0])).exists());
    lab.ok(&["build", "k"]);
}

#[test]
fn a_damaged_image_is_found_and_built_again() {
    let lab = Lab::with_tree();
    lab.ok(&["build", "k"]);
    let image = lab.image();
    // As a disk would do it: neither size nor time tell.
    let damage = |name: &str| {
        let path = image.join(name);
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let mut content = fs::read(&path).unwrap();
        content[0] ^= 1;
        fs::write(&path, content).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(time).unwrap();
    };
    damage("vmlinux");
    let output = lab.run(&["verify", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let verified: Value = serde_json::from_slice(&output.stdout).unwrap();
    let said = verified[0]["damages"][0].as_str().unwrap();
    assert!(said.starts_with("vmlinux has SHA-256"), "{said}");
    damage("arch/x86/boot/bzImage");
    let (_, err) = lab.ok(&["build", "k"]);
    assert!(err.contains("damaged") && err.contains("bzImage"), "{err}");
    assert_eq!(lab.tally().len(), 2);
    lab.ok(&["verify"]);
}

#[test]
fn an_image_travels_in_an_archive() {
    let lab = Lab::with_tree();
    lab.ok(&["build", "k"]);
    let archive = lab.path("k.tar.zst");
    let archive = archive.to_str().unwrap();
    let (out, _) = lab.ok(&["pack", "k", archive, "--json"]);
    let packed: Value = serde_json::from_str(&out).unwrap();
    let image = lab.image();
    fs::remove_dir_all(&image).unwrap();
    let wrong = "0".repeat(64);
    let err = lab.fails(&["unpack", archive, "--sha256", &wrong]);
    assert!(err.contains("SHA-256") && !image.exists(), "{err}");
    let hash = packed["sha256"].as_str().unwrap();
    let (out, _) = lab.ok(&["unpack", archive, "--sha256", hash, "--json"]);
    let unpacked: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(unpacked["current"], true);
    assert_eq!(unpacked["directory"], image.to_str().unwrap());
    lab.ok(&["build", "k"]);
    assert_eq!(lab.tally().len(), 1, "it was not built again");
    lab.ok(&["verify"]);
}

#[test]
fn pruning_shows_first_and_spares_what_is_in_use() {
    let lab = Lab::with_tree();
    lab.ok(&["build", "k"]);
    let old = lab.image();
    // Another configuration is another image.
    lab.write(
        "repository/images/config/a.config",
        "CONFIG_A=y\nCONFIG_B=y\n",
    );
    lab.ok(&["build", "k"]);
    let (out, _) = lab.ok(&["prune"]);
    assert!(out.contains("nothing can go"), "{out}");
    let (out, _) = lab.ok(&["prune", "--all-but-current", "--json"]);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown[0]["path"], old.to_str().unwrap());
    assert_eq!(shown[0]["removed"], false);
    assert!(old.exists());
    let lock = format!("{}.lock", old.display());
    let mut user = Command::new("sh")
        .args([
            "-c",
            r#"exec 9>>"$0"; flock --shared 9; exec sleep 1000"#,
            &lock,
        ])
        .spawn()
        .unwrap();
    let is_free = || {
        let free = Command::new("flock")
            .args(["--nonblock", &lock, "true"])
            .status();
        free.unwrap().success()
    };
    wait_for("a user", || !is_free());
    let (out, _) = lab.ok(&["prune", "--all-but-current", "--yes"]);
    assert!(out.contains("stays") && old.exists(), "{out}");
    user.kill().unwrap();
    user.wait().unwrap();
    wait_for("nobody", is_free);
    lab.ok(&["prune", "--all-but-current", "--yes"]);
    assert!(!old.exists());
    assert!(lab.image().exists());
}

#[test]
fn a_tarball_comes_from_the_mirror_that_is_named() {
    let scratch = Lab::with_tree();
    let tarball = scratch.path("linux-7.3.tar.xz");
    let status = Command::new("tar")
        .arg("-cJf")
        .arg(&tarball)
        .args(["-C", scratch.root.path().to_str().unwrap(), "tree"])
        .status();
    assert!(status.unwrap().success());
    let hash = Sha256::of_file(&tarball).unwrap();
    let lab = Lab::new(&format!(
        "source = [{{ tarball = 'v7.x/linux-7.3.tar.xz', sha256 = '{hash}' }}]"
    ));
    let err = lab.fails(&["build", "k"]);
    assert!(err.contains("mirror/linux/v7.x/linux-7.3.tar.xz"), "{err}");
    fs::create_dir_all(lab.path("mirror/linux/v7.x")).unwrap();
    fs::copy(&tarball, lab.path("mirror/linux/v7.x/linux-7.3.tar.xz")).unwrap();
    lab.ok(&["build", "k"]);
    assert_eq!(lab.metadata()["source_sha256"], hash.as_str());
}

/// A pin that the mirror has dropped, and where to look then.
fn superseded() -> Lab {
    Lab::new(&format!(
        "newest = {{ package = 'linux-source-7.3', suites = ['stable', 'unstable'] }}\n\
         source = [{{ pool = 'pool/gone.deb', archive = 'debian', bytes = 9, sha256 = '{}' }}]",
        "0".repeat(64)
    ))
}

#[test]
fn the_newest_stands_in_for_what_is_gone_and_that_is_said_and_recorded() {
    let lab = superseded();
    let err = lab.fails(&["build", "k"]);
    for part in [
        "pool/gone.deb",
        "no suite has linux-source-7.3",
        "stable",
        "unstable",
    ] {
        assert!(err.contains(part), "{err}");
    }
    lab.suite("stable", &["7.3.8-1~bpo13+1", "7.3.10-1~bpo13+1"]);
    lab.suite("unstable", &["7.3.9-1"]);
    let said = "WARNING: k:plain is not of a pinned source";
    let (_, err) = lab.ok(&["build", "k"]);
    assert!(
        err.contains(said) && err.contains("NOBODY'S SIGNATURE"),
        "{err}"
    );
    let stand_in = &lab.metadata()["stand_in"];
    assert_eq!(stand_in["version"], "7.3.10-1~bpo13+1");
    assert_eq!(stand_in["suite"], "stable");
    assert_eq!(stand_in["signed_by"], Value::Null);
    // Later, and without a mirror, it is found, and said again.
    fs::remove_dir_all(lab.path("mirror")).unwrap();
    let (_, err) = lab.ok(&["build", "k"]);
    assert!(err.contains(said), "{err}");
    assert_eq!(lab.tally().len(), 1);
    let (out, _) = lab.ok(&["list"]);
    assert!(out.contains("7.3.10-1~bpo13+1"), "{out}");
}

#[test]
fn an_index_is_believed_only_with_the_right_hash_and_signature() {
    let lab = superseded();
    lab.suite("stable", &["7.3.8-1"]);
    let index = "mirror/debian/dists/stable/main/binary-amd64/Packages.xz";
    let whole = fs::read(lab.path(index)).unwrap();
    fs::write(lab.path(index), [whole.as_slice(), b"x"].concat()).unwrap();
    let err = lab.fails(&["build", "k"]);
    assert!(err.contains("Packages.xz has the wrong SHA-256"), "{err}");
    fs::write(lab.path(index), whole).unwrap();
    // Where there is a keyring, somebody in it must have signed.
    lab.write("keyring", "");
    let output = lab
        .command(&["build", "k"], "0")
        .env("MUTEXLAB_KEYRING", lab.path("keyring"))
        .output()
        .unwrap();
    let (_, err) = texts(&output);
    assert!(
        !output.status.success() && err.contains("no good signature"),
        "{err}"
    );
    lab.ok(&["build", "k"]);
}

#[test]
fn a_toolchain_that_is_too_old_is_told_before_anything_is_built() {
    let lab = Lab::with_tree();
    lab.write("tree/scripts/min-tool-version.sh", "echo 99.0.0\n");
    let err = lab.fails(&["build", "k"]);
    for part in ["rustc", "is too old, 99.0.0 is the least", "rustup update"] {
        assert!(err.contains(part), "{err}");
    }
    assert!(lab.tally().is_empty());
    assert!(!lab.path("cache/images").exists());
}
