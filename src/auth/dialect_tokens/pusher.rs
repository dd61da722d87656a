//! Signatures of Pusher's protocol: of channels, of users, and of HTTP requests.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::info_of;
use crate::auth::identity::is_subject;
use crate::auth::jwt::json::{object, present};

/// Seconds between the time of a request and the server's.
pub const TIMESTAMP_LEEWAY_S: u64 = 600;

/// Key of an application, with its secret.
pub struct AppKey {
    key: Box<str>,
    secret: hmac::Key,
}

/// Member of a presence channel, or a user who signed in.
#[derive(Debug)]
pub struct Member {
    /// Its id, which is the subject. A number is its decimal digits.
    pub id: Box<str>,
    /// Information that the others are shown.
    pub info: Option<Box<RawValue>>,
}

/// Reason that a signature is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PusherError {
    /// The socket id is not digits, a dot and digits.
    SocketId,
    /// `auth` is not `KEY:SIGNATURE`, with 64 small hexadecimal digits.
    Format,
    /// The key is another.
    Key,
    /// The signature is wrong.
    Signature,
    /// `channel_data` or `user_data` has no id, or is not JSON as it should be.
    Data,
    /// A parameter is missing.
    Missing,
    /// A parameter stands twice.
    Duplicate,
    /// `auth_version` is not 1.0.
    Version,
    /// `auth_timestamp` is over 600 s away.
    Timestamp,
    /// `body_md5` is missing, or not that of the body.
    Body,
}

impl fmt::Display for PusherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PusherError::SocketId => "the socket id is not digits, a dot and digits",
            PusherError::Format => "auth must have the format key:signature",
            PusherError::Key => "the key is not that of the app",
            PusherError::Signature => "the signature is wrong",
            PusherError::Data => "the signed data has no id, or is not JSON",
            PusherError::Missing => "a parameter of the signature is missing",
            PusherError::Duplicate => "a parameter stands twice",
            PusherError::Version => "auth_version is not 1.0",
            PusherError::Timestamp => "auth_timestamp is over 600 s away",
            PusherError::Body => "body_md5 is not that of the body",
        })
    }
}

impl std::error::Error for PusherError {}

#[derive(Deserialize)]
struct ChannelData {
    #[serde(deserialize_with = "id")]
    user_id: Box<str>,
    user_info: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct UserData {
    #[serde(default, deserialize_with = "present")]
    id: Option<Box<str>>,
    user_info: Option<Box<RawValue>>,
}

impl AppKey {
    /// Key of an application.
    #[must_use]
    pub fn new(key: &str, secret: &[u8]) -> AppKey {
        AppKey {
            key: key.into(),
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// Checks the right of a connection to a channel. Gives the member, where `channel_data` names one.
    ///
    /// # Errors
    /// It is not signed for this connection and channel.
    pub fn check_channel(
        &self,
        (socket_id, channel): (&str, &str),
        channel_data: Option<&str>,
        auth: &str,
    ) -> Result<Option<Member>, PusherError> {
        check_socket_id(socket_id)?;
        let data = channel_data.filter(|data| !data.is_empty());
        let signed = match data {
            Some(data) => format!("{socket_id}:{channel}:{data}"),
            None => format!("{socket_id}:{channel}"),
        };
        self.check(&signed, auth)?;
        let Some(data) = data else {
            return Ok(None);
        };
        let read = read_object::<ChannelData>(data)?;
        member(read.user_id, read.user_info.as_deref()).map(Some)
    }

    /// Checks the signature of a user who signs in.
    ///
    /// # Errors
    /// It is not signed for this connection, or has no id.
    pub fn check_user(
        &self,
        socket_id: &str,
        user_data: &str,
        auth: &str,
    ) -> Result<Member, PusherError> {
        check_socket_id(socket_id)?;
        self.check(&format!("{socket_id}::user::{user_data}"), auth)?;
        let read = read_object::<UserData>(user_data)?;
        let id = read.id.ok_or(PusherError::Data)?;
        member(id, read.user_info.as_deref())
    }

    /// Checks a request of the HTTP API. The query is decoded, in any order; `body_md5`: 32 small hexadecimal digits of the
    /// body's MD5. None: it has no body.
    ///
    /// # Errors
    /// It is not signed by this key, or not now, which is in seconds since 1970.
    pub fn check_request(
        &self,
        (method, path): (&str, &str),
        query: &[(Cow<'_, str>, Cow<'_, str>)],
        body_md5: Option<&str>,
        now_s: u64,
    ) -> Result<(), PusherError> {
        let mut sorted: Vec<(String, &str)> = query
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_ref()))
            .collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(PusherError::Duplicate);
        }
        let get = |wanted: &str| {
            let mut found = sorted.iter().filter(|(name, _)| name == wanted);
            found.next().map(|(_, value)| *value)
        };
        let signature = get("auth_signature").ok_or(PusherError::Missing)?;
        if get("auth_key").ok_or(PusherError::Missing)? != &*self.key {
            return Err(PusherError::Key);
        }
        if get("auth_version").ok_or(PusherError::Missing)? != "1.0" {
            return Err(PusherError::Version);
        }
        let timestamp = get("auth_timestamp").ok_or(PusherError::Missing)?;
        let timestamp: u64 = timestamp.parse().map_err(|_| PusherError::Timestamp)?;
        if timestamp.abs_diff(now_s) > TIMESTAMP_LEEWAY_S {
            return Err(PusherError::Timestamp);
        }
        // Without it, the body would not be signed.
        match (get("body_md5"), body_md5) {
            (Some(said), Some(body))
                if verify_slices_are_equal(said.as_bytes(), body.as_bytes()).is_ok() => {}
            (Some(said), None) if said == EMPTY_MD5 => {}
            (None, None) => {}
            _ => return Err(PusherError::Body),
        }
        let pairs = sorted.iter().filter(|(name, _)| name != "auth_signature");
        let pairs: Vec<_> = pairs
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let signed = format!("{method}\n{path}\n{}", pairs.join("&"));
        self.verify(&signed, signature)
    }

    fn check(&self, signed: &str, auth: &str) -> Result<(), PusherError> {
        let (key, signature) = auth.split_once(':').ok_or(PusherError::Format)?;
        if verify_slices_are_equal(key.as_bytes(), self.key.as_bytes()).is_err() {
            return Err(PusherError::Key);
        }
        self.verify(signed, signature)
    }

    /// In constant time.
    fn verify(&self, signed: &str, signature: &str) -> Result<(), PusherError> {
        let signature = digest_of_hex(signature).ok_or(PusherError::Format)?;
        let verified = hmac::verify(&self.secret, signed.as_bytes(), &signature);
        verified.map_err(|_| PusherError::Signature)
    }
}

impl fmt::Debug for AppKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AppKey").field(&self.key).finish()
    }
}

/// MD5 of no bytes, which some sign for a request without a body.
const EMPTY_MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";

fn check_socket_id(socket_id: &str) -> Result<(), PusherError> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let parts = socket_id.split_once('.');
    match parts.is_some_and(|(one, two)| is_number(one) && is_number(two)) {
        true => Ok(()),
        false => Err(PusherError::SocketId),
    }
}

fn digest_of_hex(text: &str) -> Option<[u8; 32]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(digest)
}

fn read_object<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, PusherError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = object(&mut deserializer).ok().flatten();
    let is_whole = deserializer.end().is_ok();
    read.filter(|_| is_whole).ok_or(PusherError::Data)
}

fn member(id: Box<str>, info: Option<&RawValue>) -> Result<Member, PusherError> {
    if !is_subject(&id) {
        return Err(PusherError::Data);
    }
    let info = info.map(info_of).transpose();
    let info = info.map_err(|_| PusherError::Data)?.flatten();
    Ok(Member { id, info })
}

/// A string, or the digits of a whole number.
fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Id {
        Text(Box<str>),
        Number(i64),
    }
    Ok(match Id::deserialize(deserializer)? {
        Id::Text(text) => text,
        Id::Number(number) => number.to_string().into(),
    })
}
