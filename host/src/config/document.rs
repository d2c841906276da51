//! The file as written: its TOML walked along the definitions, so that every key, shape and form
//! that is wrong is found in one pass, each at its place.
//!
//! Nothing is given a meaning here; names are not looked up and files are not read. That is
//! `resolve`'s. `toml`'s own `Deserialize` is not used because it stops at the first fault.

use std::ops::Range;
use std::time::Duration;

use toml::de::DeTable;

use super::decode::Decoder;
use super::definition::Table;
use super::diagnostic::Reporter;
use super::template::Template;

/// Gives the value of an environment variable.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its bytes in the file; for a default the table's.
    pub span: Range<usize>,
    /// The value.
    pub value: Value,
}

/// A value in the form that its directive asks for.
#[derive(Debug, Clone)]
pub enum Value {
    /// A string.
    Text(String),
    /// A string with variables.
    Template(Template),
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Bytes.
    Size(u64),
    /// A time.
    Time(Duration),
    /// A list; one of `Kind::OneOrMore` is a list of one.
    List(Vec<Node>),
    /// A table: defined keys, or free ones.
    Table(Fields),
    /// Lua in the file, and the line on which it begins.
    LuaInline(String, usize),
    /// Lua in a file of its own.
    LuaFile(String),
    /// Anything.
    Json(serde_json::Value),
}

/// A table's entries in the file's order, absent ones with their defaults.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Whether a key of it was wrong: then a message about what it lacks would only repeat that.
    pub is_broken: bool,
}

/// A key with its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub name: String,
    /// Where the key stands; for a default the table's place.
    pub span: Range<usize>,
    /// Whether it stands in the file, and is no default.
    pub given: bool,
    /// The value.
    pub node: Node,
}

impl Fields {
    /// The entry of a key.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The value of a key.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|entry| &entry.node)
    }

    /// A string and its place.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<(&str, &Range<usize>)> {
        let node = self.node(name)?;
        node.text().map(|text| (text, &node.span))
    }

    /// A truth value; absent is false.
    #[must_use]
    pub fn boolean(&self, name: &str) -> bool {
        matches!(
            self.node(name).map(|node| &node.value),
            Some(Value::Boolean(true))
        )
    }

    /// A number; `None` when it is absent or was wrong.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.node(name)?.value {
            Value::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// A number of things.
    #[must_use]
    pub fn count(&self, name: &str) -> Option<usize> {
        usize::try_from(self.integer(name)?).ok()
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<u64> {
        match self.node(name)?.value {
            Value::Size(size) => Some(size),
            _ => None,
        }
    }

    /// A time; zero when it was wrong, which has been reported.
    #[must_use]
    pub fn time(&self, name: &str) -> Duration {
        match self.node(name).map(|node| &node.value) {
            Some(Value::Time(time)) => *time,
            _ => Duration::ZERO,
        }
    }

    /// A list; empty when it was wrong.
    #[must_use]
    pub fn list(&self, name: &str) -> &[Node] {
        match self.node(name).map(|node| &node.value) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// A table.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Self> {
        self.node(name)?.table()
    }
}

impl Node {
    /// The string that it is.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The table that it is.
    #[must_use]
    pub fn table(&self) -> Option<&Fields> {
        match &self.value {
            Value::Table(fields) => Some(fields),
            _ => None,
        }
    }
}

/// Reads a file's text; everything that is wrong with its form goes to the reporter. Without a
/// value when the text is no TOML.
pub fn parse(
    text: &str,
    root: &'static Table,
    environment: Environment<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Fields> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        reporter.error(
            &error.span().unwrap_or(0..0),
            error.message().trim().to_owned(),
        );
    }
    // What the parser made of broken text would only yield more messages about the same place.
    if !errors.is_empty() {
        return None;
    }
    let mut decoder = Decoder::new(environment, reporter);
    let span = document.span();
    Some(decoder.table(document.get_ref(), &span, root))
}

/// The known name that is most like the one written, if any is.
#[must_use]
pub fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // A third of the letters may differ: `lisen` is `listen`, `foo` is nothing.
    let limit = name.chars().count().max(3) / 3;
    known
        .map(|known| {
            (
                strsim::damerau_levenshtein(&name.to_lowercase(), known),
                known,
            )
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}
