//! Claims of Mercure's tokens: those of the protocol before 1.0, and its access tokens.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{info_of, refused};
use crate::auth::jwt::claims::Claims;
use crate::auth::jwt::compact::Header;
use crate::auth::jwt::error::JwtError;
use crate::auth::jwt::json::{object, present};
use crate::auth::jwt::rules::Rules;
use crate::auth::rights::Rights;
use crate::config::RightsLists;

/// Type of the details that are meant for a hub.
pub const DETAIL_TYPE: &str = "https://mercure.rocks/authorization-detail";

#[derive(Deserialize)]
struct OldClaims {
    #[serde(default, deserialize_with = "object")]
    mercure: Option<Selectors>,
}

#[derive(Deserialize)]
struct Selectors {
    publish: Option<Vec<String>>,
    subscribe: Option<Vec<String>>,
    payload: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct AccessClaims {
    #[serde(default, deserialize_with = "present")]
    authorization_details: Option<Vec<Box<RawValue>>>,
}

#[derive(Deserialize)]
struct TypeOfDetail {
    r#type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Detail {
    #[serde(rename = "type")]
    _type: String,
    actions: Vec<String>,
    topics: Vec<TopicMatch>,
    payload: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicMatch {
    r#match: String,
    #[serde(default, deserialize_with = "present")]
    match_type: Option<String>,
}

/// Reads a payload of the protocol before 1.0, whose signature is verified. `topic`: the topic of this server that one of
/// Mercure's is, or the pattern.
///
/// # Errors
/// It is no token, or a selector cannot be said here.
pub fn read_old(
    payload: &str,
    rules: &Rules,
    topic: &dyn Fn(&str) -> Option<String>,
) -> Result<Claims, JwtError> {
    let mut claims = Claims::read(payload, &foreign(rules))?;
    let own: OldClaims = own_claims(payload)?;
    let Some(selectors) = own.mercure else {
        return Ok(claims);
    };
    let patterns = |list: Option<Vec<String>>| {
        let list = list.unwrap_or_default().into_iter();
        let patterns = list.map(|selector| selector_pattern(&selector, topic));
        patterns.collect::<Result<Vec<_>, _>>()
    };
    let lists = RightsLists {
        subscribe: patterns(selectors.subscribe)?,
        publish: patterns(selectors.publish)?,
        ..RightsLists::default()
    };
    claims.rights = compile(&lists)?;
    if let Some(payload) = &selectors.payload {
        claims.info = info_of(payload)?;
    }
    Ok(claims)
}

/// Reads an access token of the protocol 1.0, whose signature is verified. `topic`: as for [`read_old`].
///
/// # Errors
/// It is no access token of a named issuer for this server, or one of its details cannot be said here.
pub fn read_access(
    header: &Header,
    payload: &str,
    rules: &Rules,
    topic: &dyn Fn(&str) -> Option<String>,
) -> Result<Claims, JwtError> {
    if !header.is_type("at+jwt") {
        return Err(JwtError::Type);
    }
    if rules.issuer.is_none() || rules.audience.is_empty() {
        return Err(refused("an access token needs an issuer and an audience"));
    }
    let mut claims = Claims::read(payload, &foreign(rules))?;
    if claims.expires_at.is_none() {
        return Err(JwtError::Missing("exp"));
    }
    let own: AccessClaims = own_claims(payload)?;
    let mut lists = RightsLists::default();
    for raw in own.authorization_details.unwrap_or_default() {
        let Some(detail) = detail_of(&raw)? else {
            continue;
        };
        let patterns = detail.topics.iter().map(|it| it.pattern(topic));
        let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
        for action in &detail.actions {
            match action.as_str() {
                "publish" => lists.publish.extend_from_slice(&patterns),
                "subscribe" => lists.subscribe.extend_from_slice(&patterns),
                _ => return Err(refused("an action is neither publish nor subscribe")),
            }
        }
        if let Some(payload) = &detail.payload {
            claims.info = info_of(payload)?;
        }
    }
    claims.rights = compile(&lists)?;
    Ok(claims)
}

fn foreign(rules: &Rules) -> Rules {
    Rules {
        has_own_claims: false,
        ..rules.clone()
    }
}

fn own_claims<T: for<'de> Deserialize<'de>>(payload: &str) -> Result<T, JwtError> {
    let mut deserializer = serde_json::Deserializer::from_str(payload);
    let own = object(&mut deserializer).ok().flatten();
    own.ok_or_else(|| refused("a claim is not of its type, or stands twice"))
}

fn compile(lists: &RightsLists) -> Result<Rights, JwtError> {
    Rights::from_lists(lists).map_err(|problem| refused(&problem.to_string()))
}

/// A detail that is meant for a hub. None: it is of a foreign type.
fn detail_of(raw: &RawValue) -> Result<Option<Detail>, JwtError> {
    let broken = || refused("a detail is not of its form");
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    let kind: Option<TypeOfDetail> = object(&mut deserializer).map_err(|_| broken())?;
    if kind.is_none_or(|kind| kind.r#type != DETAIL_TYPE) {
        return Ok(None);
    }
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    object(&mut deserializer).map_err(|_| broken())
}

/// A text that is a topic, or a pattern by its segments. Others' wildcards and ours are not to be mixed up.
fn mapped(text: &str, topic: &dyn Fn(&str) -> Option<String>) -> Result<String, JwtError> {
    topic(text).ok_or_else(|| refused("a topic cannot be one here"))
}

fn exact(text: &str, topic: &dyn Fn(&str) -> Option<String>) -> Result<String, JwtError> {
    if text.contains(['*', '{', '}']) {
        return Err(refused("a topic has letters of patterns"));
    }
    mapped(text, topic)
}

/// Whether what stands before and behind makes a whole segment of what is between.
fn is_segment(before: &str, behind: &str) -> bool {
    (before.is_empty() || before.ends_with(['/', '.']))
        && (behind.is_empty() || behind.starts_with(['/', '.']))
}

fn is_name(text: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    !text.is_empty() && text.chars().all(is_letter)
}

/// A selector before 1.0: `*`, a topic, or a URI template whose variables are whole segments.
fn selector_pattern(
    selector: &str,
    topic: &dyn Fn(&str) -> Option<String>,
) -> Result<String, JwtError> {
    if selector == "*" {
        return Ok("**".to_owned());
    }
    if !selector.contains(['{', '}']) {
        return exact(selector, topic);
    }
    let (mut pattern, mut rest) = (String::new(), selector);
    while let Some((before, behind)) = rest.split_once('{') {
        pattern.push_str(before);
        let (name, after) = behind.split_once('}').unwrap_or(("", ""));
        if !is_name(name) || !is_segment(&pattern, after) || before.contains(['*', '}']) {
            return Err(refused("a URI template is more than {name} for a segment"));
        }
        pattern.push('*');
        rest = after;
    }
    if rest.contains(['*', '}']) {
        return Err(refused("a URI template is more than {name} for a segment"));
    }
    pattern.push_str(rest);
    mapped(&pattern, topic)
}

impl TopicMatch {
    fn pattern(&self, topic: &dyn Fn(&str) -> Option<String>) -> Result<String, JwtError> {
        let text = self.r#match.as_str();
        if text == "*" {
            return Ok("**".to_owned());
        }
        match self.match_type.as_deref() {
            None | Some("exact") => exact(text, topic),
            Some("urlpattern") => url_pattern(text, topic),
            Some(_) => Err(refused("a match_type is neither exact nor urlpattern")),
        }
    }
}

/// A URL pattern: `:name` for a segment, and `*` at the end.
fn url_pattern(text: &str, topic: &dyn Fn(&str) -> Option<String>) -> Result<String, JwtError> {
    let (text, is_open) = match text.strip_suffix("/*") {
        Some(before) => (before, true),
        None => (text, false),
    };
    if text.contains(['*', '{', '}', '(', ')', '?', '+', '[', ']', '\\']) {
        return Err(refused(
            "a URL pattern has more than :name and a * at its end",
        ));
    }
    let segments = text
        .split('/')
        .map(|segment| match segment.strip_prefix(':') {
            Some(name) if is_name(name) => Ok("*"),
            Some(_) => Err(refused("a URL pattern has a name beside other text")),
            None if segment.contains(':') && !segment.ends_with(':') && has_name(segment) => {
                Err(refused("a URL pattern has a name beside other text"))
            }
            None => Ok(segment),
        });
    let segments = segments.collect::<Result<Vec<_>, _>>()?;
    let mut pattern = segments.join("/");
    if is_open {
        pattern.push_str("/**");
    }
    mapped(&pattern, topic)
}

/// Whether a colon in it begins a name. A port does not.
fn has_name(segment: &str) -> bool {
    let mut behind = segment.split(':').skip(1);
    behind.any(|text| text.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_'))
}
