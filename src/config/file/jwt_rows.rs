//! Rows of `[[jwt]]`.

use std::path::PathBuf;

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::parse::{Entry, Parser, scalar};
use super::problem::{Place, Problem};
use super::rows::{each_row, unknown_field};
use super::value::Value;
use crate::config::table::{JWT_FIELDS, Kind};
use crate::config::{Jwt, JwtKeys, Secret, time};

/// Keys of one row, as far as they were read.
#[derive(Default)]
struct FoundKeys {
    secret: Option<Secret>,
    previous: Option<Secret>,
    previous_until: Option<u64>,
    public_key: Option<String>,
    key_set: Option<(PathBuf, String)>,
    url: Option<String>,
    ca_file: Option<String>,
}

/// Reads all rows.
pub(super) fn read_jwts(
    parser: &mut Parser<'_>,
    value: &Spanned<DeValue<'_>>,
) -> (Option<Value>, Vec<Place>) {
    let (jwts, rows) = each_row(parser, "jwt", value, |parser, entries, span| {
        let before = parser.problems.len();
        read_jwt(parser, entries, span).filter(|_| parser.problems.len() == before)
    });
    (jwts.map(Value::Jwts), rows)
}

fn read_jwt(parser: &mut Parser<'_>, entries: &DeTable<'_>, span: &Range<usize>) -> Option<Jwt> {
    let mut jwt = Jwt::new("");
    let mut keys = FoundKeys::default();
    for (key, value) in entries {
        let name = key.get_ref().as_ref();
        let Some(field) = JWT_FIELDS.iter().find(|field| field.name == name) else {
            unknown_field(parser, "jwt", JWT_FIELDS, name, &key.span());
            continue;
        };
        match (name, field.kind) {
            ("secret", _) => keys.secret = parser.read_secret(name, value),
            ("secret_previous", _) => keys.previous = parser.read_secret(name, value),
            (_, Kind::Texts) => read_list(parser, &mut jwt, (key, value)),
            (_, kind) => {
                let told = |problem: String| format!("{name}: {problem}");
                let text = scalar(kind, value.get_ref()).map_err(told);
                let read =
                    text.and_then(|text| read_text(parser, &mut jwt, &mut keys, (name, text)));
                if let Err(problem) = read {
                    parser.problem(&value.span(), problem);
                }
            }
        }
    }
    if jwt.name.is_empty() {
        parser.problem(span, "this [[jwt]] has no name, as in name = \"app\"");
    }
    jwt.keys = keys
        .into_keys()
        .map_err(|problem| parser.problem(span, problem))
        .ok()?;
    Some(jwt)
}

/// Reads a value that is one text.
fn read_text(
    parser: &Parser<'_>,
    jwt: &mut Jwt,
    keys: &mut FoundKeys,
    (name, text): (&str, String),
) -> Result<(), String> {
    let told = |problem: String| format!("{name}: {problem}");
    match name {
        "name" => jwt.name = text,
        "public_key_file" => keys.public_key = Some(parser.read_file(&text).map_err(told)?),
        "jwks_file" => {
            let set = parser.read_file(&text).map_err(told)?;
            keys.key_set = Some((parser.path_of(&text).into(), set));
        }
        "jwks_url" => keys.url = Some(text),
        "ca_file" => keys.ca_file = Some(parser.path_of(&text)),
        "secret_previous_until" => {
            keys.previous_until = Some(time::parse(&text).map_err(told)?);
        }
        _ => {
            let set = jwt.set(name, std::iter::once(text.as_str()));
            return set.map_err(|(_, problem)| problem);
        }
    }
    Ok(())
}

fn read_list(parser: &mut Parser<'_>, jwt: &mut Jwt, (key, value): Entry<'_, '_>) {
    let name = key.get_ref().as_ref();
    let (Some(texts), places) = parser.read_texts(name, "[\"…\"]", value) else {
        return;
    };
    if let Err((number, problem)) = jwt.set(name, texts.iter().map(String::as_str)) {
        let place = places.get(number).cloned();
        let place = place.unwrap_or_else(|| parser.place(&value.span()));
        parser.problems.push(Problem::at(place, problem));
    }
}

impl FoundKeys {
    fn into_keys(self) -> Result<Option<JwtKeys>, String> {
        let has_secret_more = self.previous.is_some() || self.previous_until.is_some();
        let has_ca = self.ca_file.is_some();
        let found = [
            self.secret.map(|current| JwtKeys::Secret {
                current,
                previous: self.previous,
                previous_until: self.previous_until,
            }),
            self.public_key.map(JwtKeys::PublicKey),
            self.key_set
                .map(|(path, text)| JwtKeys::KeySetFile { path, text }),
            self.url.map(|url| JwtKeys::Url {
                url,
                ca_file: self.ca_file,
            }),
        ];
        let mut found = found.into_iter().flatten();
        let (keys, other) = (found.next(), found.next());
        if other.is_some() {
            return Err(
                "this [[jwt]] has more than one of secret, public_key_file, jwks_file and jwks_url: one of them is enough"
                    .to_owned(),
            );
        }
        match &keys {
            Some(keys) if has_secret_more && !matches!(keys, JwtKeys::Secret { .. }) => Err(
                "secret_previous and secret_previous_until stand beside secret alone".to_owned(),
            ),
            Some(keys) if has_ca && !matches!(keys, JwtKeys::Url { .. }) => {
                Err("ca_file stands beside jwks_url alone".to_owned())
            }
            _ => Ok(keys),
        }
    }
}
