// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where this machine gets Debian's packages from, which is what its apt is configured with, and
//! where upstream's tarballs are.

use std::{fs, path::Path};

use anyhow::{ensure, Result};

use super::place::Archive;
use mutexlab_host::surroundings::{Surroundings, MIRROR_VARIABLE};

/// The URL under which upstream's releases lie, in `v6.x`, `v7.x` and so on.
const UPSTREAM: &str = "https://cdn.kernel.org/pub/linux/kernel";

/// The URL under which the directories of upstream's tarballs lie, without a slash at the end.
pub fn upstream(surroundings: &Surroundings) -> String {
    let url = surroundings.kernel_mirror.as_deref().unwrap_or(UPSTREAM);
    url.trim_end_matches('/').to_owned()
}

/// URLs under which the archive's `pool` and `dists` may lie, best first, without a slash at the end.
///
/// An error if there is none, with what to do.
pub fn urls(archive: Archive, surroundings: &Surroundings) -> Result<Vec<String>> {
    if let Some(url) = &surroundings.debian_mirror {
        return Ok(vec![sibling(url, archive)]);
    }
    let codename = codename(&fs::read_to_string("/etc/os-release").unwrap_or_default());
    let urls = find(&entries(Path::new("/etc/apt")), &codename, archive);
    ensure!(
        !urls.is_empty(),
        "apt's configuration in /etc/apt has no {} archive to download from; set {MIRROR_VARIABLE} \
         to the URL of a mirror's 'debian' directory",
        archive.name()
    );
    Ok(urls)
}

/// One combination of URL, suite and component.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    url: String,
    suite: String,
    component: String,
}

/// What Debian calls the release, from the text of `/etc/os-release`.
fn codename(os_release: &str) -> String {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .unwrap_or("stable")
        .trim_matches('"')
        .to_owned()
}

fn entries(apt: &Path) -> Vec<Entry> {
    let mut files: Vec<_> = fs::read_dir(apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|file| file.path())
        .collect();
    files.sort();
    files.insert(0, apt.join("sources.list"));
    files
        .iter()
        .flat_map(|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            match path.extension().and_then(|e| e.to_str()) {
                Some("list") => parse_list(&text),
                Some("sources") => parse_deb822(&text),
                _ => Vec::new(),
            }
        })
        .collect()
}

/// The one-line format: `deb [options] URL suite component…`.
fn parse_list(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line
            .strip_prefix("deb")
            .filter(|r| r.starts_with([' ', '\t', '[']))
        else {
            continue;
        };
        let rest = rest.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']').map_or("", |(_, rest)| rest),
            None => rest,
        };
        let mut words = rest.split_whitespace();
        if let (Some(url), Some(suite)) = (words.next(), words.next()) {
            entries.extend(words.map(|component| Entry {
                url: url.to_owned(),
                suite: suite.to_owned(),
                component: component.to_owned(),
            }));
        }
    }
    entries
}

/// The format of stanzas: `URIs:`, `Suites:`, `Components:`.
fn parse_deb822(text: &str) -> Vec<Entry> {
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let mut entries = Vec::new();
    for stanza in text.split(|line| line.trim().is_empty()) {
        let words = |name: &str| -> Vec<&str> {
            let mut found = false;
            let mut words = Vec::new();
            for line in stanza {
                let continued = line.starts_with([' ', '\t']);
                let value = match line.split_once(':') {
                    _ if continued => line,
                    Some((field, value)) => {
                        found = field.eq_ignore_ascii_case(name);
                        value
                    }
                    None => continue,
                };
                if found {
                    words.extend(value.split_whitespace());
                }
            }
            words
        };
        let disabled = words("Enabled")
            .first()
            .is_some_and(|v| v.eq_ignore_ascii_case("no"));
        if disabled || !words("Types").contains(&"deb") {
            continue;
        }
        for url in words("URIs") {
            for suite in words("Suites") {
                entries.extend(words("Components").iter().map(|component| Entry {
                    url: url.to_owned(),
                    suite: suite.to_owned(),
                    component: (*component).to_owned(),
                }));
            }
        }
    }
    entries
}

/// The URLs for an archive: those of the release's own suites. Other vendors name their suites
/// after Debian's, too, so those that are called as Debian's archive is come first. Where the
/// security archive is not configured, it is looked for beside the main one, and the reverse.
fn find(entries: &[Entry], codename: &str, archive: Archive) -> Vec<String> {
    let is_security = |suite: &str| {
        suite == format!("{codename}-security") || suite == format!("{codename}/updates")
    };
    let is_main = |suite: &str| {
        suite == codename || suite == "stable" || suite.starts_with(&format!("{codename}-"))
    };
    let mut urls: Vec<String> = Vec::new();
    let mut add = |url: String| {
        if !urls.contains(&url) {
            urls.push(url);
        }
    };
    for entry in entries.iter().filter(|e| e.component == "main") {
        let of_archive = if is_security(&entry.suite) {
            Archive::DebianSecurity
        } else if is_main(&entry.suite) {
            Archive::Debian
        } else {
            continue;
        };
        if !["http://", "https://", "file:"]
            .iter()
            .any(|scheme| entry.url.starts_with(scheme))
        {
            continue;
        }
        if of_archive == archive {
            add(entry.url.trim_end_matches('/').to_owned());
        } else {
            add(sibling(&entry.url, archive));
        }
    }
    let suffix = format!("/{}", archive.name());
    urls.sort_by_key(|url| !url.ends_with(&suffix));
    urls
}

/// The archive on the mirror that has another one at `url`.
fn sibling(url: &str, archive: Archive) -> String {
    let url = url.trim_end_matches('/');
    for known in [Archive::DebianSecurity, Archive::Debian] {
        if let Some(root) = url.strip_suffix(known.name()).filter(|r| r.ends_with('/')) {
            return format!("{root}{}", archive.name());
        }
    }
    url.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(list: &str, sources: &str, archive: Archive) -> Vec<String> {
        let entries = [parse_list(list), parse_deb822(sources)].concat();
        find(&entries, "bookworm", archive)
    }

    const LIST: &str = "
# deb http://old.example/debian bookworm main
deb-src http://src.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] https://vendor.example/apt bookworm main extra
deb http://a.example/debian/ bookworm main contrib # comment
deb http://a.example/debian-security bookworm-security main
";

    #[test]
    fn the_one_line_format() {
        assert_eq!(
            find_in(LIST, "", Archive::Debian)[..2],
            ["http://a.example/debian", "https://vendor.example/apt"]
        );
        assert_eq!(
            find_in(LIST, "", Archive::DebianSecurity)[0],
            "http://a.example/debian-security"
        );
    }

    const SOURCES: &str = "Types: deb deb-src
# a comment
URIs: http://b.example/debian
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /k.gpg

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb
URIs: https://c.example/node_20.x
Suites: nodistro
Components: main
";

    #[test]
    fn the_format_of_stanzas() {
        assert_eq!(
            find_in("", SOURCES, Archive::Debian),
            ["http://b.example/debian"]
        );
    }

    #[test]
    fn a_missing_archive_is_beside_the_other() {
        assert_eq!(
            find_in("", SOURCES, Archive::DebianSecurity),
            ["http://b.example/debian-security"]
        );
        assert_eq!(
            sibling("https://m.example/mirror/debian/", Archive::DebianSecurity),
            "https://m.example/mirror/debian-security"
        );
        assert_eq!(
            sibling("https://m.example/x", Archive::Debian),
            "https://m.example/x"
        );
    }

    #[test]
    fn nothing_is_found_in_nothing() {
        assert!(find_in("deb cdrom:[Debian] bookworm main", "", Archive::Debian).is_empty());
        assert!(find_in(
            "deb http://a.example/debian trixie main",
            "",
            Archive::Debian
        )
        .is_empty());
    }

    #[test]
    fn the_release_has_a_name() {
        assert_eq!(
            codename("ID=debian\nVERSION_CODENAME=bookworm\n"),
            "bookworm"
        );
    }
}
