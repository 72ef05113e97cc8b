// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's side of `mutexlab shell`.

pub mod echo;
pub mod namespaces;
mod root;
mod session;

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use anyhow::{bail, Context as _, Result};

use crate::tell::tell;
use mutexlab_guest::fault;
use mutexlab_guest::kernel::memory_map;
use mutexlab_guest::kernel::module::LoadedModule;
use mutexlab_guest::net::layout::Layout;
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::proxy::context::Context;
use mutexlab_protocol::visit::{Visit, PORT};
use mutexlab_protocol::{Event, PROXY_MODULE_PATH};

const PORTS: &str = "/sys/class/virtio-ports";

/// Lays out the namespaces with the module at work in the router, and lets somebody in.
pub fn open(visit: &Visit) -> Result<()> {
    let port = open_port()?;
    // Not every kernel has it.
    if Path::new(fault::DEBUGFS).is_dir() {
        fault::mount_debugfs()?;
    }
    root::take_over()?;
    let layout = Layout::new()?;
    for namespace in [&layout.client, &layout.router, &layout.server] {
        namespaces::publish(namespace)?;
    }
    let _module = LoadedModule::load(PROXY_MODULE_PATH, &visit.parameters)?;
    // Goes with the guest.
    let _rules = visit.rules.then(|| redirect(&layout.router)).transpose()?;
    echo::serve(&layout.server)?;
    tell(&Event::LaidOut {
        modules: memory_map::modules()?,
    })?;
    session::run(visit, port, &layout.router)
}

fn redirect(router: &Namespace) -> Result<Context> {
    let rules = Context::open(router)?;
    rules
        .configure(&echo::rules())
        .context("the module refuses the rules")?;
    Ok(rules)
}

/// The port to the host; there is no udev that would call it by its name.
fn open_port() -> Result<File> {
    let ports = fs::read_dir(PORTS).with_context(|| format!("cannot list {PORTS}"))?;
    for port in ports {
        let port = port.with_context(|| format!("cannot list {PORTS}"))?;
        let name = port.path().join("name");
        if fs::read_to_string(&name).is_ok_and(|name| name.trim() == PORT) {
            let path = Path::new("/dev").join(port.file_name());
            return OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .with_context(|| format!("cannot open {}", path.display()));
        }
    }
    bail!("there is no port {PORT} in {PORTS}")
}
