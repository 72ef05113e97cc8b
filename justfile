# SPDX-License-Identifier: MIT OR Apache-2.0

cache := env("MUTEXLAB_CACHE", env("XDG_CACHE_HOME", home_directory() / ".cache") / "mutexlab")

# The LLVM that kernels are built with and our own tools come first.
export PATH := "/usr/lib/llvm-22/bin:" + cache / "tools/bin:" + env("PATH")

mutexlab := "target/release/mutexlab"

# So that "$@" below passes arguments on as they are.
set positional-arguments

# Show the recipes
default:
    @{{quote(just_executable())}} --justfile {{quote(justfile())}} --list

# Build what is needed, run a scenario (scenarios/quick.toml) and print what a packet costs
bench *args: build
    {{mutexlab}} bench "$@"

# Run all tests: on the host, and in guests with the kernel's checkers on
test *args: build
    cargo test --workspace
    {{mutexlab}} test "$@"

# Time the datapath's steps on this machine, with criterion: `just microbench find`
microbench *args:
    cargo bench -p mutex-datapath -- "$@"

# List, build or find kernels: `./just image build 7.3:debug`
image *args="list": build
    {{mutexlab}} image "$@"

# Show each prerequisite, whether it is there, and what to do if it is not
doctor *args: build
    {{mutexlab}} doctor "$@"

# Check format, lints and documentation
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

# Build the harness
build:
    cargo build --release
