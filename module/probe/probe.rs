// SPDX-License-Identifier: GPL-2.0

//! `mutex_probe.ko`: measures what all netfilter hooks on a packet's way cost, and tells what memory is used
//! for.

use kernel::c_str;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

// What the two modules share, and the host has as crates: each module uses its own part of it.
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../abi/mod.rs"]
mod abi;
#[allow(dead_code, unreachable_pub)]
#[path = "../datapath/mod.rs"]
mod datapath;
#[allow(dead_code)]
#[path = "../sys/mod.rs"]
mod sys;

mod ballast;
mod memory;
mod meter;
mod micro;
mod spans;

use abi::micro::IOC_MICRO;
use abi::probe::Filter;
use ballast::Ballast;
use memory::MemoryDevice;
use meter::Meter;
use sys::device::{self, FromUser, ToUser};
use sys::hash_mix;
use sys::net::Namespace;

sys::version::kernel_module! {
    { type: ProbeModule, name: "mutex_probe", }
    { description: "Measures netfilter hooks over a packet's way", }
}

struct ProbeModule {
    _hash_mix: hash_mix::Fixed,
    _device: device::Registered<ProbeDevice>,
    _memory: device::Registered<MemoryDevice>,
}

impl kernel::Module for ProbeModule {
    fn init(module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _hash_mix: hash_mix::Fixed::register()?,
            _device: device::Registered::new(module, c_str!("mutex_probe"), ProbeDevice)?,
            _memory: device::Registered::new(module, c_str!("mutex_memory"), MemoryDevice)?,
        })
    }
}

struct ProbeDevice;

struct Context {
    // These two are in the namespace, so they are dropped before it: fields are dropped in order.
    _spans: spans::Registered,
    ballast: Pin<KBox<Mutex<Option<Ballast>>>>,
    meter: Arc<Meter>,
    snapshot: Pin<KBox<Mutex<KVVec<u8>>>>,
    net: Namespace,
}

impl Context {
    fn load(&self, instructions: Option<u16>) -> Result {
        let mut ballast = self.ballast.lock();
        match (instructions, ballast.as_ref()) {
            (None, _) => *ballast = None,
            (Some(instructions), Some(ballast)) => ballast.set(instructions),
            (Some(instructions), None) => {
                let new = Ballast::new(&self.net)?;
                new.set(instructions);
                *ballast = Some(new);
            }
        }
        Ok(())
    }
}

impl device::Device for ProbeDevice {
    type Context = Context;

    const MAX_WRITE: usize = Filter::SIZE;

    fn open(&self) -> Result<Context> {
        let net = Namespace::administered()?;
        let meter = Arc::new(Meter::new()?, GFP_KERNEL)?;
        Ok(Context {
            _spans: spans::register(&net, meter.clone())?,
            ballast: KBox::pin_init(new_mutex!(None), GFP_KERNEL)?,
            meter,
            snapshot: KBox::pin_init(new_mutex!(KVVec::new()), GFP_KERNEL)?,
            net,
        })
    }

    fn write(&self, context: &Context, bytes: &[u8]) -> Result {
        let filter = Filter::decode(bytes).ok_or(EINVAL)?;
        context.load(filter.ballast)?;
        context.meter.record(filter);
        Ok(())
    }

    fn read(&self, context: &Context, position: usize, to_user: ToUser<'_>) -> Result<usize> {
        let mut snapshot = context.snapshot.lock();
        if position == 0 {
            *snapshot = context.meter.snapshot()?;
        }
        to_user(snapshot.get(position..).unwrap_or_default())
    }

    fn ioctl(
        &self,
        _: &Context,
        command: u32,
        _: FromUser<'_>,
        to_user: ToUser<'_>,
    ) -> Result<usize> {
        match command {
            IOC_MICRO => to_user(&micro::measure()?),
            _ => Err(ENOTTY),
        }
    }
}
