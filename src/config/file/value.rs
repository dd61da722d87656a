//! Values of settings, and how a text becomes one: the same for flags, variables and the file.

use std::ops::RangeInclusive;

use crate::config::table::{Kind, SettingInfo, Unset};
use crate::config::{CertificateFiles, Grant, Jwt, Listener, Secret, Share, Token, UrlKey};
use crate::topic::TopicRule;
use crate::units::Unit;

/// Value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// A number, in the unit of the setting's name.
    Number(u64),
    /// A share.
    Share(Share),
    /// `true` or `false`.
    Bool(bool),
    /// One of the setting's words.
    Choice(String),
    /// A secret.
    Secret(Secret),
    /// Texts.
    Texts(Vec<String>),
    /// Listeners.
    Listeners(Vec<Listener>),
    /// Topic rules.
    TopicRules(Vec<TopicRule>),
    /// Named tokens.
    Tokens(Vec<Token>),
    /// Grants.
    Grants(Vec<Grant>),
    /// Keys of signed URLs.
    UrlKeys(Vec<UrlKey>),
    /// Issuers of JSON web tokens.
    Jwts(Vec<Jwt>),
    /// Certificates.
    Certificates(Vec<CertificateFiles>),
}

impl Value {
    /// Reads a text as flags, variables and the file have it.
    ///
    /// # Errors
    /// Problem and remedy.
    pub fn parse(info: &SettingInfo, text: &str) -> Result<Value, String> {
        match info.kind {
            Kind::Number { min, max } => {
                let number = parse_number(info.unit(), text, min..=max);
                number
                    .map(Value::Number)
                    .map_err(|problem| match info.unset {
                        Unset::Number(0) if info.key.table.is_empty() => {
                            format!("{problem}; 0 lets the server choose")
                        }
                        _ => format!("{problem} (the default is {})", info.unset_words()),
                    })
            }
            Kind::Share => Share::parse(text).map(Value::Share),
            Kind::Bool | Kind::Switch => match text {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err("it must be true or false".to_owned()),
            },
            Kind::Choice(words) | Kind::Flag(words) => match words.contains(&text) {
                true => Ok(Value::Choice(text.to_owned())),
                false => Err(one_of(words)),
            },
            Kind::Secret => Ok(Value::Secret(text.into())),
            Kind::Text | Kind::Time => Ok(Value::Texts(vec![text.to_owned()])),
            Kind::Texts => Ok(Value::Texts(text.split(',').map(str::to_owned).collect())),
            Kind::Listeners => {
                let listeners = text.split(',').map(str::parse);
                listeners.collect::<Result<_, _>>().map(Value::Listeners)
            }
            Kind::TopicRules => {
                // One may be empty, as behind the last `;` of a variable.
                let rules = text.split(';').filter(|rule| !rule.trim().is_empty());
                let rules =
                    rules.map(|rule| TopicRule::parse(rule).map_err(|error| error.to_string()));
                rules.collect::<Result<_, _>>().map(Value::TopicRules)
            }
            Kind::Tokens => {
                let tokens = text.split(';').filter(|token| !token.trim().is_empty());
                let tokens = tokens.map(Token::parse);
                tokens.collect::<Result<_, _>>().map(Value::Tokens)
            }
            Kind::Grants => {
                let grants = text.split(';').filter(|grant| !grant.trim().is_empty());
                let grants = grants.map(Grant::parse);
                grants.collect::<Result<_, _>>().map(Value::Grants)
            }
            Kind::UrlKeys => Err(
                "others can see a secret that stands in a flag: write [[url_key]] into the file"
                    .to_owned(),
            ),
            Kind::Jwts => {
                let jwts = text.split(';').filter(|jwt| !jwt.trim().is_empty());
                jwts.map(Jwt::parse)
                    .collect::<Result<_, _>>()
                    .map(Value::Jwts)
            }
            Kind::Certificates => {
                let files = text
                    .split(';')
                    .map(str::trim)
                    .filter(|files| !files.is_empty());
                let files = files.map(CertificateFiles::parse);
                files.collect::<Result<_, _>>().map(Value::Certificates)
            }
        }
    }

    /// Adds what a repeated flag says once more.
    pub fn append(&mut self, other: Value) {
        match (self, other) {
            (Value::Texts(texts), Value::Texts(more)) => texts.extend(more),
            (Value::Listeners(listeners), Value::Listeners(more)) => listeners.extend(more),
            (Value::TopicRules(rules), Value::TopicRules(more)) => rules.extend(more),
            (Value::Tokens(tokens), Value::Tokens(more)) => tokens.extend(more),
            (Value::Grants(grants), Value::Grants(more)) => grants.extend(more),
            (Value::Jwts(jwts), Value::Jwts(more)) => jwts.extend(more),
            (Value::UrlKeys(keys), Value::UrlKeys(more)) => keys.extend(more),
            (Value::Certificates(files), Value::Certificates(more)) => files.extend(more),
            (value, other) => *value = other,
        }
    }

    /// The value in words, for people: secrets as `set`.
    pub fn words(&self) -> String {
        match self {
            Value::Number(number) => number.to_string(),
            Value::Share(share) => share.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Choice(word) => word.clone(),
            Value::Secret(secret) => secret.to_string(),
            Value::Texts(texts) => texts.join(","),
            Value::Listeners(listeners) => join(listeners, ","),
            Value::TopicRules(rules) => join(rules, "; "),
            Value::Tokens(tokens) => join(tokens, "; "),
            Value::Grants(grants) => join(grants, "; "),
            Value::Jwts(jwts) => join(jwts, "; "),
            Value::UrlKeys(keys) => join(keys, "; "),
            Value::Certificates(files) => join(files, ";"),
        }
    }
}

fn join<T: ToString>(items: &[T], separator: &str) -> String {
    let items: Vec<_> = items.iter().map(T::to_string).collect();
    items.join(separator)
}

/// Reads a number in a range, with a unit or without.
///
/// # Errors
/// The range, and what to write.
pub fn parse_number(unit: Unit, text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let value = unit.parse(text);
    if let Some(value) = value.filter(|value| range.contains(value)) {
        return Ok(value);
    }
    let tip = match value.is_none().then(|| unit.tip(text)).flatten() {
        Some(tip) => format!("{tip}; "),
        None => String::new(),
    };
    Err(format!(
        "{tip}it must be a whole number from {} to {}",
        range.start(),
        range.end()
    ))
}

/// Remedy for a text that is none of these words.
pub fn one_of(words: &[&str]) -> String {
    match words {
        [others @ .., last] if !others.is_empty() => {
            format!("it must be {} or {last}", others.join(", "))
        }
        words => format!("it must be {}", words.concat()),
    }
}
