// SPDX-License-Identifier: MIT OR Apache-2.0

//! A whole laboratory in a temporary directory, in which nothing takes long: repository, cache, a kernel that
//! a Makefile makes, and a virtme-ng and a QEMU whose guests are a script that says what an agent would.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mutexlab::environment;
use mutexlab_model::measured::Delivery;
use mutexlab_protocol::{Outcome, VERSION};
use mutexlab_results::file::ResultsFile;
use mutexlab_results::record::Results;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::sample;

/// How long anything here may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long what a run has started may outlive it.
const LEFTOVERS: Duration = Duration::from_secs(5);
/// What every process of a run has in its environment, with the laboratory's directory.
const MARK: &str = "LAB";

/// How a guest behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It does all of its order, and well.
    Well,
    /// It is gone after the first cell or test.
    Dies,
    /// The first cell or test fails; the others do not.
    Wrong,
    /// The agent cannot do its part of the first cell.
    Cannot,
    /// The kernel warns after the first cell or test.
    Warns,
    /// The kernel panics after the first cell or test.
    Panics,
    /// Nothing happens any more after the first cell or test.
    Waits,
    /// It is of another kernel than the modules.
    OtherKernel,
    /// Results cannot be written any more from the first cell on.
    Spoils,
}

impl Course {
    const fn word(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Dies => "dies",
            Self::Wrong => "wrong",
            Self::Cannot => "cannot",
            Self::Warns => "warns",
            Self::Panics => "panics",
            Self::Waits => "waits",
            Self::OtherKernel => "other-kernel",
            Self::Spoils => "spoils",
        }
    }
}

/// Modules take `$LAB/slow` seconds to build, if there is such a file, and find no room if there is `$LAB/full`. A tree with
/// a file `broken` does not build, one with `lost` has no options, and what is in `picture` is a part of what boots.
const MAKEFILE: &str = r#"
VERSION = 7
PATCHLEVEL = 3
rustavailable:
	@true
allnoconfig:
	@if [ -e lost ]; then : >"$(O)/.config"; else cp "$(KCONFIG_ALLCONFIG)" "$(O)/.config"; fi
bzImage:
	@[ ! -e broken ] || { echo 'net/a.c:1:2: error: nonsense'; false; }
	@mkdir -p "$(O)/arch/x86/boot" "$(O)/include/config"
	@printf '%514sHdrS' '' >"$(O)/arch/x86/boot/bzImage"
	@[ ! -e picture ] || cat picture >>"$(O)/arch/x86/boot/bzImage"
	@cp "$(LAB)/vmlinux" "$(O)/vmlinux"
	@echo "include $(CURDIR)/Makefile" >"$(O)/Makefile"
	@echo 7.3.9-fake >"$(O)/include/config/kernel.release"
modules:
	@[ -z "$(M)" ] || [ ! -e "$(LAB)/full" ] || { echo 'cannot write: No space left on device'; false; }
	@if [ -n "$(M)" ] && [ -e "$(LAB)/slow" ]; then sleep $$(cat "$(LAB)/slow"); fi
	@if [ -n "$(M)" ]; then cp "$(LAB)/proxy" "$(M)/mutex_proxy.ko"; echo probe >"$(M)/mutex_probe.ko"; fi
"#;

/// The N-th guest that has cells or tests behaves as line N of `$LAB/course` says; `$LAB/guests` has a line
/// for each, and `$LAB/tally` one for each cell or test that was done. Where the lens looks on, it has seen
/// `$LAB/recording.json` of each cell, without a subject `nothing.json`, and on a tree called so `after.json`; single steps take what `$LAB/steps.json` says.
const GUEST: &str = r#"#!/bin/sh
[ "$1" != --version ] || { echo "${0##*/} of a test"; exit; }
order=$(mktemp)
trap 'rm "$order"' EXIT
while [ $# -gt 0 ]; do
    case $1 in
        --root) cp "$2/lab/order.json" "$order" ;;
        # An archive has the order as it is, between zeros and the next entry.
        -initrd) tr '\0' '\n' <"$2" | sed -n '/^{"version":/{s/}070701.*/}/;p}' >"$order" ;;
        --cpus) cpus=$2 ;;
        -smp) cpus=${2%%,*} ;;
        file,id=events,path=*) events=${1##*path=} ;;
        *,settings=*) lens=${1##*,settings=} && lens=$(dirname "${lens%% *}") ;;
    esac
    shift
done
say() { printf '@mutexlab %s\n' "$1" >>"${events:-/dev/stdout}"; }
up() {
    say '{"event":"up","version":PROTOCOL,"kernel":"7.3.9-'$1'","cpus":'$cpus',"tsc_khz":1000000}'
}
case $(cat "$order") in
    *'"measure"'*)
        kind=cell key=id
        names=$(sed 's/"id":"/\n/g' "$order" | sed '1d;s/".*//')
        ;;
    *'"micro"'*)
        up fake
        say '{"event":"steps","steps":'$(cat "$LAB/steps.json")'}'
        say '{"event":"done"}'
        exit
        ;;
    *'"test"'*)
        kind=test key=name
        names=$(sed 's/.*"names":\[//;s/\].*//' "$order" | tr -d '"' | tr , ' ')
        ;;
    *)
        up fake
        say '{"event":"done"}'
        exit
        ;;
esac
echo guest >>"$LAB/guests"
course=$(sed -n "$(wc -l <"$LAB/guests")p" "$LAB/course")
case $course in
    other-kernel) up other && sleep 1000 ;;
    *) up fake ;;
esac
window=0
for name in $names; do
    say "{\"event\":\"$kind-started\",\"$key\":\"$name\"}"
    echo "$name" >>"$LAB/tally"
    [ "$course" != spoils ] || { rm -r "$LAB/repository/results" && : >"$LAB/repository/results"; }
    if [ -n "$lens" ]; then
        # Who looks at a window removes it.
        while [ -e "$lens/$((window - 1)).json" ]; do sleep 0.01; done
        case $name in
            */none/*) cp "$LAB/nothing.json" "$lens/$window.json" ;;
            after/*) cp "$LAB/after.json" "$lens/$window.json" ;;
            *) cp "$LAB/recording.json" "$lens/$window.json" ;;
        esac
        window=$((window + 1))
    fi
    case $kind-$course in
        cell-wrong) end='"outcome":'$(cat "$LAB/failed.json") ;;
        cell-cannot) end='"outcome":{"infra":{"reason":"out of the test"}}' ;;
        cell-*) end='"outcome":'$(cat "$LAB/ok.json") ;;
        test-wrong) end='"failure":"a packet went astray"' ;;
        test-*) end='"failure":null' ;;
    esac
    say "{\"event\":\"$kind-ended\",\"$key\":\"$name\",$end}"
    case $course in
        dies) exit 1 ;;
        warns) echo '[    1.0] WARNING: CPU: 0 PID: 1 at net/x.c:1' >&2 && sleep 1000 ;;
        panics) echo '[    1.0] Kernel panic - not syncing: of the test' >&2 && exit ;;
        waits) sleep 1000 ;;
    esac
    course=well
done
say '{"event":"done"}'
"#;

/// Four cells of one boot.
const SCENARIO: &str = r#"
question = "What is left?"
mode = "virtual"
kernels = ["k"]
cpus = [1]
subjects = ["none", "module"]
[traffic]
ways = ["forward"]
families = ["v4"]
protocols = ["udp"]
payloads = [64, 256]
round-trips = 100
warm-up = 10
"#;

/// Three tests of the agent's, as filters.
pub const TESTS: [&str; 6] = [
    "--filter",
    "rule-bypass",
    "--filter",
    "rules-replaced",
    "--filter",
    "load-unload",
];

/// The laboratory. What a run leaves of processes and locks is looked for by its directory.
pub struct Lab(tempfile::TempDir);

impl Lab {
    /// One whose guests behave as in `courses`, one after the other.
    pub fn new(courses: &[Course]) -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        for directory in [
            "repository/module",
            "repository/harness",
            "repository/results",
            "tmp",
        ] {
            fs::create_dir_all(lab.path(directory)).unwrap();
        }
        // With these assertions on, modules are not disassembled.
        let config = "CONFIG_RUST_DEBUG_ASSERTIONS=y\n";
        lab.write("repository/images/config/a.config", config);
        lab.write(
            "repository/images/kernels.toml",
            "default = 'k'\n[flavours]\nplain = ['a']\ndebug = ['a']\n[[kernel]]\nname = 'k'\n\
             version = '7.3'\nsource = [{ tree = '../../tree' }]\n",
        );
        lab.write("repository/module/Kbuild", "");
        lab.write("repository/scenarios/trial.toml", SCENARIO);
        for name in ["none", "nft-dnat"] {
            let path = format!("repository/scenarios/subjects/{name}/subject.toml");
            lab.write(
                &path,
                "about = \"as it is in the repository\"\n[counts]\nexact = true\n",
            );
        }
        lab.write("repository/.gitignore", "/results\n");
        lab.write("vmlinux", "symbols\n");
        lab.write("proxy", "proxy\n");
        lab.tree("tree");
        for (tool, says) in [
            (
                "cache/tools/bin/rustc",
                "rustc 1.95.0\nLLVM version: 22.1.2",
            ),
            ("cache/tools/bin/clang", "clang version 22.1.8"),
            ("cache/tools/bin/ld.lld", "LLD 22.1.8"),
            ("cache/tools/bin/bindgen", "bindgen 0.73.2"),
        ] {
            lab.program(tool, &format!("#!/bin/sh\necho '{says}'\n"));
        }
        let guest = GUEST.replace("PROTOCOL", &VERSION.to_string());
        for program in ["cache/tools/venv/bin/vng", "programs/qemu-system-x86_64"] {
            lab.program(program, &guest);
        }
        lab.give_plugin();
        let ok = Outcome::Ok(Box::new(sample::measurement(100)));
        lab.write("ok.json", &serde_json::to_string(&ok).unwrap());
        let failed = Outcome::Failed {
            reason: "a packet went astray".to_owned(),
            delivery: Delivery::default(),
        };
        lab.write("failed.json", &serde_json::to_string(&failed).unwrap());
        let courses: Vec<_> = courses.iter().map(|course| course.word()).collect();
        lab.write("course", &(courses.join("\n") + "\n"));
        lab.git("repository", &["init", "-q"]);
        lab.commit();
        lab
    }

    /// Gives it a mutexlab of its own, with what else is looked for beside it. Tests are built without the plugin, which is loaded before QEMU: in
    /// its place is a library that any program can do with, one of those that this program has loaded.
    fn give_plugin(&self) {
        let built = Path::new(env!("CARGO_BIN_EXE_mutexlab"));
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let mut loaded = maps
            .lines()
            .filter_map(|line| Some(&line[line.find('/')?..]));
        let library = loaded.find(|path| path.contains("/libgcc_s.so")).unwrap();
        fs::create_dir_all(self.path("ours")).unwrap();
        fs::copy(library, self.path("ours/libmutex_lens.so")).unwrap();
        for name in ["mutexlab", "mutexlab-agent", "mprox"] {
            let (from, to) = (built.with_file_name(name), self.path("ours").join(name));
            // In the same file system it need not be copied.
            if fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).unwrap();
            }
        }
    }

    /// Makes a commit of the repository as it is, and gives its hash.
    pub fn commit(&self) -> String {
        self.git("repository", &["add", "."]);
        self.git("repository", &["commit", "-qm", "a"]);
        let hash = self.git("repository", &["rev-parse", "HEAD"]);
        hash.trim().to_owned()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Makes a tree of which a kernel can be built.
    pub fn tree(&self, path: &str) {
        self.write(&format!("{path}/Makefile"), MAKEFILE);
        let script = format!("{path}/scripts/min-tool-version.sh");
        self.write(&script, "echo 0.1.0\n");
    }

    /// What git prints for these arguments in a directory here; it has to be well.
    pub fn git(&self, path: &str, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@example.invalid"])
            .args(arguments)
            .current_dir(self.path(path))
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    fn program(&self, path: &str, content: &str) {
        self.write(path, content);
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// mutexlab, leader of its own process group as it is in a terminal.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("ours/mutexlab"));
        let path = environment::text("PATH").unwrap();
        let programs = self.path("programs");
        command
            .args(arguments)
            .current_dir(self.path("repository"))
            .env("MUTEXLAB_CACHE", self.path("cache"))
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("TMPDIR", self.path("tmp"))
            .env(MARK, self.0.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end, after which nothing may be left: its exit code, and what it said.
    pub fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let child = self.command(arguments).spawn().unwrap();
        self.end(child)
    }

    /// As [`Lab::run`], of one that was started before.
    pub fn end(&self, child: Child) -> (Option<i32>, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = child.wait_with_output().unwrap();
        self.nothing_is_left();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (status.code(), text(&stdout) + &text(&stderr))
    }

    /// How many guests had cells or tests to do.
    pub fn guests(&self) -> usize {
        self.lines("guests").len()
    }

    /// The cells or tests that were done, in order.
    pub fn tally(&self) -> Vec<String> {
        self.lines("tally")
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The newest results.
    pub fn results(&self) -> Results {
        let path = ResultsFile::newest(&self.path("repository/results"), "trial").unwrap();
        ResultsFile::open(&path).unwrap().into_results()
    }

    /// Fails if a run that is over has left a process, a lock or a temporary file.
    fn nothing_is_left(&self) {
        let deadline = Instant::now() + LEFTOVERS;
        while !self.processes().is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        let left = self.processes();
        assert!(left.is_empty(), "processes are left: {left:?}");
        let locks = self.locks();
        assert!(!locks.is_empty(), "the run took no lock at all");
        let held: Vec<_> = locks.iter().filter(|lock| !is_free(lock)).collect();
        assert!(held.is_empty(), "locks are left: {held:?}");
        let files: Vec<_> = fs::read_dir(self.path("tmp")).unwrap().collect();
        assert!(files.is_empty(), "temporary files are left: {files:?}");
    }

    /// Whether a lock is held now.
    pub fn is_locked(&self) -> bool {
        self.locks().iter().any(|lock| !is_free(lock))
    }

    /// All files in the cache that are for locking.
    fn locks(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for directory in ["images", "sources", "locks", "workshops"] {
            let entries = fs::read_dir(self.path("cache").join(directory));
            for entry in entries.into_iter().flatten() {
                let path = entry.unwrap().path();
                let is_lock = path.extension().is_some_and(|end| end == "lock");
                if directory == "locks" || is_lock {
                    found.push(path);
                }
            }
        }
        found
    }

    /// The processes of runs here, whoever their parent or session is by now.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let mark = format!("{MARK}={}", self.0.path().display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that has gone meanwhile, a zombie, or somebody else's has none.
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment
                .split(|&byte| byte == 0)
                .any(|one| one == mark.as_bytes())
            {
                let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let command = String::from_utf8_lossy(&command).replace('\0', " ");
                found.push((pid, command));
            }
        }
        found
    }
}

/// Whether another process can have a lock, at once and alone.
fn is_free(lock: &Path) -> bool {
    let status = Command::new("flock")
        .arg("--nonblock")
        .arg(lock)
        .arg("true")
        .status();
    status.unwrap().success()
}

/// Sends a signal as it comes in real life: from a terminal to all of a process group, else to its leader
/// only, which has to take the others along.
pub fn send(what: Signal, leader: &Child) {
    let pid = Pid::from_raw(leader.id().cast_signed());
    match what {
        Signal::SIGINT | Signal::SIGHUP => signal::killpg(pid, what),
        _ => signal::kill(pid, what),
    }
    .unwrap();
}

/// Waits until something is so.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < DEADLINE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
