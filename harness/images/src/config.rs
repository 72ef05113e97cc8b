// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a kernel is configured: fragments, and whether the result is what they asked for.

use std::{collections::BTreeMap, fmt, fs, path::Path, str::FromStr};

use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};

/// A kernel's version, as far as a decision may depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    major: u32,
    minor: u32,
    patch: Option<u32>,
}

impl FromStr for Version {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Vec<u32> = text
            .split('.')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("'{text}' is not a version like 7.3 or 7.3.4"))?;
        match numbers[..] {
            [major, minor] => Ok(Version {
                major,
                minor,
                patch: None,
            }),
            [major, minor, patch] => Ok(Version {
                major,
                minor,
                patch: Some(patch),
            }),
            _ => bail!("'{text}' is not a version like 7.3 or 7.3.4"),
        }
    }
}

impl TryFrom<String> for Version {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        // toml shows only the outermost message.
        text.parse()
            .map_err(|error: anyhow::Error| anyhow::anyhow!("{error}"))
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        self.patch.map_or(Ok(()), |patch| write!(f, ".{patch}"))
    }
}

/// For which kernels a line of a fragment is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    Since(Version),
    Before(Version),
    /// Those of flavours that do not have this fragment.
    Without(String),
}

impl Condition {
    fn holds(&self, version: Version, fragments: &[Fragment]) -> bool {
        match self {
            Condition::Always => true,
            Condition::Since(first) => version >= *first,
            Condition::Before(first) => version < *first,
            Condition::Without(name) => fragments.iter().all(|other| other.name != *name),
        }
    }
}

/// What an option is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Setting {
    /// As it stands right of the `=`.
    Value(String),
    /// Not set.
    Off,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    number: usize,
    condition: Condition,
    option: String,
    setting: Setting,
}

/// Options that belong together: one file of `images/config`.
///
/// It is written as kconfig writes a configuration, except that a line may start with a
/// condition: `[since 7.0] CONFIG_X=y`, `[before 7.0] # CONFIG_Y is not set`, or `[without debug] CONFIG_Z=y` where
/// `debug.config` wants it otherwise.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// Its name, without `.config`.
    pub name: String,
    lines: Vec<Line>,
}

impl Fragment {
    /// Reads a fragment. An error names the file and the line.
    pub fn load(path: &Path) -> Result<Fragment> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the fragment {}", path.display()))?;
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Self::parse(name, &text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(name: String, text: &str) -> Result<Fragment> {
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let parsed = parse_line(line.trim()).with_context(|| format!("line {number}"))?;
            lines.extend(parsed.map(|(condition, option, setting)| Line {
                number,
                condition,
                option,
                setting,
            }));
        }
        Ok(Fragment { name, lines })
    }
}

fn parse_line(line: &str) -> Result<Option<(Condition, String, Setting)>> {
    let (condition, line) = match line.strip_prefix('[') {
        None => (Condition::Always, line),
        Some(rest) => {
            let (condition, line) = rest.split_once(']').context("'[' without ']'")?;
            let condition = match condition.split_once(' ') {
                Some(("since", version)) => Condition::Since(version.parse()?),
                Some(("before", version)) => Condition::Before(version.parse()?),
                Some(("without", name)) => Condition::Without(name.to_owned()),
                _ => {
                    bail!("'[{condition}]' is neither [since X.Y], [before X.Y] nor [without NAME]")
                }
            };
            ensure!(!line.trim().is_empty(), "a condition without an option");
            (condition, line.trim())
        }
    };
    let off = line
        .strip_prefix("# ")
        .and_then(|rest| rest.strip_suffix(" is not set"));
    if let Some(option) = off.filter(|option| is_option(option)) {
        return Ok(Some((condition, option.to_owned(), Setting::Off)));
    }
    if line.is_empty() || line.starts_with('#') {
        ensure!(
            condition == Condition::Always,
            "a condition before a comment"
        );
        return Ok(None);
    }
    match line.split_once('=') {
        Some((option, value)) if is_option(option) && !value.is_empty() => {
            ensure!(value != "n", "write '# {option} is not set' for {option}=n");
            Ok(Some((
                condition,
                option.to_owned(),
                Setting::Value(value.to_owned()),
            )))
        }
        _ => bail!("'{line}' is neither CONFIG_X=… nor '# CONFIG_X is not set'"),
    }
}

fn is_option(text: &str) -> bool {
    text.strip_prefix("CONFIG_").is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

/// What `version` is to be configured with, as kconfig reads it.
///
/// Two fragments that contradict each other are an error that names both.
pub fn merge(fragments: &[Fragment], version: Version) -> Result<String> {
    let mut seen: BTreeMap<&str, (&Fragment, &Line)> = BTreeMap::new();
    let mut merged = String::new();
    for (fragment, line) in wanted(fragments, version) {
        if let Some((other, earlier)) = seen.insert(&line.option, (fragment, line)) {
            ensure!(
                earlier.setting == line.setting,
                "{} is set differently in {}.config, line {}, and in {}.config, line {}",
                line.option,
                other.name,
                earlier.number,
                fragment.name,
                line.number
            );
            continue;
        }
        match &line.setting {
            Setting::Value(value) => merged += &format!("{}={value}\n", line.option),
            Setting::Off => merged += &format!("# {} is not set\n", line.option),
        }
    }
    Ok(merged)
}

/// Compares what kconfig made, the text of `.config`, with what was asked for.
///
/// The error names every option that was lost and the fragment that asks for it.
pub fn check(fragments: &[Fragment], version: Version, config: &str) -> Result<()> {
    let made: BTreeMap<&str, &str> = config
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .collect();
    let mut lost = Vec::new();
    for (fragment, line) in wanted(fragments, version) {
        let asked = match &line.setting {
            Setting::Value(value) => Some(value.as_str()),
            Setting::Off => None,
        };
        let got = made.get(line.option.as_str()).copied();
        if got != asked {
            lost.push(format!(
                "{} is {}, but {}.config, line {}, asks for {}",
                line.option,
                got.unwrap_or("not set"),
                fragment.name,
                line.number,
                asked.unwrap_or("not set"),
            ));
        }
    }
    ensure!(
        lost.is_empty(),
        "the kernel's configuration is not what was asked for (a dependency is missing, or the \
         option is called otherwise in this version):\n  {}",
        lost.join("\n  ")
    );
    Ok(())
}

fn wanted(fragments: &[Fragment], version: Version) -> impl Iterator<Item = (&Fragment, &Line)> {
    fragments
        .iter()
        .flat_map(|fragment| fragment.lines.iter().map(move |line| (fragment, line)))
        .filter(move |(_, line)| line.condition.holds(version, fragments))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(text: &str) -> Fragment {
        Fragment::parse("test".to_owned(), text).unwrap()
    }

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn conditions_choose_by_version() {
        let fragments = [fragment(
            "# A comment\n[before 7.0] CONFIG_A=y\n[since 7.0] # CONFIG_A is not set\nCONFIG_B=\"x\"",
        )];
        assert_eq!(
            merge(&fragments, version("6.12.117")).unwrap(),
            "CONFIG_A=y\nCONFIG_B=\"x\"\n"
        );
        assert_eq!(
            merge(&fragments, version("7.0.1")).unwrap(),
            "# CONFIG_A is not set\nCONFIG_B=\"x\"\n"
        );
    }

    #[test]
    fn a_line_can_be_for_those_without_another_fragment() {
        let base = fragment("[without debug] CONFIG_A=y\nCONFIG_B=y");
        let debug = Fragment::parse("debug".to_owned(), "# CONFIG_A is not set").unwrap();
        let merge = |fragments: &[Fragment]| merge(fragments, version("7.3")).unwrap();
        assert_eq!(
            merge(std::slice::from_ref(&base)),
            "CONFIG_A=y\nCONFIG_B=y\n"
        );
        assert_eq!(merge(&[base, debug]), "CONFIG_B=y\n# CONFIG_A is not set\n");
    }

    #[test]
    fn versions_are_ordered_by_number() {
        assert!(version("6.9") < version("6.12"));
        assert!(version("7.0") <= version("7.0.1"));
        assert!(version("6.12.117") < version("7.0"));
        assert!("7".parse::<Version>().is_err());
    }

    #[test]
    fn a_lost_option_is_found() {
        let fragments = [fragment(
            "CONFIG_A=y\n\nCONFIG_B=\"-x\"\n# CONFIG_C is not set\n",
        )];
        let check = |config: &str| check(&fragments, version("7.3"), config);
        check("CONFIG_A=y\nCONFIG_B=\"-x\"\n# CONFIG_C is not set\nCONFIG_D=y\n").unwrap();
        check("CONFIG_A=y\nCONFIG_B=\"-x\"\n").unwrap();
        let error = check("# CONFIG_A is not set\nCONFIG_B=\"-x\"\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("CONFIG_A is not set, but test.config, line 1"),
            "{error}"
        );
        assert!(check("CONFIG_A=m\nCONFIG_B=\"-x\"\n").is_err());
        let error = check("CONFIG_A=y\nCONFIG_B=\"-x\"\nCONFIG_C=y\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("CONFIG_C is y, but test.config, line 4"),
            "{error}"
        );
    }

    #[test]
    fn contradictions_are_found() {
        let fragments = [fragment("CONFIG_A=y"), fragment("# CONFIG_A is not set")];
        assert!(merge(&fragments, version("7.3")).is_err());
        let fragments = [fragment("CONFIG_A=y"), fragment("CONFIG_A=y")];
        assert_eq!(merge(&fragments, version("7.3")).unwrap(), "CONFIG_A=y\n");
    }

    #[test]
    fn nonsense_is_an_error_with_its_line() {
        for text in [
            "CONFIG_A",
            "A=y",
            "CONFIG_A=n",
            "[since] CONFIG_A=y",
            "[since 7] CONFIG_A=y",
            "[within debug] CONFIG_A=y",
            "[since 7.0]",
            "[since 7.0] # words",
            "CONFIG_A B=y",
        ] {
            let error = format!(
                "{:#}",
                Fragment::parse("t".into(), &format!("\n{text}")).unwrap_err()
            );
            assert!(error.contains("line 2"), "{text}: {error}");
        }
    }
}
