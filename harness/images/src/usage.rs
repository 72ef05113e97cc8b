// SPDX-License-Identifier: MIT OR Apache-2.0

//! How much of the disk something takes, how long nobody has used it, and both as people write them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A span of time in its largest unit.
pub fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A size in its largest unit.
pub fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes >= 1 << 30 {
        return format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    }
    if bytes >= MIB {
        return format!("{} MiB", bytes / MIB);
    }
    format!("{} KiB", bytes.div_ceil(1024))
}

/// How long ago `stamp` was written to.
pub fn unused(stamp: &Path) -> Option<Duration> {
    let time = fs::metadata(stamp).ok()?.modified().ok()?;
    // A stamp of the future was written just now.
    Some(SystemTime::now().duration_since(time).unwrap_or_default())
}

/// How much of the disk is taken by all that is at `path`, in bytes.
pub fn disk_usage(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    let below: u64 = if metadata.is_dir() {
        fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| disk_usage(&entry.path()))
            .sum()
    } else {
        0
    };
    // stat(2) counts in units of 512 bytes whatever the file system does.
    metadata.blocks() * 512 + below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_have_units() {
        assert_eq!(size(1), "1 KiB");
        assert_eq!(size(241 << 20), "241 MiB");
        assert_eq!(size(3 << 29), "1.5 GiB");
        assert_eq!(age(Duration::from_secs(7100)), "118 min");
        assert_eq!(age(Duration::from_secs(1_000_000)), "11 days");
    }
}
