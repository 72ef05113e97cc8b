// SPDX-License-Identifier: GPL-2.0

//! The parameters of `mutex_proxy.ko`, as they are now; `proxy/parameters.c` defines them.

macro_rules! parameters {
    ($($(#[$doc:meta])* $name:ident = $symbol:ident;)*) => {
        mod symbols {
            use core::sync::atomic::AtomicU32;

            extern "C" {
                $(pub(super) static $symbol: AtomicU32;)*
            }
        }

        $(
            $(#[$doc])*
            #[inline(always)]
            pub(crate) fn $name() -> u32 {
                words::$name().load(core::sync::atomic::Ordering::Relaxed)
            }
        )*

        /// The parameters' words, for code that is given the one to read.
        pub(crate) mod words {
            use core::sync::atomic::AtomicU32;

            $(
                $(#[$doc])*
                #[inline(always)]
                pub(crate) fn $name() -> &'static AtomicU32 {
                    // SAFETY: an `unsigned int` of C, aligned, which sysfs writes whole; AtomicU32
                    // has its size and alignment.
                    unsafe { &super::symbols::$symbol }
                }
            )*
        }
    };
}

/// Static keys, each on while what its name says holds; by default none is. See `proxy/parameters.c`.
pub(crate) mod keys {
    use crate::sys::static_key::StaticKey;

    extern "C" {
        /// Any of the following is on.
        #[link_name = "mxp_non_default"]
        pub(crate) static NON_DEFAULT: StaticKey;
        /// Some namespace has later hooks that may change routes.
        #[link_name = "mxp_later_hooks"]
        pub(crate) static LATER_HOOKS: StaticKey;
        /// Any of the following but that of batching is on: something that saves work is off, or the flow cache is
        /// on.
        #[link_name = "mxp_ablation"]
        pub(crate) static ABLATION: StaticKey;
        /// `perf_enable_rcu` is off.
        #[link_name = "mxp_rcu_disabled"]
        pub(crate) static RCU_DISABLED: StaticKey;
        /// `perf_enable_zero_copy` is off.
        #[link_name = "mxp_zero_copy_disabled"]
        pub(crate) static ZERO_COPY_DISABLED: StaticKey;
        /// `perf_enable_route_cache` is off.
        #[link_name = "mxp_route_cache_disabled"]
        pub(crate) static ROUTE_CACHE_DISABLED: StaticKey;
        /// `perf_enable_percpu` is off.
        #[link_name = "mxp_percpu_disabled"]
        pub(crate) static PERCPU_DISABLED: StaticKey;
        /// `perf_cache_size` is not zero.
        #[link_name = "mxp_flow_cache_enabled"]
        pub(crate) static FLOW_CACHE_ENABLED: StaticKey;
        /// `perf_enable_batching` is on, or about to be off.
        #[link_name = "mxp_batching_active"]
        pub(crate) static BATCHING_ACTIVE: StaticKey;
    }
}

/// Counts the places, one for each namespace and IP version, with later hooks that may change routes: one
/// more if `there`, else one less. Sleeps.
pub(crate) fn count_later_hooks(there: bool) {
    extern "C" {
        fn mxp_count_later_hooks(there: bool);
    }
    // SAFETY: changes static keys; called by tasks that may sleep.
    unsafe { mxp_count_later_hooks(there) };
}

extern "C" {
    /// `perf_enable_profiling` is on.
    #[link_name = "mxp_profiling_enabled"]
    pub(crate) static PROFILING_ENABLED: crate::sys::static_key::StaticKey;
}

parameters! {
    /// Whether memory of flows is kept for those to come.
    perf_enable_pool = mxp_perf_enable_pool;
    /// Whether rules are found by their index.
    perf_enable_rule_index = mxp_perf_enable_rule_index;
    /// Flows that each CPU remembers, of each table.
    perf_cache_size = mxp_perf_cache_size;
    /// Whether packets may wait for each other; asked only while [`keys::BATCHING_ACTIVE`] is on.
    perf_enable_batching = mxp_perf_enable_batching;
    /// Packets of a batch.
    perf_batch_size = mxp_perf_batch_size;
    /// Microseconds that a packet may wait.
    perf_batch_timeout = mxp_perf_batch_timeout;
    /// Seconds until a TCP connection that was not answered is forgotten.
    tcp_syn_timeout = mxp_tcp_syn_timeout;
    /// Seconds until an idle TCP connection is forgotten.
    tcp_established_timeout = mxp_tcp_established_timeout;
    /// Seconds until an idle TCP connection is forgotten that one side has closed.
    tcp_fin_timeout = mxp_tcp_fin_timeout;
    /// Seconds until a TCP connection is forgotten that both sides have closed, or that was reset.
    tcp_close_timeout = mxp_tcp_close_timeout;
    /// Seconds until an idle UDP flow is forgotten that is assured.
    udp_timeout = mxp_udp_timeout;
    /// Seconds until another one is forgotten.
    udp_transient_timeout = mxp_udp_transient_timeout;
    /// Seconds until another one is forgotten that goes to a well-known port.
    udp_unreplied_timeout = mxp_udp_unreplied_timeout;
    /// Seconds in which the whole table is searched for idle flows once.
    gc_interval = mxp_gc_interval;
    /// Flows of each IP version in a network namespace.
    max_flows = mxp_max_flows;
    /// Seconds after which an upstream that failed is tried again.
    upstream_retry = mxp_upstream_retry;
    /// Buckets that a flow table begins with, not yet rounded up.
    hash_buckets = mxp_hash_buckets;
    /// Seed of the flow table's hash; zero asks for a random one.
    hash_seed = mxp_hash_seed;
}

/// Priorities of the hooks: lower runs earlier.
pub(crate) mod priority {
    use core::ffi::c_int;

    extern "C" {
        static mxp_pre_routing_priority: c_int;
        static mxp_local_out_priority: c_int;
    }

    /// Of those for packets that come in.
    pub(crate) fn pre_routing() -> i32 {
        // SAFETY: written while the module is loaded, before its code runs.
        unsafe { mxp_pre_routing_priority }
    }

    /// Of those for packets of the machine's own.
    pub(crate) fn local_out() -> i32 {
        // SAFETY: as above.
        unsafe { mxp_local_out_priority }
    }
}
