// SPDX-License-Identifier: MIT OR Apache-2.0

//! JSON of which a person sees the outline: what is in the outermost object has a line of its own, and
//! so has each thing in that, such as a cell. With every number of a histogram on a line of its own a
//! file is twice as large, and takes twice as long to read.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use serde_json::Serializer;

/// How many levels have lines of their own.
const LEVELS: usize = 2;

/// Writes a value, with a line end behind it.
///
/// # Errors
/// If `writer` fails, or the value cannot be JSON.
pub fn write<T: Serialize>(mut writer: impl Write, value: &T) -> io::Result<()> {
    let mut serializer = Serializer::with_formatter(&mut writer, Outline::default());
    value.serialize(&mut serializer)?;
    writer.write_all(b"\n")
}

/// The outer levels as one formatter has them, and the rest as another.
#[derive(Default)]
struct Outline {
    outer: PrettyFormatter<'static>,
    inner: CompactFormatter,
    depth: usize,
}

/// Has the formatter of the present level do it.
macro_rules! by_level {
    ($outline:ident.$method:ident($($argument:expr),*)) => {
        if $outline.depth <= LEVELS {
            $outline.outer.$method($($argument),*)
        } else {
            $outline.inner.$method($($argument),*)
        }
    };
}

impl Formatter for Outline {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        by_level!(self.begin_array(writer))
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        let written = by_level!(self.end_array(writer));
        self.depth -= 1;
        written
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        by_level!(self.begin_array_value(writer, first))
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        by_level!(self.end_array_value(writer))
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        by_level!(self.begin_object(writer))
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        let written = by_level!(self.end_object(writer));
        self.depth -= 1;
        written
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        by_level!(self.begin_object_key(writer, first))
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        by_level!(self.begin_object_value(writer))
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        by_level!(self.end_object_value(writer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, Value};

    fn written(value: &Value) -> String {
        let mut text = Vec::new();
        write(&mut text, value).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn each_cell_has_a_line() {
        let value = json!({
            "cells": [{"id": "a", "histogram": [[1, 2], [3, 4]]}, {"id": "b", "histogram": []}],
            "closure": {"commit": "c", "kernels": {"7.3": {"release": "7.3.4"}}},
            "none": [],
            "schema": 2
        });
        assert_eq!(
            written(&value),
            r#"{
  "cells": [
    {"histogram":[[1,2],[3,4]],"id":"a"},
    {"histogram":[],"id":"b"}
  ],
  "closure": {
    "commit": "c",
    "kernels": {"7.3":{"release":"7.3.4"}}
  },
  "none": [],
  "schema": 2
}
"#
        );
        assert_eq!(
            serde_json::from_str::<Value>(&written(&value)).unwrap(),
            value
        );
    }
}
