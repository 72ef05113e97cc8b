// SPDX-License-Identifier: MIT OR Apache-2.0

//! An axis of a scenario's matrix: an enumeration with everything that a place in a plan, an id, a scenario's file and a
//! results file take.

/// Derives it all. A default is derived apart, by those that have one.
macro_rules! axis {
    ($(#[$attribute:meta])* pub enum $name:ident { $($variants:tt)* }) => {
        $(#[$attribute])*
        #[derive(
            Clone,
            Copy,
            Debug,
            PartialEq,
            Eq,
            PartialOrd,
            Ord,
            Hash,
            serde::Serialize,
            serde::Deserialize,
            schemars::JsonSchema,
        )]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($variants)* }
    };
}

pub(crate) use axis;
