//! Identities: who somebody is, who says so, and what it may do.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::rights::Rights;
use crate::topic::template::{Values, VariableName};

/// Bytes of a subject, with its prefix.
pub const SUBJECT_BYTES_MAX: usize = 255;

/// Bytes of the `info` that presence shows.
pub const INFO_BYTES_MAX: usize = 1024;

/// Bytes of the `meta` that only the server, hooks and logs see.
pub const META_BYTES_MAX: usize = 4096;

/// Objects and lists of `info` and `meta` inside of each other.
pub const NESTING_MAX: usize = 32;

/// Source of an identity: who vouches for it. The names are those of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody: there was no credential.
    Anonymous,
    /// The configuration, by the static token of this name.
    Token(Arc<str>),
    /// A signed token of the `[[jwt]]` of this name.
    Jwt(Arc<str>),
    /// The application, by the hook.
    Hook,
    /// A client certificate.
    Certificate,
    /// A signed URL, by its key.
    SignedUrl(UrlKeyMark),
    /// The embedding program, by its authorizer.
    Program,
}

impl Source {
    /// Name of all signed URLs.
    pub const SIGNED_URL: &'static str = "signed_url";

    /// Its name in `[[grant]]`, in the log and in the deny list.
    pub fn name(&self) -> &str {
        match self {
            Source::Anonymous => "anonymous",
            Source::Token(name) | Source::Jwt(name) => name,
            Source::Hook => "hook",
            Source::Certificate => "certificate",
            Source::SignedUrl(_) => Source::SIGNED_URL,
            Source::Program => "program",
        }
    }

    /// Its name in metrics: that of a `[[jwt]]`, and one for all static tokens.
    pub fn label(&self) -> &str {
        match self {
            Source::Token(_) => "token",
            source => source.name(),
        }
    }
}

/// Value of a claim, for grants and templates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A string, or a number as it was written.
    Text(Box<str>),
    /// The strings of a list.
    List(Box<[Box<str>]>),
}

/// Limits of an identity. Each can only lower that of the server. None: that of the server holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdentityLimits {
    /// Subscriptions of one connection: 1 at least.
    pub subscriptions: Option<u32>,
    /// Messages and requests of one connection in a second, and at once: 1 at least. Reading stops behind them.
    pub messages_per_second: Option<u32>,
}

/// Parts of an identity: all that its source says.
///
/// ```ignore
/// let identity = Identity::new(IdentityParts {
///     subject: Some("42".into()),
///     expires_at_ms: Some(1_800_003_600_000),
///     rights: Rights::from_lists(&lists)?,
///     ..IdentityParts::of(Source::Hook)
/// })?;
/// ```
#[derive(Clone, Debug)]
pub struct IdentityParts {
    /// Source that vouches for it.
    pub source: Source,
    /// The subject, with the prefix of its source: 1 to 255 bytes without control characters. None: it is nobody in
    /// particular, and gets no grant of `subject = true`.
    pub subject: Option<Box<str>>,
    /// Name of the credential, for the deny list and the log: `jti`, or the SHA-256 of a certificate.
    pub token_id: Option<Box<str>>,
    /// Time of issue of the credential, in seconds of the Unix epoch.
    pub issued_at: Option<u64>,
    /// End of the identity, in milliseconds of the Unix epoch. None: never. Leeway and grace are not part of it.
    pub expires_at_ms: Option<u64>,
    /// Rights that it brings itself. Those of grants are looked up at each question.
    pub rights: Rights,
    /// Information that presence shows, as JSON of at most [`INFO_BYTES_MAX`] bytes.
    pub info: Option<Box<RawValue>>,
    /// Information that only the server, hooks and logs see. JSON of at most [`META_BYTES_MAX`] bytes.
    pub meta: Option<Box<RawValue>>,
    /// Roles, which grants may ask for.
    pub roles: Vec<Box<str>>,
    /// Claims that grants or templates may ask for, by their names. Leave out what
    /// [`wanted_claims`](super::Authority::wanted_claims) does not name: each is kept as long as the connection.
    pub claims: Vec<(Box<str>, Claim)>,
    /// Topics to which the server subscribes it, which may be templates.
    pub join: Vec<Box<str>>,
    /// Limits lower than the server's.
    pub limits: IdentityLimits,
    /// Digest of a static token, by which a reload finds it again. None for all other sources.
    pub credential: Option<TokenDigest>,
}

impl IdentityParts {
    /// Parts that say nothing but the source.
    pub fn of(source: Source) -> IdentityParts {
        IdentityParts {
            source,
            subject: None,
            token_id: None,
            issued_at: None,
            expires_at_ms: None,
            rights: Rights::none(),
            info: None,
            meta: None,
            roles: Vec::new(),
            claims: Vec::new(),
            join: Vec::new(),
            limits: IdentityLimits::default(),
            credential: None,
        }
    }
}

/// Reason that parts make no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The subject is empty, longer than [`SUBJECT_BYTES_MAX`], or has control characters.
    Subject,
    /// `info` has over [`INFO_BYTES_MAX`] bytes, or nests deeper than [`NESTING_MAX`].
    Info,
    /// `meta` has over [`META_BYTES_MAX`] bytes, or nests deeper than [`NESTING_MAX`].
    Meta,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IdentityError::Subject => "a subject has 1 to 255 bytes and no control characters",
            IdentityError::Info => "info has at most 1024 bytes, and nests at most 32 deep",
            IdentityError::Meta => "meta has at most 4096 bytes, and nests at most 32 deep",
        })
    }
}

impl std::error::Error for IdentityError {}

/// Identity of somebody by a credential that was checked. It does not change; a new credential is a new one.
#[derive(Debug)]
pub struct Identity {
    subject: Option<Box<str>>,
    source: Source,
    token_id: Option<Box<str>>,
    /// `u64::MAX`: unknown.
    issued_at: u64,
    /// `u64::MAX`: never.
    expires_at_ms: u64,
    rights: Rights,
    /// What few identities have.
    more: Option<Box<More>>,
}

// A million of them have a gibibyte together, with all that each points to.
const _: () = assert!(size_of::<Identity>() <= 96);

#[derive(Clone, Debug, Default)]
struct More {
    /// JSON. Each topic where presence shows it holds the same.
    info: Option<Arc<str>>,
    meta: Option<Box<RawValue>>,
    roles: Vec<Box<str>>,
    claims: Vec<(Box<str>, Claim)>,
    join: Vec<Box<str>>,
    limits: IdentityLimits,
    credential: Option<TokenDigest>,
}

static NOTHING_MORE: More = More {
    info: None,
    meta: None,
    roles: Vec::new(),
    claims: Vec::new(),
    join: Vec::new(),
    limits: IdentityLimits {
        subscriptions: None,
        messages_per_second: None,
    },
    credential: None,
};

impl Identity {
    /// Identity of these parts.
    ///
    /// # Errors
    /// A part is longer or deeper than it may be, or the subject has control characters.
    pub fn new(parts: IdentityParts) -> Result<Arc<Identity>, IdentityError> {
        let subject = parts.subject.as_deref();
        if !subject.is_none_or(is_subject) {
            return Err(IdentityError::Subject);
        }
        let fits = |json: &Option<Box<RawValue>>, bytes_max| {
            let text = json.as_ref().map_or("", |json| json.get());
            text.len() <= bytes_max && nesting(text) <= NESTING_MAX
        };
        if !fits(&parts.info, INFO_BYTES_MAX) {
            return Err(IdentityError::Info);
        }
        if !fits(&parts.meta, META_BYTES_MAX) {
            return Err(IdentityError::Meta);
        }
        let has_more = parts.info.is_some()
            || parts.meta.is_some()
            || parts.credential.is_some()
            || !parts.roles.is_empty()
            || !parts.claims.is_empty()
            || !parts.join.is_empty()
            || parts.limits != IdentityLimits::default();
        let more = has_more.then(|| {
            Box::new(More {
                info: parts.info.map(|json| Box::<str>::from(json).into()),
                meta: parts.meta,
                roles: parts.roles,
                claims: parts.claims,
                join: parts.join,
                limits: parts.limits,
                credential: parts.credential,
            })
        });
        Ok(Arc::new(Identity {
            subject: parts.subject,
            source: parts.source,
            token_id: parts.token_id,
            issued_at: parts.issued_at.unwrap_or(u64::MAX),
            expires_at_ms: parts.expires_at_ms.unwrap_or(u64::MAX),
            rights: parts.rights,
            more,
        }))
    }

    fn more(&self) -> &More {
        self.more.as_deref().unwrap_or(&NOTHING_MORE)
    }

    /// Limits lower than the server's.
    pub fn limits(&self) -> IdentityLimits {
        self.more().limits
    }

    /// The subject, with the prefix of its source.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Source that vouches for it.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Name of the credential, for the deny list and the log.
    pub fn token_id(&self) -> Option<&str> {
        self.token_id.as_deref()
    }

    /// Time of issue of the credential, in seconds of the Unix epoch.
    pub fn issued_at(&self) -> Option<u64> {
        (self.issued_at != u64::MAX).then_some(self.issued_at)
    }

    /// End of the identity, in milliseconds of the Unix epoch. None: never.
    pub fn expires_at_ms(&self) -> Option<u64> {
        (self.expires_at_ms != u64::MAX).then_some(self.expires_at_ms)
    }

    /// Rights that it brings itself, without those of grants.
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// Information that presence shows, as JSON.
    pub fn info(&self) -> Option<&str> {
        self.more().info.as_deref()
    }

    /// Information that presence shows, to be held without a copy.
    pub fn shared_info(&self) -> Option<Arc<str>> {
        self.more().info.clone()
    }

    /// Information that only the server, hooks and logs see, as JSON.
    pub fn meta(&self) -> Option<&str> {
        self.more().meta.as_ref().map(|json| json.get())
    }

    /// Whether it has a role.
    pub fn has_role(&self, role: &str) -> bool {
        self.more().roles.iter().any(|it| **it == *role)
    }

    /// Whether a claim is this text, or a list that has it.
    pub fn claim_has(&self, name: &str, wanted: &str) -> bool {
        self.claim(name).is_some_and(|claim| match claim {
            Claim::Text(text) => **text == *wanted,
            Claim::List(texts) => texts.iter().any(|text| **text == *wanted),
        })
    }

    fn claim(&self, name: &str) -> Option<&Claim> {
        let mut claims = self.more().claims.iter();
        let found = claims.find(|(key, _)| **key == *name);
        found.map(|(_, claim)| claim)
    }

    /// A copy with other rights of its own, and another end. It is found by its credential no more, so what the
    /// configuration says of that has no effect on it.
    #[must_use]
    pub fn with_rights(&self, rights: Rights, expires_at_ms: u64) -> Arc<Identity> {
        let more = self.more.as_ref().map(|more| {
            Box::new(More {
                credential: None,
                ..(**more).clone()
            })
        });
        Arc::new(Identity {
            subject: self.subject.clone(),
            source: self.source.clone(),
            token_id: self.token_id.clone(),
            issued_at: self.issued_at,
            expires_at_ms,
            rights,
            more,
        })
    }

    /// Topics to which the server subscribes it. They may be templates, of this identity's values.
    pub fn join(&self) -> &[Box<str>] {
        &self.more().join
    }

    /// Digest of its static token.
    pub fn credential(&self) -> Option<TokenDigest> {
        self.more().credential
    }

    /// Whether it and another are the same person: the same subject by the same source.
    pub fn is_same_subject(&self, other: &Identity) -> bool {
        self.source == other.source && self.subject == other.subject
    }
}

impl Values for Identity {
    fn value(&self, name: &VariableName) -> Option<Cow<'_, str>> {
        match name {
            VariableName::Subject => self.subject().map(Cow::Borrowed),
            VariableName::Claim(name) => match self.claim(name)? {
                Claim::Text(text) => Some(Cow::Borrowed(text)),
                Claim::List(_) => None,
            },
            VariableName::Meta(name) => member_of(self.meta()?, name),
        }
    }
}

/// Key of such hashes for a text of any length.
pub fn presence_key(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Keyed hash of a subject: 32 hexadecimal digits, the same for one subject as long as the key is.
pub fn hashed_subject(key: &[u8; 32], subject: &str) -> Box<str> {
    // The key has a fixed length and most of the digest is left out: nothing can be appended to what was hashed.
    let digest = Sha256::new()
        .chain_update(key)
        .chain_update(subject)
        .finalize();
    let digits = digest[..16].iter().map(|byte| format!("{byte:02x}"));
    digits.collect::<String>().into()
}

/// Nobody in particular, for whom no variable has a value.
pub struct Nobody;

impl Values for Nobody {
    fn value(&self, _: &VariableName) -> Option<Cow<'_, str>> {
        None
    }
}

/// Whether a text can be a subject.
pub fn is_subject(text: &str) -> bool {
    (1..=SUBJECT_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

/// A string or a number of an object, as text.
fn member_of<'a>(json: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let members: BTreeMap<Cow<'_, str>, &'a RawValue> = serde_json::from_str(json).ok()?;
    let value = members.get(name)?.get();
    match value.as_bytes().first()? {
        b'"' => {
            let text = Cow::<'a, str>::deserialize(&mut serde_json::Deserializer::from_str(value));
            text.ok()
        }
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(value)),
        _ => None,
    }
}

/// How deep objects and lists of a valid JSON text stand inside of each other.
fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut is_string, mut is_escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' => is_string = !is_string,
            b'[' | b'{' if !is_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !is_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A token without the token: its SHA-256.
///
/// Two of them can be compared as any bytes are: how long that takes tells nothing of the tokens.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// That of this token.
    pub fn of(token: &str) -> TokenDigest {
        TokenDigest(Sha256::digest(token).into())
    }
}

impl From<[u8; 32]> for TokenDigest {
    fn from(digest: [u8; 32]) -> TokenDigest {
        TokenDigest(digest)
    }
}

impl TokenDigest {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Mark of a key of signed URLs. A reload finds the key again by it: keys that differ in their name or their secret have
/// different ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UrlKeyMark(u64);

impl UrlKeyMark {
    /// That of the key of this name with this secret.
    pub fn of(kid: &str, secret: &str) -> UrlKeyMark {
        let digest = Sha256::new_with_prefix(kid)
            .chain_update([0])
            .chain_update(secret);
        let digest: [u8; 32] = digest.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        UrlKeyMark(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl fmt::Debug for UrlKeyMark {
    /// Without what it was made of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("set")
    }
}

impl fmt::Debug for TokenDigest {
    /// The first bytes, by which a log tells tokens apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

mod bytes;

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Option<Box<RawValue>> {
        Some(RawValue::from_string(text.to_owned()).expect("JSON"))
    }

    #[test]
    fn digests_are_those_of_sha_256_and_name_tokens_in_a_log() {
        // FIPS 180-4, the example of one block.
        let digest = TokenDigest::of("abc");
        assert_eq!(format!("{digest:?}"), "ba7816bf");
        assert_eq!(digest.0[31], 0xad);
        assert_ne!(digest, TokenDigest::of("abd"));
    }

    #[test]
    fn parts_that_cannot_stand() {
        let with = |change: fn(&mut IdentityParts)| {
            let mut parts = IdentityParts::of(Source::Hook);
            change(&mut parts);
            Identity::new(parts).map(|_| ())
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|it| it.subject = Some("x".repeat(255).into())), Ok(()));
        for change in [
            (|it| it.subject = Some("".into())) as fn(&mut IdentityParts),
            |it| it.subject = Some("x".repeat(256).into()),
            |it| it.subject = Some("a\nb".into()),
            |it| it.subject = Some("\0".into()),
        ] {
            assert_eq!(with(change), Err(IdentityError::Subject));
        }
        let long = |it: &mut IdentityParts| it.info = json(&format!("\"{}\"", "x".repeat(1023)));
        assert_eq!(with(long), Err(IdentityError::Info));
        let deep = |it: &mut IdentityParts| {
            it.meta = json(&format!("{}{}", "[".repeat(33), "]".repeat(33)));
        };
        assert_eq!(with(deep), Err(IdentityError::Meta));
        let flat = |it: &mut IdentityParts| it.meta = json(&format!("\"{}\\\"\"", "[".repeat(99)));
        assert_eq!(with(flat), Ok(()));
    }

    #[test]
    fn variables_have_values() {
        let identity = Identity::new(IdentityParts {
            subject: Some("42".into()),
            meta: json(r#"{"tenant":"t7","seat":12,"esc":"\u0041","list":["x"],"no":null}"#),
            claims: vec![
                ("org".into(), Claim::Text("o1".into())),
                (
                    "groups".into(),
                    Claim::List(["traders".into(), "all".into()].into()),
                ),
            ],
            roles: vec!["trader".into()],
            ..IdentityParts::of(Source::Jwt("app".into()))
        });
        let identity = identity.expect("an identity");
        let meta = |name: &str| identity.value(&VariableName::Meta(name.into()));
        assert_eq!(meta("tenant").as_deref(), Some("t7"));
        assert_eq!(meta("seat").as_deref(), Some("12"));
        assert_eq!(meta("esc").as_deref(), Some("A"));
        for name in ["list", "no", "none"] {
            assert_eq!(meta(name), None, "{name}");
        }
        let claim = |name: &str| identity.value(&VariableName::Claim(name.into()));
        assert_eq!(claim("org").as_deref(), Some("o1"));
        assert_eq!(claim("groups"), None);
        assert!(identity.claim_has("groups", "traders") && identity.claim_has("org", "o1"));
        assert!(!identity.claim_has("groups", "o1") && !identity.claim_has("none", ""));
        assert!(identity.has_role("trader") && !identity.has_role("trade"));
        assert_eq!(identity.source().name(), "app");
        assert_eq!(
            (identity.issued_at(), identity.expires_at_ms()),
            (None, None)
        );
    }
}
