// SPDX-License-Identifier: MIT OR Apache-2.0

//! The functional tests: what the module does to real traffic, in a guest whose kernel checks
//! itself. Each test brings the module up and down by itself.
//!
//! Must not know: the host, and which kernel it is that it runs on.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

mod astray;
mod back_to_back;
mod bad_clients;
mod batch;
mod blocking;
mod bulk;
mod conntrack;
mod context;
mod control;
mod conversation;
mod crowd;
mod delivered;
mod dropped;
mod encapsulation;
mod ends;
mod events;
mod fast_open;
mod faults;
mod files;
mod first_datagrams;
mod flood;
mod footprint;
mod fragments;
mod full_table;
mod gro_list;
mod handshakes;
mod icmp;
mod icmp_wire;
mod keepalive;
mod landing;
mod latency;
mod later_hooks;
mod lifecycle;
mod longest_time_outs;
mod malformed;
mod many;
mod memory;
mod micro;
mod monitor;
mod netns;
mod offload_fields;
mod open_loop;
mod original_destination;
mod parameters;
mod path_mtu;
mod pinned;
mod port_reuse;
mod priorities;
mod random_messages;
mod redirect;
mod redirector;
mod replaced;
mod routing;
mod rules;
mod selection;
mod senders;
mod setup;
mod sockets;
mod time_outs;
mod told_flows;
mod tool;
mod tool_exec;
mod tool_more;
mod turned_ports;
mod untouched;
mod upstream_itself;
mod upstreams;
mod vrf;
mod wide_rules;

use std::time::Duration;

use anyhow::{Context, Result};
use mutexlab_protocol::test_info::TestInfo;

/// One functional test.
pub struct GuestTest {
    /// What the host is told of it.
    pub info: TestInfo,
    run: Box<dyn Fn() -> Result<()>>,
}

impl GuestTest {
    fn new(name: String, about: String, run: impl Fn() -> Result<()> + 'static) -> Self {
        Self {
            info: TestInfo {
                name,
                about,
                ..TestInfo::default()
            },
            run: Box::new(run),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut TestInfo)) -> Self {
        change(&mut self.info);
        self
    }

    /// The same for debug images only.
    fn on_debug(self) -> Self {
        self.with(|info| info.needs_debug = true)
    }

    /// The same, left out unless asked for.
    fn long(self) -> Self {
        self.with(|info| info.is_long = true)
    }

    /// The same, which takes so long by its nature.
    fn lasting(self, lasts: Duration) -> Self {
        self.with(|info| info.lasts = lasts)
    }

    /// The same, which is about more CPUs than one.
    fn on_two_cpus(self) -> Self {
        self.with(|info| info.needs_cpus = true)
    }

    /// The same, which is the last in each guest, since it looks at what all the others left.
    fn ending_guests(self) -> Self {
        self.with(|info| info.ends_guests = true)
    }

    /// The same, for every night.
    fn nightly(self) -> Self {
        self.with(|info| info.is_nightly = true)
    }

    // What goes beside nft packet by packet: by the dozen, and ten times slower where the kernel checks
    // itself.
    fn beside_others(self) -> Self {
        self.with(|info| {
            // Random ones; those that want what only a debug kernel has; and nft alone, which shows that the
            // test is right.
            let random = info.name.starts_with("routes-random");
            let control = info.name.ends_with("-nft");
            info.wants_usual_kernel = true;
            info.is_nightly |= random || control || info.needs_debug;
        })
    }

    fn single(name: &str, about: &str, run: fn() -> Result<()>) -> Self {
        Self::new(name.to_owned(), about.to_owned(), run)
    }
}

/// All functional tests, in the order in which they should run.
pub fn all() -> Vec<GuestTest> {
    let mut tests = redirect::tests();
    tests.extend(icmp::tests());
    tests.extend(icmp_wire::tests());
    tests.extend(path_mtu::tests());
    tests.extend(rules::tests());
    tests.extend(control::tests());
    tests.extend(senders::tests());
    tests.extend(blocking::tests());
    tests.extend(replaced::tests());
    tests.extend(random_messages::tests());
    tests.extend(tool::tests());
    tests.extend(tool_exec::tests());
    tests.extend(tool_more::tests());
    tests.extend(told_flows::tests());
    tests.extend(events::tests());
    tests.extend(selection::tests());
    tests.extend([
        GuestTest::single(
            "one-port-two-targets",
            "connections of one port to two destinations are told apart at the upstream",
            redirect::one_port_two_targets,
        ),
        GuestTest::single(
            "unmatched-pass",
            "packets that no rule matches, or that are malformed, pass byte for byte",
            untouched::unmatched_pass,
        ),
        GuestTest::single(
            "bad-rules-refused",
            "rules without a meaning are refused as a whole and change nothing",
            context::bad_rules_are_refused,
        ),
        GuestTest::single(
            "rules-replaced",
            "rules are read back as written, and new ones replace the old",
            context::rules_are_replaced,
        ),
        GuestTest::single(
            "capability-needed",
            "opening a context without CAP_NET_ADMIN fails with EPERM",
            context::capability_is_needed,
        ),
        GuestTest::single(
            "two-contexts",
            "two contexts work side by side, and closing one leaves the other alone",
            context::two_contexts,
        ),
        GuestTest::single(
            "close-removes-flows",
            "closing a context removes its rules and flows",
            context::close_removes_flows,
        ),
        GuestTest::single(
            "flows-time-out",
            "idle flows are collected, and the next packet makes a new one",
            context::flows_time_out,
        ),
        GuestTest::single(
            "monitor-stats",
            "/proc/net/mutex_proxy/stats says what the module says over netlink, where a context is",
            monitor::stats_by_cpu,
        ),
        GuestTest::single(
            "monitor-locks",
            "flows that are made lock their table, and packets only if RCU is switched off",
            monitor::locks_are_counted,
        ),
        GuestTest::single(
            "spread-flows",
            "packets of two CPUs' flows are received by these, and one on another CPU is noticed",
            crowd::spread,
        )
        .on_two_cpus(),
        GuestTest::single(
            "monitor-shared-counters",
            "with perf_enable_percpu off all CPUs count together, and no count is lost by switching",
            monitor::shared_counters,
        )
        .on_two_cpus(),
        GuestTest::single(
            "monitor-open-file",
            "who holds such a file open keeps nothing from going, and reads of what comes then",
            monitor::open_file_outlives,
        ),
        GuestTest::single(
            "monitor-slow-readers",
            "who reads such files slowly holds up no context that closes",
            monitor::readers_hold_up_nobody,
        )
        .on_debug(),
        GuestTest::single(
            "monitor-slow-reader-of-end",
            "who reads such a file slowly keeps its namespace, and holds up the end of no other one",
            monitor::readers_hold_up_no_end,
        )
        .on_debug(),
        GuestTest::single(
            "monitor-race",
            "contexts come and go under readers of their files",
            monitor::files_come_and_go,
        ),
        GuestTest::single(
            "load-unload",
            "the module loads and unloads ten times",
            lifecycle::load_and_unload,
        ),
        GuestTest::single(
            "unload-refused",
            "the module does not load twice, and does not unload while a context is open",
            lifecycle::unload_is_refused,
        ),
        GuestTest::single(
            "capability-enough",
            "CAP_NET_ADMIN is the only capability that opening a context needs",
            context::capability_is_enough,
        ),
        GuestTest::single(
            "unload-under-traffic",
            "the module unloads 50 times while both protocols are busy (20 on a debug kernel)",
            lifecycle::unload_under_traffic,
        )
        .long(),
    ]);
    tests.push(GuestTest::single(
        "agent-is-small",
        "the agent locks no more than 12 MiB of the guest's memory as it begins",
        footprint::agent_is_small,
    ));
    tests.push(GuestTest::single(
        "sockets-notice-what-nobody-redirects",
        "a server of sockets notices what comes to it, and should have been redirected",
        astray::unredirected,
    ));
    tests.extend(latency::tests());
    tests.extend(micro::tests());
    tests.extend(conntrack::tests());
    let delivered = delivered::tests().into_iter();
    tests.extend(delivered.map(GuestTest::beside_others));
    let routing = routing::tests().into_iter();
    tests.extend(routing.map(GuestTest::beside_others));
    tests.extend(flows());
    let long = [
        upstreams::tests(),
        batch::tests(),
        bulk::tests(),
        many::tests(),
        memory::tests(),
        crowd::tests(),
        malformed::tests(),
        parameters::tests(),
        priorities::tests(),
        time_outs::tests(),
        netns::tests(),
        flood::tests(),
        open_loop::tests(),
        back_to_back::tests(),
        faults::tests(),
    ];
    tests.extend(long.into_iter().flatten().map(GuestTest::long));
    let long = [
        full_table::long_tests(),
        turned_ports::tests(),
        keepalive::tests(),
        offload_fields::tests(),
    ];
    let long = long.into_iter().flatten().map(GuestTest::long);
    tests.extend(long.map(GuestTest::beside_others));
    tests.push(
        GuestTest::single(
            "no-leaks",
            "kmemleak finds nothing after the other tests of the guest",
            lifecycle::no_leaks,
        )
        .on_debug()
        .ending_guests(),
    );
    tests
}

/// What becomes of flows, most of it beside nft with the same packets.
fn flows() -> Vec<GuestTest> {
    let tests = [
        full_table::tests(),
        upstream_itself::tests(),
        fast_open::tests(),
        bad_clients::tests(),
        dropped::tests(),
        port_reuse::tests(),
        wide_rules::tests(),
        original_destination::tests(),
        encapsulation::tests(),
        handshakes::tests(),
        fragments::tests(),
        gro_list::tests(),
        first_datagrams::tests(),
        later_hooks::tests(),
        vrf::tests(),
        longest_time_outs::tests(),
        files::tests(),
    ];
    let tests = tests.into_iter().flatten();
    tests.map(GuestTest::beside_others).collect()
}

/// Runs the test called `name`.
pub fn run(name: &str) -> Result<()> {
    let test = all()
        .into_iter()
        .find(|test| test.info.name == name)
        .with_context(|| format!("there is no test {name}; see `mutexlab test --list`"))?;
    (test.run)()
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> = all().into_iter().map(|test| test.info.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
