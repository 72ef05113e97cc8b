// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is measured, by its name: a directory of scenarios/subjects or of the user's own, or the module.

use std::borrow::Cow;
use std::fmt;

use schemars::{json_schema, JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// More letters are no name.
const MAX_LENGTH: usize = 40;
/// What a name looks like.
const PATTERN: &str = "^[a-z0-9][a-z0-9-]{0,39}$";

/// The name of a thing that is measured: of small letters, digits and hyphens, as it is a part of a cell's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Subject(Cow<'static, str>);

/// The rules that mutex_proxy.ko gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleRules {
    /// One, which redirects the packets.
    Redirect,
    /// One that matches none of the packets: what the module costs others.
    Unmatched,
    /// Many for others, and one that lets the packets by, in front of one that redirects everything.
    Direct,
}

impl Subject {
    /// Bare forwarding.
    pub const NONE: Self = Self::known("none");
    /// The kernel's own destination NAT: conntrack and an nftables `dnat` rule.
    pub const NFT_DNAT: Self = Self::known("nft-dnat");
    /// Connection tracking and NAT that redirect everything but what goes to the LAN, where the packets go, behind
    /// many rules for others.
    pub const NFT_DNAT_DIRECT: Self = Self::known("nft-dnat-direct");
    /// A redirect rule of nftables, redsocks, and a SOCKS server.
    pub const REDSOCKS: Self = Self::known("redsocks");
    /// mutex_proxy.ko.
    pub const MODULE: Self = Self::known("module");
    /// mutex_proxy.ko with rules that match none of the packets.
    pub const MODULE_UNMATCHED: Self = Self::known("module-unmatched");
    /// mutex_proxy.ko with rules such as those of [`Self::NFT_DNAT_DIRECT`].
    pub const MODULE_DIRECT: Self = Self::known("module-direct");

    /// Those that no directory tells of, since they are code.
    pub const OF_MODULE: [Self; 3] = [Self::MODULE, Self::MODULE_UNMATCHED, Self::MODULE_DIRECT];

    const fn known(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The subject of this name; `None` if it is no name.
    pub fn named(name: &str) -> Option<Self> {
        let letters = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let fits = !name.is_empty() && !name.starts_with('-') && name.len() <= MAX_LENGTH;
        (letters && fits).then(|| Self(Cow::Owned(name.to_owned())))
    }

    /// The name in ids and tables.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The module's rules; `None` of what is not the module.
    pub fn module_rules(&self) -> Option<ModuleRules> {
        [
            (Self::MODULE, ModuleRules::Redirect),
            (Self::MODULE_UNMATCHED, ModuleRules::Unmatched),
            (Self::MODULE_DIRECT, ModuleRules::Direct),
        ]
        .into_iter()
        .find_map(|(subject, rules)| (subject == *self).then_some(rules))
    }

    /// Whether it is mutex_proxy.ko.
    pub fn is_module(&self) -> bool {
        self.module_rules().is_some()
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        Self::named(&name).ok_or_else(|| {
            D::Error::custom(format!(
                "{name:?} is no name of a subject: at most {MAX_LENGTH} small letters, digits and hyphens"
            ))
        })
    }
}

impl JsonSchema for Subject {
    fn schema_name() -> Cow<'static, str> {
        "Subject".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The name of a thing that is measured.",
            "type": "string",
            "pattern": PATTERN
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parts_of_ids() {
        for name in ["none", "nft-dnat", "my-nat-2", "7"] {
            let subject: Subject = serde_json::from_str(&format!("\"{name}\"")).unwrap();
            assert_eq!(subject.name(), name);
        }
        for bad in ["", "-x", "a/b", "A", "a,b=1", "ä", &"x".repeat(41)] {
            assert_eq!(Subject::named(bad), None, "{bad}");
            assert!(serde_json::from_value::<Subject>(bad.into()).is_err());
        }
    }

    #[test]
    fn the_module_is_known_by_its_names() {
        for subject in Subject::OF_MODULE {
            assert!(subject.is_module());
        }
        assert!(!Subject::NONE.is_module());
        assert_eq!(Subject::named("none"), Some(Subject::NONE));
    }
}
