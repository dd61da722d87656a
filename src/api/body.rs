//! Fields of bodies and parameters of queries, each taken by name. One that nobody knows is an error that names it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::error::ApiError;
use crate::http::escape::escape;
use crate::http::query::percent_decode;
use crate::nearest::nearest;

/// Parameters that every operation has: those that a token may stand in.
const OF_ALL: [&str; 2] = ["token", "access_token"];

/// Letters of an unknown name that an error repeats.
const NAME_SHOWN_MAX: usize = 64;

/// 2^53: whole numbers below it are themselves as a float.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// A body's fields.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Those of a JSON object, which may have these names.
    pub fn parse(body: &'a [u8], known: &[&str]) -> Result<Fields<'a>, ApiError> {
        let fields: Fields<'a> = serde_json::from_slice(body).map_err(|error| {
            ApiError::invalid_json(format!("the body is no JSON object: {error}"))
        })?;
        for (at, (name, _)) in fields.0.iter().enumerate() {
            check_name(name, known, "field")?;
            if fields.0[..at].iter().any(|(other, _)| other == name) {
                let reason = format!("the field \"{name}\" stands twice");
                return Err(ApiError::invalid_field(name, reason));
            }
        }
        Ok(fields)
    }

    /// Text of a field's value, as JSON.
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.0.iter().find(|(it, _)| it == name)?;
        Some(*value)
    }

    /// All fields, as JSON.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }

    fn take<T: Deserialize<'a>>(&self, name: &str, what: &str) -> Result<Option<T>, ApiError> {
        let Some(raw) = self.raw(name) else {
            return Ok(None);
        };
        let invalid = |_| ApiError::invalid_field(name, format!("\"{name}\" is not {what}"));
        serde_json::from_str(raw.get()).map(Some).map_err(invalid)
    }

    /// A string.
    pub fn text(&self, name: &str) -> Result<Option<String>, ApiError> {
        self.take(name, "a string")
    }

    /// A whole number from 0 on. `1.0` is one, as JSON Schema has it.
    pub fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let what = "a whole number from 0 on";
        let Some(number) = self.take::<serde_json::Number>(name, what)? else {
            return Ok(None);
        };
        let of_float = || {
            let float = number.as_f64().filter(|it| it.fract() == 0.0)?;
            (0.0..WHOLE_MAX).contains(&float).then_some(float as u64)
        };
        let whole = number.as_u64().or_else(of_float).map(Some);
        let invalid = || ApiError::invalid_field(name, format!("\"{name}\" is not {what}"));
        whole.ok_or_else(invalid)
    }

    /// True or false.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.take(name, "true or false")
    }

    /// A list of strings.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        self.take(name, "a list of strings")
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields<'a>, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    pairs.push((name.into(), map.next_value()?));
                }
                Ok(Fields(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// A query's parameters.
#[derive(Debug, Default)]
pub(super) struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Parameters<'a> {
    /// Those of a query, which may have these names.
    pub fn parse(query: &'a str, known: &[&str]) -> Result<Parameters<'a>, ApiError> {
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            if !OF_ALL.contains(&&*name) {
                check_name(&name, known, "parameter")?;
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                let reason = format!("the parameter \"{name}\" stands twice");
                return Err(ApiError::invalid_field(&name, reason));
            }
            pairs.push((name, decode(value)?));
        }
        Ok(Parameters(pairs))
    }

    /// Value of a parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(it, _)| it == name)?;
        Some(value)
    }

    /// A value that something can be read from.
    pub fn parsed<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        parse_value(name, self.text(name))
    }

    /// Most entries of a page: 100 if nothing is said.
    pub fn limit(&self) -> Result<usize, ApiError> {
        let Some(text) = self.text("limit") else {
            return Ok(100);
        };
        let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        let limit = text.parse().ok().filter(|_| is_number);
        let limit = limit.filter(|limit| (1..=1000).contains(limit));
        limit.ok_or_else(|| ApiError::invalid_field("limit", "limit is a number from 1 to 1000"))
    }
}

/// Decodes a part of a query, where `+` is a blank.
fn decode(text: &str) -> Result<Cow<'_, str>, ApiError> {
    if !text.contains('+') {
        return Ok(percent_decode(text)?);
    }
    Ok(percent_decode(&text.replace('+', " "))?.into_owned().into())
}

fn parse_value<T: FromStr<Err: fmt::Display>>(
    name: &str,
    text: Option<&str>,
) -> Result<Option<T>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let invalid =
        |error| ApiError::invalid_field(name, format!("\"{name}\" cannot be read: {error}"));
    text.parse().map(Some).map_err(invalid)
}

/// Refuses a name that nobody knows, with the nearest one.
fn check_name(name: &str, known: &[&str], what: &str) -> Result<(), ApiError> {
    if known.contains(&name) {
        return Ok(());
    }
    let nearest = nearest(name, known.iter().copied());
    let shown: String = name.chars().take(NAME_SHOWN_MAX).collect();
    let mut reason = format!("there is no {what} \"{}\"", escape(&shown));
    match (nearest, known) {
        (Some(nearest), _) => reason += &format!("; did you mean \"{nearest}\"?"),
        (None, []) => reason += "; there is none at all here",
        (None, known) => reason += &format!("; there are {}", known.join(", ")),
    }
    Err(ApiError::invalid_field(&shown, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_field_is_named_with_nearest() {
        let parse = |body: &str| Fields::parse(body.as_bytes(), &["subject", "code"]).map(|_| ());
        let error = parse(r#"{"subjct":"42"}"#).expect_err("there is none");
        assert_eq!(
            (error.code, error.field.as_deref()),
            ("invalid_field", Some("subjct"))
        );
        let reason = "there is no field \"subjct\"; did you mean \"subject\"?";
        assert_eq!(error.reason, reason);
        assert_eq!(parse(r#"{"subject":"42","code":1}"#), Ok(()));
        for (body, code) in [
            ("", "invalid_json"),
            ("[]", "invalid_json"),
            ("{\"code\":1", "invalid_json"),
            ("\"a\"", "invalid_json"),
            ("{\"code\":1,\"code\":2}", "invalid_field"),
            ("{\"x\":1}", "invalid_field"),
        ] {
            assert_eq!(parse(body).map_err(|error| error.code), Err(code), "{body}");
        }
    }

    #[test]
    fn numbers_are_whole() {
        let number = |value: &str| {
            let body = format!("{{\"code\":{value}}}");
            let fields = Fields::parse(body.as_bytes(), &["code"]).expect("it is known");
            fields.number("code").ok().flatten()
        };
        assert_eq!(
            (number("7"), number("7.0"), number("7e2")),
            (Some(7), Some(7), Some(700))
        );
        for wrong in ["-1", "1.5", "1e300", "null", "\"7\"", "[7]", "true"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn parameters_are_decoded_and_known() {
        let query = "topic=a%2Fb+c&limit=5&token=x";
        let parameters = Parameters::parse(query, &["topic", "limit"]).expect("they are known");
        assert_eq!(parameters.text("topic"), Some("a/b c"));
        assert_eq!(parameters.limit(), Ok(5));
        for query in ["limt=5", "limit=1&limit=2", "limit=%zz"] {
            assert!(Parameters::parse(query, &["limit"]).is_err(), "{query}");
        }
        for text in ["0", "1001", "+1", "", "x"] {
            let query = format!("limit={}", text.replace('+', "%2B"));
            let parameters = Parameters::parse(&query, &["limit"]).expect("it is known");
            assert!(parameters.limit().is_err(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        let body = format!("{{\"code\":{}", "[".repeat(100_000));
        assert!(Fields::parse(body.as_bytes(), &["code"]).is_err());
    }
}
