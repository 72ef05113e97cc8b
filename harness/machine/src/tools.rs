// SPDX-License-Identifier: MIT OR Apache-2.0

//! What boots guests on this machine.

use anyhow::{anyhow, Result};

use crate::agent::Agent;
use crate::qemu;
use crate::taken::Taken;
use crate::virtme::Virtme;
use mutexlab_host::surroundings::Surroundings;

/// virtme-ng, QEMU's plugin, and the agent that guests get; found once, so that all guests of a run have the same.
#[derive(Clone, Debug)]
pub struct Tools {
    /// What starts QEMU for guests whose boots need not repeat.
    pub virtme: Virtme,
    /// The plugin of those whose boots do; why there is none, if it was not built.
    plugin: Result<Taken, String>,
    /// What does the work in a guest.
    pub agent: Agent,
    /// Where other programs are.
    pub surroundings: Surroundings,
}

impl Tools {
    /// Those of these surroundings.
    ///
    /// # Errors
    /// If one is not there.
    pub fn find(surroundings: &Surroundings) -> Result<Self> {
        Ok(Self {
            virtme: Virtme::find(surroundings)?,
            plugin: qemu::plugin(surroundings).map_err(|error| format!("{error:#}")),
            agent: Agent::find(surroundings)?,
            surroundings: surroundings.clone(),
        })
    }

    /// The plugin of guests whose boots repeat.
    ///
    /// # Errors
    /// If it was not built.
    pub fn plugin(&self) -> Result<&Taken> {
        self.plugin.as_ref().map_err(|error| anyhow!("{error}"))
    }
}
