// SPDX-License-Identifier: MIT OR Apache-2.0

//! A subject that a directory has declared: its steps, carried out.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use mprox_file::ProxyFile;

use super::daemon::Process;
use super::installed;
use crate::kernel::memory::Slabs;
use crate::kernel::module::{LoadedModule, Parameters};
use crate::net::conntrack;
use crate::net::layout::Layout;
use crate::net::namespace::Namespace;
use crate::net::nft;
use crate::proxy::context::Context;
use mutexlab_model::facts::Counts;
use mutexlab_model::traffic::Traffic;
use mutexlab_protocol::datapath::{
    program_path, Attach, Declared, Deed, FlowMemory, Machine, Readings, Script, Step,
};
use mutexlab_protocol::PROXY_MODULE_PATH;

/// Where scripts find programs that are not the subject's.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Where scripts lie while they run: in memory, since the guest's root cannot be written to.
const SCRIPTS: &str = "/run/mutexlab/scripts";
/// What they begin with.
const FUNCTIONS: &str = "/run/mutexlab/functions";
/// Where they find the subject's programs.
const OFFERED: &str = "/run/mutexlab/programs";
/// The section of a BPF object whose program is attached, by where that is.
const fn section(attach: Attach) -> &'static str {
    match attach {
        Attach::Xdp | Attach::XdpGeneric => "xdp",
        Attach::TcIngress => "tc",
    }
}

/// A subject that is up. Dropping it takes modules and programs back in the right order, but runs no script.
pub struct Installed {
    /// In the order in which they were taken.
    taken: Vec<Taken>,
    counts: Counts,
    read: Readings,
}

/// A step that was taken, and what it takes to take it back.
struct Taken {
    place: String,
    deed: Done,
}

enum Done {
    Module(LoadedModule),
    Mprox(Proxy),
    Nft(Machine),
    Process(Process),
    Run {
        machine: Machine,
        down: Option<Script>,
    },
    Bpf {
        attach: Attach,
        link: String,
    },
}

/// The proxy module with a context. The order matters: the context holds the module.
struct Proxy {
    context: Context,
    module: LoadedModule,
}

impl Proxy {
    fn up(file: &Script, parameters: &Parameters, router: &Namespace) -> Result<Self> {
        let (name, text) = (file.name.clone(), file.text.clone());
        let file = ProxyFile::parse(name, text, Path::new(""), &mprox_file::Machine)?;
        let module = LoadedModule::load(PROXY_MODULE_PATH, parameters)?;
        let context = Context::open(router)?;
        context
            .put(&file.configuration)
            .map_err(|error| match error {
                mprox_client::Error::Refused(refused) => file.explain(&refused),
                other => other.into(),
            })?;
        Ok(Self { context, module })
    }

    fn down(self) -> Result<()> {
        drop(self.context);
        self.module.unload()
    }
}

impl Installed {
    /// Takes the steps that are declared, in their order.
    pub fn up(
        declared: &Declared,
        counts: Counts,
        traffic: &Traffic,
        layout: &Layout,
    ) -> Result<Self> {
        let mut installed = Self {
            taken: Vec::new(),
            counts,
            read: declared.read.clone(),
        };
        offer(&declared.programs)?;
        for Step { place, deed } in &declared.steps {
            let done = take(deed, traffic, layout).with_context(|| place.clone())?;
            installed.taken.push(Taken {
                place: place.clone(),
                deed: done,
            });
        }
        Ok(installed)
    }
}

fn namespace(machine: Machine, layout: &Layout) -> &Namespace {
    match machine {
        Machine::Client => &layout.client,
        Machine::Router => &layout.router,
        Machine::Upstream => &layout.server,
    }
}

fn take(deed: &Deed, traffic: &Traffic, layout: &Layout) -> Result<Done> {
    Ok(match deed {
        Deed::Module { path, parameters } => Done::Module(LoadedModule::load(path, parameters)?),
        Deed::Mprox { file, parameters } => {
            Done::Mprox(Proxy::up(file, parameters, &layout.router)?)
        }
        Deed::Nft { machine, rules } => {
            nft::load(namespace(*machine, layout), rules)?;
            Done::Nft(*machine)
        }
        Deed::Daemon(daemon) => {
            let there = namespace(daemon.machine, layout);
            Done::Process(Process::start(daemon, there, traffic.family)?)
        }
        Deed::Run { machine, up, down } => {
            run(up, namespace(*machine, layout))?;
            Done::Run {
                machine: *machine,
                down: down.clone(),
            }
        }
        Deed::Bpf { path, attach, link } => {
            let section = section(*attach);
            let text = match attach {
                Attach::Xdp => format!("ip link set dev {link} xdp obj {path} sec {section}"),
                Attach::XdpGeneric => {
                    format!("ip link set dev {link} xdpgeneric obj {path} sec {section}")
                }
                Attach::TcIngress => format!(
                    "tc qdisc add dev {link} clsact\n\
                     tc filter add dev {link} ingress bpf direct-action obj {path} sec {section}"
                ),
            };
            run(&script("attach", text), &layout.router)?;
            Done::Bpf {
                attach: *attach,
                link: link.clone(),
            }
        }
    })
}

fn script(name: &str, text: String) -> Script {
    Script {
        name: name.to_owned(),
        text,
    }
}

/// Runs a script, which ends with the first command that fails.
fn run(script: &Script, namespace: &Namespace) -> Result<()> {
    let name = Path::new(&script.name).file_name().unwrap_or_default();
    let path = Path::new(SCRIPTS).join(name);
    write(&path, &script.text)?;
    let text = ". \"$0\"; . \"$1\"";
    let shell = duct::cmd!("sh", "-ec", text, FUNCTIONS, &path)
        .env("PATH", format!("{OFFERED}:{SEARCH_PATH}"))
        .stdin_null();
    let output = namespace.output(&shell).context("cannot run sh")?;
    if !output.status.success() {
        bail!(
            "the script fails ({}, on the machine {}):\n{}",
            output.status,
            namespace.name(),
            String::from_utf8_lossy(&output.stdout).trim_end()
        );
    }
    Ok(())
}

/// Has scripts find these programs and no others of subjects'. There is a function for each as well: busybox's
/// shell prefers its own applets to programs of the same name, wherever those are found.
fn offer(programs: &[String]) -> Result<()> {
    let offered = Path::new(OFFERED);
    if offered.exists() {
        fs::remove_dir_all(offered).with_context(|| format!("cannot remove {OFFERED}"))?;
    }
    fs::create_dir_all(offered).with_context(|| format!("cannot make {OFFERED}"))?;
    let mut functions = String::new();
    for name in programs {
        let program = program_path(name);
        symlink(&program, offered.join(name))
            .with_context(|| format!("cannot link {program} into {OFFERED}"))?;
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.bytes().all(is_word) {
            functions.push_str(&format!("{name}() {{ {program} \"$@\"; }}\n"));
        }
    }
    write(Path::new(FUNCTIONS), &functions)
}

fn write(path: &Path, text: &str) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(path, text))
        .with_context(|| format!("cannot write {}", path.display()))
}

impl installed::Installed for Installed {
    fn counters(&self, router: &Namespace) -> Result<BTreeMap<String, u64>> {
        let Some(path) = &self.read.counters else {
            return Ok(BTreeMap::new());
        };
        let text = read(path, router).context("[read] counters")?;
        counters_in(&text)
            .with_context(|| format!("{path} is not of lines that are a name and a number"))
            .context("[read] counters")
    }

    fn proxy_time(&self) -> Result<Option<Duration>> {
        let times = self.taken.iter().filter_map(|taken| match &taken.deed {
            Done::Process(process) => Some(process.cpu_time()),
            _ => None,
        });
        let times = times.collect::<Result<Vec<_>>>()?;
        Ok((!times.is_empty()).then(|| times.iter().sum()))
    }

    fn flow_memory(&self, _traffic: &Traffic, router: &Namespace) -> Result<Option<u64>> {
        if let Some(FlowMemory { slab, flows }) = &self.read.memory {
            let text = read(flows, router).context("[read] memory")?;
            let flows = text
                .trim()
                .parse()
                .with_context(|| format!("{flows} is {text:?} and no number"))
                .context("[read] memory")?;
            let slabs = Slabs::of(slab).context("[read] memory")?;
            return Ok(Some(slabs.hold(flows)));
        }
        if !self.counts.conntrack {
            return Ok(None);
        }
        let flows = conntrack::count(router)?.unwrap_or(0);
        let table = conntrack::buckets()? * size_of::<u64>() as u64;
        Ok(Some(Slabs::of("nf_conntrack")?.hold(flows) + table))
    }

    fn ensure_kept(
        &self,
        traffic: &Traffic,
        router: &Namespace,
        _counters: &BTreeMap<String, u64>,
    ) -> Result<()> {
        if !self.counts.conntrack {
            return Ok(());
        }
        // Of those that others took the place of it may have forgotten some, and others may
        // have come and gone without a packet.
        let flows = u64::from(traffic.flows);
        let count = conntrack::count(router)?;
        ensure!(
            count.is_some_and(|count| count >= flows),
            "connection tracking knows {count:?} connections of {flows}"
        );
        Ok(())
    }

    fn ensure_at_work(&self, router: &Namespace) -> Result<()> {
        match self.counts.offloaded {
            true => conntrack::ensure_offloaded(router),
            false => Ok(()),
        }
    }

    fn down(mut self: Box<Self>, layout: &Layout) -> Result<()> {
        while let Some(Taken { place, deed }) = self.taken.pop() {
            take_back(deed, layout).context(place)?;
        }
        Ok(())
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // A module may need one that was loaded before it.
        while self.taken.pop().is_some() {}
    }
}

fn take_back(deed: Done, layout: &Layout) -> Result<()> {
    match deed {
        Done::Module(module) => module.unload(),
        Done::Mprox(proxy) => proxy.down(),
        // All that is there is of the subject: the namespace was made for the cell.
        Done::Nft(machine) => nft::load(namespace(machine, layout), "flush ruleset\n"),
        Done::Process(process) => {
            drop(process);
            Ok(())
        }
        Done::Run {
            machine,
            down: Some(down),
        } => run(&down, namespace(machine, layout)),
        Done::Run { down: None, .. } => Ok(()),
        Done::Bpf { attach, link } => {
            let text = match attach {
                Attach::Xdp => format!("ip link set dev {link} xdp off"),
                Attach::XdpGeneric => format!("ip link set dev {link} xdpgeneric off"),
                Attach::TcIngress => format!("tc qdisc del dev {link} clsact"),
            };
            run(&script("detach", text), &layout.router)
        }
    }
}

/// A file as the router sees it.
fn read(path: &str, router: &Namespace) -> Result<String> {
    // Not /proc/net: that is the main thread's.
    let own = match path.strip_prefix("/proc/net/") {
        Some(below) => format!("/proc/thread-self/net/{below}"),
        None => path.to_owned(),
    };
    router.run(|| fs::read_to_string(own).with_context(|| format!("cannot read {path}")))
}

/// Lines of a name and a number.
fn counters_in(text: &str) -> Option<BTreeMap<String, u64>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let (name, number) = (words.next()?, words.next()?);
            let number = number.parse().ok()?;
            words.next().is_none().then(|| (name.to_owned(), number))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_lines_of_a_name_and_a_number() {
        let counters = counters_in("packets 7\n\nbytes\t1500\n").unwrap();
        assert_eq!(counters["packets"], 7);
        assert_eq!(counters["bytes"], 1500);
        for bad in ["packets", "packets x", "packets 1 2", "7 packets -1"] {
            assert_eq!(counters_in(bad), None, "{bad}");
        }
    }
}
