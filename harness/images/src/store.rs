// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the cache is.

use std::path::Path;
use std::sync::Arc;

use mutexlab_host::surroundings::Surroundings;

/// The directory with everything that is expensive to make: sources, images and tools.
#[derive(Clone, Debug)]
pub struct Cache {
    surroundings: Arc<Surroundings>,
}

impl Cache {
    /// The one of these surroundings.
    pub fn of(surroundings: &Surroundings) -> Self {
        Self {
            surroundings: Arc::new(surroundings.clone()),
        }
    }

    /// One in a place of its own, with all else as it usually is.
    pub fn at(directory: &Path) -> Self {
        Self::of(&Surroundings::usual(directory))
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.surroundings.cache
    }

    /// What else there is on this machine.
    pub(super) fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }
}
