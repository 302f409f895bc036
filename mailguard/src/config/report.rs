//! Tells people what is wrong where: file, line, column, key, message, the line itself with a mark under it.

use std::fmt;
use std::path::{Path, PathBuf};

use mailguard_core::config::{ConfigError, Place};
use serde::{Deserialize, Serialize};

use super::source::{IncludeContent, Source};

/// Errors that are told apart; the rest is counted. A list file of the wrong kind has one in each of its
/// lines.
const MAX_TOLD_ERRORS: usize = 1_000;
/// Longest piece of a line that is shown, in characters.
const MAX_EXCERPT_CHARACTERS: usize = 100;
/// Characters shown left of the mark when the line is cut there.
const EXCERPT_LEAD_CHARACTERS: usize = 30;

/// All errors of a configuration, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Errors {
    /// The first [`MAX_TOLD_ERRORS`].
    told: Vec<Located>,
    /// How many there are.
    count: usize,
}

/// One error and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The configuration file or a file that it names.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The key path; empty for the text as such.
    pub key: String,
    /// What was found and what is accepted.
    pub message: String,
    /// What to do, where the message doesn't say it.
    pub remedy: Option<String>,
    /// The line and where the mark goes; none for what is absent from the whole file.
    excerpt: Option<Excerpt>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Excerpt {
    text: String,
    /// Characters before the mark.
    lead: usize,
    /// Characters marked, at least one.
    marked: usize,
}

impl Errors {
    /// Finds the lines of `errors` in the texts that they came from.
    pub(super) fn new(source: &Source, errors: Vec<ConfigError>) -> Self {
        let texts = Text::all(source);
        let count = errors.len();
        let first = errors.into_iter().take(MAX_TOLD_ERRORS);
        Self { told: first.map(|error| texts[error.place.text].locate(error)).collect(), count }
    }

    /// The first errors, in the order of the text: all of them unless there are more than a thousand.
    pub fn iter(&self) -> std::slice::Iter<'_, Located> {
        self.told.iter()
    }

    /// The first of them, one by one.
    pub(super) fn into_told(self) -> Vec<Located> {
        self.told
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// A text whose lines can be found.
pub(super) struct Text<'a> {
    /// The file that it came from.
    pub(super) path: &'a Path,
    text: &'a str,
    /// Offset of each line's first octet.
    starts: Vec<usize>,
}

impl<'a> Text<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(index, _)| index + 1)).collect();
        Self { path, text, starts }
    }

    /// The texts of a source, in the order in which places number them.
    pub(super) fn all(source: &'a Source) -> Vec<Self> {
        let included = source.includes.iter().map(|include| match &include.content {
            IncludeContent::Text(text) => Text::new(&include.path, text),
            IncludeContent::Unreadable(_) => Text::new(&include.path, ""),
        });
        std::iter::once(Text::new(&source.path, &source.text)).chain(included).collect()
    }

    /// The line of an octet, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|&first| first <= offset)
    }

    fn locate(&self, error: ConfigError) -> Located {
        let Place { start, end, .. } = error.place;
        let start = self.text.floor_char_boundary(start);
        let line = self.line(start);
        let first = self.starts[line - 1];
        let content = self.text[first..].split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let last = self.text.floor_char_boundary(end).clamp(start, first + content.len().max(start - first));
        let column = self.text[first..start].chars().count();
        let marked = self.text[start..last.max(start)].chars().count().max(1);
        Located {
            file: self.path.to_owned(),
            line,
            column: column + 1,
            message: error.problem.to_string(),
            remedy: error.problem.remedy(),
            key: error.key.replace(char::is_control, " "),
            // Nobody's password goes to a log by a slip beside it.
            excerpt: (end > 0 && !content.contains("password")).then(|| excerpt(content, column, marked)),
        }
    }
}

/// The part of a line around the mark. Control characters are shown as blanks: the file is no terminal
/// program.
fn excerpt(line: &str, column: usize, marked: usize) -> Excerpt {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    let length = line.chars().count();
    if length <= MAX_EXCERPT_CHARACTERS {
        return Excerpt { text: line.chars().map(shown).collect(), lead: column, marked };
    }
    let skipped = if column + marked < MAX_EXCERPT_CHARACTERS {
        0
    } else {
        column.saturating_sub(EXCERPT_LEAD_CHARACTERS)
    };
    let mut text: String = if skipped > 0 { "…".to_owned() } else { String::new() };
    text.extend(line.chars().skip(skipped).take(MAX_EXCERPT_CHARACTERS).map(shown));
    if length > skipped + MAX_EXCERPT_CHARACTERS {
        text.push('…');
    }
    let lead = column - skipped + usize::from(skipped > 0);
    Excerpt {
        text,
        lead,
        marked: marked.min(MAX_EXCERPT_CHARACTERS - (column - skipped).min(MAX_EXCERPT_CHARACTERS - 1)),
    }
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, key, message, remedy, excerpt } = self;
        write!(f, "{}:{line}:{column}: ", file.display())?;
        if !key.is_empty() {
            write!(f, "{key}: ")?;
        }
        write!(f, "{message}")?;
        let number = line.to_string();
        let gutter = number.len().max(4);
        if let Some(Excerpt { text, lead, marked }) = excerpt {
            write!(f, "\n{number:>gutter$} | {text}")?;
            write!(f, "\n{:gutter$} | {:lead$}{}", "", "", "^".repeat(*marked))?;
        }
        if let Some(remedy) = remedy {
            write!(f, "\n{:gutter$} = {remedy}", "")?;
        }
        Ok(())
    }
}

/// Each error with its line, a blank line between, and their number.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.told {
            write!(f, "{error}\n\n")?;
        }
        match (self.count, self.told.len()) {
            (1, _) => f.write_str("1 error"),
            (count, told) if count > told => write!(f, "{count} errors, the first {told} of them shown"),
            (count, _) => write!(f, "{count} errors"),
        }
    }
}
