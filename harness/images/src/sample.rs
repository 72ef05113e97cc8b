// SPDX-License-Identifier: MIT OR Apache-2.0

//! A kernel and a toolchain for tests.

use std::fs;

use crate::catalog::{Catalog, Recipe};
use crate::toolchain::Toolchain;

/// A repository that has one kernel with one fragment, and an empty tree, and that kernel.
pub fn kernel(fragment: &str, version: &str) -> (tempfile::TempDir, Recipe) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("images/config")).unwrap();
    fs::write(root.path().join("images/config/a.config"), fragment).unwrap();
    fs::create_dir(root.path().join("tree")).unwrap();
    let catalog = format!(
        "default = \"k\"\n[flavours]\nplain = [\"a\"]\n[[kernel]]\nname = \"k\"\n\
         version = \"{version}\"\nsource = [{{ tree = \"../tree\" }}]\n"
    );
    fs::write(root.path().join("images/kernels.toml"), catalog).unwrap();
    let kernel = Catalog::load(root.path()).unwrap().kernels()[0].clone();
    (root, kernel)
}

/// A toolchain whose versions are letters.
pub fn toolchain() -> Toolchain {
    let text = |text: &str| text.to_owned();
    Toolchain {
        rustc: text("r"),
        rustc_llvm: text("v"),
        clang: text("c"),
        lld: text("l"),
        bindgen: text("b"),
    }
}
