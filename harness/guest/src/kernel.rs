// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's kernel: modules, devices, memory, clocks, its log.

pub mod cpu;
pub mod device;
pub mod entropy;
pub mod locked;
pub mod log;
pub mod marks;
pub mod memory;
pub mod memory_map;
pub mod module;
pub mod resident;
pub mod tsc;
