// SPDX-License-Identifier: MIT OR Apache-2.0

//! Values of parameters: of our module, and of the subjects that have some.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

use mutexlab_model::subject::Subject;
use schemars::{json_schema, JsonSchema, Schema, SchemaGenerator};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::values::{FromNumber, Values};

/// Parameters by name, each with its values; the first one is the default.
pub type Choices = BTreeMap<String, Values<ParameterValue>>;

/// `[parameters]` of a scenario: of our module what has no owner, and a table for each subject that has some.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// Our module's.
    pub module: Choices,
    /// Other subjects', by the subject's name.
    pub owned: BTreeMap<String, Choices>,
}

impl Parameters {
    /// Those of a subject; none if it has none here.
    pub fn of(&self, subject: &Subject) -> Option<&Choices> {
        if subject.is_module() {
            Some(&self.module)
        } else {
            self.owned.get(subject.name())
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.module.is_empty() && self.owned.is_empty()
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Self::default();
        for (name, entry) in BTreeMap::<String, Entry>::deserialize(deserializer)? {
            match entry {
                Entry::Values(values) => drop(all.module.insert(name, values)),
                Entry::Owner(choices) => drop(all.owned.insert(name, choices)),
            }
        }
        Ok(all)
    }
}

impl JsonSchema for Parameters {
    fn schema_name() -> Cow<'static, str> {
        "Parameters".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let values = generator.subschema_for::<Values<ParameterValue>>();
        json_schema!({
            "type": "object",
            "additionalProperties": {
                "anyOf": [
                    values,
                    {
                        "description": "Parameters of the subject of this name.",
                        "type": "object",
                        "additionalProperties": values
                    }
                ]
            }
        })
    }
}

/// What a name in `[parameters]` may stand for.
enum Entry {
    /// The values of a parameter of our module's.
    Values(Values<ParameterValue>),
    /// A subject's parameters.
    Owner(Choices),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;

        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(
                    "a list, a range such as { from = 1, to = 64, times = 2 }, or a subject's parameters",
                )
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Entry, A::Error> {
                Values::deserialize(SeqAccessDeserializer::new(list)).map(Entry::Values)
            }

            // What a range's keys have are numbers, and what parameters have is never one.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
                let (mut numbers, mut choices) = (toml::Table::new(), Choices::new());
                while let Some(name) = map.next_key::<String>()? {
                    match map.next_value()? {
                        Item::Number(number) => drop(numbers.insert(name, number.into())),
                        Item::Values(values) => drop(choices.insert(name, values)),
                    }
                }
                match (numbers.keys().next(), choices.is_empty()) {
                    (None, _) => Ok(Entry::Owner(choices)),
                    (Some(_), true) => Values::deserialize(numbers)
                        .map(Entry::Values)
                        .map_err(|error| A::Error::custom(error.message())),
                    (Some(name), false) => Err(A::Error::custom(format!(
                        "`{name}` is a number: a parameter has a list of values, or a range"
                    ))),
                }
            }
        }

        deserializer.deserialize_any(EntryVisitor)
    }
}

/// What a key has in a table of `[parameters]`.
enum Item {
    Number(i64),
    Values(Values<ParameterValue>),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemVisitor;

        impl<'de> Visitor<'de> for ItemVisitor {
            type Value = Item;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list, or a range such as { from = 1, to = 64, times = 2 }")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Item, E> {
                Ok(Item::Number(number))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Item, A::Error> {
                Values::deserialize(SeqAccessDeserializer::new(list)).map(Item::Values)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
                let range = MapAccessDeserializer::new(map);
                Values::deserialize(range).map(Item::Values)
            }
        }

        deserializer.deserialize_any(ItemVisitor)
    }
}

/// A value of a parameter; a kernel module takes them all as text.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ParameterValue {
    /// `true` is `Y` to the kernel.
    Bool(bool),
    /// A number.
    Integer(i64),
    /// Anything else.
    Text(String),
}

impl Display for ParameterValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(true) => formatter.write_str("Y"),
            Self::Bool(false) => formatter.write_str("N"),
            Self::Integer(number) => number.fmt(formatter),
            Self::Text(text) => text.fmt(formatter),
        }
    }
}

impl FromNumber for ParameterValue {
    fn from_number(number: u32) -> Option<Self> {
        Some(Self::Integer(number.into()))
    }
}
