//! A directive is defined once — name, kind, default, text — and that definition reads the file,
//! makes the JSON schema and writes the reference page, so that none of the three can lag behind.
//!
//! Here are the shapes; the directives themselves are in `directives.rs`.

/// A table of the file: which keys it has.
#[derive(Debug)]
pub struct Table {
    /// What it is called in messages and in the reference: `[server]`.
    pub title: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Its keys, in the order of the reference.
    pub directives: &'static [Directive],
}

impl Table {
    /// The directive of a key.
    #[must_use]
    pub fn directive(&self, name: &str) -> Option<&'static Directive> {
        self.directives
            .iter()
            .find(|directive| directive.name == name)
    }
}

/// A key and what may stand behind it.
#[derive(Debug)]
pub struct Directive {
    /// The key.
    pub name: &'static str,
    /// What may stand behind it.
    pub kind: Kind,
    /// What it does, as a sentence.
    pub doc: &'static str,
    /// What holds when the key is absent, as TOML.
    pub default: Option<&'static str>,
    /// Whether the key must be there.
    pub required: bool,
    /// Whether this version has it; a key that it has not is an error, never ignored.
    pub offered: bool,
}

impl Directive {
    /// A key that may be absent and then means nothing.
    #[must_use]
    pub const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self {
            name,
            kind,
            doc,
            default: None,
            required: false,
            offered: true,
        }
    }

    /// A key that this version knows and does not have.
    #[must_use]
    pub const fn later(name: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Json,
            doc,
            default: None,
            required: false,
            offered: false,
        }
    }

    /// Gives the default, as TOML.
    #[must_use]
    pub const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// The key must be there.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

/// What may stand behind a key.
#[derive(Debug)]
pub enum Kind {
    /// A string in which `${NAME}` is an environment variable.
    Text,
    /// A string as it is.
    Raw,
    /// A string with `$variables`.
    Template,
    /// Lua: a string, or `{ file = "…" }`.
    Lua,
    /// `true` or `false`.
    Boolean,
    /// A whole number in a range.
    Integer {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// A number of bytes as a string.
    Size {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A time as a string.
    Time {
        /// The least, in milliseconds.
        min: u64,
    },
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// A list.
    List(&'static Self),
    /// One of it, or a list.
    OneOrMore(&'static Self),
    /// A table with these keys.
    Table(&'static Table),
    /// A table whose keys are free.
    Map(&'static Self),
    /// What fits first.
    Either(&'static [Self]),
    /// Anything, kept as JSON.
    Json,
    /// A plugin's own table: JSON, but for the Lua of a Lua plugin.
    PluginConfig,
}

impl Kind {
    /// What is expected, to follow "expected" in a message.
    #[must_use]
    pub fn expected(&self) -> String {
        match self {
            Self::Text | Self::Raw => "a string".to_owned(),
            Self::Template => "a string, in which `$name` is a variable".to_owned(),
            Self::Lua => "Lua code as a string, or { file = \"PATH\" }".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::Integer { min, max } if *max == i64::MAX => format!("a whole number from {min}"),
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Size { .. } => "a size as a string, like \"64k\", \"10m\" or \"1g\"".to_owned(),
            Self::Time { .. } => "a time as a string, like \"200ms\", \"5s\" or \"10m\"".to_owned(),
            Self::Choice(choices) => one_of(choices),
            Self::List(item) => format!("a list of {}", item.plural()),
            Self::OneOrMore(item) => format!("{}, or a list of {}", item.expected(), item.plural()),
            Self::Table(table) => {
                let keys: Vec<_> = table.directives.iter().filter(|key| key.offered).collect();
                match keys.as_slice() {
                    [key] => format!("a table like {{ {} = … }}", key.name),
                    [first, second, ..] => {
                        format!("a table like {{ {} = …, {} = … }}", first.name, second.name)
                    }
                    [] => "a table".to_owned(),
                }
            }
            Self::Map(_) => "a table".to_owned(),
            Self::Either(kinds) => {
                let kinds: Vec<_> = kinds.iter().map(Self::expected).collect();
                kinds.join(", or ")
            }
            Self::Json => "a value".to_owned(),
            Self::PluginConfig => "a table".to_owned(),
        }
    }

    /// The short name of the reference page.
    #[must_use]
    pub fn short(&self) -> String {
        match self {
            Self::Text | Self::Raw => "string".to_owned(),
            Self::Template => "string with variables".to_owned(),
            Self::Lua => "Lua, or { file }".to_owned(),
            Self::Boolean => "boolean".to_owned(),
            Self::Integer { .. } => "integer".to_owned(),
            Self::Size { .. } => "size".to_owned(),
            Self::Time { .. } => "time".to_owned(),
            Self::Choice(choices) => {
                let choices: Vec<_> = choices
                    .iter()
                    .map(|choice| format!("\"{choice}\""))
                    .collect();
                choices.join(" or ")
            }
            Self::List(item) => format!("list of {}", item.short()),
            Self::OneOrMore(item) => format!("{0}, or list of {0}", item.short()),
            Self::Table(table) => format!("table `{}`", table.title),
            Self::Map(item) => format!("table of {}", item.short()),
            Self::Either(kinds) => {
                let kinds: Vec<_> = kinds.iter().map(Self::short).collect();
                kinds.join(", or ")
            }
            Self::Json => "anything".to_owned(),
            Self::PluginConfig => "table".to_owned(),
        }
    }

    fn plural(&self) -> String {
        match self {
            Self::Text | Self::Raw | Self::Template => "strings".to_owned(),
            Self::Table(table) => format!("tables {}", table.title),
            Self::Either(_) => "values, each ".to_owned() + &self.expected(),
            other => other.expected(),
        }
    }
}

/// The choices as they are written, for a message.
#[must_use]
pub fn one_of(choices: &[&str]) -> String {
    let quoted: Vec<_> = choices
        .iter()
        .map(|choice| format!("\"{choice}\""))
        .collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}
