// SPDX-License-Identifier: GPL-2.0

//! `/dev/mutex_proxy`: see `abi::proxy`.

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

use crate::abi::proxy::{
    stats_asked_for, Config, ConfigHeader, Connection, IOC_ORIGINAL, MAX_GROUPS, MAX_RULES,
    MAX_UPSTREAMS,
};
use crate::registry::{ContextId, Registry};
use crate::sys::device::{Device, FromUser, ToUser};
use crate::sys::net::Namespace;

/// The device file.
pub(crate) struct ControlDevice {
    registry: Arc<Registry>,
}

impl ControlDevice {
    /// A device without any context.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            registry: Arc::new(Registry::new()?, GFP_KERNEL)?,
        })
    }
}

/// What belongs to one open descriptor.
pub(crate) struct Context {
    registry: Arc<Registry>,
    id: ContextId,
    // The bytes that `read` returns.
    config: Pin<KBox<Mutex<KVVec<u8>>>>,
}

impl Drop for Context {
    fn drop(&mut self) {
        self.registry.close(self.id);
    }
}

impl Device for ControlDevice {
    type Context = Context;

    const MAX_WRITE: usize = Config::size(MAX_GROUPS, MAX_UPSTREAMS, MAX_RULES);

    fn open(&self) -> Result<Context> {
        let mut empty = KVVec::new();
        empty.extend_from_slice(&ConfigHeader::EMPTY.encode(), GFP_KERNEL)?;
        let config = KBox::pin_init(new_mutex!(empty), GFP_KERNEL)?;
        Ok(Context {
            registry: self.registry.clone(),
            id: self.registry.open(Namespace::administered()?)?,
            config,
        })
    }

    fn write(&self, context: &Context, bytes: &[u8]) -> Result {
        let new = Config::decode(bytes).map_err(|_| EINVAL)?;
        let mut copy = KVVec::new();
        copy.extend_from_slice(bytes, GFP_KERNEL_ACCOUNT)?;
        let mut config = context.config.lock();
        self.registry.configure(context.id, &new)?;
        *config = copy;
        Ok(())
    }

    fn read(&self, context: &Context, position: usize, to_user: ToUser<'_>) -> Result<usize> {
        to_user(context.config.lock().get(position..).unwrap_or_default())
    }

    fn ioctl(
        &self,
        context: &Context,
        command: u32,
        from_user: FromUser<'_>,
        to_user: ToUser<'_>,
    ) -> Result<usize> {
        if let Some(size) = stats_asked_for(command) {
            let stats = self.registry.stats(context.id)?.encode();
            return to_user(stats.get(..size).unwrap_or(&stats));
        }
        if command != IOC_ORIGINAL {
            return Err(ENOTTY);
        }
        let mut record = [0; Connection::SIZE];
        from_user(&mut record)?;
        let connection = Connection::decode(&record).ok_or(EINVAL)?;
        to_user(&self.registry.original(context.id, &connection)?.encode())
    }
}
