//! The tree of TOML is walked along the definitions here: what has the right form becomes a `Node`,
//! what has not is reported, and the walk goes on.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::definition::{Directive, Kind, Table, one_of};
use super::diagnostic::Reporter;
use super::directives::PLUGIN_LUA;
use super::document::{Entry, Environment, Fields, Node, Value, nearest};
use super::template::{Template, expand_environment};
use super::value::{names_lua, parse_size, parse_time};

/// Walks the tree; what it finds wrong goes to the reporter.
pub(super) struct Decoder<'d, 'r, 't> {
    environment: Environment<'d>,
    reporter: &'r mut Reporter<'t>,
}

impl<'d, 'r, 't> Decoder<'d, 'r, 't> {
    pub(super) fn new(environment: Environment<'d>, reporter: &'r mut Reporter<'t>) -> Self {
        Self {
            environment,
            reporter,
        }
    }
}

impl Decoder<'_, '_, '_> {
    /// A table with defined keys: those of the file, then the absent ones with their defaults.
    pub(super) fn table(
        &mut self,
        table: &DeTable<'_>,
        span: &Range<usize>,
        definition: &'static Table,
    ) -> Fields {
        let mut fields = Fields::default();
        for (key, value) in in_order(table) {
            let name: &str = key.get_ref();
            match definition.directive(name) {
                None => {
                    self.unknown(key, definition);
                    fields.is_broken = true;
                }
                Some(directive) if !directive.offered => {
                    let message = format!("`{name}` is not offered by this version: take it out");
                    self.reporter.error(&key.span(), message);
                    fields.is_broken = true;
                }
                Some(directive) => {
                    let node = match (&directive.kind, value.get_ref()) {
                        (Kind::PluginConfig, DeValue::Table(config)) => {
                            Some(self.plugin_config(config, &value.span(), table))
                        }
                        (kind, _) => self.value(value, kind),
                    };
                    fields.is_broken |= node.is_none();
                    let (name, span) = (name.to_owned(), key.span());
                    fields.entries.extend(node.map(|node| Entry {
                        name,
                        span,
                        given: true,
                        node,
                    }));
                }
            }
        }
        for directive in definition.directives {
            if !table.contains_key(directive.name) {
                self.absent(directive, span, definition, &mut fields);
            }
        }
        fields
    }

    fn absent(
        &mut self,
        directive: &'static Directive,
        span: &Range<usize>,
        definition: &Table,
        fields: &mut Fields,
    ) {
        if directive.required {
            let (name, title) = (directive.name, definition.title);
            let expected = directive.kind.expected();
            self.reporter.error(
                span,
                format!("`{title}` needs the key `{name}`: {expected}"),
            );
        }
        let Some(default) = directive.default else {
            return;
        };
        let Ok(value) = DeValue::parse(default) else {
            return;
        };
        let value = Spanned::new(span.clone(), value.into_inner());
        if let Some(mut node) = self.value(&value, &directive.kind) {
            node.span = span.clone();
            let name = directive.name.to_owned();
            fields.entries.push(Entry {
                name,
                span: span.clone(),
                given: false,
                node,
            });
        }
    }

    fn unknown(&mut self, key: &Spanned<Cow<'_, str>>, definition: &Table) {
        let name: &str = key.get_ref();
        let names = definition
            .directives
            .iter()
            .filter(|key| key.offered)
            .map(|key| key.name);
        let message = match nearest(name, names.clone()) {
            Some(nearest) => format!("unknown key `{name}`: did you mean `{nearest}`?"),
            None => {
                let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
                format!(
                    "unknown key `{name}`: {} has {}",
                    definition.title,
                    names.join(", ")
                )
            }
        };
        self.reporter.error(&key.span(), message);
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, kind: &'static Kind) -> Option<Node> {
        let span = value.span();
        let decoded = match (kind, value.get_ref()) {
            (Kind::Either(kinds), shape) => {
                let Some(kind) = kinds.iter().find(|kind| takes(kind, shape)) else {
                    return self.wrong_type(value, kind);
                };
                return self.value(value, kind);
            }
            (Kind::Boolean, DeValue::Boolean(truth)) => Value::Boolean(*truth),
            (Kind::Integer { min, max }, DeValue::Integer(_)) => {
                Value::Integer(self.integer(value, *min, *max, kind)?)
            }
            (Kind::OneOrMore(item) | Kind::List(item), DeValue::Array(array)) => Value::List(
                array
                    .iter()
                    .filter_map(|value| self.value(value, item))
                    .collect(),
            ),
            (Kind::OneOrMore(item), shape) if takes(item, shape) => {
                Value::List(self.value(value, item).into_iter().collect())
            }
            (Kind::Table(definition), DeValue::Table(table)) => {
                Value::Table(self.table(table, &span, definition))
            }
            (Kind::Map(item), DeValue::Table(table)) => Value::Table(self.map(table, item)),
            (Kind::Lua, DeValue::Table(table)) => self.lua_file(table, &span)?,
            (Kind::PluginConfig, DeValue::Table(table)) => {
                Value::Table(self.map(table, &Kind::Json))
            }
            (Kind::Json, shape) => Value::Json(self.json(shape, &span)),
            (kind, DeValue::String(text)) if takes(kind, value.get_ref()) => {
                self.string(text, &span, kind)?
            }
            _ => return self.wrong_type(value, kind),
        };
        Some(Node {
            span,
            value: decoded,
        })
    }

    fn string(&mut self, text: &str, span: &Range<usize>, kind: &Kind) -> Option<Value> {
        let outcome = match kind {
            Kind::Raw => Ok(Value::Text(text.to_owned())),
            Kind::Lua => Ok(Value::LuaInline(text.to_owned(), self.first_line(span))),
            Kind::Template => Template::parse(text, self.environment).map(Value::Template),
            Kind::Size { min, max } => self.size(text, *min, *max),
            Kind::Time { min } => self.time(text, *min),
            Kind::Choice(choices) if !choices.contains(&text) => Err(unknown_choice(text, choices)),
            _ => expand_environment(text, self.environment).map(Value::Text),
        };
        outcome
            .map_err(|message| self.reporter.error(span, message))
            .ok()
    }

    fn size(&self, text: &str, min: u64, max: u64) -> Result<Value, String> {
        let size = parse_size(&expand_environment(text, self.environment)?)?;
        if size < min {
            return Err(format!(
                "\"{text}\" is too small: the least is \"{}\"",
                show_size(min)
            ));
        }
        if size > max {
            return Err(format!(
                "\"{text}\" is too large: the most is \"{}\"",
                show_size(max)
            ));
        }
        Ok(Value::Size(size))
    }

    fn time(&self, text: &str, min: u64) -> Result<Value, String> {
        let time = parse_time(&expand_environment(text, self.environment)?)?;
        if time < Duration::from_millis(min) {
            return Err(format!("\"{text}\" is too short: the least is \"{min}ms\""));
        }
        Ok(Value::Time(time))
    }

    fn integer(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        min: i64,
        max: i64,
        kind: &Kind,
    ) -> Option<i64> {
        let DeValue::Integer(written) = value.get_ref() else {
            return None;
        };
        let number = i64::from_str_radix(written.as_str(), written.radix()).ok();
        let fits = number.filter(|number| (min..=max).contains(number));
        if fits.is_none() {
            let expected = kind.expected();
            self.reporter.error(
                &value.span(),
                format!("{written} is out of range: expected {expected}"),
            );
        }
        fits
    }

    /// A table with free keys; their order is the file's.
    fn map(&mut self, table: &DeTable<'_>, item: &'static Kind) -> Fields {
        let mut fields = Fields::default();
        for (key, value) in in_order(table) {
            if let Some(node) = self.value(value, item) {
                let name = key.get_ref().to_string();
                fields.entries.push(Entry {
                    name,
                    span: key.span(),
                    given: true,
                    node,
                });
            }
        }
        fields
    }

    /// A plugin's own table. Lua in it is code, in which `${NAME}` is no environment variable; which
    /// keys are Lua depends on the component.
    fn plugin_config(
        &mut self,
        config: &DeTable<'_>,
        span: &Range<usize>,
        plugin: &DeTable<'_>,
    ) -> Node {
        let is_lua = match plugin.get("component").map(Spanned::get_ref) {
            Some(DeValue::String(component)) => names_lua(component),
            _ => true,
        };
        let mut fields = Fields::default();
        for (key, value) in in_order(config) {
            let lua = PLUGIN_LUA.directive(key.get_ref()).filter(|_| is_lua);
            if let Some(node) = self.value(value, lua.map_or(&Kind::Json, |lua| &lua.kind)) {
                let name = key.get_ref().to_string();
                fields.entries.push(Entry {
                    name,
                    span: key.span(),
                    given: true,
                    node,
                });
            }
        }
        Node {
            span: span.clone(),
            value: Value::Table(fields),
        }
    }

    fn lua_file(&mut self, table: &DeTable<'_>, span: &Range<usize>) -> Option<Value> {
        static LUA: Table = Table {
            title: "Lua",
            doc: "Lua in a file of its own.",
            directives: &[Directive::new("file", Kind::Text, "The file.").required()],
        };
        let fields = self.table(table, span, &LUA);
        fields
            .text("file")
            .map(|(path, _)| Value::LuaFile(path.to_owned()))
    }

    /// TOML cuts off the line break behind `'''` and `"""`, so the text begins one line further down.
    fn first_line(&self, span: &Range<usize>) -> usize {
        let token = self.reporter.text(span);
        let body = token
            .strip_prefix("'''")
            .or_else(|| token.strip_prefix("\"\"\""));
        let breaks = body.is_some_and(|body| body.starts_with('\n') || body.starts_with("\r\n"));
        self.reporter.line_of(span.start) + usize::from(breaks)
    }

    fn json(&mut self, value: &DeValue<'_>, span: &Range<usize>) -> serde_json::Value {
        match value {
            DeValue::String(text) => match expand_environment(text, self.environment) {
                Ok(text) => text.into(),
                Err(message) => {
                    self.reporter.error(span, message);
                    serde_json::Value::Null
                }
            },
            DeValue::Integer(written) => {
                let number = i64::from_str_radix(written.as_str(), written.radix());
                number.map_or(serde_json::Value::Null, Into::into)
            }
            DeValue::Float(written) => written
                .as_str()
                .parse::<f64>()
                .map_or(serde_json::Value::Null, Into::into),
            DeValue::Boolean(truth) => (*truth).into(),
            DeValue::Datetime(time) => time.to_string().into(),
            DeValue::Array(array) => array
                .iter()
                .map(|value| self.json(value.get_ref(), &value.span()))
                .collect(),
            DeValue::Table(table) => in_order(table)
                .into_iter()
                .map(|(key, value)| {
                    (
                        key.get_ref().to_string(),
                        self.json(value.get_ref(), &value.span()),
                    )
                })
                .collect(),
        }
    }

    fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, kind: &Kind) -> Option<Node> {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let hint = match (kind, value.get_ref()) {
            (Kind::Size { .. }, DeValue::Integer(number)) => {
                format!("; write \"{number}\" for bytes, or \"{number}k\"")
            }
            (Kind::Time { .. }, DeValue::Integer(number)) => {
                format!("; write \"{number}s\" or \"{number}ms\"")
            }
            _ => String::new(),
        };
        let expected = kind.expected();
        self.reporter.error(
            &value.span(),
            format!("expected {expected}, found {found}{hint}"),
        );
        None
    }
}

/// Whether a value has the shape that the kind asks for; its content may still be wrong.
fn takes(kind: &Kind, value: &DeValue<'_>) -> bool {
    match kind {
        Kind::Text
        | Kind::Raw
        | Kind::Template
        | Kind::Choice(_)
        | Kind::Size { .. }
        | Kind::Time { .. } => {
            matches!(value, DeValue::String(_))
        }
        Kind::Lua => matches!(value, DeValue::String(_) | DeValue::Table(_)),
        Kind::Boolean => matches!(value, DeValue::Boolean(_)),
        Kind::Integer { .. } => matches!(value, DeValue::Integer(_)),
        Kind::List(_) => matches!(value, DeValue::Array(_)),
        Kind::OneOrMore(item) => matches!(value, DeValue::Array(_)) || takes(item, value),
        Kind::Table(_) | Kind::Map(_) | Kind::PluginConfig => matches!(value, DeValue::Table(_)),
        Kind::Either(kinds) => kinds.iter().any(|kind| takes(kind, value)),
        Kind::Json => true,
    }
}

/// `toml` keeps keys by the alphabet; their places tell the file's order.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, value)| (key.span().start, value.span().start));
    entries
}

fn unknown_choice(text: &str, choices: &[&str]) -> String {
    match nearest(text, choices.iter().copied()) {
        Some(nearest) => format!("unknown value \"{text}\": did you mean \"{nearest}\"?"),
        None => format!("unknown value \"{text}\": expected {}", one_of(choices)),
    }
}

fn show_size(size: u64) -> String {
    for (unit, letter) in [(1_u64 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")] {
        if size >= unit && size.is_multiple_of(unit) {
            return format!("{}{letter}", size / unit);
        }
    }
    size.to_string()
}
