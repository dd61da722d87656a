//! Templates: patterns with segments that differ by who is asked about.
//!
//! `user/{sub}/**` is one pattern for each subject. A variable is a whole segment, and so is its value, which must be plain:
//! a subject such as `a/b` or `*` would reach into another's topics.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::pattern::{self, Pattern, PatternError};

/// Bytes of the value of a variable.
pub const VALUE_BYTES_MAX: usize = 128;

/// Bytes of the name of a variable's claim or member.
pub const VARIABLE_NAME_BYTES_MAX: usize = 64;

/// Variable of a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variable {
    /// Origin of the value.
    pub name: VariableName,
    /// Form of the value in the topic.
    pub encoding: ValueEncoding,
}

/// Origin of a variable's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VariableName {
    /// `{sub}`: the subject, with its prefix.
    Subject,
    /// `{meta.NAME}`: a member of `meta`.
    Meta(Box<str>),
    /// `{claim.NAME}`: a claim of the token.
    Claim(Box<str>),
}

/// Form of a variable's value in the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueEncoding {
    /// As it is.
    Plain,
    /// `{sub|hex}`: the bytes in small hexadecimal digits.
    Hex,
    /// `{sub|base64url}`: the bytes in base64 of the URL alphabet, without padding.
    Base64Url,
}

/// Source of the values of variables.
pub trait Values {
    /// The value of a variable, before it is encoded. None: there is none.
    fn value(&self, name: &VariableName) -> Option<Cow<'_, str>>;
}

/// A pattern whose segments may be variables. Cloning it copies pointers.
///
/// ```text
/// news/**                  user/{sub}/**           tenant/{meta.tenant}/*
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Template {
    text: Arc<str>,
    /// Each variable, and the place behind which it stands: bytes of the text before its brace.
    variables: Arc<[(u16, Variable)]>,
}

impl Template {
    /// Reads a template. A pattern without variables is one too.
    ///
    /// # Errors
    /// When it is no pattern once its variables are filled in, or a brace is no variable's.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        if text.len() > pattern::PATTERN_BYTES_MAX {
            return Err(TemplateError::Pattern(PatternError::Length));
        }
        let (mut plain, mut variables) = (String::new(), Vec::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, behind) = rest.split_at(at);
            plain.push_str(before);
            let is_behind_separator = plain.is_empty() || plain.ends_with(['/', '.']);
            let (name, after) = behind
                .strip_prefix('{')
                .and_then(|behind| behind.split_once('}'))
                .ok_or(TemplateError::Brace)?;
            let is_whole = is_behind_separator
                && !plain.contains('?')
                && (after.is_empty() || after.starts_with(['/', '.']));
            if !is_whole {
                return Err(TemplateError::PartOfSegment);
            }
            let offset = (text.len() - rest.len() + at) as u16;
            variables.push((offset, Variable::parse(name)?));
            plain.push('x');
            rest = after;
        }
        plain.push_str(rest);
        let filled = Pattern::parse(&plain).map_err(TemplateError::Pattern)?;
        if let Some(canonical) = filled.canonical() {
            return Err(TemplateError::NotCanonical(canonical));
        }
        Ok(Template {
            text: text.into(),
            variables: variables.into(),
        })
    }

    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches one topic alone.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.variables.is_empty() && !self.text.contains('*')
    }

    /// Its variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.variables.iter().map(|(_, variable)| variable)
    }

    /// Whether each variable has a value that is a plain segment.
    #[must_use]
    pub fn can_be_filled(&self, values: &dyn Values) -> bool {
        self.variables().all(|it| it.segment(values).is_some())
    }

    /// Text of the pattern for these values. `unknown` stands where a variable has no value that can stand; without it,
    /// there is no pattern then.
    #[must_use]
    pub fn fill(&self, values: &dyn Values, unknown: Option<&str>) -> Option<Cow<'_, str>> {
        if self.variables.is_empty() {
            return Some(Cow::Borrowed(&self.text));
        }
        let mut filled = String::with_capacity(self.text.len() + VALUE_BYTES_MAX);
        let mut done = 0;
        for (offset, variable) in &*self.variables {
            let offset = usize::from(*offset);
            filled.push_str(&self.text[done..offset]);
            match (variable.segment(values), unknown) {
                (Some(segment), _) => filled.push_str(&segment),
                (None, Some(unknown)) => filled.push_str(unknown),
                (None, None) => return None,
            }
            let brace = self.text[offset..].find('}').unwrap_or_default();
            done = offset + brace + 1;
        }
        filled.push_str(&self.text[done..]);
        Some(Cow::Owned(filled))
    }
}

impl Variable {
    fn parse(text: &str) -> Result<Variable, TemplateError> {
        let (name, encoding) = match text.split_once('|') {
            None => (text, ValueEncoding::Plain),
            Some((name, "hex")) => (name, ValueEncoding::Hex),
            Some((name, "base64url")) => (name, ValueEncoding::Base64Url),
            Some(_) => return Err(TemplateError::UnknownVariable),
        };
        let is_name = |name: &str| {
            (1..=VARIABLE_NAME_BYTES_MAX).contains(&name.len())
                && !name.contains(['{', '|'])
                && !name.contains(char::is_control)
        };
        let name = match name.split_once('.') {
            None if name == "sub" => VariableName::Subject,
            Some(("meta", name)) if is_name(name) => VariableName::Meta(name.into()),
            Some(("claim", name)) if is_name(name) => VariableName::Claim(name.into()),
            _ => return Err(TemplateError::UnknownVariable),
        };
        Ok(Variable { name, encoding })
    }

    /// The value as a segment. None: there is none, or it is no plain segment.
    fn segment<'v>(&self, values: &'v dyn Values) -> Option<Cow<'v, str>> {
        let value = values.value(&self.name)?;
        let segment = match self.encoding {
            ValueEncoding::Plain => value,
            // Twice as long as what may be there at most.
            _ if value.len() > VALUE_BYTES_MAX => return None,
            ValueEncoding::Hex => {
                let digits = value.bytes().flat_map(|byte| [byte >> 4, byte & 15]);
                let digits = digits.filter_map(|it| char::from_digit(u32::from(it), 16));
                Cow::Owned(digits.collect())
            }
            ValueEncoding::Base64Url => Cow::Owned(URL_SAFE_NO_PAD.encode(value.as_bytes())),
        };
        is_plain_segment(&segment).then_some(segment)
    }
}

/// Whether a text is one segment of a topic and nothing more: 1 to 128 bytes without separators, wildcards, braces and
/// control characters.
#[must_use]
pub fn is_plain_segment(text: &str) -> bool {
    (1..=VALUE_BYTES_MAX).contains(&text.len())
        && !text.contains(['/', '.', '*', '?', '{', '}'])
        && !text.contains(char::is_control)
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reason that a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// It is no pattern.
    Pattern(PatternError),
    /// Its query is not as topics have it. This is the form to write.
    NotCanonical(String),
    /// A brace begins or ends nothing.
    Brace,
    /// A variable stands beside other text.
    PartOfSegment,
    /// There is no such variable.
    UnknownVariable,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TemplateError::Pattern(error) => error.as_str(),
            TemplateError::NotCanonical(canonical) => {
                return write!(f, "no topic is written like this; write {canonical}");
            }
            TemplateError::Brace => "a brace stands around a variable alone, as in `user/{sub}/**`",
            TemplateError::PartOfSegment => {
                "a variable is a whole segment between `/` and `.`, as in `user/{sub}/**`"
            }
            TemplateError::UnknownVariable => {
                "there is no such variable: there are {sub}, {meta.NAME} and {claim.NAME}, each also with |hex or |base64url"
            }
        })
    }
}

impl std::error::Error for TemplateError {}

#[cfg(test)]
mod tests {
    use super::*;

    struct Subject(&'static str);

    impl Values for Subject {
        fn value(&self, name: &VariableName) -> Option<Cow<'_, str>> {
            (*name == VariableName::Subject).then_some(Cow::Borrowed(self.0))
        }
    }

    fn filled(template: &str, subject: &'static str) -> Option<String> {
        let template = Template::parse(template).expect("a template");
        let text = template.fill(&Subject(subject), None).map(Cow::into_owned);
        assert_eq!(text.is_some(), template.can_be_filled(&Subject(subject)));
        text
    }

    #[test]
    fn variables_are_filled_in() {
        for (template, subject, wanted) in [
            ("user/{sub}/**", "42", Some("user/42/**")),
            ("{sub}", "42", Some("42")),
            ("{sub}.{sub|hex}", "AZ", Some("AZ.415a")),
            ("u/{sub|base64url}.x", "a@b.c", Some("u/YUBiLmM.x")),
            ("news/**", "*", Some("news/**")),
            ("user/{sub}", "a.b", None),
            ("user/{sub}", "a/b", None),
            ("user/{sub}", "*", None),
            ("user/{sub}", "", None),
            ("user/{sub|hex}", "", None),
            ("user/{sub}", "a?b", None),
            ("user/{sub}", "{sub}", None),
            ("user/{sub}", "a\u{85}", None),
            ("user/{claim.a.b}/{meta.x}", "42", None),
        ] {
            assert_eq!(
                filled(template, subject).as_deref(),
                wanted,
                "{template} {subject}"
            );
        }
        let hex = Template::parse("{sub|hex}").expect("a template");
        let long = "x".repeat(65);
        let long: &'static str = Box::leak(long.into_boxed_str());
        assert_eq!(hex.fill(&Subject(long), None), None);
        assert_eq!(hex.fill(&Subject(long), Some("*")).as_deref(), Some("*"));
    }

    #[test]
    fn wrong_templates_are_told() {
        for (text, told) in [
            ("a**", "whole segment"),
            ("user/{sub", "around a variable"),
            ("user/sub}", "around a variable"),
            ("user/x{sub}", "whole segment"),
            ("user/{sub}x", "whole segment"),
            ("user/{sub}?a=1", "whole segment"),
            ("t?a={sub}", "whole segment"),
            ("user/{id}", "no such variable"),
            ("user/{}", "no such variable"),
            ("user/{sub|rot13}", "no such variable"),
            ("user/{meta.}", "no such variable"),
            ("user/{{sub}}", "whole segment"),
            ("**/{sub}", "nothing follows"),
            ("t?b=1&a=1", "write t?a=1&b=1"),
            ("", "1 to 255"),
        ] {
            let error = Template::parse(text).expect_err(text).to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
