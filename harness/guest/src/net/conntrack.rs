// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's own connection tracking: room for many flows, and whether it is at work.

use std::fs;

use anyhow::{bail, Context, Result};

use super::namespace::Namespace;
use mutexlab_model::limits::MAX_OTHER_FLOWS;

// Of all namespaces; only the first one may change them.
const BUCKETS: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Seconds until a flow is forgotten on which nothing moves: more than any cell takes.
const TIMEOUT: &str = "86400";

/// More room than the kernel has by itself. What it had comes back when this is dropped.
pub struct Room {
    former: [(&'static str, String); 2],
}

impl Room {
    /// Makes room for `flows` and those beside them, which `router` shall not forget. There are as
    /// many hash buckets as there may be flows, as the kernel has it when it chooses the numbers
    /// (nf_conntrack_init_start()).
    pub fn make(router: &Namespace, flows: u32) -> Result<Self> {
        let former = [(BUCKETS, read(BUCKETS)?), (MAX, read(MAX)?)];
        let room = Self { former };
        let wanted = flows + MAX_OTHER_FLOWS;
        for (path, former) in &room.former {
            let former: u32 = former
                .parse()
                .with_context(|| format!("{path} is {former:?}"))?;
            if former < wanted {
                write(path, &wanted.to_string())?;
            }
        }
        for protocol in [
            "udp_timeout",
            "udp_timeout_stream",
            "tcp_timeout_established",
        ] {
            router.set_sysctl(&format!("netfilter/nf_conntrack_{protocol}"), TIMEOUT)?;
        }
        Ok(room)
    }

    /// Leaves room for no more than `flows`, in as few hash buckets as the kernel takes, so that it
    /// finds those that may go when there are too many.
    pub fn limit(flows: u32) -> Result<Self> {
        let former = [(BUCKETS, read(BUCKETS)?), (MAX, read(MAX)?)];
        let room = Self { former };
        // The kernel chooses a new maximum with the buckets, so that comes last.
        write(BUCKETS, "1")?;
        write(MAX, &flows.to_string())?;
        Ok(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for (path, former) in &self.former {
            // The next cell that needs the room to be as it was fails by itself.
            let _ = write(path, former);
        }
    }
}

/// How many buckets the hash table of all namespaces has.
pub fn buckets() -> Result<u64> {
    let text = read(BUCKETS)?;
    text.parse()
        .with_context(|| format!("{BUCKETS} is {text:?}"))
}

/// How many connections `router` knows; `None` if the kernel has no connection tracking at all.
pub fn count(router: &Namespace) -> Result<Option<u64>> {
    let count = router.sysctl("netfilter/nf_conntrack_count")?;
    count
        .map(|count| {
            count
                .parse()
                .with_context(|| format!("{count:?} connections are tracked"))
        })
        .transpose()
}

/// Fails unless a connection that `router` knows is in its flow table.
pub fn ensure_offloaded(router: &Namespace) -> Result<()> {
    // Not /proc/net: that is the main thread's.
    let path = "/proc/thread-self/net/nf_conntrack";
    let text =
        router.run(|| fs::read_to_string(path).with_context(|| format!("cannot read {path}")))?;
    if !text.contains("[OFFLOAD]") {
        bail!("the flow table has taken none of the connections:\n{text}");
    }
    Ok(())
}

/// Fails if connection tracking is at work in `router`: nothing but nftables needs it here, and
/// it would be paid for by whatever is measured.
pub fn ensure_none(router: &Namespace) -> Result<()> {
    match count(router)? {
        None | Some(0) => Ok(()),
        Some(count) => bail!("connection tracking is at work: it knows {count} connections"),
    }
}

fn read(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim_end().to_owned())
}

fn write(path: &str, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("cannot write {value} to {path}"))
}
