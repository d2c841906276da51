//! The reference page of `phasor.toml` in Markdown: made of the same definitions that read the
//! file, so that it cannot say anything else.

use super::definition::{Directive, Kind, Table};
use super::directives::{PLUGIN_LUA, ROOT};

/// The page.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# phasor.toml\n\n<!-- Generated from host/src/config/directives.rs. -->\n\n\
         Sizes are strings like `\"64k\"`, `\"10m\"`, `\"1g\"`; times like `\"200ms\"`, `\"5s\"`, \
         `\"10m\"`, `\"1h\"`. Paths are relative to the file. `${NAME}` in capitals takes an \
         environment variable; `$name` in a string with variables is a variable of the request, \
         and `$$` a dollar sign.\n",
    );
    let mut written = Vec::new();
    table(&ROOT, &mut page, &mut written);
    section(&PLUGIN_LUA, &mut page);
    page
}

/// A table, then the tables in it; one that stands in several places is written once.
fn table(definition: &'static Table, page: &mut String, written: &mut Vec<&'static str>) {
    if written.contains(&definition.title) {
        return;
    }
    written.push(definition.title);
    section(definition, page);
    for directive in offered(definition) {
        for below in tables_of(&directive.kind) {
            table(below, page, written);
        }
    }
}

fn section(definition: &Table, page: &mut String) {
    let (title, doc) = (definition.title, definition.doc);
    let head = "| key | value | default | what it does |\n|---|---|---|---|\n";
    page.push_str(&format!("\n## `{title}`\n\n{doc}\n\n{head}"));
    for directive in offered(definition) {
        let default = match directive.default {
            Some(default) if !matches!(default, "{}" | "[]") => format!("`{default}`"),
            _ if directive.required => "required".to_owned(),
            _ => String::new(),
        };
        let value = directive.kind.short().replace('|', "\\|");
        let (name, doc) = (directive.name, directive.doc);
        page.push_str(&format!("| `{name}` | {value} | {default} | {doc} |\n"));
    }
}

fn offered(definition: &Table) -> impl Iterator<Item = &Directive> {
    definition
        .directives
        .iter()
        .filter(|directive| directive.offered)
}

fn tables_of(kind: &Kind) -> Vec<&'static Table> {
    match kind {
        Kind::Table(definition) => vec![*definition],
        Kind::List(item) | Kind::OneOrMore(item) | Kind::Map(item) => tables_of(item),
        Kind::Either(kinds) => kinds.iter().flat_map(tables_of).collect(),
        Kind::Text
        | Kind::Raw
        | Kind::Template
        | Kind::Lua
        | Kind::Boolean
        | Kind::Integer { .. }
        | Kind::Size { .. }
        | Kind::Time { .. }
        | Kind::Choice(_)
        | Kind::Json
        | Kind::PluginConfig => Vec::new(),
    }
}
