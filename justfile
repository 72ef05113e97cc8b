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

# Tell what differs between two commits or results files: `just compare HEAD~1 HEAD`
compare *args: build
    {{mutexlab}} compare "$@"

# Find the commit that changed a metric: `just bisect hook.mean v1 HEAD`
bisect *args: build
    {{mutexlab}} bisect "$@"

# Tell which commits of a kernel move a count, and where: `just series v1..v2 --linux ../linux`
series *args: build
    {{mutexlab}} series "$@"

# Check what packets cost against results/golden/; `--update` accepts what moved
golden *args: build
    {{mutexlab}} golden "$@"

# Join the results of shards: `just merge a.json b.json -o both.json`
merge *args: build
    {{mutexlab}} merge "$@"

# Measure what the report shows, as far as it was not, and write it as a page: target/report.html
report *args: build
    {{mutexlab}} report --measure "$@"

# Measure the five claims about the optimizations, and say which hold
claims *args: build
    {{mutexlab}} claims "$@"

# See where the instructions and cache lines of a packet go: `just lens scenarios/quick.toml --cell module/forward-v4-udp`
lens *args: build
    {{mutexlab}} lens "$@"

# Run all tests: on the host, and in guests with the kernel's checkers on
test *args: build
    cargo test --workspace
    {{mutexlab}} test "$@"

# Look around in a guest with the module at work: `just shell 7.3:debug`, `just shell -- client ask`
shell *args: build
    {{mutexlab}} shell "$@"

# Try every operation of the module's Generic Netlink family with the kernel's own Python client, in a guest
ynl kernel="7.3": build
    tests/ynl/run {{mutexlab}} "{{kernel}}" "{{cache}}/tools/venv"

# Test and measure on every kernel, and tell what is the module's and what the kernel's
matrix *args: build
    {{mutexlab}} matrix "$@"

# Time the steps of datapath and generator on this machine, with criterion: `just microbench find`
microbench *args:
    cargo bench -p mutex-datapath -p harness -- "$@"

# Look for inputs that break the datapath, so many seconds for each target: `./just fuzz 600 flow`
fuzz seconds="60" *targets: (needs "cargo +nightly fuzz --version" "rustup toolchain install nightly; cargo install cargo-fuzz")
    #!/usr/bin/env bash
    set -euo pipefail
    cd module/datapath
    shift
    [ $# -gt 0 ] || set -- $(cargo +nightly fuzz list)
    for target; do
        # What is new goes into the first directory.
        mkdir -p "../../target/fuzz/corpus/$target"
        cargo +nightly fuzz run --target-dir ../../target/fuzz "$target" \
            "../../target/fuzz/corpus/$target" "fuzz/corpus/$target" -- \
            -max_total_time="{{seconds}}" -max_len=700 -timeout=10
    done

# Run the datapath's tests under Miri, which sees undefined behaviour and leaks; takes minutes
miri *args: (needs "cargo +nightly miri --version" "rustup component add --toolchain nightly miri rust-src")
    MIRIFLAGS="-Zmiri-strict-provenance -Zmiri-disable-isolation" PROPTEST_CASES=4 \
        cargo +nightly miri test --target-dir target/miri -p mutex-datapath "$@" -- --skip stack::
    # A stack keeps its pointers as numbers.
    MIRIFLAGS="-Zmiri-permissive-provenance" \
        cargo +nightly miri test --target-dir target/miri -p mutex-datapath --lib stack::

# Run what threads share under Miri, which orders memory as weakly as it may, with so many seeds: `./just weak 64 weak_`
weak seeds="16" *tests: (needs "cargo +nightly miri --version" "rustup component add --toolchain nightly miri rust-src")
    #!/usr/bin/env bash
    set -euo pipefail
    shift
    [ $# -gt 0 ] || set -- link::tests::weak_ cache_set::tests::many_use keyed_slot::tests::weak_
    export MIRIFLAGS="-Zmiri-strict-provenance -Zmiri-disable-isolation -Zmiri-many-seeds=0..{{seeds}}"
    cargo +nightly miri test --target-dir target/miri -p mutex-datapath --lib -- "$@"

# Run the datapath's tests under ThreadSanitizer
sanitize *args: (needs "rustc +nightly --version" "rustup toolchain install nightly --component rust-src")
    RUSTFLAGS=-Zsanitizer=thread \
        cargo +nightly test --target-dir target/sanitize -Zbuild-std --target x86_64-unknown-linux-gnu \
        -p mutex-datapath --lib --tests "$@"

# List, build or find kernels: `./just image build 7.3:debug`
image *args="list": build
    {{mutexlab}} image "$@"

# Show that the instrument measures what is there, and nothing else
selfcheck *args: build
    {{mutexlab}} selfcheck "$@"

# Make the numbers of a results file again, and say whether they are equal
reproduce *args: build
    {{mutexlab}} reproduce "$@"

# Write the JSON Schemas of scenarios, of results and of all that commands print
schema: build
    {{mutexlab}} schema --write

# Show each prerequisite, whether it is there, and what to do if it is not
doctor *args: build
    {{mutexlab}} doctor "$@"

# Check format, lints and documentation
lint: check-ci
    cargo fmt --all --check
    cargo fmt --check --manifest-path module/datapath/fuzz/Cargo.toml
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

# Check the workflows and flake.nix, as far as the tools for that are here
check-ci:
    @if command -v shellcheck >/dev/null; then .ci/workflow check-workflows; \
        else echo "NOT CHECKED: .github/workflows, since shellcheck is missing" >&2; fi
    @if command -v nix-instantiate >/dev/null; then .ci/workflow check-nix; \
        else echo "NOT CHECKED: flake.nix, since nix is missing" >&2; fi

# Make a Debian package of mprox: target/package/mprox_<version>_<architecture>.deb
package *args:
    cargo run --quiet --release -p mprox-package -- "$@"

# Build the harness
build:
    cargo build --release

[private]
needs command how:
    @{{command}} >/dev/null 2>&1 || { echo "{{command}} fails; try: {{how}}" >&2; exit 1; }
