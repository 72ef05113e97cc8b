// SPDX-License-Identifier: MIT OR Apache-2.0

//! A subject as a scenario names it.

use std::borrow::Cow;

use schemars::{json_schema, JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use mutexlab_model::subject::Subject;

/// A subject by its name, or by the directory that tells of it, whose last part is the name then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub subject: Subject,
    /// The directory as the scenario has it, if it names one; from the scenario's own directory on.
    pub directory: Option<String>,
}

impl From<Subject> for Named {
    fn from(subject: Subject) -> Self {
        Self {
            subject,
            directory: None,
        }
    }
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let is_path = text.contains('/');
        let last = text.trim_end_matches('/').rsplit('/').next();
        let name = if is_path {
            last.unwrap_or_default()
        } else {
            &text
        };
        let subject = Subject::named(name).ok_or_else(|| {
            D::Error::custom(format!(
                "{name:?} is no name of a subject: it has to be of at most 40 small letters, digits and hyphens"
            ))
        })?;
        Ok(Self {
            subject,
            directory: is_path.then(|| text.into_owned()),
        })
    }
}

impl JsonSchema for Named {
    fn schema_name() -> Cow<'static, str> {
        "Subject".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What is measured: `module`, `module-unmatched`, `module-direct`, a directory of \
                scenarios/subjects by its name, or another directory by its path, which has a `/`, from the \
                scenario's file on.",
            "type": "string",
            "examples": ["none", "nft-dnat", "module", "./my-nat"]
        })
    }
}
