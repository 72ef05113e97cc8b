// SPDX-License-Identifier: MIT OR Apache-2.0

//! What boots guests on this machine.

use anyhow::Result;

use crate::agent::Agent;
use crate::virtme::Virtme;
use mutexlab_host::surroundings::Surroundings;

/// virtme-ng, and the agent that guests get; found once, so that all guests of a run have the same.
#[derive(Clone, Debug)]
pub struct Tools {
    /// What starts QEMU.
    pub virtme: Virtme,
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
            agent: Agent::find(surroundings)?,
            surroundings: surroundings.clone(),
        })
    }
}
