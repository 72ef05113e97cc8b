// SPDX-License-Identifier: MIT OR Apache-2.0

//! The values of one dimension: a list, or a range of numbers.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use schemars::{json_schema, JsonSchema, Schema, SchemaGenerator};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// More than this would be a mistake.
const MAX_VALUES: usize = 10_000;

/// Values in the order of measuring; the first one is the default.
#[derive(Clone, Debug, PartialEq)]
pub struct Values<T>(pub Vec<T>);

impl<T> Deref for Values<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'a, T> IntoIterator for &'a Values<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// A range of numbers, both ends included.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Range {
    /// The first number.
    from: u32,
    /// No number is greater.
    to: u32,
    /// What the next number is more by; 1 if neither this nor `times` is given.
    #[schemars(range(min = 1))]
    step: Option<u32>,
    /// What the next number is multiplied by.
    #[schemars(range(min = 2))]
    times: Option<u32>,
}

impl Range {
    fn numbers(self) -> Result<Vec<u32>, String> {
        let Self {
            from,
            to,
            step,
            times,
        } = self;
        if from > to {
            return Err(format!("the range from {from} to {to} is empty"));
        }
        let next: Box<dyn Fn(u32) -> Option<u32>> = match (step, times) {
            (Some(_), Some(_)) => {
                return Err("a range has either `step` or `times`".to_owned());
            }
            (Some(0), _) | (_, Some(0 | 1)) => {
                return Err(
                    "the range never reaches its end: `step` is at least 1, `times` at least 2"
                        .to_owned(),
                );
            }
            (_, Some(_)) if from == 0 => {
                return Err(
                    "0 times anything is 0: begin with another number, or use `step`".to_owned(),
                );
            }
            (step, None) => Box::new(move |number| number.checked_add(step.unwrap_or(1))),
            (None, Some(times)) => Box::new(move |number| number.checked_mul(times)),
        };
        let numbers: Vec<u32> = std::iter::successors(Some(from), |&number| next(number))
            .take_while(|&number| number <= to)
            .take(MAX_VALUES + 1)
            .collect();
        if numbers.len() > MAX_VALUES {
            return Err(format!("the range has more than {MAX_VALUES} numbers"));
        }
        Ok(numbers)
    }
}

/// What can stand for a number of a range.
pub trait FromNumber: Sized {
    /// The value; `None` if there is none for such a number.
    fn from_number(number: u32) -> Option<Self>;
}

impl FromNumber for u32 {
    fn from_number(number: u32) -> Option<Self> {
        Some(number)
    }
}

/// For dimensions without numbers.
macro_rules! without_numbers {
    ($($type:ty),*) => {
        $(impl FromNumber for $type {
            fn from_number(_: u32) -> Option<Self> {
                None
            }
        })*
    };
}

without_numbers!(
    String,
    mutexlab_model::traffic::Way,
    mutexlab_model::traffic::Family,
    mutexlab_model::traffic::Protocol,
    mutexlab_model::traffic::Ends,
    mutexlab_model::traffic::Popularity,
    mutexlab_model::traffic::Steering,
    mutexlab_model::traffic::Checksum,
    mutexlab_model::traffic::Cloned,
    crate::named::Named
);

impl<'de, T: Deserialize<'de> + FromNumber> Deserialize<'de> for Values<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValuesVisitor(PhantomData))
    }
}

struct ValuesVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + FromNumber> Visitor<'de> for ValuesVisitor<T> {
    type Value = Values<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list, or a range such as { from = 1, to = 64, times = 2 }")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Values<T>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(Values)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Values<T>, A::Error> {
        let range = Range::deserialize(MapAccessDeserializer::new(map))?;
        let numbers = range.numbers().map_err(A::Error::custom)?;
        let values: Option<Vec<T>> = numbers.into_iter().map(T::from_number).collect();
        values
            .map(Values)
            .ok_or_else(|| A::Error::custom("a range is of numbers, but here must be a list"))
    }
}

impl<T: JsonSchema> JsonSchema for Values<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Values of {}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        let range = generator.subschema_for::<Range>();
        json_schema!({
            "anyOf": [
                { "type": "array", "items": item, "minItems": 1, "uniqueItems": true },
                range
            ]
        })
    }
}

/// What is not given is once.
pub const fn once() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<u32>, String> {
        #[derive(Deserialize)]
        struct File {
            a: Values<u32>,
        }
        toml::from_str(&format!("a = {text}"))
            .map(|file: File| file.a.0)
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn ranges_are_lists() {
        assert_eq!(parse("[3, 1]"), Ok(vec![3, 1]));
        assert_eq!(parse("{ from = 2, to = 4 }"), Ok(vec![2, 3, 4]));
        assert_eq!(parse("{ from = 1, to = 10, step = 4 }"), Ok(vec![1, 5, 9]));
        assert_eq!(
            parse("{ from = 1, to = 16, times = 2 }"),
            Ok(vec![1, 2, 4, 8, 16])
        );
        assert_eq!(
            parse("{ from = 4294967295, to = 4294967295 }"),
            Ok(vec![u32::MAX])
        );
    }

    #[test]
    fn endless_and_empty_ranges_are_refused() {
        for (text, part) in [
            ("{ from = 2, to = 1 }", "is empty"),
            ("{ from = 1, to = 2, step = 0 }", "never reaches"),
            ("{ from = 1, to = 2, times = 1 }", "never reaches"),
            ("{ from = 0, to = 2, times = 2 }", "0 times anything"),
            ("{ from = 1, to = 2, times = 2, step = 1 }", "either"),
            ("{ from = 1, to = 4294967295 }", "more than 10000"),
            ("{ from = 1, too = 2 }", "unknown field `too`"),
            ("7", "a list, or a range"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
