// SPDX-License-Identifier: MIT OR Apache-2.0

//! Documents of `mutexlab image`.

use crate::lab::Lab;
use crate::seen::Seen;

/// A laboratory whose kernel is built.
fn built(seen: &mut Seen) -> Lab {
    let lab = Lab::new(&[]);
    seen.document(&mut lab.command(&["image", "build", "k", "--json"]));
    lab
}

pub fn build(seen: &mut Seen) {
    built(seen);
}

pub fn path(seen: &mut Seen) {
    let lab = built(seen);
    seen.document(&mut lab.command(&["image", "path", "k", "--json"]));
}

pub fn list(seen: &mut Seen) {
    let lab = built(seen);
    let listed = seen.document(&mut lab.command(&["image", "list", "--json"]));
    assert_eq!(listed[0]["state"], "built");
    assert_eq!(listed[1]["state"], "not-built");
}

pub fn key(seen: &mut Seen) {
    let lab = Lab::new(&[]);
    seen.document(&mut lab.command(&["image", "key", "k", "--json"]));
}

pub fn verify(seen: &mut Seen) {
    let lab = built(seen);
    let image = seen.document(&mut lab.command(&["image", "path", "k", "--json"]));
    let directory = image["directory"].as_str().unwrap();
    std::fs::remove_file(format!("{directory}/vmlinux")).unwrap();
    let verified = seen.document(&mut lab.command(&["image", "verify", "--json"]));
    assert_eq!(verified[0]["damages"].as_array().unwrap().len(), 1);
}

pub fn pack(seen: &mut Seen) {
    let lab = built(seen);
    seen.document(&mut lab.command(&["image", "pack", "k", "k.tar.zst", "--json"]));
}

pub fn unpack(seen: &mut Seen) {
    let lab = built(seen);
    seen.document(&mut lab.command(&["image", "pack", "k", "k.tar.zst", "--json"]));
    seen.document(&mut lab.command(&["image", "unpack", "k.tar.zst", "--json"]));
}

pub fn prune(seen: &mut Seen) {
    let lab = built(seen);
    // Another configuration is another image.
    lab.write("repository/images/config/a.config", "CONFIG_B=y\n");
    let prune = ["image", "prune", "--all-but-current", "--json"];
    seen.document(&mut lab.command(&prune));
}
