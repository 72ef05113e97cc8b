// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the package of `mprox` has, and where it goes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::commit::Commit;
use crate::deb::{gzip, Deb, File};
use crate::needs::Needs;
use crate::output::output;
use crate::workspace::Workspace;

const UNIT: &str = include_str!("../files/mprox@.service");
const DEFAULT: &str = include_str!("../files/default.toml");
const COPYRIGHT: &str = include_str!("../files/copyright");
const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("../files/postinst")),
    ("prerm", include_str!("../files/prerm")),
    ("postrm", include_str!("../files/postrm")),
];

const DESCRIPTION: &str = "\
Description: redirects connections transparently, in the kernel
 Controls mutex_proxy.ko, a transparent proxy as a kernel module: which
 connections are redirected, by their networks, ports, interfaces, users,
 control groups and programs, and to which servers. Clients and servers
 need not know.
 .
 The module is not in this package.
";

/// The package with `program`, which is run to say its manual pages, completions and schema.
pub fn deb(workspace: &Workspace, commit: &Commit, program: &Path) -> Result<Deb> {
    let binary = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let needs = Needs::of(&binary).with_context(|| format!("{}", program.display()))?;
    let mut files = BTreeMap::new();
    let mut add = |path: String, mode, content| files.insert(path, File { content, mode });
    add("usr/sbin/mprox".to_owned(), 0o755, binary);
    for (path, text) in [
        ("usr/lib/systemd/system/mprox@.service", UNIT),
        ("etc/mprox/default.toml", DEFAULT),
        ("usr/share/doc/mprox/copyright", COPYRIGHT),
    ] {
        add(path.to_owned(), 0o644, text.as_bytes().to_vec());
    }
    for (path, arguments) in [
        (
            "bash-completion/completions/mprox",
            &["completions", "bash"][..],
        ),
        ("zsh/vendor-completions/_mprox", &["completions", "zsh"]),
        (
            "fish/vendor_completions.d/mprox.fish",
            &["completions", "fish"],
        ),
        ("mprox/mprox.schema.json", &["schema"]),
    ] {
        let text = output(Command::new(program).args(arguments))?;
        add(format!("usr/share/{path}"), 0o644, text.into_bytes());
    }
    for (path, page) in pages(program)? {
        add(format!("usr/share/man/{path}.gz"), 0o644, gzip(&page)?);
    }
    for name in ["mprox.md", "recipes.md"] {
        let guide = workspace.root.join("docs").join(name);
        let text = fs::read(&guide).with_context(|| format!("cannot read {}", guide.display()))?;
        add(format!("usr/share/doc/mprox/{name}"), 0o644, text);
    }
    let changelog = format!(
        "mprox ({}) unstable; urgency=medium\n\n  * Built of commit {}{}.\n\n -- {}  {}\n",
        workspace.version,
        commit.hash,
        if commit.is_changed {
            " with changes"
        } else {
            ""
        },
        commit.author,
        commit.date
    );
    let changelog = gzip(changelog.as_bytes())?;
    add(
        "usr/share/doc/mprox/changelog.gz".to_owned(),
        0o644,
        changelog,
    );
    Ok(Deb {
        name: "mprox",
        version: workspace.version.clone(),
        architecture: needs.architecture,
        fields: format!(
            "Maintainer: {}\nDepends: {}\nSection: net\nPriority: optional\n{DESCRIPTION}",
            commit.author, needs.depends
        ),
        scripts: BTreeMap::from(SCRIPTS),
        files,
        time: commit.time,
    })
}

/// The manual pages, by their paths below `man`.
fn pages(program: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let directory = tempfile::tempdir()?;
    output(Command::new(program).arg("man").arg(directory.path()))?;
    let mut pages = BTreeMap::new();
    for section in fs::read_dir(directory.path())? {
        for page in fs::read_dir(section?.path())? {
            let page = page?.path();
            let path = page.strip_prefix(directory.path())?.display().to_string();
            pages.insert(path, fs::read(&page)?);
        }
    }
    Ok(pages)
}
