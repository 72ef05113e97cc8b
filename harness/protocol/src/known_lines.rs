// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lines of a guest's log at warning level or above that are no complaint, each with the reason. Any other one ends
//! its cell or test as a splat. What warns of the modules does not belong here: it is to be mended.

/// A line that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownLine {
    /// How it begins.
    pub start: &'static str,
    /// Why it is no complaint.
    pub why: &'static str,
}

const fn known(start: &'static str, why: &'static str) -> KnownLine {
    KnownLine { start, why }
}

/// All of them.
pub const ALL: &[KnownLine] = &[
    // Of modules.
    known(
        "mutex_probe: loading out-of-tree module taints kernel.",
        "true of each module that is not built in the kernel's tree, and no fault; told once",
    ),
    known(
        "mutex_proxy: loading out-of-tree module taints kernel.",
        "the same",
    ),
    known(
        "mutex_proxy: `",
        "the kernel refuses a parameter, of which loading fails: the cell or test is judged by that",
    ),
    known(
        "mutex_proxy: version magic '",
        "the kernel refuses a module of another kernel, of which loading fails: the same",
    ),
    // Of the machine, which is emulated.
    known(
        "APIC timer disabled due to verification failure",
        "in real time under the emulator, a busy host keeps the guest from seeing as many ticks of one clock as of \
         another while it boots; another timer takes the place",
    ),
    known(
        "tsc: Unable to calibrate against PIT",
        "the same; the kernel calibrates by another clock",
    ),
    known(
        "..MP-BIOS bug: 8254 timer not connected to IO-APIC",
        "the same: no tick of the first timer came in time, and the kernel goes on to try others",
    ),
    known(" lapic is not functional", "the same, of the next timer"),
    known("..... failed", "the same"),
    known("...trying to set up timer", "the same"),
    known("APIC calibration not consistent", "the same"),
    known(
        "clocksource: ",
        "the same: a busy host keeps the guest from reading two clocks at once, and it says so or takes the other",
    ),
    known(
        "TSC found unstable after boot, most likely due to broken BIOS",
        "the same, of the clock that it read by",
    ),
    known(
        "hrtimer: interrupt took",
        "the same: the host had other things to do meanwhile",
    ),
    known(
        "sched: DL replenish lagged too much",
        "the same",
    ),
    known(
        "Unstable clock detected, switching default tracing clock to",
        "the same; nothing is traced",
    ),
    known(
        "Could not switch to high resolution mode on CPU",
        "where time is counted in instructions, the emulated machine has no timer that the kernel would trust for it",
    ),
    // Of tests that take memory away, or fill tables on purpose, which also meets others than the modules; what
    // becomes of packets is what they are judged by.
    known(
        "SLUB: Unable to allocate memory on CPU",
        "allocations are made to fail, those of the network stack as well",
    ),
    known(
        "slab_out_of_memory: ",
        "counts such messages that were left out",
    ),
    known("  cache: ", "goes with the line before: which objects"),
    known("  node ", "the same: of which node"),
    known(
        "nf_conntrack: nf_conntrack: table full",
        "connection tracking's table is filled beside the module's",
    ),
    known(
        "nf_conntrack: table full",
        "the same in another namespace than the first",
    ),
    known(
        "net_ratelimit: ",
        "counts messages about packets that are malformed, which some tests send by the thousand; those that are told \
         are judged themselves",
    ),
    known(
        "netlink: ",
        "some tests send messages whose attributes are malformed, and the kernel says so of its own; what it answers is \
         judged",
    ),
    known(
        "__nla_validate_parse: ",
        "counts such messages that were left out",
    ),
    known("validate_nla: ", "the same"),
    known(
        "TCP: request_sock_TCP: Possible SYN flooding on port",
        "there is one",
    ),
    // Of debug kernels.
    known(
        "**",
        "slab_debug has pointers shown as they are, which is told in a frame of asterisks",
    ),
    known(
        "pci_bus 0000:00: Unknown NUMA node; performance will be reduced",
        "the nodes are made up (numa=fake), and no device is of one",
    ),
    known(
        "Lock dependency validator: ",
        "the checker tells that it is there and how large it is, in 6.12 at no level of its own",
    ),
    known("... MAX_LOCK", "the same"),
    known("... CLASSHASH_SIZE:", "the same"),
    known("... CHAINHASH_SIZE:", "the same"),
    known(" memory used by lock dependency info:", "the same"),
    known(" memory used for stack traces:", "the same"),
    known(" per task-struct memory footprint:", "the same"),
    known(
        "kmemleak: Kernel memory leak detector initialized",
        "the checker tells that it is there",
    ),
    known(
        "kmemleak: Automatic memory scanning thread",
        "the same",
    ),
    known(
        "kmemleak: Cannot insert",
        "the checker gives up when a test refuses it memory, as it may any other part of the kernel",
    ),
    known("ODEBUG: Out of memory. ODEBUG disabled", "the same"),
];

/// Whether the line of a log, without its time stamp, is no complaint.
pub fn is_known(line: &str) -> bool {
    ALL.iter().any(|known| line.starts_with(known.start))
}
