// SPDX-License-Identifier: MIT OR Apache-2.0

//! Files from a mirror, resumed where they were cut off, and never used with a wrong hash.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{bail, ensure, Context, Result};
use sha2::Digest;

use super::{catalog::Sha256, progress::Progress};

/// Fetches a file of `bytes` with hash `sha256` to `path` from the first of `urls` that has it.
///
/// What is there already is not fetched again. A transfer that was cut off leaves
/// `path.partial`, which the next call goes on with.
pub fn fetch(urls: &[String], path: &Path, sha256: &Sha256, bytes: u64) -> Result<()> {
    if path.exists() {
        return verify(path, sha256);
    }
    let partial = partial_path(path);
    let mut failures = Vec::new();
    for url in urls {
        let present = fs::metadata(&partial).map_or(0, |m| m.len());
        let transferred = if present < bytes {
            transfer(url, &partial, bytes)
        } else {
            Ok(())
        };
        if let Err(error) = transferred {
            failures.push(format!("{error:#}"));
            continue;
        }
        if let Err(error) = verify(&partial, sha256) {
            // It would be wrong again if it were resumed.
            fs::remove_file(&partial).ok();
            return Err(error.context(format!("the download of {url} is not used")));
        }
        return fs::rename(&partial, path)
            .with_context(|| format!("cannot rename {} to {}", partial.display(), path.display()));
    }
    bail!(
        "cannot download {}:\n  {}\nA mirror drops superseded versions; a copy with the right \
         SHA-256 can be put there by hand",
        path.display(),
        failures.join("\n  ")
    )
}

fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

/// Runs curl, which knows proxies and certificates as the machine's owner has set them up.
fn transfer(url: &str, partial: &Path, bytes: u64) -> Result<()> {
    let progress = Progress::bytes(&format!("downloading {url}"), bytes);
    let curl = duct::cmd!(
        "curl",
        "--fail",
        "--location",
        "--silent",
        "--show-error",
        "--retry",
        "3",
        "--connect-timeout",
        "20",
        "--speed-limit",
        "1000",
        "--speed-time",
        "60",
        "--continue-at",
        "-",
        "--output",
        partial,
        url
    )
    .stderr_to_stdout()
    .stdout_capture()
    .unchecked()
    .start()
    .context("cannot run curl")?;
    let output = loop {
        if let Some(output) = curl
            .wait_timeout(Duration::from_millis(200))
            .context("curl")?
        {
            break output;
        }
        progress.set(fs::metadata(partial).map_or(0, |m| m.len()));
    };
    let message = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{url}: {}", message.trim());
    progress.done();
    Ok(())
}

/// Compares a file's hash with the one it should have. The error names the file and both.
pub fn verify(path: &Path, sha256: &Sha256) -> Result<()> {
    let found = hash_file(path)?;
    ensure!(
        found == *sha256,
        "{} has the wrong SHA-256:\n  expected {sha256}\n  found    {found}",
        path.display()
    );
    Ok(())
}

fn hash_file(path: &Path) -> Result<Sha256> {
    let read = || -> io::Result<sha2::Sha256> {
        let mut file = File::open(path)?;
        let mut hash = sha2::Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hash),
                n => hash.update(&buffer[..n]),
            }
        }
    };
    let hash = read().with_context(|| format!("cannot read {}", path.display()))?;
    Ok(digest(hash))
}

/// A finished hash as text.
pub fn digest(hash: sha2::Sha256) -> Sha256 {
    Sha256::from_bytes(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(text: &str) -> Sha256 {
        let mut hash = sha2::Sha256::new();
        hash.update(text);
        digest(hash)
    }

    fn url_of(path: &Path) -> String {
        format!("file://{}", path.display())
    }

    #[test]
    fn a_known_hash() {
        assert_eq!(
            hash_of("abc").as_str(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_file_is_fetched_from_the_first_that_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(&from, "text").unwrap();
        let urls = [url_of(&directory.path().join("missing")), url_of(&from)];
        fetch(&urls, &to, &hash_of("text"), 4).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "text");
        // Nothing is needed any more.
        fetch(&[], &to, &hash_of("text"), 4).unwrap();
    }

    #[test]
    fn a_part_is_completed() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(&from, "XXxt").unwrap();
        fs::write(directory.path().join("to.partial"), "te").unwrap();
        fetch(&[url_of(&from)], &to, &hash_of("text"), 4).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "text");
    }

    #[test]
    fn a_wrong_hash_names_the_file_and_both_hashes() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(&from, "evil").unwrap();
        let error = fetch(&[url_of(&from)], &to, &hash_of("text"), 4).unwrap_err();
        let message = format!("{error:#}");
        for part in [
            "to.partial",
            hash_of("text").as_str(),
            hash_of("evil").as_str(),
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!to.exists() && !partial_path(&to).exists());
    }

    #[test]
    fn what_nobody_has_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let urls = [url_of(&directory.path().join("missing"))];
        let error = fetch(&urls, &directory.path().join("to"), &hash_of("text"), 4).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }
}
