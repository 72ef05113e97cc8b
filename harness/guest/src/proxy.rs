// SPDX-License-Identifier: MIT OR Apache-2.0

//! mutex_proxy.ko as a program sees it: contexts and rules, its table, what its files tell.

pub mod buckets;
pub mod context;
pub mod monitor;
