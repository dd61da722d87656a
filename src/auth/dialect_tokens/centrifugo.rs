//! Claims of Centrifugo's connection and subscription tokens.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{info_of, meta_of, refused};
use crate::auth::jwt::claims::{Claims, ConnectionEnd};
use crate::auth::jwt::error::JwtError;
use crate::auth::jwt::json::{object, present};
use crate::auth::jwt::numeric_date::NumericDate;
use crate::auth::jwt::rules::Rules;
use crate::auth::rights::Rights;
use crate::config::RightsLists;

/// Channels that a token subscribes its connection to.
pub const CHANNELS_MAX: usize = 128;

/// Bytes of the name of a channel.
pub const CHANNEL_BYTES_MAX: usize = 255;

/// Subscription of the server's own.
#[derive(Debug)]
pub struct ServerSubscription {
    /// Name of the channel.
    pub channel: String,
    /// Information that its members are shown.
    pub info: Option<Box<RawValue>>,
    /// Value that the client gets with the subscription.
    pub data: Option<Box<RawValue>>,
    /// Options that it has in place of those of its namespace.
    pub options: Option<Box<RawValue>>,
}

/// Connection by its token.
#[derive(Debug)]
pub struct Connection {
    /// Identity, its rights, and the end of the connection.
    pub claims: Claims,
    /// Subscriptions that it has from the beginning.
    pub subscriptions: Vec<ServerSubscription>,
}

/// Right to one channel, by a token of its own.
#[derive(Debug)]
pub struct ChannelRight {
    /// Identity that the token is for.
    pub claims: Claims,
    /// Value that the client gets with the subscription.
    pub data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct ConnectionClaims {
    #[serde(default, deserialize_with = "present")]
    channel: Option<String>,
    #[serde(default, deserialize_with = "present")]
    expire_at: Option<NumericDate>,
    info: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    b64info: Option<String>,
    meta: Option<Box<RawValue>>,
    #[serde(default)]
    channels: Vec<String>,
    #[serde(default, deserialize_with = "subs")]
    subs: Vec<ServerSubscription>,
    #[serde(default)]
    caps: Vec<Capability>,
}

#[derive(Deserialize)]
struct SubOptions {
    info: Option<Box<RawValue>>,
    data: Option<Box<RawValue>>,
    r#override: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Capability {
    channels: Vec<String>,
    #[serde(default)]
    r#match: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct SubscriptionClaims {
    channel: String,
    #[serde(default, deserialize_with = "present")]
    expire_at: Option<NumericDate>,
    info: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    b64info: Option<String>,
    data: Option<Box<RawValue>>,
    #[serde(default)]
    allow: Vec<String>,
}

/// Reads a verified payload. An empty `sub` is nobody's.
///
/// # Errors
/// It is not what Centrifugo takes, or says what cannot be said here.
pub fn read_connection(payload: &str, rules: &Rules) -> Result<Connection, JwtError> {
    let mut claims = Claims::read(payload, &foreign(rules))?;
    let own: ConnectionClaims = own_claims(payload)?;
    if own.channel.is_some() {
        return Err(refused("channel is of a subscription's token"));
    }
    claims.info = info_or_bytes(own.info.as_deref(), own.b64info.as_deref())?;
    if let Some(meta) = &own.meta {
        claims.meta = meta_of(meta)?;
    }
    claims.connection_end = own.expire_at.map(connection_end);
    let mut subscriptions = own.subs;
    // Where both stand, those with options count.
    if subscriptions.is_empty() {
        let plain = own.channels.into_iter().map(|channel| ServerSubscription {
            channel,
            info: None,
            data: None,
            options: None,
        });
        subscriptions.extend(plain);
    }
    if subscriptions.len() > CHANNELS_MAX {
        return Err(refused("there are over 128 channels"));
    }
    let mut lists = RightsLists::default();
    let (mut presence, mut history) = (Vec::new(), Vec::new());
    for subscription in &subscriptions {
        let topic = exact(&subscription.channel)?;
        lists.subscribe.push(topic.clone());
        history.push(topic);
    }
    for capability in &own.caps {
        for channel in &capability.channels {
            let pattern = capability.pattern(channel)?;
            for word in &capability.allow {
                let list = match word.as_str() {
                    "sub" => &mut lists.subscribe,
                    "pub" => &mut lists.publish,
                    "hst" => &mut history,
                    "prs" => &mut presence,
                    _ => return Err(refused("caps allow what is not known here")),
                };
                list.push(pattern.clone());
            }
        }
    }
    lists.presence = Some(presence);
    lists.history = Some(history);
    let rights = Rights::from_lists(&lists);
    claims.rights = rights.map_err(|problem| refused(&problem.to_string()))?;
    let joined = subscriptions.iter().map(|it| it.channel.as_str().into());
    claims.join = joined.collect();
    Ok(Connection {
        claims,
        subscriptions,
    })
}

/// Reads a verified payload for a channel and a subject.
///
/// # Errors
/// It is for another channel or subject, or is not what Centrifugo takes.
pub fn read_subscription(
    payload: &str,
    rules: &Rules,
    (channel, subject): (&str, Option<&str>),
) -> Result<ChannelRight, JwtError> {
    let mut claims = Claims::read(payload, &foreign(rules))?;
    let own: SubscriptionClaims = own_claims(payload)?;
    if own.channel != channel {
        return Err(refused("channel is another"));
    }
    if claims.subject.as_deref() != subject {
        return Err(refused("sub is not that of the connection"));
    }
    claims.info = info_or_bytes(own.info.as_deref(), own.b64info.as_deref())?;
    claims.connection_end = own.expire_at.map(connection_end);
    let topic = exact(channel)?;
    let has = |word: &str| own.allow.iter().any(|it| it == word);
    if own
        .allow
        .iter()
        .any(|it| !["sub", "pub", "hst", "prs"].contains(&it.as_str()))
    {
        return Err(refused("allow has what is not known here"));
    }
    let only = |is_there: bool| match is_there {
        true => vec![topic.clone()],
        false => Vec::new(),
    };
    let lists = RightsLists {
        subscribe: vec![topic.clone()],
        publish: only(has("pub")),
        presence: Some(only(has("prs"))),
        history: Some(only(has("hst"))),
        ..RightsLists::default()
    };
    let rights = Rights::from_lists(&lists);
    claims.rights = rights.map_err(|problem| refused(&problem.to_string()))?;
    let data = own.data.as_deref().map(meta_of).transpose()?.flatten();
    Ok(ChannelRight { claims, data })
}

/// Rules for tokens of others: nothing of the server's own stands in them, and nobody's `sub` may be empty.
fn foreign(rules: &Rules) -> Rules {
    Rules {
        has_own_claims: false,
        may_be_nobody: true,
        ..rules.clone()
    }
}

fn own_claims<T: for<'de> Deserialize<'de>>(payload: &str) -> Result<T, JwtError> {
    let mut deserializer = serde_json::Deserializer::from_str(payload);
    let own = object(&mut deserializer).ok().flatten();
    own.ok_or_else(|| refused("a claim is not of its type, or stands twice"))
}

fn connection_end(date: NumericDate) -> ConnectionEnd {
    match date.ceil() {
        0 => ConnectionEnd::Never,
        _ => ConnectionEnd::At(date.floor()),
    }
}

/// Bytes in base64 count before JSON, and must be JSON too.
fn info_or_bytes(
    info: Option<&RawValue>,
    bytes: Option<&str>,
) -> Result<Option<Box<RawValue>>, JwtError> {
    let Some(bytes) = bytes.filter(|it| !it.is_empty()) else {
        return info.map(info_of).transpose().map(Option::flatten);
    };
    let text = STANDARD.decode(bytes).ok();
    let text = text.and_then(|text| String::from_utf8(text).ok());
    let raw = text.and_then(|text| RawValue::from_string(text).ok());
    let raw = raw.ok_or_else(|| refused("b64info is not JSON in base64"))?;
    info_of(&raw)
}

/// The topic that a channel is. What would be read as a pattern or a variable is none.
fn exact(channel: &str) -> Result<String, JwtError> {
    if !(1..=CHANNEL_BYTES_MAX).contains(&channel.len()) || channel.contains(['*', '{', '}', '?']) {
        return Err(refused("a channel cannot be a topic here"));
    }
    Ok(channel.to_owned())
}

impl Capability {
    fn pattern(&self, channel: &str) -> Result<String, JwtError> {
        match self.r#match.as_str() {
            "" => exact(channel),
            // It matches any run of letters, so that only one at the end, behind a separator, is a pattern here.
            "wildcard" => {
                let Some(before) = channel.strip_suffix('*') else {
                    return exact(channel);
                };
                if !before.is_empty() && !before.ends_with(['/', '.']) {
                    return Err(refused("a wildcard does not stand behind a separator"));
                }
                if !before.is_empty() {
                    exact(before)?;
                }
                Ok(format!("{before}**"))
            }
            _ => Err(refused("caps match in a way that is not known here")),
        }
    }
}

fn subs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ServerSubscription>, D::Error> {
    deserializer.deserialize_map(SubsVisitor)
}

struct SubsVisitor;

impl<'de> Visitor<'de> for SubsVisitor {
    type Value = Vec<ServerSubscription>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of channels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut subscriptions: Vec<ServerSubscription> = Vec::new();
        while let Some((channel, options)) = map.next_entry::<String, SubOptions>()? {
            let is_twice = subscriptions.iter().any(|it| it.channel == channel);
            if is_twice || subscriptions.len() == CHANNELS_MAX {
                return Err(A::Error::custom("a channel twice, or too many"));
            }
            subscriptions.push(ServerSubscription {
                channel,
                info: options.info,
                data: options.data,
                options: options.r#override,
            });
        }
        Ok(subscriptions)
    }
}
