// SPDX-License-Identifier: MIT OR Apache-2.0

//! The agent lies in the memory of each guest: without what only debuggers read it is a fifth as large.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,--strip-debug");
}
