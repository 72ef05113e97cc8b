# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The tools of images/tools.list for systems other than Debian: `nix develop` is a shell with them,
# `nix run .#bench` and `nix run .#test` run ./just with them. docs/nix.md says what of this was
# checked, and what was not.
{
  description = "Reproducible performance engineering for in-kernel networking";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    rust-overlay = {
      url = "github:oxalica/rust-overlay";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs = { self, nixpkgs, rust-overlay }:
    let
      system = "x86_64-linux";
      pkgs = import nixpkgs {
        inherit system;
        overlays = [ rust-overlay.overlays.default ];
      };
      # The LLVM that rustc 1.95 has in it: helpers' bitcode is linked into Rust objects.
      llvm = pkgs.llvmPackages_22;

      # One for each line of images/tools.list, which tests/nix-stub/default.nix checks: its name
      # there, and what has it here.
      tools = with pkgs; {
        git = git;
        gcc = gcc;
        make = gnumake;
        curl = curl;
        xz-utils = xz;
        zstd = zstd;
        gpgv = gnupg;
        binutils = binutils;
        # Without nixpkgs' wrapper, whose flags a kernel cannot be built with.
        clang-22 = llvm.clang-unwrapped;
        lld-22 = llvm.lld;
        llvm-22 = llvm.llvm;
        libclang-22-dev = llvm.libclang;
        flex = flex;
        bison = bison;
        bc = bc;
        libelf-dev = elfutils;
        lz4 = lz4;
        kmod = kmod;
        # Built with plugins, which is nixpkgs' default: the lens is one.
        qemu-system-x86 = qemu;
        busybox-static = pkgsStatic.busybox;
        nftables = nftables;
        iproute2 = iproute2;
        python3-venv = python3;
        rust-src = rust-bin.stable."1.95.0".default.override { extensions = [ "rust-src" ]; };
        bindgen-cli = rust-bindgen-unwrapped;
        virtme-ng = virtme-ng;
        rust-just = just;
        redsocks = redsocks;
        "libevent-core-2.1-7" = libevent;
        microsocks = microsocks;
        ipvsadm = ipvsadm;
        libnl-3-200 = libnl;
        libnl-genl-3-200 = libnl;
        libpopt0 = popt;
      };
      packages = builtins.attrValues tools;
      environment = {
        # Where bindgen looks for it.
        LIBCLANG_PATH = "${pkgs.lib.getLib llvm.libclang}/lib";
      };

      # Results go to the checkout that one is in, so that is what is run, and not a copy of it.
      app = recipe: {
        type = "app";
        program = pkgs.lib.getExe (pkgs.writeShellApplication {
          name = "mutexlab-${recipe}";
          runtimeInputs = packages;
          runtimeEnv = environment;
          text = ''
            [ -x ./just ] || { echo "run this in a checkout of mutexlab" >&2; exit 2; }
            exec ./just ${recipe} "$@"
          '';
        });
      };
    in
    {
      devShells.${system}.default = pkgs.mkShell ({ inherit packages; } // environment);

      apps.${system} = rec {
        bench = app "bench";
        test = app "test";
        default = bench;
      };

      # For what checks this file.
      lib = { inherit tools; };
    };
}
