// SPDX-License-Identifier: MIT OR Apache-2.0

//! The newest version of a series that Debian has, for when no pinned source is left.
//!
//! A suite's `InRelease` is signed by Debian, and has the hash of `Packages.xz`, which has the hash
//! of each package (<https://wiki.debian.org/DebianRepository/Format>). The hashes are always
//! checked; the signature is where there is gpgv and Debian's keyring, as on any Debian.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};

use super::debian_version::DebianVersion;
use super::place::{Archive, Series, Source};
use super::{download, mirror};
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::surroundings::Surroundings;
use mutexlab_model::stand_in::StandIn;

/// The keys that sign Debian's archives: package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where a suite's index lies below the suite. Sources are in the index of each architecture.
const INDEX: &str = "main/binary-amd64/Packages.xz";

/// A package, as an index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Package {
    version: DebianVersion,
    path: String,
    bytes: u64,
    sha256: Sha256,
}

/// Asks all suites of `series`, and gives the newest package with where it is.
///
/// # Errors
/// If none has it: the message says of each why. Or if the user interrupts.
pub fn look_up(
    series: &Series,
    surroundings: &Surroundings,
    interrupt: &Interrupt,
) -> Result<(Source, StandIn)> {
    let mut found: Option<(Package, Archive, StandIn)> = None;
    let mut failures = Vec::new();
    for suite in &series.suites {
        let archive = Archive::of_suite(suite);
        match newest_in(&series.package, suite, archive, surroundings, interrupt) {
            Ok((package, stand_in)) => {
                if found
                    .as_ref()
                    .is_none_or(|(other, ..)| package.version > other.version)
                {
                    found = Some((package, archive, stand_in));
                }
            }
            Err(error) => {
                interrupt.check()?;
                failures.push(format!("{suite}: {error:#}"));
            }
        }
    }
    let Some((package, archive, stand_in)) = found else {
        bail!(
            "no suite has {}:\n  {}",
            series.package,
            failures.join("\n  ")
        );
    };
    // A suite that does not answer may have something newer.
    for failure in failures {
        log::info!("not considered: {failure}");
    }
    let source = Source::Pool {
        path: package.path,
        archive,
        sha256: package.sha256,
        bytes: package.bytes,
    };
    Ok((source, stand_in))
}

/// The newest `package` of a suite, on the first mirror that has the suite.
fn newest_in(
    package: &str,
    suite: &str,
    archive: Archive,
    surroundings: &Surroundings,
    interrupt: &Interrupt,
) -> Result<(Package, StandIn)> {
    let mut failures = Vec::new();
    let keyring = keyring(surroundings);
    for mirror in mirror::urls(archive, surroundings)? {
        match read_index(&mirror, suite, keyring.as_deref(), interrupt) {
            Ok((index, signed_by)) => {
                let newest = newest_of(&index, package)?
                    .with_context(|| format!("there is no {package}"))?;
                let stand_in = StandIn {
                    package: package.to_owned(),
                    version: newest.version.as_str().to_owned(),
                    suite: suite.to_owned(),
                    signed_by,
                };
                return Ok((newest, stand_in));
            }
            Err(error) => {
                interrupt.check()?;
                failures.push(format!("{error:#}"));
            }
        }
    }
    bail!(failures.join("; "))
}

/// The text of a suite's index, and who signed it.
fn read_index(
    mirror: &str,
    suite: &str,
    keyring: Option<&Path>,
    interrupt: &Interrupt,
) -> Result<(String, Option<String>)> {
    let suite = format!("{mirror}/dists/{suite}");
    let release = download::read(&format!("{suite}/InRelease"), interrupt)?;
    let (release, signed_by) =
        open_release(&release, keyring).with_context(|| format!("{suite}/InRelease"))?;
    let expected = hash_in(&release, INDEX)
        .with_context(|| format!("{suite}/InRelease has no SHA-256 of {INDEX}"))?;
    let url = format!("{suite}/{INDEX}");
    let packed = download::read(&url, interrupt)?;
    let hash = Sha256::of(&packed);
    ensure!(
        hash == expected,
        "{url} has the wrong SHA-256:\n  expected {expected}\n  found    {hash}"
    );
    let text = duct::cmd!("xz", "--decompress", "--stdout")
        .stdin_bytes(packed)
        .read()
        .with_context(|| format!("cannot unpack {url}"))?;
    Ok((text, signed_by))
}

/// The keys to check signatures with, if there are any.
fn keyring(surroundings: &Surroundings) -> Option<PathBuf> {
    let path = surroundings.keyring.clone();
    path.or_else(|| Some(KEYRING.into()))
        .filter(|path| path.is_file())
}

/// What was signed of a signed text, and who signed it.
///
/// A wrong signature, or one of somebody whom `keyring` does not know, is an error; without a
/// keyring or gpgv the text is taken as it is, and nobody has signed it.
fn open_release(text: &[u8], keyring: Option<&Path>) -> Result<(String, Option<String>)> {
    let has_gpgv = duct::cmd!("gpgv", "--version")
        .stdout_null()
        .stderr_null()
        .unchecked()
        .run()
        .is_ok();
    let Some(keyring) = keyring.filter(|_| has_gpgv) else {
        return Ok((String::from_utf8_lossy(text).into_owned(), None));
    };
    // What stands around the signed part is not to be read: hence gpgv's output, not the file.
    let output = duct::cmd!(
        "gpgv",
        "--keyring",
        keyring,
        "--status-fd",
        "2",
        "--output",
        "-"
    )
    .stdin_bytes(text)
    .stdout_capture()
    .stderr_capture()
    .unchecked()
    .run()
    .context("cannot run gpgv")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let status = |word: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix("[GNUPG:] ")?.strip_prefix(word))
    };
    // A suite has several signatures, and an older keyring does not know all: one will do.
    match status("GOODSIG ").and_then(|good| good.split_once(' ')) {
        Some((_, who)) if status("BADSIG ").is_none() => Ok((
            String::from_utf8_lossy(&output.stdout).into_owned(),
            Some(who.to_owned()),
        )),
        _ => bail!(
            "it has no good signature of anybody in {}: {}",
            keyring.display(),
            said.lines()
                .filter(|line| !line.starts_with("[GNUPG:]"))
                .collect::<Vec<_>>()
                .join("; ")
        ),
    }
}

/// The SHA-256 that a release file has for the file `name`.
fn hash_in(release: &str, name: &str) -> Option<Sha256> {
    release
        .lines()
        .skip_while(|line| *line != "SHA256:")
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .find_map(|line| {
            let mut words = line.split_whitespace();
            let (hash, _bytes, file) = (words.next()?, words.next()?, words.next()?);
            (file == name).then(|| hash.parse().ok())?
        })
}

/// The newest package called `name` of an index.
fn newest_of(index: &str, name: &str) -> Result<Option<Package>> {
    let mut newest: Option<Package> = None;
    for stanza in index.split("\n\n") {
        let field = |field: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(field)?.strip_prefix(": "))
        };
        if field("Package") != Some(name) {
            continue;
        }
        let required = |wanted: &str| {
            field(wanted).with_context(|| format!("a stanza of {name} has no {wanted}"))
        };
        let package = Package {
            version: DebianVersion::new(required("Version")?),
            path: required("Filename")?.to_owned(),
            bytes: required("Size")?
                .parse()
                .with_context(|| format!("the size of {name} is no number"))?,
            sha256: required("SHA256")?.parse()?,
        };
        if newest
            .as_ref()
            .is_none_or(|other| package.version > other.version)
        {
            newest = Some(package);
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(version: &str) -> String {
        format!(
            "Package: linux-source-7.3\nSource: linux\nVersion: {version}\n\
             Filename: pool/main/l/linux/linux-source-7.3_{version}_all.deb\nSize: 12\n\
             SHA256: {}\n",
            Sha256::of(version)
        )
    }

    #[test]
    fn the_newest_is_found_among_others() {
        let other = "Package: linux-source-7.2\nVersion: 9\n";
        let index = [
            &stanza("7.3.9-1"),
            other,
            &stanza("7.3.10-1~bpo13+1"),
            &stanza("7.3.2-1"),
        ]
        .map(str::to_owned)
        .join("\n");
        let newest = newest_of(&index, "linux-source-7.3").unwrap().unwrap();
        assert_eq!(newest.version.as_str(), "7.3.10-1~bpo13+1");
        assert_eq!(newest.bytes, 12);
        assert_eq!(newest.sha256, Sha256::of("7.3.10-1~bpo13+1"));
        assert_eq!(newest_of(&index, "linux-source-7").unwrap(), None);
        let damaged = index.replace("SHA256", "MD5sum");
        assert!(newest_of(&damaged, "linux-source-7.3").is_err());
    }

    #[test]
    #[ignore = "takes some 40 MB from this machine's mirror"]
    fn the_mirror_has_a_signed_version_of_each_series_of_the_catalogue() {
        let root =
            &mutexlab_host::paths::repository_above(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        let catalog = crate::Catalog::load(root).unwrap();
        let mut asked = Vec::new();
        for kernel in catalog.kernels() {
            let Some(series) = kernel.newest.as_ref().filter(|one| !asked.contains(one)) else {
                continue;
            };
            let (source, stand_in) = look_up(
                series,
                &Surroundings::usual(root),
                &Interrupt::install().unwrap(),
            )
            .unwrap();
            eprintln!("{source:?}\n  {}", stand_in.describe());
            assert!(stand_in.version.starts_with(&kernel.name.kernel));
            assert!(stand_in.signed_by.is_some());
            asked.push(series);
        }
        assert!(!asked.is_empty());
    }

    #[test]
    fn a_hash_is_that_of_its_section() {
        let hash = Sha256::of("x");
        let release = format!(
            "Suite: sid\nMD5Sum:\n {} 1 main/binary-amd64/Packages.xz\nSHA256:\n \
             {} 10 main/binary-amd64/Packages\n {hash}     1 main/binary-amd64/Packages.xz\n",
            "0".repeat(64),
            "1".repeat(64),
        );
        assert_eq!(hash_in(&release, INDEX), Some(hash));
        assert_eq!(hash_in(&release, "main/binary-i386/Packages.xz"), None);
    }

    #[test]
    fn a_text_that_nobody_signed_is_refused_where_that_can_be_checked() {
        let text = b"SHA256:\n";
        assert_eq!(
            open_release(text, None).unwrap(),
            ("SHA256:\n".to_owned(), None)
        );
        let keyring = keyring_of_a_test();
        let error = open_release(text, Some(keyring.path())).unwrap_err();
        assert!(error.to_string().contains("no good signature"), "{error}");
    }

    /// The key of `A test of mutexlab (nobody)`, which has signed [`SIGNED`] and was thrown away.
    const KEY: &str = "\
        mDMEawhoOhYJKwYBBAHaRw8BAQdA4dGkmB720LKmMMF2qUg86tBgAkdvy5MS4aEDV5cLkRu0MkEgdGVzdCBvZiBt\
        dXRleGxhYiAobm9ib2R5KSA8dGVzdEBleGFtcGxlLmludmFsaWQ+iJAEExYIADgWIQSnJKIlwAI0Y1K3G3Lew8jR\
        8fGd5wUCawhoOgIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRDew8jR8fGd56OlAQDciQLG80nkCiQ1KPZv\
        oxq9ZjICb/4MdydC0hWdDb1hXgD/Xpgu3M8C4Csm7nbfwJrGS2vyYC27+7eluxchPOtoHwg=";

    const SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

Suite: test
SHA256:
 0 1 x
-----BEGIN PGP SIGNATURE-----

iHUEARYIAB0WIQSnJKIlwAI0Y1K3G3Lew8jR8fGd5wUCawhoOgAKCRDew8jR8fGd
5y0xAQD5xb59oVgCrm6p5VE1WEmfkAiKrvX3Lu5GugC5X9HSQAEAqz+yP5a+vB/3
/UlM2seed+gbERdMMHhdOVndFHY8WgY=
=6yAD
-----END PGP SIGNATURE-----
";

    fn keyring_of_a_test() -> tempfile::NamedTempFile {
        use base64::{engine::general_purpose::STANDARD, Engine};
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), STANDARD.decode(KEY).unwrap()).unwrap();
        file
    }

    #[test]
    fn what_was_signed_is_believed_and_nothing_around_it() {
        let keyring = keyring_of_a_test();
        let around = format!("SHA256:\n 9 9 evil\n\n{SIGNED}SHA256:\n 9 9 evil\n");
        for text in [SIGNED, &around] {
            let (release, signed_by) = open_release(text.as_bytes(), Some(keyring.path())).unwrap();
            assert_eq!(release.trim_end(), "Suite: test\nSHA256:\n 0 1 x");
            assert_eq!(
                signed_by.unwrap(),
                "A test of mutexlab (nobody) <test@example.invalid>"
            );
        }
        let changed = SIGNED.replace("0 1 x", "0 1 y");
        let error = open_release(changed.as_bytes(), Some(keyring.path())).unwrap_err();
        assert!(error.to_string().contains("BAD signature"), "{error}");
    }
}
