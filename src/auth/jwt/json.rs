//! JSON as tokens may have it: objects that are objects, no member twice, no null for a value.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Levels that a value which is handed on may nest.
pub const NESTING_MAX: usize = 32;

/// Reads a value that is there: null is none of its kind.
///
/// # Errors
/// It is another value.
pub fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Reads a derived struct from an object alone. The derived form takes a list of its fields too.
///
/// # Errors
/// It is another value, or has another member.
pub fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer
        .deserialize_map(ObjectVisitor(PhantomData))
        .map(Some)
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// A value to hand on, without blanks between its parts. None: it is null.
///
/// # Errors
/// It is too long or too deep, or has a member twice.
pub fn handed_on(raw: &RawValue, bytes_max: usize) -> Result<Option<Box<RawValue>>, &'static str> {
    let text = raw.get();
    if text == "null" {
        return Ok(None);
    }
    let compact = without_blanks(text).ok_or("nests deeper than 32 levels")?;
    if compact.len() > bytes_max {
        return Err("is too long");
    }
    let mut deserializer = serde_json::Deserializer::from_str(&compact);
    if NoDuplicates.deserialize(&mut deserializer).is_err() {
        return Err("has a member twice, or a number that is none");
    }
    let raw = RawValue::from_string(compact);
    raw.map(Some).map_err(|_| "is not JSON")
}

/// A JSON text without what stands between its tokens. None: it nests too deep.
fn without_blanks(text: &str) -> Option<String> {
    let mut compact = Vec::with_capacity(text.len());
    let (mut depth, mut is_string, mut is_escaped) = (0, false, false);
    for byte in text.bytes() {
        if is_string {
            is_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
        } else {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => continue,
                b'"' => is_string = true,
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth -= 1,
                _ => {}
            }
            if depth > NESTING_MAX {
                return None;
            }
        }
        compact.push(byte);
    }
    String::from_utf8(compact).ok()
}

/// Reads any value, and refuses an object that has a member twice. Nesting has been bounded before.
struct NoDuplicates;

impl<'de> DeserializeSeed<'de> for NoDuplicates {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NoDuplicates {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(NoDuplicates)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a member twice"));
            }
            map.next_value_seed(NoDuplicates)?;
        }
        Ok(())
    }
}

/// Name of a member: borrowed where it has no escapes.
#[derive(Deserialize)]
pub(super) struct Name<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(text: &str, bytes_max: usize) -> Result<Option<String>, &'static str> {
        let raw: Box<RawValue> = serde_json::from_str(text).expect("JSON");
        handed_on(&raw, bytes_max).map(|raw| raw.map(|raw| raw.get().to_owned()))
    }

    #[test]
    fn values_are_handed_on_without_blanks() {
        for (text, expected) in [
            (
                "{ \"a\" :\n [1, 2.50,\t-1e3 ] , \"b c\": \" \\\" x\" }",
                "{\"a\":[1,2.50,-1e3],\"b c\":\" \\\" x\"}",
            ),
            ("\"\u{e4} \\\\\"", "\"\u{e4} \\\\\""),
            ("true", "true"),
        ] {
            assert_eq!(handed(text, 99), Ok(Some(expected.to_owned())), "{text}");
        }
        assert_eq!(handed("null", 99), Ok(None));
    }

    #[test]
    fn depth_size_and_duplicates_are_refused() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(handed(&nested(32), 99).is_ok());
        assert!(handed(&nested(33), 99).is_err());
        assert!(handed("[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"]", 99).is_ok());
        assert!(handed("[1,2]", 5).is_ok() && handed("[1,2]", 4).is_err());
        assert!(handed("{\"a\":{\"b\":1,\"\\u0062\":2}}", 99).is_err());
        assert!(handed("[{\"a\":1},{\"a\":1}]", 99).is_ok());
    }
}
