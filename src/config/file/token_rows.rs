//! Rows of `[[token]]` and `[[grant]]`.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::parse::{Entry, Parser, kind_of, scalar};
use super::problem::{Place, Problem};
use super::rows::{each_row, unknown_field};
use super::value::Value;
use crate::config::named_token::{Token, TokenValue, parse_sha256};
use crate::config::table::{FieldInfo, GRANT_FIELDS, Kind, TOKEN_FIELDS};
use crate::config::{Grant, RightsLists, When, time};

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
            ("subject", DeValue::String(text)) => token.subject = Some(text.clone().into_owned()),
            ("subject_prefix", DeValue::String(text)) => {
                token.subject_prefix = Some(text.clone().into_owned());
            }
            ("expires", time) => {
                let end = scalar(Kind::Time, time).and_then(|text| time::parse(&text));
                let report =
                    |problem: String| parser.problem(&value.span(), format!("expires: {problem}"));
                token.expires_at = end.map_err(report).ok();
            }
            ("name" | "sha256" | "subject" | "subject_prefix", other) => {
                let problem = format!(
                    "{}: it must be a string in quotes, and this is {}",
                    key.get_ref(),
                    kind_of(other)
                );
                parser.problem(&value.span(), problem);
            }
            _ => read_rights(
                parser,
                &mut token.rights,
                ("token", TOKEN_FIELDS),
                (key, value),
            ),
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

/// Reads all rows of `[[grant]]`.
pub(super) fn read_grants(
    parser: &mut Parser<'_>,
    value: &Spanned<DeValue<'_>>,
) -> (Option<Value>, Vec<Place>) {
    let (grants, rows) = each_row(parser, "grant", value, |parser, entries, _| {
        let before = parser.problems.len();
        let grant = read_grant(parser, entries);
        (parser.problems.len() == before).then_some(grant)
    });
    (grants.map(Value::Grants), rows)
}

fn read_grant(parser: &mut Parser<'_>, entries: &DeTable<'_>) -> Grant {
    let mut grant = Grant::default();
    for (key, value) in entries {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("when", DeValue::Table(parts)) => {
                for part in parts {
                    read_condition(parser, &mut grant.when, part);
                }
            }
            ("when", _) => {
                let message = "when is a table: write when = { subject = true }";
                parser.problem(&value.span(), message);
            }
            _ => read_rights(
                parser,
                &mut grant.rights,
                ("grant", GRANT_FIELDS),
                (key, value),
            ),
        }
    }
    grant
}

fn read_condition(parser: &mut Parser<'_>, when: &mut When, (key, value): Entry<'_, '_>) {
    let name = key.get_ref().as_ref();
    if !When::has_part(name) {
        let name = format!("when.{name}");
        return unknown_field(parser, "grant", GRANT_FIELDS, &name, &key.span());
    }
    let kind = match name {
        "anonymous" | "subject" => Kind::Bool,
        _ => Kind::Text,
    };
    let set = scalar(kind, value.get_ref()).and_then(|text| when.set(name, &text));
    if let Err(problem) = set {
        parser.problem(&value.span(), format!("when.{name}: {problem}"));
    }
}

/// Reads a right of a row of `[[token]]` or `[[grant]]`.
fn read_rights(
    parser: &mut Parser<'_>,
    rights: &mut RightsLists,
    (table, fields): (&str, &'static [FieldInfo]),
    (key, value): Entry<'_, '_>,
) {
    match (key.get_ref().as_ref(), value.get_ref()) {
        ("observe", DeValue::Boolean(flag)) => rights.observe = *flag,
        ("observe", _) => {
            let message = "observe: it must be true or false, without quotes";
            parser.problem(&value.span(), message);
        }
        ("deny", DeValue::Table(denied)) => {
            for (key, value) in denied {
                let name = format!("deny.{}", key.get_ref());
                read_patterns(parser, rights, (table, fields), (&name, key.span(), value));
            }
        }
        ("deny", _) => {
            let message = "deny is a table: write deny.subscribe = [\"news/internal/**\"]";
            parser.problem(&value.span(), message);
        }
        (name, _) => read_patterns(parser, rights, (table, fields), (name, key.span(), value)),
    }
}

/// Reads a list of patterns.
fn read_patterns(
    parser: &mut Parser<'_>,
    rights: &mut RightsLists,
    (table, fields): (&str, &'static [FieldInfo]),
    (name, span, value): (&str, Range<usize>, &Spanned<DeValue<'_>>),
) {
    if !fields.iter().any(|field| field.name == name) {
        return unknown_field(parser, table, fields, name, &span);
    }
    let example = "[\"news/**\"]";
    let (Some(texts), places) = parser.read_texts(name, example, value) else {
        return;
    };
    if let Err((number, problem)) = rights.set(name, texts.iter().map(String::as_str)) {
        let place = places.get(number).cloned();
        let place = place.unwrap_or_else(|| parser.place(&value.span()));
        parser.problems.push(Problem::at(place, problem));
    }
}
