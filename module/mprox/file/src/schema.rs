// SPDX-License-Identifier: MIT OR Apache-2.0

//! The JSON Schema of files, by which editors check and complete them.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::Schema;

use crate::text::FileText;

/// The JSON Schema of files.
pub fn schema() -> Schema {
    let settings = SchemaSettings::default().with_transform(RecursiveTransform(without_null));
    let generator = settings.into_generator();
    generator.into_root_schema_for::<FileText>()
}

// What may be left out may be null in JSON; TOML has no null.
fn without_null(schema: &mut Schema) {
    if let Some(types) = schema
        .get_mut("type")
        .and_then(|types| types.as_array_mut())
    {
        types.retain(|one| one != "null");
        if types.len() == 1 {
            let only = types.pop();
            schema.insert("type".to_owned(), only.into());
        }
    }
    let Some(kinds) = schema
        .get_mut("anyOf")
        .and_then(|kinds| kinds.as_array_mut())
    else {
        return;
    };
    kinds.retain(|one| one.get("type").is_none_or(|kind| kind != "null"));
    if kinds.len() == 1 {
        let only = kinds.pop();
        schema.remove("anyOf");
        let only = only.as_ref().and_then(|only| only.as_object());
        for (key, value) in only.into_iter().flatten() {
            schema.insert(key.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_speaks_of_files_and_says_what_each_key_is_for() {
        let schema = schema();
        let text = schema.as_value().to_string();
        for inner in ["Text\"", "OneOrMany", "null"] {
            assert!(!text.contains(inner), "{inner}: {text}");
        }
        assert_eq!(schema.get("title").unwrap(), "file of mprox");
        assert_eq!(schema.get("required").unwrap()[0], "rule");
        let tables = schema.get("$defs").unwrap().as_object().unwrap();
        let tables = tables.values().chain([schema.as_value()]);
        let properties = tables.filter_map(|table| table.get("properties")?.as_object());
        let mut count = 0;
        for (key, value) in properties.flatten() {
            let says = value.get("description").and_then(|text| text.as_str());
            assert!(says.is_some_and(|text| text.len() > 10), "{key}: {value}");
            count += 1;
        }
        assert!(count > 30, "{count}");
    }
}
