// SPDX-License-Identifier: MIT OR Apache-2.0

//! The manual page of files, mprox.conf(5), from the JSON Schema that `mprox schema` prints: what editors check a file by, and what people
//! read of it, are of one source.

use roff::{bold, italic, roman, Inline, Roff};
use serde_json::{Map, Value};

const EXAMPLE: &str = r#"[upstreams.web]
servers = ["192.0.2.10:8080", "192.0.2.11:8080"]
select = "failover"

[[rule]]
name = "lan"
to = ["local", "private"]
action = "direct"

[[rule]]
name = "web"
ip = 4
protocol = "tcp"
ports = [80, "8000-8099"]
via = "web"
"#;

/// The page, in roff.
pub fn page(schema: &Value) -> String {
    let mut page = Roff::new();
    let source = concat!("mprox ", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["MPROX.CONF", "5", "", source])
        .control("SH", ["NAME"])
        .text([roman("mprox.conf - which connections mprox redirects")])
        .control("SH", ["DESCRIPTION"])
        .text(prose(
            "A file in TOML says which connections are redirected, and to which servers. `mprox run`, `mprox apply` and `mprox \
             check` are told its path.",
        ))
        .control("PP", [])
        .text(prose(
            "A connection that no rule matches goes where it goes. A key that is left out of a rule allows anything.",
        ));
    let schema = Schema {
        root: schema,
        here: schema,
    };
    let mut plain = Vec::new();
    for (key, value) in schema.properties() {
        let (heading, table) = match (value.element(), value.named()) {
            (Some(element), _) if element.is_table() => (format!("[[{key}]]"), element),
            (_, Some(table)) if table.is_table() => (format!("[{key}.NAME]"), table),
            _ => {
                plain.push((key, value));
                continue;
            }
        };
        page.control("SH", [heading.as_str()]);
        page.text(prose(value.description()));
        for (key, value) in table.properties() {
            describe(&mut page, key, value);
        }
    }
    if !plain.is_empty() {
        page.control("SH", ["KEYS OF NO TABLE"]);
        for (key, value) in plain {
            describe(&mut page, key, value);
        }
    }
    page.control("SH", ["FILES"])
        .control("TP", [])
        .text([italic("/etc/mprox/NAME.toml")])
        .text(prose("What the service `mprox@NAME` redirects."))
        .control("SH", ["EXAMPLE"])
        .control("EX", [])
        .text([roman(EXAMPLE)])
        .control("EE", [])
        .control("SH", ["SEE ALSO"])
        .text([bold("mprox"), roman("(8)")]);
    page.render()
}

fn describe(page: &mut Roff, key: &str, value: Schema<'_>) {
    page.control("TP", []).text([bold(key)]);
    page.text(prose(value.description()));
    let mut kinds = Vec::new();
    value.kinds(&mut kinds);
    let kinds = format!("({})", kinds.join(" or "));
    page.text(prose(&kinds));
    for one in value.choices() {
        let Some(choice) = one.here.get("const").and_then(Value::as_str) else {
            continue;
        };
        page.control("RS", [])
            .control("TP", [])
            .text([bold(format!("\"{choice}\""))])
            .text(prose(one.description()))
            .control("RE", []);
    }
}

/// What is between backticks is bold.
fn prose(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(place, part)| match place % 2 {
        0 => roman(part),
        _ => bold(part),
    });
    parts.collect()
}

/// A part of a schema.
#[derive(Clone, Copy, Debug)]
struct Schema<'a> {
    // Of which it is a part, and where its references lead.
    root: &'a Value,
    here: &'a Value,
}

impl<'a> Schema<'a> {
    fn at(self, here: &'a Value) -> Self {
        Self { here, ..self }
    }

    /// What it refers to, or itself.
    fn resolved(self) -> Self {
        let path = self.here.get("$ref").and_then(Value::as_str);
        let found = path.and_then(|path| self.root.pointer(path.strip_prefix('#')?));
        found.map_or(self, |found| self.at(found))
    }

    fn properties(self) -> impl Iterator<Item = (&'a str, Self)> {
        let all = self
            .resolved()
            .here
            .get("properties")
            .and_then(Value::as_object);
        let all = all.into_iter().flat_map(Map::iter);
        all.map(move |(key, value)| (key.as_str(), self.at(value)))
    }

    fn is_table(self) -> bool {
        self.properties().next().is_some()
    }

    /// What an array has.
    fn element(self) -> Option<Self> {
        Some(self.at(self.resolved().here.get("items")?))
    }

    /// What an object has under names that anybody may choose.
    fn named(self) -> Option<Self> {
        let value = self.resolved().here.get("additionalProperties")?;
        Some(self.at(value))
    }

    fn description(self) -> &'a str {
        let own = |one: Self| one.here.get("description").and_then(Value::as_str);
        own(self).or_else(|| own(self.resolved())).unwrap_or("")
    }

    /// What it may be one of.
    fn choices(self) -> Vec<Self> {
        let here = self.resolved();
        let all = ["anyOf", "oneOf"].map(|key| here.here.get(key).and_then(Value::as_array));
        let mut found = Vec::new();
        for one in all.into_iter().flatten().flatten().map(|one| here.at(one)) {
            let inner = one.choices();
            if inner.is_empty() {
                found.push(one);
            } else {
                found.extend(inner);
            }
        }
        found
    }

    /// Adds what it may be, in TOML's words.
    fn kinds(self, found: &mut Vec<String>) {
        let mut add = |kind: String| {
            if !found.contains(&kind) {
                found.push(kind);
            }
        };
        let choices = self.choices();
        if !choices.is_empty() {
            for one in choices {
                one.kinds(found);
            }
            return;
        }
        let here = self.resolved();
        if let Some(all) = here.here.get("enum").and_then(Value::as_array) {
            all.iter().for_each(|one| add(one.to_string()));
            return;
        }
        let types = match here.here.get("type") {
            Some(Value::Array(all)) => all.iter().collect(),
            Some(one) => vec![one],
            None => Vec::new(),
        };
        for one in types.into_iter().filter_map(Value::as_str) {
            match one {
                // TOML has none: it stands for what is left out.
                "null" => {}
                "object" => add("table".to_owned()),
                "array" => {
                    let mut inner = Vec::new();
                    if let Some(element) = here.element() {
                        element.kinds(&mut inner);
                    }
                    add(format!("list of {}", inner.join(" or ")));
                }
                other => add(other.to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_key_of_a_file_is_there_with_its_kind() {
        let schema = mprox_file::schema();
        let page = page(schema.as_value());
        for expected in [
            ".SH [upstreams.NAME]\n",
            ".SH [[rule]]\n",
            "\\fBports\\fR\n",
            "(integer or string or list of integer or string)\n",
            "\\fBnot\\-cgroups\\fR\n",
            "\\fB\"failover\"\\fR\n",
            "\\fB\"round\\-robin\"\\fR\n",
        ] {
            assert!(page.contains(expected), "{expected}: {page}");
        }
        assert!(!page.contains("null"), "{page}");
    }

    #[test]
    fn what_is_in_no_table_has_a_section_of_its_own() {
        let schema =
            json!({ "properties": { "log": { "description": "Of `what`.", "enum": [4, 6] } } });
        let page = page(&schema);
        let expected = ".SH \"KEYS OF NO TABLE\"\n.TP\n\\fBlog\\fR\nOf \\fBwhat\\fR.\n(4 or 6)\n";
        assert!(page.contains(expected), "{page}");
    }

    #[test]
    fn the_example_is_a_good_file() {
        let system = mprox_file::Machine;
        let directory = std::path::Path::new("");
        let file =
            mprox_file::ProxyFile::parse("x".to_owned(), EXAMPLE.to_owned(), directory, &system);
        file.unwrap();
    }
}
