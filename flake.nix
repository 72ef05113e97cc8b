# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A shell with the tools of images/tools.list, for systems other than Debian: `nix develop`, then
# `just bench`. Not tested: it was written on a machine without Nix, and pins no revision of
# nixpkgs, so `nix flake lock` has to be run first. Where nixpkgs has no virtme-ng, install it with
# `pip install virtme-ng==1.42` into an environment of your own.
{
  description = "Reproducible performance engineering for in-kernel networking";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    rust-overlay = {
      url = "github:oxalica/rust-overlay";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs = { nixpkgs, rust-overlay, ... }:
    let
      pkgs = import nixpkgs {
        system = "x86_64-linux";
        overlays = [ rust-overlay.overlays.default ];
      };
      llvm = pkgs.llvmPackages_22;
    in
    {
      devShells.x86_64-linux.default = pkgs.mkShell {
        packages = with pkgs; [
          (rust-bin.stable."1.95.0".default.override { extensions = [ "rust-src" ]; })
          rust-bindgen-unwrapped
          llvm.clang-unwrapped
          llvm.lld
          llvm.llvm
          bc
          bison
          busybox
          curl
          elfutils
          flex
          git
          gnumake
          just
          kmod
          lz4
          nftables
          qemu
          virtme-ng
          xz
        ];
        LIBCLANG_PATH = "${llvm.libclang.lib}/lib";
      };
    };
}
