//! Rows of `[[token]]`.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::parse::{Entry, Parser, kind_of};
use super::problem::Place;
use super::rows::{each_row, unknown_field};
use super::value::Value;
use crate::config::named_token::{Token, TokenValue, parse_sha256};
use crate::config::table::TOKEN_FIELDS;

/// Reads all rows.
pub(super) fn read_tokens(
    parser: &mut Parser<'_>,
    value: &Spanned<DeValue<'_>>,
) -> (Option<Value>, Vec<Place>) {
    let (tokens, rows) = each_row(parser, "token", value, |parser, entries, span| {
        let before = parser.problems.len();
        read_token(parser, entries, span).filter(|_| parser.problems.len() == before)
    });
    (tokens.map(Value::Tokens), rows)
}

fn read_token(
    parser: &mut Parser<'_>,
    entries: &DeTable<'_>,
    span: &Range<usize>,
) -> Option<Token> {
    let mut token = Token::new("", TokenValue::Sha256([0; 32]));
    let (mut name, mut values) = (None, Vec::new());
    for (key, value) in entries {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("name", DeValue::String(text)) => name = Some(text.clone().into_owned()),
            ("value", _) => {
                let secret = parser.read_secret("value", value);
                values.push(secret.map(TokenValue::Secret));
            }
            ("sha256", DeValue::String(text)) => {
                let digest = parse_sha256(text)
                    .map_err(|problem| parser.problem(&value.span(), problem))
                    .ok();
                values.push(digest.map(TokenValue::Sha256));
            }
            ("observe", DeValue::Boolean(flag)) => token.observe = *flag,
            ("deny", DeValue::Table(denied)) => {
                for (key, value) in denied {
                    read_patterns(parser, &mut token, "deny.", (key, value));
                }
            }
            ("name" | "sha256", other) => {
                let problem = format!(
                    "{}: it must be a string in quotes, and this is {}",
                    key.get_ref(),
                    kind_of(other)
                );
                parser.problem(&value.span(), problem);
            }
            ("observe", _) => {
                parser.problem(
                    &value.span(),
                    "observe: it must be true or false, without quotes",
                );
            }
            ("deny", _) => {
                parser.problem(
                    &value.span(),
                    "deny is a table: write deny.subscribe = [\"news/internal/**\"]",
                );
            }
            _ => read_patterns(parser, &mut token, "", (key, value)),
        }
    }
    match name {
        Some(name) => token.name = name,
        None => {
            parser.problem(span, "this [[token]] has no name, as in name = \"backend\"");
            return None;
        }
    }
    match values.len() {
        1 => token.value = values.pop()??,
        0 => {
            let message = "this [[token]] has neither value nor sha256: `umbel token new NAME` makes a token and prints both";
            parser.problem(span, message);
        }
        _ => parser.problem(
            span,
            "this [[token]] has value and sha256: one of them is enough",
        ),
    }
    Some(token)
}

/// Reads a list of patterns. `table`: the table that the key stands in, with its dot.
fn read_patterns(
    parser: &mut Parser<'_>,
    token: &mut Token,
    table: &str,
    (key, value): Entry<'_, '_>,
) {
    let name = format!("{table}{}", key.get_ref());
    let field = TOKEN_FIELDS.iter().find(|field| field.name == name);
    if field.is_none() {
        return unknown_field(parser, "token", TOKEN_FIELDS, &name, &key.span());
    }
    let example = "[\"news/**\"]";
    let (Some(texts), places) = parser.read_texts(&name, example, value) else {
        return;
    };
    if let Err((number, problem)) = token.set(&name, texts.iter().map(String::as_str)) {
        let place = places.get(number).cloned();
        let place = place.unwrap_or_else(|| parser.place(&value.span()));
        parser
            .problems
            .push(super::problem::Problem::at(place, problem));
    }
}
