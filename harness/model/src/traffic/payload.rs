// SPDX-License-Identifier: MIT OR Apache-2.0

//! How much packets carry.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{IntoDeserializer, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The most that fits a packet of 1500 bytes with the longest headers, IPv6 and TCP with options.
pub const MAX_PAYLOAD: u16 = 1500 - 40 - 60;

/// Payload of the transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Payload {
    /// So many bytes in each packet, at least 16: flow, sequence number and seed.
    Bytes(#[schemars(range(min = 16, max = 1400))] u16),
    /// Packets of several sizes.
    Mix(Mix),
}

/// A mix of sizes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mix {
    /// Frames of 64, 570 and 1518 bytes, 7 to 4 to 1: the simple IMIX that RFC 6985 gives as an
    /// example of its notation.
    Imix,
}

// By hand, so that an error says more than that it is neither.
impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PayloadVisitor;

        impl Visitor<'_> for PayloadVisitor {
            type Value = Payload;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number of bytes, or \"imix\"")
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Payload, E> {
                u16::try_from(bytes)
                    .map(Payload::Bytes)
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(bytes), &self))
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<Payload, E> {
                u16::try_from(bytes)
                    .map(Payload::Bytes)
                    .map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Payload, E> {
                Mix::deserialize(name.into_deserializer()).map(Payload::Mix)
            }
        }

        deserializer.deserialize_any(PayloadVisitor)
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => bytes.fmt(formatter),
            Self::Mix(Mix::Imix) => formatter.write_str("imix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_numbers_or_words() {
        let payloads: Vec<Payload> = serde_json::from_str("[64, \"imix\"]").unwrap();
        assert_eq!(payloads, [Payload::Bytes(64), Payload::Mix(Mix::Imix)]);
        assert_eq!(serde_json::to_string(&payloads).unwrap(), "[64,\"imix\"]");
        for (bad, part) in [
            (
                "-1",
                "invalid value: integer `-1`, expected a number of bytes",
            ),
            ("65536", "expected a number of bytes, or \"imix\""),
            ("\"imx\"", "unknown variant `imx`"),
            ("true", "invalid type: boolean"),
        ] {
            let error = serde_json::from_str::<Payload>(bad)
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
