// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules of nftables, loaded by the `nft` of the guest's root.

use anyhow::{bail, Context as _, Result};

use super::namespace::Namespace;

/// Lines of nft's that are told: three mistakes.
const MAX_LINES: usize = 9;

/// Runs `script` in `namespace`.
pub fn load(namespace: &Namespace, script: &str) -> Result<()> {
    let nft = duct::cmd!("nft", "-f", "-").stdin_bytes(script);
    let output = namespace
        .output(&nft)
        .context("cannot run nft; the guest's root must have it and its libraries")?;
    if !output.status.success() {
        bail!(
            "nft refuses the rules ({}):\n{}",
            output.status,
            shown(&String::from_utf8_lossy(&output.stdout))
        );
    }
    Ok(())
}

/// The first mistakes of all that nft tells, each of which comes with its line of the rules.
fn shown(told: &str) -> String {
    let told = told.replace("/dev/stdin:", "line ");
    let mut lines: Vec<&str> = told.lines().take(MAX_LINES).collect();
    let left_out = told.lines().count() - lines.len();
    let more = format!("… and {left_out} lines more");
    if left_out > 0 {
        lines.push(&more);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mistakes_are_shown_with_their_lines() {
        let one = "/dev/stdin:5:19-23: Error: syntax error\n\t\tx\n\t\t^\n";
        assert_eq!(
            shown(one),
            "line 5:19-23: Error: syntax error\n\t\tx\n\t\t^"
        );
        let many = shown(&one.repeat(9));
        assert_eq!(many.lines().count(), MAX_LINES + 1);
        assert!(many.ends_with("… and 18 lines more"), "{many}");
    }
}
