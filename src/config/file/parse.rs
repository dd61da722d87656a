//! The reader of a file: what it has found, and single values.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;

use super::problem::{FileText, Place, Problem};
use super::secrets::{SecretPlace, SecretSource};
use super::value::Value;
use crate::config::Secret;
use crate::config::table::{Kind, SettingInfo, setting};

/// A value of the file: where it stands, and where each of its rows does.
#[derive(Debug)]
pub struct Found {
    /// The value.
    pub value: Value,
    /// Its place.
    pub place: Place,
    /// The place of each row of a table that repeats.
    pub rows: Vec<Place>,
}

/// Reader of one file.
pub struct Parser<'a> {
    file: &'a Arc<FileText>,
    secrets: &'a dyn SecretSource,
    /// Values, by the setting's name.
    pub found: BTreeMap<&'static str, Found>,
    /// Errors.
    pub problems: Vec<Problem>,
    /// Warnings about where secrets are.
    pub warnings: Vec<Problem>,
    /// Variables that secrets are taken from.
    pub secret_variables: Vec<String>,
    /// Whether a secret is a credential of the service.
    pub has_credentials: bool,
}

pub(super) type Entry<'a, 'i> = (
    &'a Spanned<std::borrow::Cow<'i, str>>,
    &'a Spanned<DeValue<'i>>,
);

impl<'a> Parser<'a> {
    /// One that has read nothing yet.
    pub(super) fn new(file: &'a Arc<FileText>, secrets: &'a dyn SecretSource) -> Parser<'a> {
        Parser {
            file,
            secrets,
            found: BTreeMap::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
            secret_variables: Vec::new(),
            has_credentials: false,
        }
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        Place::new(self.file, span.clone())
    }

    pub(super) fn problem(&mut self, span: &Range<usize>, message: impl Into<String>) {
        let place = self.place(span);
        self.problems.push(Problem::at(place, message));
    }

    pub(super) fn read_texts(
        &mut self,
        name: &str,
        example: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> (Option<Vec<String>>, Vec<Place>) {
        let DeValue::Array(items) = value.get_ref() else {
            self.problem(
                &value.span(),
                format!("{name}: it must be a list, as in {name} = {example}"),
            );
            return (None, Vec::new());
        };
        let (mut texts, mut rows) = (Vec::new(), Vec::new());
        for item in items {
            match item.get_ref() {
                DeValue::String(text) => {
                    texts.push(text.clone().into_owned());
                    rows.push(self.place(&item.span()));
                }
                other => {
                    let kind = kind_of(other);
                    self.problem(
                        &item.span(),
                        format!("{name}: it must be a list of strings, and this is {kind}"),
                    );
                }
            }
        }
        (Some(texts), rows)
    }

    /// Text of another file, which holds no secret.
    pub(super) fn read_file(&self, path: &str) -> Result<String, String> {
        self.secrets.read_file(path)
    }

    /// Path of another file, from where this process runs.
    pub(super) fn path_of(&self, path: &str) -> String {
        self.secrets.path_of(path)
    }

    pub(super) fn read_secret(
        &mut self,
        name: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Secret> {
        const FORMS: &str =
            "a string, or { file = \"PATH\" }, { credential = \"NAME\" } or { env = \"NAME\" }";
        let place = match value.get_ref() {
            DeValue::String(text) => SecretPlace::Here(text),
            DeValue::Table(fields) if fields.len() == 1 => {
                let (key, target) = fields.iter().next()?;
                let target = target.get_ref().as_str().unwrap_or_default();
                match key.get_ref().as_ref() {
                    "file" => SecretPlace::File(target),
                    "credential" => SecretPlace::Credential(target),
                    "env" => SecretPlace::Variable(target),
                    _ => {
                        self.problem(&key.span(), format!("{name}: it must be {FORMS}"));
                        return None;
                    }
                }
            }
            _ => {
                self.problem(&value.span(), format!("{name}: it must be {FORMS}"));
                return None;
            }
        };
        if let SecretPlace::Variable(name) = place {
            self.secret_variables.push(name.to_owned());
        }
        self.has_credentials |= matches!(place, SecretPlace::Credential(_));
        let resolved = self.secrets.resolve(&place);
        let found =
            resolved.map_err(|problem| self.problem(&value.span(), format!("{name}: {problem}")));
        let (secret, warning) = found.ok()?;
        if let Some(warning) = warning {
            let place = self.place(&value.span());
            self.warnings
                .push(Problem::at(place, format!("{name}: {warning}")));
        }
        Some(secret)
    }
}

/// The text of a value that has no parts, as a flag would have it.
///
/// # Errors
/// It is of another kind.
pub(super) fn scalar(kind: Kind, value: &DeValue<'_>) -> Result<String, String> {
    match (kind, value) {
        (Kind::Number { .. }, DeValue::Integer(integer)) => match integer.radix() {
            10 => Ok(integer.as_str().to_owned()),
            radix => u64::from_str_radix(integer.as_str(), radix)
                .map(|number| number.to_string())
                .map_err(|_| "it is too large".to_owned()),
        },
        (Kind::Number { .. } | Kind::Share, DeValue::Float(float)) => Ok(float.as_str().to_owned()),
        (Kind::Share, DeValue::Integer(integer)) => Ok(integer.as_str().to_owned()),
        (Kind::Share, other) => Err(format!(
            "it must be a number from 0 to 1, without quotes, and this is {}",
            kind_of(other)
        )),
        (Kind::Bool | Kind::Switch | Kind::Flag(_), DeValue::Boolean(flag)) => Ok(flag.to_string()),
        (Kind::Bool | Kind::Switch, other) => Err(format!(
            "it must be true or false, without quotes, and this is {}",
            kind_of(other)
        )),
        (Kind::Time, DeValue::Datetime(time)) => Ok(time.to_string()),
        (Kind::Time, other) => Err(format!(
            "it must be a time without quotes, as in 2027-01-01T00:00:00Z, and this is {}",
            kind_of(other)
        )),
        (Kind::Texts, DeValue::Array(texts)) => {
            let texts = texts.iter().map(|text| match text.get_ref() {
                // A comma is none of any list of a row.
                DeValue::String(text) if !text.contains(',') => Ok(text.as_ref()),
                DeValue::String(_) => {
                    Err("each string is one of the list, without commas".to_owned())
                }
                other => Err(format!(
                    "it must be a list of strings in quotes, and this is {}",
                    kind_of(other)
                )),
            });
            Ok(texts.collect::<Result<Vec<_>, _>>()?.join(","))
        }
        (Kind::Texts, other) => Err(format!(
            "it must be a list, as in [\"a\", \"b\"], and this is {}",
            kind_of(other)
        )),
        (_, DeValue::String(text)) => Ok(text.clone().into_owned()),
        (Kind::Number { .. }, other) => Err(format!(
            "it must be a number, and this is {}",
            kind_of(other)
        )),
        (_, other) => Err(format!(
            "it must be a string in quotes, and this is {}",
            kind_of(other)
        )),
    }
}

/// What a value is, with its article.
pub(super) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The setting that a name of the table stands for. It exists: the names are those of the table's own constants.
pub(super) fn known(name: &str) -> SettingInfo {
    setting(name).expect("the table of settings holds it")
}
