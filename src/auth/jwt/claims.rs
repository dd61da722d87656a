//! Claims of a token (RFC 7519 section 4), and ours below one name of them.

use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::compact::read_object;
use super::error::JwtError;
use super::json::{Name, handed_on, object};
use super::numeric_date::NumericDate;
use super::rights_claims::UmbelClaims;
use super::rules::{RequiredClaim, Rules};
use crate::auth::identity::{Claim, INFO_BYTES_MAX, IdentityLimits, META_BYTES_MAX, is_subject};
use crate::auth::rights::Rights;

/// Claims of a token whose signature is verified. Times are in seconds since 1970.
#[derive(Debug)]
pub struct Claims {
    /// `sub`: 1 to 255 bytes without control characters.
    pub subject: Option<Box<str>>,
    /// `jti`: 1 to 255 bytes without control characters.
    pub token_id: Option<Box<str>>,
    /// `iat`, its fraction cut off.
    pub issued_at: Option<u64>,
    /// `exp`, its fraction cut off.
    pub expires_at: Option<u64>,
    /// First second at which it may be used, of `nbf` and `iat`.
    not_before: Option<u64>,
    issued: Option<u64>,
    /// End of the connection, where that is not `exp`.
    pub connection_end: Option<ConnectionEnd>,
    /// Rights that it brings, without those of grants.
    pub rights: Rights,
    /// Names of roles, for grants.
    pub roles: Vec<Box<str>>,
    /// Topics to subscribe the connection to, templates among them.
    pub join: Vec<Box<str>>,
    /// Limits lower than the server's.
    pub limits: IdentityLimits,
    /// JSON that presence shows of the subject.
    pub info: Option<Box<RawValue>>,
    /// JSON that only the server sees of it.
    pub meta: Option<Box<RawValue>>,
    /// Claims that the grants ask for, by name.
    pub kept: Vec<(Box<str>, Claim)>,
}

/// End of a connection that outlives its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// It has none.
    Never,
    /// At this second.
    At(u64),
}

impl Claims {
    /// Reads a verified payload, and asks all but the time.
    ///
    /// # Errors
    /// It is not what it has to be by RFC 7519 or by `rules`.
    pub fn read(payload: &str, rules: &Rules) -> Result<Claims, JwtError> {
        let found = read_object(payload, ClaimsVisitor { rules });
        let found = found.map_err(|problem| claims_error(&problem))?;
        found.judge(rules)
    }

    /// Asks the time, which is in milliseconds since 1970.
    ///
    /// # Errors
    /// It has expired, or is not valid yet.
    pub fn check_time(&self, rules: &Rules, now_ms: u64) -> Result<(), JwtError> {
        let latest = now_ms.saturating_add(rules.leeway_ms);
        let is_to_come = |seconds: Option<u64>| seconds.is_some_and(|it| it * 1000 > latest);
        // Seconds end with the year 9999, so that nothing overflows.
        if let Some(expires_at) = self.expires_at
            && (expires_at * 1000).saturating_add(rules.leeway_ms) <= now_ms
        {
            return Err(JwtError::Expired);
        }
        if is_to_come(self.not_before) {
            return Err(JwtError::NotBefore);
        }
        if is_to_come(self.issued) {
            return Err(JwtError::IssuedInFuture);
        }
        Ok(())
    }

    /// Bytes that it keeps, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = [&self.subject, &self.token_id].into_iter().flatten();
        let raws = [&self.info, &self.meta].into_iter().flatten();
        let lists = self.roles.iter().chain(&self.join);
        let kept = self
            .kept
            .iter()
            .map(|(name, claim)| name.len() + claim.bytes() + 32);
        size_of::<Claims>()
            + texts.map(|text| text.len()).sum::<usize>()
            + raws.map(|raw| raw.get().len()).sum::<usize>()
            + lists.map(|text| text.len() + 16).sum::<usize>()
            + kept.sum::<usize>()
    }
}

fn claims_error(problem: &dyn fmt::Display) -> JwtError {
    // Names of unknown keys are the token's text: no line of a log is to end by one.
    let told: String = problem.to_string().escape_debug().take(200).collect();
    JwtError::Claims(told.into())
}

fn refused(claim: &str, problem: &str) -> JwtError {
    claims_error(&format_args!("{claim} {problem}"))
}

/// Claims as they stand there.
#[derive(Default)]
struct Found {
    issuer: Option<Box<str>>,
    subject: Option<Box<str>>,
    /// Whether `aud` names the server.
    is_audience: Option<bool>,
    expires_at: Option<NumericDate>,
    not_before: Option<NumericDate>,
    issued_at: Option<NumericDate>,
    token_id: Option<Box<str>>,
    umbel: Option<UmbelClaims>,
    kept: Vec<(Box<str>, Box<RawValue>)>,
}

impl Found {
    fn judge(mut self, rules: &Rules) -> Result<Claims, JwtError> {
        if rules.may_be_nobody {
            self.subject = self.subject.filter(|subject| !subject.is_empty());
        }
        if rules.issuer.is_some() && rules.issuer != self.issuer {
            return Err(JwtError::Issuer);
        }
        match (rules.audience.is_empty(), self.is_audience) {
            (true, Some(_)) => return Err(JwtError::UnexpectedAudience),
            (false, None | Some(false)) => return Err(JwtError::Audience),
            (true, None) | (false, Some(true)) => {}
        }
        for required in &rules.require {
            let is_there = match required {
                RequiredClaim::Expires => self.expires_at.is_some(),
                RequiredClaim::Subject => self.subject.is_some(),
                RequiredClaim::IssuedAt => self.issued_at.is_some(),
                RequiredClaim::NotBefore => self.not_before.is_some(),
                RequiredClaim::TokenId => self.token_id.is_some(),
            };
            if !is_there {
                return Err(JwtError::Missing(required.name()));
            }
        }
        for (claim, text) in [("sub", &self.subject), ("jti", &self.token_id)] {
            if !text.as_deref().is_none_or(is_subject) {
                return Err(refused(
                    claim,
                    "must have 1 to 255 bytes, and no control character",
                ));
            }
        }
        let [issued_at, expires_at] =
            [self.issued_at, self.expires_at].map(|it| it.map(NumericDate::floor));
        if rules.life_max_ms > 0 {
            let life = expires_at
                .zip(issued_at)
                .map(|(end, start)| end.saturating_sub(start) * 1000);
            if life.is_none_or(|life| life > rules.life_max_ms) {
                return Err(JwtError::Life);
            }
        }
        let kept = self.kept.into_iter();
        let kept = kept.filter_map(|(name, raw)| Some((name, claim_of(&raw)?)));
        let mut claims = Claims {
            subject: self.subject,
            token_id: self.token_id,
            issued_at,
            expires_at,
            not_before: self.not_before.map(NumericDate::ceil),
            issued: self.issued_at.map(NumericDate::ceil),
            connection_end: None,
            rights: Rights::none(),
            roles: Vec::new(),
            join: Vec::new(),
            limits: IdentityLimits::default(),
            info: None,
            meta: None,
            kept: kept.collect(),
        };
        if let Some(umbel) = self.umbel {
            claims.take(umbel, rules)?;
        }
        Ok(claims)
    }
}

impl Claims {
    fn take(&mut self, umbel: UmbelClaims, rules: &Rules) -> Result<(), JwtError> {
        let rights = umbel.rights(rules.may_manage);
        self.rights = rights.map_err(|problem| claims_error(&problem))?;
        let handed = |name, raw: &Option<Box<RawValue>>, bytes_max| match raw {
            Some(raw) => handed_on(raw, bytes_max).map_err(|problem| refused(name, problem)),
            None => Ok(None),
        };
        self.info = handed("info", &umbel.info, INFO_BYTES_MAX)?;
        self.meta = handed("meta", &umbel.meta, META_BYTES_MAX)?;
        self.connection_end = match umbel.connection_expires_at {
            Some(_) if !rules.may_outlive => {
                let problem = "is taken only with may_outlive = true";
                return Err(refused("connection_expires_at", problem));
            }
            Some(date) if date.ceil() == 0 => Some(ConnectionEnd::Never),
            Some(date) => Some(ConnectionEnd::At(date.floor())),
            None => None,
        };
        self.roles = umbel.roles;
        self.join = umbel.join;
        self.limits = umbel.limits;
        Ok(())
    }
}

/// A claim as grants compare it. None: it is neither a string, a number nor a list of strings.
fn claim_of(raw: &RawValue) -> Option<Claim> {
    let text = raw.get();
    match text.as_bytes().first()? {
        b'"' => serde_json::from_str(text).ok().map(Claim::Text),
        b'[' => {
            let texts: Option<Vec<Box<str>>> = serde_json::from_str(text).ok();
            texts.map(|texts| Claim::List(texts.into()))
        }
        b'-' | b'0'..=b'9' => Some(Claim::Text(text.into())),
        _ => None,
    }
}

struct ClaimsVisitor<'r> {
    rules: &'r Rules,
}

/// Reads the value of a claim that may stand once. `expected`: what it has to be.
fn once<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    place: &mut Option<T>,
    map: &mut A,
    (name, expected): (&'static str, &str),
) -> Result<(), A::Error> {
    if place.is_some() {
        return Err(A::Error::custom(format_args!("{name} stands twice")));
    }
    let value = map.next_value::<T>();
    let value = value.map_err(|_| A::Error::custom(format_args!("{name} must be {expected}")))?;
    *place = Some(value);
    Ok(())
}

/// Words for what a numeric date must be.
const DATE: &str = "a number of seconds between 1970 and 9999";

impl<'de> Visitor<'de> for ClaimsVisitor<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of claims")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let rules = self.rules;
        let mut found = Found::default();
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            match name.as_ref() {
                "iss" => once(&mut found.issuer, &mut map, ("iss", "a string"))?,
                "sub" => once(&mut found.subject, &mut map, ("sub", "a string"))?,
                "jti" => once(&mut found.token_id, &mut map, ("jti", "a string"))?,
                "exp" => once(&mut found.expires_at, &mut map, ("exp", DATE))?,
                "nbf" => once(&mut found.not_before, &mut map, ("nbf", DATE))?,
                "iat" => once(&mut found.issued_at, &mut map, ("iat", DATE))?,
                "aud" if found.is_audience.is_some() => {
                    return Err(A::Error::custom("aud stands twice"));
                }
                "aud" => {
                    let seed = AudienceSeed(&rules.audience);
                    found.is_audience = Some(map.next_value_seed(seed)?);
                }
                name if rules.has_own_claims && name == &*rules.claims_at => {
                    if found.umbel.is_some() {
                        return Err(A::Error::custom("the claims of the server stand twice"));
                    }
                    let Umbel(umbel) = map.next_value::<Umbel>()?;
                    found.umbel = Some(umbel);
                }
                name if rules.kept.iter().any(|kept| **kept == *name) => {
                    if found.kept.iter().any(|(kept, _)| **kept == *name) {
                        return Err(A::Error::custom("a claim of the grants stands twice"));
                    }
                    found.kept.push((name.into(), map.next_value()?));
                }
                _ => {
                    let _: IgnoredAny = map.next_value()?;
                }
            }
        }
        Ok(found)
    }
}

/// Our claims, which are an object.
struct Umbel(UmbelClaims);

impl<'de> Deserialize<'de> for Umbel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Umbel, D::Error> {
        let claims = object(deserializer)?;
        claims
            .map(Umbel)
            .ok_or_else(|| D::Error::custom("no object"))
    }
}

/// Reads `aud`, a string or a list of strings, and compares it with the names of the server.
struct AudienceSeed<'r>(&'r [Box<str>]);

impl AudienceSeed<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|own| **own == *name)
    }
}

impl<'de> DeserializeSeed<'de> for AudienceSeed<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        let read = deserializer.deserialize_any(self);
        read.map_err(|_| D::Error::custom("aud must be a string, or a list of strings"))
    }
}

impl<'de> Visitor<'de> for AudienceSeed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, or a list of strings")
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(self.has(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let mut is_one = false;
        while let Some(Name(text)) = seq.next_element::<Name<'de>>()? {
            is_one |= self.has(&text);
        }
        Ok(is_one)
    }
}
