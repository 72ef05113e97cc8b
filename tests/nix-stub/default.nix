# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Evaluates flake.nix where nixpkgs cannot be fetched, with ./nixpkgs in its place, and says what is
# wrong. That nixpkgs has the same attributes, and that they build, it cannot show.
#
#   toolNames   the names in images/tools.list
{ toolNames }:
let
  flake = import ../../flake.nix;
  lock = builtins.fromJSON (builtins.readFile ../../flake.lock);

  outputs = flake.outputs {
    self = outputs;
    nixpkgs.outPath = toString ./nixpkgs;
    rust-overlay.overlays.default = final: previous: {
      rust-bin.stable."1.95.0".default.override = { extensions }:
        previous.stub.package "rust" // { inherit extensions; };
    };
  };

  names = map (package: package.name);
  shell = outputs.devShells.x86_64-linux.default.arguments;
  unknown = builtins.filter (name: !(outputs.lib.tools ? ${name})) toolNames;

  # Whether the lock is of the inputs that the flake asks for, and pins them.
  isLocked = name:
    let
      inherit (lock.nodes.${name}) locked original;
      ref = if original ? ref then "/${original.ref}" else "";
    in
    flake.inputs.${name}.url == "${original.type}:${original.owner}/${original.repo}${ref}"
    && builtins.match "[0-9a-f]{40}" locked.rev != null
    && builtins.match "sha256-[A-Za-z0-9+/]{43}=" locked.narHash != null;
  unlocked = builtins.filter (name: !(isLocked name)) (builtins.attrNames flake.inputs);

  wrongApps = builtins.filter
    (name: outputs.apps.x86_64-linux.${name}.type != "app")
    (builtins.attrNames outputs.apps.x86_64-linux);
in
{
  problems =
    map (name: "${name} of images/tools.list is not in flake.nix") unknown
    ++ map (name: "flake.lock does not pin ${name} as flake.nix asks for it") unlocked
    ++ map (name: "${name} is no app") wrongApps;
  packages = names shell.packages;
  libclang = shell.LIBCLANG_PATH;
  apps = builtins.mapAttrs (_: app: app.program) outputs.apps.x86_64-linux;
}
