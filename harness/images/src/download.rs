// SPDX-License-Identifier: MIT OR Apache-2.0

//! Files from a mirror, resumed where they were cut off, and never used with a wrong hash.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{bail, ensure, Context, Result};

use super::progress::Progress;
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::parent;

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(200);

/// Fetches a file with hash `sha256`, and of `bytes` if that is known, to `path` from the first of
/// `urls` that has it.
///
/// What is there already is not fetched again, unless it is damaged. A transfer that was cut off
/// leaves `path.partial`, which the next call goes on with.
///
/// # Errors
/// If none has it, or what came has another hash: the message has each URL with its reason. Or if
/// the user interrupts.
pub fn fetch(
    urls: &[String],
    path: &Path,
    sha256: &Sha256,
    bytes: Option<u64>,
    interrupt: &Interrupt,
) -> Result<()> {
    if path.exists() {
        match verify(path, sha256) {
            Ok(()) => return Ok(()),
            Err(error) => {
                log::info!("{error:#}\nit is damaged: fetching it again");
                fs::remove_file(path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
    }
    let partial = partial_path(path);
    let mut failures = Vec::new();
    for url in urls {
        let fetched = fetch_from(url, &partial, sha256, bytes, interrupt);
        // No other mirror is asked then.
        interrupt.check()?;
        match fetched {
            Ok(()) => {
                return fs::rename(&partial, path).with_context(|| {
                    format!("cannot rename {} to {}", partial.display(), path.display())
                });
            }
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    bail!(
        "cannot download {}: {}",
        path.display(),
        failures.join("; ")
    )
}

fn fetch_from(
    url: &str,
    partial: &Path,
    sha256: &Sha256,
    bytes: Option<u64>,
    interrupt: &Interrupt,
) -> Result<()> {
    let present = fs::metadata(partial).map_or(0, |m| m.len());
    let complete = match bytes {
        Some(bytes) => present >= bytes,
        // Nothing is left to ask for if it is whole, which curl would call an error.
        None => present > 0 && verify(partial, sha256).is_ok(),
    };
    if !complete {
        transfer(url, partial, bytes, interrupt)?;
    }
    let found = fs::metadata(partial).map_or(0, |m| m.len());
    if let Some(bytes) = bytes
        && found < bytes
    {
        // What is there may be right: it is gone on with.
        bail!("{url}: cut off, {found} of {bytes} bytes came");
    }
    verify(partial, sha256)
        .inspect_err(|_| {
            // It would be wrong again if it were resumed.
            fs::remove_file(partial).ok();
        })
        .with_context(|| format!("the download of {url} is not used"))
}

/// What is at `url`, which is short.
///
/// # Errors
/// If it cannot be had: the message has the URL and curl's words. Or if the user interrupts.
pub fn read(url: &str, interrupt: &Interrupt) -> Result<Vec<u8>> {
    let mut arguments = CURL.to_vec();
    arguments.push(url);
    let curl = duct::cmd("curl", arguments)
        .before_spawn(parent::ends_it)
        .stdout_capture()
        .stderr_capture()
        .unchecked();
    let output = run(&curl, interrupt, || ());
    // Ctrl-C may have ended curl first.
    interrupt.check()?;
    let output = output.context("curl")?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{url}: {}", message.trim());
    Ok(output.stdout)
}

fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

/// How curl is run, which knows proxies and certificates as the machine's owner has set them up.
const CURL: [&str; 12] = [
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
];

fn transfer(url: &str, partial: &Path, bytes: Option<u64>, interrupt: &Interrupt) -> Result<()> {
    let progress = Progress::bytes(&format!("downloading {url}"), bytes.unwrap_or(0));
    let mut arguments: Vec<&OsStr> = CURL.iter().map(OsStr::new).collect();
    arguments.extend([
        OsStr::new("--continue-at"),
        OsStr::new("-"),
        OsStr::new("--output"),
        partial.as_os_str(),
        OsStr::new(url),
    ]);
    let curl = duct::cmd("curl", arguments)
        .before_spawn(parent::ends_it)
        .stderr_to_stdout()
        .stdout_capture()
        .unchecked();
    let output = run(&curl, interrupt, || {
        progress.set(fs::metadata(partial).map_or(0, |m| m.len()));
    })
    .context("curl")?;
    let message = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{url}: {}", message.trim());
    progress.done();
    Ok(())
}

/// Runs `program`, a pipe or a single one, to its end, calls `tick` meanwhile, and returns what it
/// printed.
///
/// # Errors
/// If it cannot be run, or the user interrupts: it is ended then.
pub fn run(
    program: &duct::Expression,
    interrupt: &Interrupt,
    mut tick: impl FnMut(),
) -> Result<Output> {
    let running = program.start().context("cannot be started")?;
    loop {
        if let Some(output) = running.wait_timeout(POLL).context("cannot be waited for")? {
            return Ok(output.clone());
        }
        if interrupt.raised() {
            running.kill().context("cannot be ended")?;
            interrupt.check()?;
        }
        tick();
    }
}

/// Compares a file's hash with the one it should have. The error names the file and both.
pub fn verify(path: &Path, sha256: &Sha256) -> Result<()> {
    let found = Sha256::of_file(path)?;
    ensure!(
        found == *sha256,
        "{} has the wrong SHA-256:\n  expected {sha256}\n  found    {found}",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What nobody interrupts.
    fn quiet() -> Interrupt {
        Interrupt::install().unwrap()
    }

    fn hash_of(text: &str) -> Sha256 {
        Sha256::of(text)
    }

    fn url_of(path: &Path) -> String {
        format!("file://{}", path.display())
    }

    #[test]
    fn a_file_is_fetched_from_the_first_that_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(&from, "text").unwrap();
        let urls = [url_of(&directory.path().join("missing")), url_of(&from)];
        fetch(&urls, &to, &hash_of("text"), Some(4), &quiet()).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "text");
        // Nothing is needed any more.
        fetch(&[], &to, &hash_of("text"), Some(4), &quiet()).unwrap();
    }

    #[test]
    fn a_part_is_completed() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(&from, "XXxt").unwrap();
        fs::write(directory.path().join("to.partial"), "te").unwrap();
        fetch(&[url_of(&from)], &to, &hash_of("text"), Some(4), &quiet()).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "text");
    }

    #[test]
    fn a_truncated_download_is_an_error_and_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(&from, "te").unwrap();
        fetch(&[url_of(&from)], &to, &hash_of("text"), Some(4), &quiet()).unwrap_err();
        assert!(!to.exists());
        // What is there of it does not keep a whole one from coming.
        fs::write(&from, "text").unwrap();
        fetch(&[url_of(&from)], &to, &hash_of("text"), Some(4), &quiet()).unwrap();
    }

    #[test]
    fn a_wrong_hash_names_the_file_and_both_hashes() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(&from, "evil").unwrap();
        let error = fetch(&[url_of(&from)], &to, &hash_of("text"), Some(4), &quiet()).unwrap_err();
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
        let to = directory.path().join("to");
        let error = fetch(&urls, &to, &hash_of("text"), Some(4), &quiet()).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }

    #[test]
    fn what_is_cut_off_is_kept_and_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(&from, "te").unwrap();
        let error = fetch(&[url_of(&from)], &to, &hash_of("text"), Some(4), &quiet()).unwrap_err();
        assert!(
            error.to_string().contains("2 of 4 bytes"),
            "the error is {error}"
        );
        assert!(!to.exists());
        fs::write(&from, "text").unwrap();
        fetch(&[url_of(&from)], &to, &hash_of("text"), Some(4), &quiet()).unwrap();
    }

    #[test]
    fn who_interrupts_does_not_wait_for_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("to");
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // It takes the connection and says nothing, as does a mirror that is overloaded.
        let url = format!("http://{}/from", silent.local_addr().unwrap());
        let interrupt = quiet();
        let started = std::time::Instant::now();
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                silent.accept().unwrap();
                interrupt.raise();
            });
            fetch(&[url], &to, &hash_of("text"), Some(4), &interrupt).unwrap_err()
        });
        assert!(
            error.is::<mutexlab_host::interrupt::Interrupted>(),
            "{error:#}"
        );
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_damaged_file_is_fetched_again() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(&from, "text").unwrap();
        fs::write(&to, "tent").unwrap();
        fetch(&[url_of(&from)], &to, &hash_of("text"), Some(4), &quiet()).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "text");
    }

    #[test]
    fn a_size_need_not_be_known() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(&from, "text").unwrap();
        for part in ["", "te", "text"] {
            fs::write(partial_path(&to), part).unwrap();
            fetch(&[url_of(&from)], &to, &hash_of("text"), None, &quiet()).unwrap();
            fs::remove_file(&to).unwrap();
        }
    }
}
