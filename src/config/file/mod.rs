//! Settings from a TOML file, and from all sources together.
//!
//! Data flows one way: a text ([`source`]) becomes values with their places ([`parse`]); those of flags and variables go
//! over them ([`Values::set`]); [`Values::config`] makes the configuration. What is wrong is a [`Problem`] with its place,
//! and all of them are told.

mod jwt_rows;
mod nearest;
mod parse;
mod problem;
mod rows;
mod sample;
mod schema;
mod secrets;
pub mod source;
mod tables;
#[cfg(test)]
mod tests;
mod token_rows;
mod url_key_rows;
mod value;
mod values;
mod variables;

use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use parse::Parser;
use problem::FileText;

pub use problem::{Place, Problem, Problems};
pub use sample::sample;
pub use schema::schema;
pub use secrets::{SECRET_BYTES_MAX, SecretPlace, SecretSource};
pub use value::Value;
pub use values::{Given, Source, Values};
pub use variables::unknown_variables;

/// Settings that a file gives.
#[derive(Debug, Default)]
pub struct FileSettings {
    /// Values, each with its place.
    pub values: Values,
    /// Errors. The values that they are about are left out.
    pub problems: Vec<Problem>,
    /// Warnings about where secrets are.
    pub warnings: Vec<Problem>,
    /// Variables that secrets are taken from.
    pub secret_variables: Vec<String>,
    /// Whether a secret is a credential of the service. Such stay as they were at the start.
    pub has_credentials: bool,
}

/// Reads a configuration file, its secrets included.
pub fn read(path: &Path) -> FileSettings {
    match source::read_file(path) {
        Ok(text) => parse(path, text, &source::SystemSecrets::of(path)),
        Err(problem) => FileSettings {
            problems: vec![Problem::elsewhere(format!("{}: {problem}", path.display()))],
            ..FileSettings::default()
        },
    }
}

/// Reads the text of a configuration file.
pub fn parse(path: &Path, text: Zeroizing<String>, secrets: &dyn SecretSource) -> FileSettings {
    let file = Arc::new(FileText::new(path, text));
    let mut parser = Parser::parse(&file, secrets);
    parser.problems.sort_by_key(Problem::order);
    parser.warnings.sort_by_key(Problem::order);
    FileSettings {
        values: Values::of_file(parser.found),
        problems: parser.problems,
        warnings: parser.warnings,
        secret_variables: parser.secret_variables,
        has_credentials: parser.has_credentials,
    }
}
