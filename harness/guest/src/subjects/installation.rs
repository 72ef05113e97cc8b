// SPDX-License-Identifier: MIT OR Apache-2.0

//! Datapaths put up, whichever way, and whose fault it is if that fails.

use anyhow::Result;
use nix::errno::Errno;

use super::declared;
use super::installed::Installed;
use super::module;
use crate::kernel::module::Parameters;
use crate::net::conntrack;
use crate::net::layout::Layout;
use crate::net::namespace::Namespace;
use crate::traffic::target::Stop;
use mutexlab_model::traffic::Traffic;
use mutexlab_protocol::datapath::{Datapath, How};

/// Puts `datapath` up for `traffic`.
pub fn up(
    datapath: &Datapath,
    parameters: &Parameters,
    traffic: &Traffic,
    layout: &Layout,
) -> Result<Box<dyn Installed>> {
    Ok(match &datapath.how {
        How::Module(rules) => Box::new(module::MutexProxy::up(
            *rules,
            parameters,
            traffic,
            &layout.router,
        )?),
        How::Declared(declared) => {
            let counts = datapath.facts.counts;
            Box::new(declared::Installed::up(declared, counts, traffic, layout)?)
        }
    })
}

/// Whose fault it is that a datapath could not be put up, asked or taken down: its own. What a directory has declared is the
/// subject's, and our module is wrong itself. A file that the kernel takes for no module of its own (ENOEXEC, as with
/// another kernel's version magic) is the fault of whoever built it: of our module, ours.
pub fn blame(datapath: &Datapath, error: anyhow::Error) -> Stop {
    let is_its_own = match &datapath.how {
        How::Module(_) => error.downcast_ref() != Some(&Errno::ENOEXEC),
        How::Declared(_) => true,
    };
    if is_its_own {
        Stop::Subject(format!("{error:#}"))
    } else {
        Stop::Infra(error)
    }
}

/// Fails if connections are tracked, though the datapath is none that does: it would be paid for by whatever is measured.
pub fn ensure_untracked(datapath: &Datapath, router: &Namespace) -> Result<(), Stop> {
    if datapath.facts.counts.conntrack {
        return Ok(());
    }
    conntrack::ensure_none(router).map_err(|error| match datapath.how {
        How::Module(_) => Stop::Infra(error),
        How::Declared(_) => Stop::Subject(format!(
            "{error:#}: a subject that has connections tracked says so, with `conntrack = true` in [counts]"
        )),
    })
}
