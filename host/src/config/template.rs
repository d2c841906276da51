//! Text with `$variables` is cut into parts once, when the configuration is read, so that a request
//! only strings them together.

/// Text with `$variable` or `${variable}` in it; `$$` is one dollar sign.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    /// The parts in order; no two literals stand side by side, and none is empty.
    pub parts: Vec<Part>,
}

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text as it is.
    Literal(Vec<u8>),
    /// A variable's name, without `$`.
    Variable(String),
}

impl Template {
    /// Cuts the text. `${NAME}` in capitals is an environment variable, which `environment` gives;
    /// a dollar sign before anything but a name stands for itself.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut template = Self::default();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            template.push_literal(&rest.as_bytes()[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                template.push_literal(b"$");
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                rest = template.push_braced(after, environment)?;
            } else {
                let length = name_length(rest);
                if length == 0 {
                    template.push_literal(b"$");
                } else {
                    template
                        .parts
                        .push(Part::Variable(rest[..length].to_owned()));
                    rest = &rest[length..];
                }
            }
        }
        template.push_literal(rest.as_bytes());
        Ok(template)
    }

    /// Text without variables.
    #[must_use]
    pub fn literal(text: impl Into<Vec<u8>>) -> Self {
        let text = text.into();
        let parts = if text.is_empty() {
            Vec::new()
        } else {
            vec![Part::Literal(text)]
        };
        Self { parts }
    }

    /// The text, when there is no variable in it.
    #[must_use]
    pub fn as_literal(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(b""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The names of the variables, as often as they stand in it.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// Strings the parts together; `value` appends a variable's value.
    pub fn render(&self, out: &mut Vec<u8>, mut value: impl FnMut(&str, &mut Vec<u8>)) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Variable(name) => value(name, out),
            }
        }
    }

    fn push_literal(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        if let Some(Part::Literal(last)) = self.parts.last_mut() {
            last.extend_from_slice(text);
        } else {
            self.parts.push(Part::Literal(text.to_vec()));
        }
    }

    /// Takes what follows `${`, and returns what follows `}`. Braces around anything but a name are
    /// text: a body may be JSON or a script.
    fn push_braced<'t>(
        &mut self,
        after: &'t str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<&'t str, String> {
        let length = name_length(after);
        if length == 0 || !after[length..].starts_with('}') {
            self.push_literal(b"${");
            return Ok(after);
        }
        let name = &after[..length];
        if is_environment_name(name) {
            self.push_literal(environment_value(name, environment)?.as_bytes());
        } else {
            self.parts.push(Part::Variable(name.to_owned()));
        }
        Ok(&after[length + 1..])
    }
}

/// Puts environment variables into text that is no template: `${NAME}`; `$${NAME}` stands for
/// `${NAME}`, and every other dollar sign for itself.
///
/// # Errors
/// The name of a variable that is not set.
pub(super) fn expand_environment(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let after = &rest[at + 2..];
        let length = name_length(after);
        let name = &after[..length];
        if !is_environment_name(name) || !after[length..].starts_with('}') {
            expanded.push_str(&rest[..at + 2]);
            rest = after;
            continue;
        }
        if let Some(before) = rest[..at].strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            expanded.push_str(&after[..=length]);
        } else {
            expanded.push_str(&rest[..at]);
            expanded.push_str(&environment_value(name, environment)?);
        }
        rest = &after[length + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Whether the text is one variable's name: letters, digits and `_`, no digit first.
#[must_use]
pub fn is_variable_name(text: &str) -> bool {
    !text.is_empty() && name_length(text) == text.len() && !text.as_bytes()[0].is_ascii_digit()
}

fn environment_value(
    name: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    environment(name).ok_or_else(|| {
        format!("the environment variable `{name}` is not set: set it, or write `$${{{name}}}` for the text itself")
    })
}

/// Capitals tell an environment variable from nginx's variables, which are all in lower case.
fn is_environment_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    name.bytes().all(fits)
        && name
            .bytes()
            .next()
            .is_some_and(|first| !first.is_ascii_digit())
}

/// How much of the beginning is a name. One digit alone is a capture of the route's regex.
fn name_length(text: &str) -> usize {
    match text.as_bytes().first() {
        Some(first) if first.is_ascii_digit() => 1,
        _ => text
            .bytes()
            .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
            .count(),
    }
}
