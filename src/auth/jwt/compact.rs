//! Compact form of RFC 7515: header, payload and signature between two dots.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserializer as _;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};

use super::error::JwtError;
use super::json::Name;
use crate::signature::KID_BYTES_MAX;
use crate::signature::algorithm::Algorithm;

/// Bytes of a header, decoded.
pub const HEADER_BYTES_MAX: usize = 1024;

/// A token whose signature nobody has looked at.
#[derive(Debug)]
pub struct Compact<'a> {
    /// Header.
    pub header: Header,
    /// `iss` of the payload. Unverified: it only chooses who verifies.
    pub issuer: Option<Box<str>>,
    /// Text that is signed: header and payload with the dot between them, as they were sent.
    pub signed: &'a [u8],
    /// Payload, decoded.
    pub payload: String,
    /// Signature, decoded. It may be empty.
    pub signature: Vec<u8>,
}

/// Header of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Algorithm of the signature.
    pub algorithm: Option<Algorithm>,
    /// Name of the key.
    pub kid: Option<Box<str>>,
    /// Type of the token.
    pub typ: Option<Box<str>>,
}

impl<'a> Compact<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// It is none, by length, dots, base64, or the JSON of its header; or its header has what is not taken here.
    pub fn read(token: &'a [u8], bytes_max: usize) -> Result<Compact<'a>, JwtError> {
        if token.len() > bytes_max {
            return Err(JwtError::Length);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwtError::Parts);
        };
        let signed = &token[..header.len() + 1 + payload.len()];
        if header.len() > HEADER_BYTES_MAX.div_ceil(3) * 4 {
            return Err(JwtError::Header("is too long"));
        }
        let header = decode("header", header)?;
        if header.len() > HEADER_BYTES_MAX {
            return Err(JwtError::Header("is too long"));
        }
        let header = Header::read(&header)?;
        let signature = decode("signature", signature)?;
        let payload = String::from_utf8(decode("payload", payload)?);
        let payload = payload.map_err(|_| JwtError::Payload)?;
        let issuer = read_issuer(&payload)?;
        Ok(Compact {
            header,
            issuer,
            signed,
            payload,
            signature,
        })
    }
}

fn decode(part: &'static str, text: &[u8]) -> Result<Vec<u8>, JwtError> {
    let bytes = URL_SAFE_NO_PAD.decode(text);
    bytes.map_err(|_| JwtError::Base64(part))
}

/// Reads a JSON object by a visitor, and nothing behind it.
pub(super) fn read_object<'de, V: Visitor<'de>>(
    text: &'de str,
    visitor: V,
) -> Result<V::Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = deserializer.deserialize_map(visitor)?;
    deserializer.end()?;
    Ok(value)
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Header, JwtError> {
        let text = std::str::from_utf8(bytes).map_err(|_| JwtError::Header("is not UTF-8"))?;
        let mut refused = None;
        let read = read_object(text, HeaderVisitor(&mut refused));
        match (read, refused) {
            (_, Some(refused)) => Err(refused),
            (Ok(header), None) => Ok(header),
            (Err(_), None) => Err(JwtError::Header("is no JSON object as it should be")),
        }
    }

    /// Whether the `typ` is this one, compared without case and `application/`.
    #[must_use]
    pub fn is_type(&self, wanted: &str) -> bool {
        let Some(typ) = &self.typ else {
            return false;
        };
        bare_type(typ).eq_ignore_ascii_case(bare_type(wanted))
    }
}

fn bare_type(typ: &str) -> &str {
    const PREFIX: &str = "application/";
    match typ.get(..PREFIX.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => &typ[PREFIX.len()..],
        _ => typ,
    }
}

/// Reads a header. What is refused for another reason than its JSON is put down.
struct HeaderVisitor<'r>(&'r mut Option<JwtError>);

impl<'de> Visitor<'de> for HeaderVisitor<'_> {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut seen: Vec<Cow<'de, str>> = Vec::new();
        let mut refuse = |error: JwtError| {
            self.0.get_or_insert(error);
            A::Error::custom("refused")
        };
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            if seen.contains(&name) {
                return Err(refuse(JwtError::Header("has a member twice")));
            }
            match name.as_ref() {
                "alg" => {
                    let Name(alg) = map.next_value::<Name<'de>>()?;
                    let known = Algorithm::named(&alg);
                    header.algorithm =
                        Some(known.ok_or_else(|| refuse(JwtError::UnknownAlgorithm))?);
                }
                "kid" => {
                    let Name(kid) = map.next_value::<Name<'de>>()?;
                    if kid.len() > KID_BYTES_MAX {
                        return Err(refuse(JwtError::Header("has a kid over 256 bytes")));
                    }
                    header.kid = Some(kid.into());
                }
                "typ" => {
                    let Name(typ) = map.next_value::<Name<'de>>()?;
                    header.typ = Some(typ.into());
                }
                "cty" => {
                    let Name(cty) = map.next_value::<Name<'de>>()?;
                    if bare_type(&cty).eq_ignore_ascii_case("jwt") {
                        return Err(refuse(JwtError::Parameter("cty")));
                    }
                }
                // Each says that the token is to be read in another way.
                "crit" => return Err(refuse(JwtError::Parameter("crit"))),
                "b64" => return Err(refuse(JwtError::Parameter("b64"))),
                "zip" => return Err(refuse(JwtError::Parameter("zip"))),
                "enc" => return Err(refuse(JwtError::Parameter("enc"))),
                // Keys that a token brings along, and places to get them from, are nobody's word.
                _ => {
                    let _: IgnoredAny = map.next_value()?;
                }
            }
            seen.push(name);
        }
        match header.algorithm {
            Some(_) => Ok(header),
            None => Err(refuse(JwtError::Header("has no alg"))),
        }
    }
}

/// The `iss` of a payload.
fn read_issuer(payload: &str) -> Result<Option<Box<str>>, JwtError> {
    read_object(payload, IssuerVisitor).map_err(|_| JwtError::Payload)
}

struct IssuerVisitor;

impl<'de> Visitor<'de> for IssuerVisitor {
    type Value = Option<Box<str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut issuer = None;
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            match name.as_ref() {
                "iss" if issuer.is_some() => return Err(A::Error::duplicate_field("iss")),
                "iss" => issuer = Some(map.next_value::<Box<str>>()?),
                _ => {
                    let _: IgnoredAny = map.next_value()?;
                }
            }
        }
        Ok(issuer)
    }
}
