//! Named tokens: `[[token]]` in the file, `--token`.

use std::fmt;

use super::Secret;
use crate::topic::{Pattern, PatternError};

/// Most named tokens.
pub const TOKENS_MAX: usize = 1024;

/// Most patterns of one token.
pub const TOKEN_PATTERNS_MAX: usize = 256;

/// Bytes of the longest name of a token.
pub const TOKEN_NAME_BYTES_MAX: usize = 64;

/// A static token with a name, and its rights.
///
/// What no pattern of `publish` or `subscribe` matches is denied, and so is what one of `deny_publish` or
/// `deny_subscribe` matches, whatever the others say.
///
/// ```
/// use umbel::config::Token;
///
/// let backend = Token::parse("backend sha256=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad publish=**")?;
/// assert_eq!(backend.name, "backend");
/// assert_eq!(backend.publish[0].as_str(), "**");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Name in the log: 1 to 64 letters, digits and `-_.`.
    pub name: String,
    /// The token itself, or its digest.
    pub value: TokenValue,
    /// Topics that it may publish to.
    pub publish: Vec<Pattern>,
    /// Topics that it may subscribe to. Whoever may subscribe to any may use handler endpoints too.
    pub subscribe: Vec<Pattern>,
    /// Topics that it may not publish to.
    pub deny_publish: Vec<Pattern>,
    /// Topics that it may not subscribe to.
    pub deny_subscribe: Vec<Pattern>,
    /// Whether it may see `/`, `/metrics` and `/topics`.
    pub observe: bool,
}

/// A token, or what tells it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
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
            publish: Vec::new(),
            subscribe: Vec::new(),
            deny_publish: Vec::new(),
            deny_subscribe: Vec::new(),
            observe: false,
        }
    }

    /// Reads the form of flags: a name, `sha256=`, and rights as `publish=PATTERN,PATTERN`, between blanks. The token
    /// itself has no place there, for others can see the flags of a process.
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
                _ => token.set(key, value.split(',')).map_err(|(_, why)| why)?,
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

    /// Sets a right by the name that it has in the file.
    ///
    /// # Errors
    /// Problem and remedy, and the number of the value that it is about.
    pub(crate) fn set<'t>(
        &mut self,
        key: &str,
        values: impl Iterator<Item = &'t str>,
    ) -> Result<(), (usize, String)> {
        let patterns = match key {
            "publish" => &mut self.publish,
            "subscribe" => &mut self.subscribe,
            "deny.publish" => &mut self.deny_publish,
            "deny.subscribe" => &mut self.deny_subscribe,
            "observe" => {
                let mut values = values;
                self.observe = match values.next() {
                    Some("true") => true,
                    Some("false") => false,
                    _ => return Err((0, "observe is true or false".to_owned())),
                };
                return Ok(());
            }
            _ => {
                let rights = "publish, subscribe, deny.publish, deny.subscribe and observe";
                return Err((0, format!("there is no right `{key}`: there are {rights}")));
            }
        };
        for (number, text) in values.enumerate() {
            let refused = |problem: PatternError| (number, format!("{key}: `{text}`: {problem}"));
            patterns.push(Pattern::parse(text).map_err(refused)?);
        }
        Ok(())
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
        let lists = self.lists();
        let count: usize = lists.iter().map(|(_, patterns)| patterns.len()).sum();
        if count > TOKEN_PATTERNS_MAX {
            return Err(format!(
                "it has {count} patterns, and may have {TOKEN_PATTERNS_MAX}"
            ));
        }
        for (key, patterns) in lists {
            if let Some((pattern, canonical)) = patterns
                .iter()
                .find_map(|it| it.canonical().map(|canonical| (it, canonical)))
            {
                return Err(format!(
                    "{key}: no topic is written like `{pattern}`; write {canonical}"
                ));
            }
        }
        match self.publish.is_empty() && self.subscribe.is_empty() && !self.observe {
            true => Err("it may do nothing: give it publish, subscribe or observe".to_owned()),
            false => Ok(()),
        }
    }

    fn lists(&self) -> [(&'static str, &[Pattern]); 4] {
        [
            ("publish", &self.publish),
            ("subscribe", &self.subscribe),
            ("deny.publish", &self.deny_publish),
            ("deny.subscribe", &self.deny_subscribe),
        ]
    }
}

impl fmt::Display for Token {
    /// Its name and rights, without what tells it from others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (key, patterns) in self.lists() {
            if !patterns.is_empty() {
                let patterns: Vec<_> = patterns.iter().map(Pattern::as_str).collect();
                write!(f, " {key}={}", patterns.join(","))?;
            }
        }
        match self.observe {
            true => f.write_str(" observe=true"),
            false => Ok(()),
        }
    }
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
