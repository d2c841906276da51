//! The JSON schema of `phasor.toml`, for editors: made of the same definitions that read the file.

use serde_json::{Map, Value, json};

use super::definition::{Directive, Kind, Table};
use super::directives::ROOT;

/// The JSON schema (draft 2020-12).
#[must_use]
pub fn schema() -> Value {
    let mut schema = table(&ROOT);
    if let Value::Object(object) = &mut schema {
        object.insert(
            "$schema".into(),
            "https://json-schema.org/draft/2020-12/schema".into(),
        );
        object.insert("title".into(), ROOT.title.into());
    }
    schema
}

fn table(definition: &Table) -> Value {
    let offered = || {
        definition
            .directives
            .iter()
            .filter(|directive| directive.offered)
    };
    let properties: Map<_, _> = offered()
        .map(|directive| (directive.name.to_owned(), property(directive)))
        .collect();
    let required: Vec<_> = offered()
        .filter(|directive| directive.required)
        .map(|directive| directive.name)
        .collect();
    json!({
        "type": "object",
        "description": definition.doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(directive: &Directive) -> Value {
    let mut schema = kind(&directive.kind);
    if let Value::Object(object) = &mut schema {
        object.insert("description".into(), directive.doc.into());
        if let Some(default) = directive.default.and_then(default_value) {
            object.insert("default".into(), default);
        }
    }
    schema
}

/// A default is TOML; a document of one key turns it into JSON.
fn default_value(default: &str) -> Option<Value> {
    let document: Value = toml::from_str(&format!("value = {default}")).ok()?;
    document.get("value").cloned()
}

fn kind(expected: &Kind) -> Value {
    match expected {
        Kind::Text | Kind::Raw | Kind::Template => json!({ "type": "string" }),
        Kind::Lua => json!({ "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": { "file": { "type": "string" } },
                "required": ["file"],
                "additionalProperties": false,
            },
        ] }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Integer { min, max } if *max == i64::MAX => {
            json!({ "type": "integer", "minimum": min })
        }
        Kind::Integer { min, max } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        // `${NAME}` may stand in for any part.
        Kind::Size { .. } => {
            json!({ "type": "string", "pattern": r"^[0-9]+[kKmMgG]?$|\$\{[A-Z_]" })
        }
        Kind::Time { .. } => {
            json!({ "type": "string", "pattern": r"^([0-9]+(ms|s|m|h|d))+$|\$\{[A-Z_]" })
        }
        Kind::Choice(choices) => json!({ "enum": choices }),
        Kind::List(item) => json!({ "type": "array", "items": kind(item) }),
        Kind::OneOrMore(item) => {
            json!({ "anyOf": [kind(item), { "type": "array", "items": kind(item) }] })
        }
        Kind::Table(definition) => table(definition),
        Kind::Map(item) => json!({ "type": "object", "additionalProperties": kind(item) }),
        Kind::Either(kinds) => json!({ "anyOf": kinds.iter().map(kind).collect::<Vec<_>>() }),
        Kind::Json => json!({}),
        Kind::PluginConfig => json!({ "type": "object" }),
    }
}
