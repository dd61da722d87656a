//! Signed URLs of topics: a right to one topic until a time, without a token.
//!
//! ```text
//! /sse/news/eu?umbel_exp=1800003600&umbel_sub=42&umbel_kid=k1&umbel_sig=…
//! ```
//!
//! The signature is HMAC-SHA256 over six lines: `umbel1`, the action, the canonical topic, the time, the subject and the
//! key's name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::access::{Denied, TokenFault};
use super::identity::{Identity, IdentityParts, Source, UrlKeyMark, is_subject};
use super::rights::{Rights, TopicRight};
use super::topic_signature::TopicSignature;
use crate::config::UrlKey;
use crate::http::query::Query;

/// Parameters of a signature.
const PARAMETERS: [&str; 4] = ["umbel_exp", "umbel_sub", "umbel_kid", "umbel_sig"];

/// Largest time: the end of the year 9999, in seconds of the Unix epoch.
const TIME_MAX_S: u64 = 253_402_300_799;

/// Right that a URL is signed for.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// Action on the topic.
    pub right: TopicRight,
    /// The topic, in its canonical form.
    pub topic: &'a str,
    /// End of the right, in seconds of the Unix epoch.
    pub expires_at: u64,
    /// Subject, without the key's prefix. Empty: nobody in particular.
    pub subject: &'a str,
    /// Name of the key.
    pub kid: &'a str,
}

impl Signed<'_> {
    fn text(&self) -> String {
        let Signed {
            right,
            topic,
            expires_at,
            subject,
            kid,
        } = self;
        let action = right.name();
        format!("umbel1\n{action}\n{topic}\n{expires_at}\n{subject}\n{kid}")
    }

    /// The signature by this secret, in base64url.
    pub fn sign(&self, secret: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        URL_SAFE_NO_PAD.encode(hmac::sign(&key, self.text().as_bytes()))
    }

    /// Parameters of a signed URL, to be put behind `?` or `&`.
    pub fn query(&self, secret: &[u8]) -> String {
        let mut query = format!("umbel_exp={}", self.expires_at);
        if !self.subject.is_empty() {
            query.push_str("&umbel_sub=");
            for byte in self.subject.bytes() {
                match byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                    true => query.push(char::from(byte)),
                    false => query.push_str(&format!("%{byte:02X}")),
                }
            }
        }
        let signature = self.sign(secret);
        query.push_str(&format!("&umbel_kid={}&umbel_sig={signature}", self.kid));
        query
    }
}

/// Whether a query shows a signature, or a part of one.
pub fn is_shown(query: &str) -> bool {
    let mut pairs = Query(query).pairs().flatten();
    pairs.any(|(name, _)| PARAMETERS.contains(&&*name))
}

/// Keys that sign URLs.
pub struct UrlKeys {
    keys: HashMap<Box<str>, Key>,
    age_max_s: u64,
}

struct Key {
    key: hmac::Key,
    subject_prefix: Box<str>,
    mark: UrlKeyMark,
}

impl fmt::Debug for UrlKeys {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UrlKeys").finish_non_exhaustive()
    }
}

impl UrlKeys {
    /// Keys of the configuration. `age_max_ms`: how far ahead the end of a right may be.
    pub fn new(keys: &[UrlKey], age_max_ms: u64) -> UrlKeys {
        let keys = keys.iter().map(|key| {
            let prefix = key.subject_prefix.as_deref().unwrap_or_default();
            let signing = Key {
                key: hmac::Key::new(hmac::HMAC_SHA256, key.secret.expose().as_bytes()),
                subject_prefix: prefix.into(),
                mark: UrlKeyMark::of(key.kid.as_str(), key.secret.expose()),
            };
            (key.kid.as_str().into(), signing)
        });
        UrlKeys {
            keys: keys.collect(),
            age_max_s: age_max_ms / 1000,
        }
    }

    /// Whether a key is among them.
    pub fn has(&self, mark: UrlKeyMark) -> bool {
        self.keys.values().any(|key| key.mark == mark)
    }

    /// Identity of whoever shows a signed URL. None: the query has no signature. `asked`: what the request asks for, if that is one
    /// action on one topic.
    ///
    /// # Errors
    /// The signature is not that of what is asked for, it is over, or its end is too far ahead; a parameter stands twice, or
    /// the request is about no topic.
    pub fn identify(
        &self,
        query: &str,
        asked: Option<(TopicRight, &str)>,
        now_ms: u64,
    ) -> Result<Option<Arc<Identity>>, Denied> {
        let mut values = [const { None }; PARAMETERS.len()];
        for (name, value) in PARAMETERS.into_iter().zip(&mut values) {
            let found = Query(query).get(name);
            *value = found.map_err(|refusal| Denied::Malformed(refusal.reason))?;
        }
        if values.iter().all(Option::is_none) {
            return Ok(None);
        }
        let Some((right, topic)) = asked else {
            return Err(Denied::Malformed(
                "a signed URL is for one topic, to subscribe or to publish".into(),
            ));
        };
        let invalid = Denied::Invalid(TokenFault::Invalid);
        let [expires_at, subject, kid, signature] = values;
        let (Some(expires_at), Some(kid), Some(signature)) = (expires_at, kid, signature) else {
            return Err(invalid);
        };
        let signed = Signed {
            right,
            topic,
            expires_at: seconds(&expires_at).ok_or(invalid.clone())?,
            subject: subject.as_deref().unwrap_or_default(),
            kid: &kid,
        };
        self.verify(&signed, &signature, now_ms).map(Some)
    }

    /// Identity of whoever shows a signature for a topic by a command.
    ///
    /// # Errors
    /// The signature is not that of the topic, it is over, or its end is too far ahead.
    pub fn identify_signed(
        &self,
        topic: &str,
        signature: &TopicSignature,
        now_ms: u64,
    ) -> Result<Arc<Identity>, Denied> {
        if signature.expires_at > TIME_MAX_S {
            return Err(Denied::Invalid(TokenFault::Invalid));
        }
        let signed = Signed {
            right: TopicRight::Subscribe,
            topic,
            expires_at: signature.expires_at,
            subject: &signature.subject,
            kid: &signature.kid,
        };
        self.verify(&signed, &signature.signature, now_ms)
    }

    fn verify(
        &self,
        signed: &Signed<'_>,
        signature: &str,
        now_ms: u64,
    ) -> Result<Arc<Identity>, Denied> {
        let invalid = || Denied::Invalid(TokenFault::Invalid);
        let key = self.keys.get(signed.kid).ok_or_else(invalid)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| invalid())?;
        let text = signed.text();
        hmac::verify(&key.key, text.as_bytes(), &signature).map_err(|_| invalid())?;
        let now_s = now_ms / 1000;
        if signed.expires_at <= now_s {
            return Err(Denied::Invalid(TokenFault::Expired));
        }
        if signed.expires_at - now_s > self.age_max_s {
            return Err(invalid());
        }
        let subject = match signed.subject {
            "" => None,
            subject => Some(format!("{}{subject}", key.subject_prefix)),
        };
        if subject.as_deref().is_some_and(|it| !is_subject(it)) {
            return Err(invalid());
        }
        let identity = Identity::new(IdentityParts {
            subject: subject.map(Into::into),
            expires_at_ms: Some(signed.expires_at * 1000),
            rights: Rights::of_topic(signed.right, signed.topic),
            ..IdentityParts::of(Source::SignedUrl(key.mark))
        });
        identity.map_err(|_| invalid())
    }
}

/// A time in plain digits.
fn seconds(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let seconds = is_plain.then(|| text.parse::<u64>().ok())??;
    (seconds <= TIME_MAX_S).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "umbel-test-secret-0123456789abcdef";
    const NOW_MS: u64 = 1_800_000_000_000;

    fn keys() -> UrlKeys {
        let mut key = UrlKey::new("k1", SECRET.into());
        key.subject_prefix = Some("u:".to_owned());
        UrlKeys::new(&[key], 86_400_000)
    }

    fn signed<'a>(topic: &'a str, subject: &'a str) -> Signed<'a> {
        Signed {
            right: TopicRight::Subscribe,
            topic,
            expires_at: 1_800_003_600,
            subject,
            kid: "k1",
        }
    }

    #[test]
    fn signature_of_the_vector() {
        let signature = signed("news/eu", "42").sign(SECRET.as_bytes());
        assert_eq!(signature, "rmRqnPsuvAnZL8GjGAi7Ig3A_-BIs2pGmej_Jn06VMM");
        let query = signed("news/eu", "42").query(SECRET.as_bytes());
        assert_eq!(
            query,
            format!("umbel_exp=1800003600&umbel_sub=42&umbel_kid=k1&umbel_sig={signature}")
        );
        let identity = keys().identify(&query, Some((TopicRight::Subscribe, "news/eu")), NOW_MS);
        let identity = identity.expect("good").expect("signed");
        assert_eq!(identity.subject(), Some("u:42"));
        assert_eq!(identity.expires_at_ms(), Some(1_800_003_600_000));
        let of_nobody = signed("a b&c", "").query(SECRET.as_bytes());
        let identity = keys().identify(&of_nobody, Some((TopicRight::Subscribe, "a b&c")), NOW_MS);
        assert_eq!(identity.expect("good").expect("signed").subject(), None);
        let odd = signed("a", "a+b/\u{e9}").query(SECRET.as_bytes());
        let identity = keys().identify(&odd, Some((TopicRight::Subscribe, "a")), NOW_MS);
        let subject = identity.expect("good").expect("signed");
        assert_eq!(subject.subject(), Some("u:a+b/\u{e9}"));
    }

    #[test]
    fn tampering_is_found() {
        let good = signed("news/eu", "42").query(SECRET.as_bytes());
        let asked = Some((TopicRight::Subscribe, "news/eu"));
        let identify = |query: &str, asked, now_ms| keys().identify(query, asked, now_ms);
        let invalid = Err(Denied::Invalid(TokenFault::Invalid));
        let changed = |from: &str, to: &str| {
            let changed = good.replace(from, to);
            assert_ne!(changed, good, "{from}");
            identify(&changed, asked, NOW_MS).map(|_| ())
        };
        for (from, to) in [
            ("1800003600", "1800003601"),
            ("1800003600", "01800003600"),
            ("1800003600", "+1800003600"),
            ("1800003600", "18446744073709551616"),
            ("umbel_exp=1800003600&", ""),
            ("umbel_sub=42", "umbel_sub=43"),
            ("umbel_sub=42&", ""),
            ("umbel_kid=k1", "umbel_kid=k2"),
            ("umbel_kid=k1&", ""),
            ("rmRq", "RMRq"),
            ("VMM", "VMM="),
            ("VMM", "VMN"),
            ("VMM", ""),
        ] {
            assert_eq!(changed(from, to), invalid, "{from} {to}");
        }
        for asked in [
            (TopicRight::Subscribe, "news/us"),
            (TopicRight::Publish, "news/eu"),
        ] {
            assert_eq!(identify(&good, Some(asked), NOW_MS).map(|_| ()), invalid);
        }
        for name in PARAMETERS {
            let twice = format!("{good}&{name}=x");
            let denied = identify(&twice, asked, NOW_MS);
            assert!(matches!(denied, Err(Denied::Malformed(_))), "{name}");
        }
        let denied = identify(&good, None, NOW_MS);
        assert!(matches!(denied, Err(Denied::Malformed(_))));
        let expired = identify(&good, asked, 1_800_003_600_000).map(|_| ());
        assert_eq!(expired, Err(Denied::Invalid(TokenFault::Expired)));
        // More than a day ahead.
        let early = identify(&good, asked, NOW_MS - 86_400_000).map(|_| ());
        assert_eq!(early, invalid);
        assert!(identify("a=1&token=x", asked, NOW_MS).is_ok_and(|it| it.is_none()));
    }
}
