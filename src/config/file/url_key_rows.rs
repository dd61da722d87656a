//! Rows of `[[url_key]]`.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::parse::{Parser, scalar};
use super::problem::Place;
use super::rows::{each_row, unknown_field};
use super::value::Value;
use crate::config::UrlKey;
use crate::config::table::{Kind, URL_KEY_FIELDS};

/// Reads all rows.
pub(super) fn read_url_keys(
    parser: &mut Parser<'_>,
    value: &Spanned<DeValue<'_>>,
) -> (Option<Value>, Vec<Place>) {
    let (keys, rows) = each_row(parser, "url_key", value, |parser, entries, span| {
        let before = parser.problems.len();
        let key = read_url_key(parser, entries);
        if parser.problems.len() > before {
            return None;
        }
        if key.is_none() {
            parser.problem(span, "this [[url_key]] needs a kid and a secret");
        }
        key
    });
    (keys.map(Value::UrlKeys), rows)
}

fn read_url_key(parser: &mut Parser<'_>, entries: &DeTable<'_>) -> Option<UrlKey> {
    let (mut kid, mut secret, mut prefix) = (None, None, None);
    for (key, value) in entries {
        let name = key.get_ref().as_ref();
        let text = match name {
            "secret" => {
                secret = parser.read_secret("secret", value);
                continue;
            }
            "kid" => &mut kid,
            "subject_prefix" => &mut prefix,
            _ => {
                unknown_field(parser, "url_key", URL_KEY_FIELDS, name, &key.span());
                continue;
            }
        };
        match scalar(Kind::Text, value.get_ref()) {
            Ok(found) => *text = Some(found),
            Err(problem) => parser.problem(&value.span(), format!("{name}: {problem}")),
        }
    }
    let mut key = UrlKey::new(kid?, secret?);
    key.subject_prefix = prefix;
    Some(key)
}
