# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Stands in for nixpkgs: the attributes that flake.nix uses and no others, so that a misspelt one is
# an error. A package is its name and a path.
{ system, overlays }:
let
  package = name: {
    inherit name system;
    type = "derivation";
    outPath = "/nix/store/stub-${name}";
  };
  named = names:
    builtins.listToAttrs (map (name: { inherit name; value = package name; }) names);

  base = named [
    "bc" "binutils" "bison" "curl" "elfutils" "flex" "gcc" "git" "gnumake" "gnupg" "iproute2" "ipvsadm" "just" "kmod" "libevent"
    "libnl" "lz4" "microsocks" "nftables" "popt" "python3" "qemu" "redsocks" "rust-bindgen-unwrapped" "virtme-ng"
    "xz" "zstd"
  ] // {
    llvmPackages_22 = named [ "clang-unwrapped" "libclang" "lld" "llvm" ];
    pkgsStatic = named [ "busybox" ];
    lib = {
      getExe = package: "${package.outPath}/bin/${package.name}";
      getLib = package: "${package.outPath}-lib";
    };
    mkShell = { packages, ... }@arguments: package "shell" // { inherit arguments; };
    writeShellApplication = { name, text, runtimeInputs ? [ ], runtimeEnv ? { } }:
      package name // { inherit text runtimeInputs runtimeEnv; };
    # Of the stub itself, for overlays.
    stub = { inherit package; };
  };
in
builtins.foldl' (previous: overlay: previous // overlay previous previous) base overlays
