//! Named tokens: `[[token]]` in the file, `--token`.

use std::fmt;

use super::time::{self, Timestamp};
use super::{RightsLists, Secret};

/// Most named tokens.
pub const TOKENS_MAX: usize = 1024;

/// Bytes of a subject, with its prefix.
pub const SUBJECT_BYTES_MAX: usize = 255;

/// Bytes of the longest name of a token.
pub const TOKEN_NAME_BYTES_MAX: usize = 64;

/// A static token with a name, and its rights.
///
/// What no pattern of a list matches is denied, and so is what one of the `deny` list matches, whatever the others say.
///
/// ```
/// use umbel::config::Token;
///
/// let backend = Token::parse("backend sha256=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad publish=**")?;
/// assert_eq!(backend.name, "backend");
/// assert_eq!(backend.rights.publish, ["**"]);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// Name in the log: 1 to 64 letters, digits and `-_.`.
    pub name: String,
    /// The token itself, or its digest.
    pub value: TokenValue,
    /// Subject of whoever shows it. None: nobody in particular.
    pub subject: Option<String>,
    /// Text before the subject. With it, the subject is not that of another source. Needed where there is another source that
    /// names subjects; empty where the same subject is the same user.
    pub subject_prefix: Option<String>,
    /// End of the token, in seconds of the Unix epoch. None: never.
    pub expires_at: Option<u64>,
    /// Rights. Whoever may subscribe to any topic may use handler endpoints too.
    pub rights: RightsLists,
}

/// A token, or what tells it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenValue {
    /// The token.
    Secret(Secret),
    /// Its SHA-256.
    Sha256([u8; 32]),
}

impl Token {
    /// A token that may do nothing yet.
    pub fn new(name: impl Into<String>, value: TokenValue) -> Token {
        Token {
            name: name.into(),
            value,
            subject: None,
            subject_prefix: None,
            expires_at: None,
            rights: RightsLists::default(),
        }
    }

    /// Reads the form of flags: a name, `sha256=`, perhaps `subject=`, `subject_prefix=` and `expires=`, and rights as
    /// `publish=PATTERN,PATTERN`, between blanks. The token itself has no place there, for others can see the flags of a process.
    ///
    /// # Errors
    /// Problem and remedy.
    pub fn parse(text: &str) -> Result<Token, String> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let mut token = Token::new(name, TokenValue::Sha256([0; 32]));
        let mut has_digest = false;
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| {
                format!("`{word}` is no right: write publish=PATTERN or subscribe=PATTERN")
            })?;
            match key {
                "sha256" => {
                    token.value = TokenValue::Sha256(parse_sha256(value)?);
                    has_digest = true;
                }
                "value" => {
                    return Err(
                        "others can see a token that stands in a flag: give its sha256, or write it into the file"
                            .to_owned(),
                    );
                }
                "subject" => token.subject = Some(value.to_owned()),
                "subject_prefix" => token.subject_prefix = Some(value.to_owned()),
                "expires" => token.expires_at = Some(time::parse(value)?),
                _ => token
                    .rights
                    .set(key, texts_of(value))
                    .map_err(|(_, why)| why)?,
            }
        }
        match has_digest {
            true => Ok(token),
            false => Err(
                "it has no sha256=: `umbel token new NAME` makes a token and prints it (one for all topics is --publish-token, \
                     --subscribe-token or --observe-token)".to_owned(),
            ),
        }
    }

    /// Whether it can stand.
    ///
    /// # Errors
    /// Problem and remedy.
    pub fn check(&self) -> Result<(), String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=TOKEN_NAME_BYTES_MAX).contains(&self.name.len())
            || !self.name.bytes().all(is_plain)
        {
            return Err(format!(
                "a name has 1 to {TOKEN_NAME_BYTES_MAX} letters, digits, and -_."
            ));
        }
        if let Some(subject) = self.full_subject() {
            let is_subject = !subject.contains(char::is_control);
            if !is_subject || !(1..=SUBJECT_BYTES_MAX).contains(&subject.len()) {
                return Err(format!(
                    "a subject, with its prefix, has 1 to {SUBJECT_BYTES_MAX} bytes and no control characters"
                ));
            }
        } else if self.subject_prefix.is_some() {
            return Err("it has a subject_prefix and no subject: give it a subject".to_owned());
        }
        self.rights.check()?;
        // Grants may allow more to whoever has a subject.
        match self.rights.allows_anything() || self.subject.is_some() {
            true => Ok(()),
            false => Err(
                "it may do nothing: give it publish, subscribe, manage or observe, or a subject that a [[grant]] is for"
                    .to_owned(),
            ),
        }
    }

    /// The subject with its prefix.
    #[must_use]
    pub fn full_subject(&self) -> Option<String> {
        let subject = self.subject.as_ref()?;
        let prefix = self.subject_prefix.as_deref().unwrap_or_default();
        Some(format!("{prefix}{subject}"))
    }
}

impl fmt::Display for Token {
    /// Its name and rights, without what tells it from others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(subject) = self.full_subject() {
            write!(f, " subject={subject}")?;
        }
        if let Some(end) = self.expires_at {
            write!(f, " expires={}", Timestamp(end))?;
        }
        match self.rights == RightsLists::default() {
            true => Ok(()),
            false => write!(f, " {}", self.rights),
        }
    }
}

/// Texts of a list in a flag, between commas. It may be empty.
pub(crate) fn texts_of(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').filter(|text| !text.is_empty())
}

/// Reads 64 hexadecimal digits.
///
/// # Errors
/// The form that it must have.
pub(crate) fn parse_sha256(text: &str) -> Result<[u8; 32], String> {
    let mut digest = [0; 32];
    let digits = text.as_bytes();
    let is_hex = digits.len() == 64 && digits.iter().all(u8::is_ascii_hexdigit);
    if !is_hex {
        return Err(
            "sha256: it must be the 64 hexadecimal digits of the token's SHA-256".to_owned(),
        );
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn forms_of_flags() {
        let text =
            format!("a sha256={DIGEST} publish=x/**,y subscribe=** deny.subscribe=z observe=true");
        let token = Token::parse(&text).expect("a token");
        let words = "a publish=x/**,y subscribe=** deny.subscribe=z observe=true";
        assert_eq!(token.to_string(), words);
        let text = format!(
            "b sha256={DIGEST} subject=bot subject_prefix=svc: expires=2027-01-01T00:00:00Z presence= manage=rooms/**"
        );
        let other = Token::parse(&text).expect("a token");
        let words = "b subject=svc:bot expires=2027-01-01T00:00:00Z presence= manage=rooms/**";
        assert_eq!(other.to_string(), words);
        assert_eq!(other.expires_at, Some(1_798_761_600));
        assert_eq!(other.rights.presence.as_deref(), Some(&[][..]));
        other.check().expect("it can stand");
        assert!(matches!(token.value, TokenValue::Sha256([0xba, .., 0xad])));
        token.check().expect("it can stand");
    }

    #[test]
    fn wrong_forms_are_told() {
        for (rest, told) in [
            ("publish=x", "no sha256"),
            ("value=secret publish=x", "others can see"),
            ("sha256=ab publish=x", "64 hexadecimal digits"),
            ("sha256=DIGEST publish", "is no right"),
            ("sha256=DIGEST write=x", "no right `write`"),
            ("sha256=DIGEST publish=a**", "whole segment"),
            ("sha256=DIGEST observe=on", "true or false"),
            ("sha256=DIGEST", "may do nothing"),
            ("sha256=DIGEST deny.publish=x", "may do nothing"),
            ("sha256=DIGEST publish=t?b=1&a=1", "write t?a=1&b=1"),
            ("sha256=DIGEST publish=u/{id}", "no such variable"),
            ("sha256=DIGEST subject= publish=x", "1 to 255 bytes"),
            ("sha256=DIGEST subject_prefix=a publish=x", "no subject"),
            (
                "sha256=DIGEST expires=2027-01-01 publish=x",
                "as in 2027-01-01T00:00:00Z",
            ),
        ] {
            let text = format!("a {}", rest.replace("DIGEST", DIGEST));
            let error = Token::parse(&text).and_then(|token| token.check());
            let error = error.expect_err(rest);
            assert!(error.contains(told), "{rest}: {error}");
        }
        let named = |name: &str| Token::parse(&format!("{name} sha256={DIGEST} publish=x"));
        for name in ["a/b", "\u{e9}", &"x".repeat(65)] {
            assert!(named(name).and_then(|it| it.check()).is_err(), "{name}");
        }
    }
}
