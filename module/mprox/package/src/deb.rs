// SPDX-License-Identifier: MIT OR Apache-2.0

//! The format of packages, deb(5): an `ar` archive of three members, two of which are compressed `tar` archives.
//!
//! The order of files, their owner, modes and times follow from what is said here alone, and nothing from the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write as _};

use flate2::{Compression, GzBuilder};
use md5::{Digest, Md5};

/// A file.
#[derive(Clone, Debug)]
pub struct File {
    /// What is in it.
    pub content: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
}

/// A package.
#[derive(Debug)]
pub struct Deb {
    /// What it is called.
    pub name: &'static str,
    /// Which version it is.
    pub version: String,
    /// For which machines.
    pub architecture: &'static str,
    /// The fields of its description but those above and `Installed-Size`, as deb-control(5) has them.
    pub fields: String,
    /// Scripts that dpkg runs, by their names: `postinst`, `prerm`, `postrm`.
    pub scripts: BTreeMap<&'static str, &'static str>,
    /// What is installed, by paths without a slash at the beginning.
    pub files: BTreeMap<String, File>,
    /// The time of all that is in it, in seconds since 1970.
    pub time: u64,
}

impl Deb {
    /// What packages of its kind are called.
    pub fn file_name(&self) -> String {
        format!("{}_{}_{}.deb", self.name, self.version, self.architecture)
    }

    /// The package.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut archive = b"!<arch>\n".to_vec();
        self.member(&mut archive, "debian-binary", b"2.0\n");
        self.member(&mut archive, "control.tar.gz", &gzip(&self.control()?)?);
        self.member(&mut archive, "data.tar.gz", &gzip(&self.data()?)?);
        Ok(archive)
    }

    fn member(&self, archive: &mut Vec<u8>, name: &str, content: &[u8]) {
        let (time, mode, length) = (self.time, "100644", content.len());
        let header = format!(
            "{name:<16}{time:<12}{:<6}{:<6}{mode:<8}{length:<10}`\n",
            0, 0
        );
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(content);
        if !length.is_multiple_of(2) {
            archive.push(b'\n');
        }
    }

    /// The directories of what is installed.
    fn directories(&self) -> BTreeSet<&str> {
        let ends = |path: &str| {
            path.match_indices('/')
                .map(|(end, _)| end)
                .collect::<Vec<_>>()
        };
        let all = self.files.keys();
        all.flat_map(|path| ends(path).into_iter().filter_map(|end| path.get(..end)))
            .collect()
    }

    fn control(&self) -> io::Result<Vec<u8>> {
        let file = |text: String, mode| File {
            content: text.into_bytes(),
            mode,
        };
        // As dpkg-gencontrol(1) estimates it, in KiB.
        let sizes = self
            .files
            .values()
            .map(|file| file.content.len().div_ceil(1024));
        let size = sizes.sum::<usize>() + self.directories().len();
        let control = format!(
            "Package: {}\nVersion: {}\nArchitecture: {}\nInstalled-Size: {size}\n{}",
            self.name, self.version, self.architecture, self.fields
        );
        let mut sums = String::new();
        let mut kept = String::new();
        for (path, file) in &self.files {
            // What users write is theirs, also when there is a new version.
            if path.starts_with("etc/") {
                let _ = writeln!(kept, "/{path}");
            } else {
                let sum = Md5::digest(&file.content);
                sum.iter().for_each(|byte| {
                    let _ = write!(sums, "{byte:02x}");
                });
                let _ = writeln!(sums, "  {path}");
            }
        }
        let mut files = BTreeMap::from([
            ("control".to_owned(), file(control, 0o644)),
            ("md5sums".to_owned(), file(sums, 0o644)),
        ]);
        if !kept.is_empty() {
            files.insert("conffiles".to_owned(), file(kept, 0o644));
        }
        for (name, text) in &self.scripts {
            files.insert((*name).to_owned(), file((*text).to_owned(), 0o755));
        }
        self.tar(&BTreeSet::new(), &files)
    }

    fn data(&self) -> io::Result<Vec<u8>> {
        self.tar(&self.directories(), &self.files)
    }

    fn tar(
        &self,
        directories: &BTreeSet<&str>,
        files: &BTreeMap<String, File>,
    ) -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            let path = format!("./{path}");
            // `set_path` would take the "./" away, with which dpkg lists files.
            let name = header.as_gnu_mut().map(|header| &mut header.name[..]);
            match name.and_then(|name| name.get_mut(..path.len())) {
                Some(name) => name.copy_from_slice(path.as_bytes()),
                None => return Err(io::Error::other(format!("{path} is too long"))),
            }
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_username("root")?;
            header.set_groupname("root")?;
            header.set_mtime(self.time);
            header.set_size(content.len() as u64);
            header.set_cksum();
            archive.append(&header, content)
        };
        add("", tar::EntryType::Directory, 0o755, &[])?;
        // A directory comes before what is in it: its path is the shorter one.
        let directories = directories.iter().map(|path| (*path, None));
        let files = files.iter().map(|(path, file)| (path.as_str(), Some(file)));
        for (path, file) in directories.chain(files).collect::<BTreeMap<_, _>>() {
            match file {
                Some(file) => add(path, tar::EntryType::Regular, file.mode, &file.content)?,
                None => add(&format!("{path}/"), tar::EntryType::Directory, 0o755, &[])?,
            }
        }
        archive.into_inner()
    }
}

/// Compressed, without a name and a time.
pub fn gzip(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressed = GzBuilder::new().write(Vec::new(), Compression::best());
    compressed.write_all(content)?;
    compressed.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn deb() -> Deb {
        let file = |content: &[u8], mode| File {
            content: content.to_vec(),
            mode,
        };
        Deb {
            name: "a",
            version: "1".to_owned(),
            architecture: "amd64",
            fields: "Description: a\n".to_owned(),
            scripts: BTreeMap::from([("postinst", "#!/bin/sh\n")]),
            files: BTreeMap::from([
                ("usr/bin/a".to_owned(), file(b"abc", 0o755)),
                ("etc/a".to_owned(), file(&[0; 1025], 0o644)),
            ]),
            time: 1_000_000_000,
        }
    }

    fn members(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut rest = archive.strip_prefix(b"!<arch>\n").unwrap();
        let mut found = BTreeMap::new();
        while !rest.is_empty() {
            let (header, more) = rest.split_at(60);
            let header = std::str::from_utf8(header).unwrap();
            assert!(header.ends_with("`\n"), "{header}");
            let length: usize = header[48..58].trim().parse().unwrap();
            found.insert(header[..16].trim().to_owned(), more[..length].to_vec());
            rest = &more[length.next_multiple_of(2)..];
        }
        found
    }

    fn entries(compressed: &[u8]) -> Vec<(String, u32, String)> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(compressed));
        let all = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 1_000_000_000);
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (path, entry.header().mode().unwrap(), text)
        });
        all.collect()
    }

    #[test]
    fn a_package_has_what_was_put_in_with_its_directories() {
        let bytes = deb().bytes().unwrap();
        let members = members(&bytes);
        assert_eq!(members["debian-binary"], b"2.0\n");
        let data = entries(&members["data.tar.gz"]);
        let list: Vec<_> = data
            .iter()
            .map(|(path, mode, _)| (path.as_str(), *mode))
            .collect();
        let expected = [
            ("./", 0o755),
            ("./etc/", 0o755),
            ("./etc/a", 0o644),
            ("./usr/", 0o755),
            ("./usr/bin/", 0o755),
            ("./usr/bin/a", 0o755),
        ];
        assert_eq!(list, expected);
        let control = entries(&members["control.tar.gz"]);
        let text = |name: &str| &control.iter().find(|one| one.0 == name).unwrap().2;
        assert_eq!(text("./conffiles"), "/etc/a\n");
        assert_eq!(
            text("./md5sums"),
            "900150983cd24fb0d6963f7d28e17f72  usr/bin/a\n"
        );
        // 2 and 1 for the files, 3 for the directories.
        assert!(text("./control").contains("Installed-Size: 6\nDescription: a\n"));
        assert_eq!(
            control.iter().find(|one| one.0 == "./postinst").unwrap().1,
            0o755
        );
    }

    #[test]
    fn a_path_that_has_no_room_is_told() {
        let mut deb = deb();
        let file = deb.files["usr/bin/a"].clone();
        deb.files.insert("a".repeat(99), file);
        let error = deb.bytes().unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
