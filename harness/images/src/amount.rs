// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sizes and spans of time as people write them.

use std::time::Duration;

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
