//! What is wrong with a configuration has a place, a reason and a remedy, and all of it is told at
//! once: an operator should not have to fix a file one run at a time.

use std::fmt;
use std::ops::Range;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as the operator named it.
    pub file: String,
    /// The line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong and what would be right.
    pub message: String,
    /// The line's text.
    pub source: String,
    /// How many characters are marked.
    pub width: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(formatter, "{}: error: {}", self.file, self.message);
        }
        let Self {
            file,
            line,
            column,
            message,
            source,
            width,
        } = self;
        writeln!(formatter, "{file}:{line}:{column}: error: {message}")?;
        writeln!(formatter, "{line:>5} | {source}")?;
        // Tabs stay tabs, so that the mark stands below its text on every terminal.
        let indent: String = source
            .chars()
            .take(column.saturating_sub(1))
            .map(|character| if character == '\t' { '\t' } else { ' ' })
            .collect();
        write!(formatter, "      | {indent}{}", "^".repeat(*width))
    }
}

/// All that is wrong, in the file's order; never empty when it is an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// One diagnostic about the file as a whole.
    #[must_use]
    pub fn of_file(file: &str, message: String) -> Self {
        Self(vec![Diagnostic {
            file: file.to_owned(),
            line: 0,
            column: 0,
            message,
            source: String::new(),
            width: 0,
        }])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, diagnostic) in self.0.iter().enumerate() {
            if at > 0 {
                writeln!(formatter)?;
            }
            diagnostic.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Gathers diagnostics while the file is read, and knows its text.
#[derive(Debug)]
pub struct Reporter<'t> {
    file: String,
    text: &'t str,
    found: Vec<(usize, Diagnostic)>,
}

impl<'t> Reporter<'t> {
    /// Nothing is wrong yet.
    #[must_use]
    pub fn new(file: &str, text: &'t str) -> Self {
        Self {
            file: file.to_owned(),
            text,
            found: Vec::new(),
        }
    }

    /// Notes what is wrong at a place of the text.
    pub fn error(&mut self, span: &Range<usize>, message: impl Into<String>) {
        let start = floor_boundary(self.text, span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..]
            .find('\n')
            .map_or(self.text.len(), |at| start + at);
        let end = floor_boundary(self.text, span.end).clamp(start, line_end.max(start));
        let diagnostic = Diagnostic {
            file: self.file.clone(),
            line: self.line_of(start),
            column: self.text[line_start..start].chars().count() + 1,
            message: message.into(),
            source: self.text[line_start..line_end].trim_end().to_owned(),
            width: self.text[start..end].trim_end().chars().count().max(1),
        };
        self.found.push((start, diagnostic));
    }

    /// The line of a byte of the text, from 1.
    #[must_use]
    pub fn line_of(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        memchr::memchr_iter(b'\n', before).count() + 1
    }

    /// The text between two bytes.
    #[must_use]
    pub fn text(&self, span: &Range<usize>) -> &'t str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// Whether something is wrong so far.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        !self.found.is_empty()
    }

    /// All that was found, in the file's order.
    #[must_use]
    pub fn into_diagnostics(mut self) -> Diagnostics {
        self.found.sort_by_key(|(start, _)| *start);
        Diagnostics(
            self.found
                .into_iter()
                .map(|(_, diagnostic)| diagnostic)
                .collect(),
        )
    }
}

/// A place that a parser names may lie inside a character.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
