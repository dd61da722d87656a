//! Problems with settings, each with its place.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::config::table::{Kind, settings};

/// Longest line that a problem shows, in characters.
const SHOWN_MAX: usize = 160;

/// A file that settings are read from. Its text, which may hold secrets, is overwritten in memory in the end.
pub struct FileText {
    path: PathBuf,
    text: Zeroizing<String>,
}

impl FileText {
    /// A file of that name with this text.
    pub fn new(path: &Path, text: Zeroizing<String>) -> FileText {
        FileText {
            path: path.to_owned(),
            text,
        }
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for FileText {
    /// Without the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

/// Place in a file.
#[derive(Clone, Debug)]
pub struct Place {
    file: Arc<FileText>,
    bytes: Range<usize>,
}

impl Place {
    /// These bytes of the file.
    pub fn new(file: &Arc<FileText>, bytes: Range<usize>) -> Place {
        let len = file.text.len();
        let at = |mut at: usize| {
            at = at.min(len);
            while !file.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        Place {
            bytes: at(bytes.start)..at(bytes.end.max(bytes.start)),
            file: Arc::clone(file),
        }
    }

    /// Its line and its column, in characters, from 1.
    pub fn position(&self) -> (usize, usize) {
        let before = &self.file.text[..self.bytes.start];
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |line| line.chars().count())
            + 1;
        (line, column)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    fn start(&self) -> usize {
        self.bytes.start
    }

    /// The line, with carets under the place. A line that sets a secret is not shown.
    fn excerpt(&self) -> Option<String> {
        let (number, column) = self.position();
        let line = self.file.text.lines().nth(number - 1).unwrap_or_default();
        if holds_secret(line) || line.chars().count() > SHOWN_MAX {
            return None;
        }
        let rest = line.chars().count().saturating_sub(column - 1);
        let wide = self.file.text[self.bytes.clone()]
            .chars()
            .take_while(|letter| *letter != '\n')
            .count();
        let carets = "^".repeat(wide.min(rest).max(1));
        let shown: String = line
            .chars()
            .map(|letter| if letter.is_control() { ' ' } else { letter })
            .collect();
        let gutter = " ".repeat(number.to_string().len());
        let indent = " ".repeat(column - 1);
        Some(format!(
            "{gutter} |\n{number} | {shown}\n{gutter} | {indent}{carets}"
        ))
    }
}

/// Whether a line sets a setting that is a secret.
fn holds_secret(line: &str) -> bool {
    let line = line.trim_start().trim_start_matches(['"', '\'']);
    settings()
        .filter(|info| info.kind == Kind::Secret)
        .any(|info| line.starts_with(info.key.name))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position();
        write!(f, "{}:{line}:{column}", self.path().display())
    }
}

/// A problem with a setting.
#[derive(Clone, Debug)]
pub struct Problem {
    place: Option<Place>,
    message: String,
}

impl Problem {
    /// A problem at a place of the file.
    pub fn at(place: Place, message: impl Into<String>) -> Problem {
        Problem {
            place: Some(place),
            message: message.into(),
        }
    }

    /// A problem that has no place in a file; the message names what it is about.
    pub fn elsewhere(message: impl Into<String>) -> Problem {
        Problem {
            place: None,
            message: message.into(),
        }
    }

    /// Its place, if it has one in a file.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Problem and remedy, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Place and message, without the line of the file.
    pub fn in_a_line(&self) -> String {
        match &self.place {
            Some(place) => format!("{place}: {}", self.message),
            None => self.message.clone(),
        }
    }

    /// By file and place; those elsewhere come last.
    pub(super) fn order(&self) -> (bool, usize) {
        (
            self.place.is_none(),
            self.place.as_ref().map_or(0, Place::start),
        )
    }
}

impl fmt::Display for Problem {
    /// With line and carets where there is a place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = &self.place else {
            return f.write_str(&self.message);
        };
        write!(f, "{place}: {}", self.message)?;
        match place.excerpt() {
            Some(excerpt) => write!(f, "\n{excerpt}"),
            None => Ok(()),
        }
    }
}

/// All errors of the settings, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [one] => one.fmt(f),
            all => {
                write!(f, "{} errors in the settings", all.len())?;
                all.iter().try_for_each(|problem| write!(f, "\n{problem}"))
            }
        }
    }
}

impl std::error::Error for Problems {}
