//! Issuers of JSON web tokens: `[[jwt]]` in the file, `--jwt`.

use std::fmt;
use std::path::PathBuf;

use super::named_token::texts_of;
use super::{Secret, TOKEN_NAME_BYTES_MAX, time};
pub use crate::signature::algorithm::Algorithm;
use crate::signature::algorithm::Family;
use crate::units::Unit;

/// Most issuers.
pub const JWTS_MAX: usize = 64;

/// Milliseconds by which clocks may differ: the default, and the most.
pub const LEEWAY_MS: (u64, u64) = (30_000, 600_000);

/// Bytes of a token: the default, the fewest and the most.
pub const JWT_BYTES: (u64, u64, u64) = (8192, 256, 65_536);

/// An issuer whose JSON web tokens say who somebody is.
///
/// ```
/// use umbel::config::{Algorithm, Jwt, JwtKeys};
///
/// let mut app = Jwt::new("app");
/// app.algorithms = vec![Algorithm::Hs256];
/// app.keys = Some(JwtKeys::secret("umbel-test-secret-0123456789abcdef"));
/// assert!(app.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Jwt {
    /// Name in logs, metrics and grants: 1 to 64 letters, digits and `-_.`.
    pub name: String,
    /// Algorithms that its tokens may have. The token never decides.
    pub algorithms: Vec<Algorithm>,
    /// Keys that verify its tokens.
    pub keys: Option<JwtKeys>,
    /// `iss` that its tokens have. None, for one issuer at most: those whose `iss` is absent, or no other issuer's.
    pub issuer: Option<String>,
    /// Names of this server, of which `aud` must have one. Without a name, which needs a secret, `aud` must be absent.
    pub audience: Vec<String>,
    /// `typ` that headers must have, compared without case and without `application/`.
    pub token_type: Option<String>,
    /// Milliseconds by which clocks may differ.
    pub leeway_ms: u64,
    /// Claims that must be there.
    pub require: Vec<RequiredClaim>,
    /// Name of the claim below which rights stand.
    pub claims_at: String,
    /// Bytes of a token.
    pub token_bytes_max: u64,
    /// Text before its subjects. Needed where several sources name subjects.
    pub subject_prefix: Option<String>,
    /// Milliseconds that a token may live, from `iat` to `exp`. 0: any.
    pub life_max_ms: u64,
    /// Whether tokens may give `manage` and `observe`.
    pub may_manage: bool,
    /// Whether connections may outlive their tokens, by `connection_expires_at`.
    pub may_outlive: bool,
}

/// Keys of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JwtKeys {
    /// A secret of both sides.
    Secret {
        /// The secret.
        current: Secret,
        /// The one before it, for tokens that are still about.
        previous: Option<Secret>,
        /// End of the one before it, in seconds of the Unix epoch.
        previous_until: Option<u64>,
    },
    /// A public key: the PEM text that begins with `BEGIN PUBLIC KEY`.
    PublicKey(String),
    /// A set of public keys: the JSON text of RFC 7517.
    KeySet(String),
    /// A set of public keys from a file, which is read again when it changes.
    KeySetFile {
        /// The file.
        path: PathBuf,
        /// Its text as it was read.
        text: String,
    },
    /// A set of public keys that is fetched from an address.
    Url {
        /// The address: https, or http to this machine.
        url: String,
        /// Certificates that its own is verified by, in PEM. None: those that the system trusts.
        ca_file: Option<String>,
    },
}

impl JwtKeys {
    /// A secret of both sides, without one before it.
    #[must_use]
    pub fn secret(current: &str) -> JwtKeys {
        JwtKeys::Secret {
            current: current.into(),
            previous: None,
            previous_until: None,
        }
    }
}

/// Claim that a token can be required to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequiredClaim {
    /// `exp`, its end.
    Expires,
    /// `sub`, its subject.
    Subject,
    /// `iat`, its time of issue.
    IssuedAt,
    /// `nbf`, its begin.
    NotBefore,
    /// `jti`, its own name.
    TokenId,
}

impl RequiredClaim {
    /// All of them.
    pub const ALL: [RequiredClaim; 5] = [
        RequiredClaim::Expires,
        RequiredClaim::Subject,
        RequiredClaim::IssuedAt,
        RequiredClaim::NotBefore,
        RequiredClaim::TokenId,
    ];

    /// Name in tokens.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RequiredClaim::Expires => "exp",
            RequiredClaim::Subject => "sub",
            RequiredClaim::IssuedAt => "iat",
            RequiredClaim::NotBefore => "nbf",
            RequiredClaim::TokenId => "jti",
        }
    }
}

/// An algorithm by its name, in exactly these letters.
fn algorithm(name: &str) -> Result<Algorithm, String> {
    if let Some(algorithm) = Algorithm::named(name) {
        return Ok(algorithm);
    }
    let why = match name {
        "none" | "None" | "NONE" => "a token without a signature is never taken",
        "ES512" | "ES256K" => "it is not supported: use ES256, ES384 or EdDSA",
        "Ed25519" | "Ed448" => {
            "tokens are not supported under this name of RFC 9864: use EdDSA, with a key of Ed25519"
        }
        _ => {
            let names: Vec<_> = Algorithm::ALL.iter().map(|it| it.name()).collect();
            let (name, names) = (name.escape_debug(), names.join(", "));
            return Err(format!(
                "algorithms: there is no `{name}`: there are {names}"
            ));
        }
    };
    Err(format!("algorithms: {name}: {why}"))
}

fn flag(key: &str, text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{key} is true or false")),
    }
}

fn number(key: &str, text: &str, (min, max): (u64, u64)) -> Result<u64, String> {
    let value = Unit::of_setting(key).parse(text);
    let value = value.filter(|value| (min..=max).contains(value));
    value.ok_or_else(|| format!("{key}: it must be a whole number from {min} to {max}"))
}

impl Jwt {
    /// An issuer without keys yet.
    pub fn new(name: impl Into<String>) -> Jwt {
        Jwt {
            name: name.into(),
            algorithms: Vec::new(),
            keys: None,
            issuer: None,
            audience: Vec::new(),
            token_type: None,
            leeway_ms: LEEWAY_MS.0,
            require: vec![RequiredClaim::Expires, RequiredClaim::Subject],
            claims_at: "umbel".to_owned(),
            token_bytes_max: JWT_BYTES.0,
            subject_prefix: None,
            life_max_ms: 0,
            may_manage: false,
            may_outlive: false,
        }
    }

    /// Reads the form of flags: a name, and keys of the file with their values, as `algorithms=ES256,RS256`, between blanks.
    /// Its keys can be fetched alone, by `jwks_url=`: secrets and files stand in the configuration file.
    ///
    /// # Errors
    /// Problem and remedy.
    pub fn parse(text: &str) -> Result<Jwt, String> {
        let mut words = text.split_whitespace();
        let mut jwt = Jwt::new(words.next().unwrap_or_default());
        let (mut url, mut ca_file) = (None, None);
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| {
                format!("`{word}` says nothing: write algorithms=ES256 or issuer=NAME")
            })?;
            match key {
                "jwks_url" => url = Some(value.to_owned()),
                "ca_file" => ca_file = Some(value.to_owned()),
                "secret" | "secret_previous" | "public_key_file" | "jwks_file" => {
                    return Err(format!("{key} stands in [[jwt]] of the file alone"));
                }
                _ => jwt.set(key, texts_of(value)).map_err(|(_, why)| why)?,
            }
        }
        jwt.keys = url.map(|url| JwtKeys::Url { url, ca_file });
        Ok(jwt)
    }

    /// Sets what has that name in the file, but for keys.
    ///
    /// # Errors
    /// Problem and remedy, and the number of the value that it is about.
    pub(crate) fn set<'t>(
        &mut self,
        key: &str,
        mut values: impl Iterator<Item = &'t str>,
    ) -> Result<(), (usize, String)> {
        let own = |value: &str| value.to_owned();
        match key {
            "algorithms" => {
                let read = values.enumerate();
                let read = read.map(|(at, name)| algorithm(name).map_err(|why| (at, why)));
                self.algorithms = read.collect::<Result<_, _>>()?;
                return Ok(());
            }
            "require" => {
                let named = |(at, name): (usize, &str)| {
                    let claim = RequiredClaim::ALL.into_iter().find(|it| it.name() == name);
                    claim.ok_or_else(|| {
                        let name = name.escape_debug();
                        let why =
                            format!("require: `{name}` is none of exp, sub, iat, nbf and jti");
                        (at, why)
                    })
                };
                self.require = values.enumerate().map(named).collect::<Result<_, _>>()?;
                return Ok(());
            }
            "audience" => {
                self.audience = values.map(own).collect();
                return Ok(());
            }
            _ => {}
        }
        let value = values.next().unwrap_or_default();
        let set = match key {
            "issuer" => {
                self.issuer = Some(own(value));
                Ok(())
            }
            "token_type" => {
                self.token_type = Some(own(value));
                Ok(())
            }
            "subject_prefix" => {
                self.subject_prefix = Some(own(value));
                Ok(())
            }
            "claims_at" => {
                self.claims_at = own(value);
                Ok(())
            }
            "leeway_ms" => number(key, value, (0, LEEWAY_MS.1)).map(|it| self.leeway_ms = it),
            "life_max_ms" => number(key, value, (0, LIFE_MS_MAX)).map(|it| self.life_max_ms = it),
            "token_bytes_max" => {
                let read = number(key, value, (JWT_BYTES.1, JWT_BYTES.2));
                read.map(|it| self.token_bytes_max = it)
            }
            "may_manage" => flag(key, value).map(|it| self.may_manage = it),
            "may_outlive" => flag(key, value).map(|it| self.may_outlive = it),
            _ => Err(format!("a [[jwt]] has no `{}`", key.escape_debug())),
        };
        set.map_err(|why| (0, why))
    }

    /// Whether it can stand by itself, its keys included.
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
        if self.algorithms.is_empty() {
            return Err(
                "algorithms: it says none, and a token never decides: write algorithms = [\"ES256\"]"
                    .to_owned(),
            );
        }
        let names = [
            ("issuer", self.issuer.as_deref()),
            ("token_type", self.token_type.as_deref()),
            ("claims_at", Some(self.claims_at.as_str())),
        ];
        let lists = self
            .audience
            .iter()
            .map(|name| ("audience", Some(name.as_str())));
        let mut names = names.into_iter().chain(lists);
        if let Some((key, _)) = names.find(|(_, name)| *name == Some("")) {
            return Err(format!("{key}: it is empty: leave it out, or say it"));
        }
        if ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"].contains(&&*self.claims_at) {
            return Err("claims_at: this claim has a meaning of its own (RFC 7519)".to_owned());
        }
        self.check_keys()?;
        match (&self.keys, self.audience.is_empty()) {
            (Some(JwtKeys::Secret { .. }), _) | (_, false) => Ok(()),
            _ => Err(
                "audience: it says none, and the issuer may sign tokens for others too: write audience = [\"umbel\"], or what \
                 it calls this server"
                    .to_owned(),
            ),
        }
    }

    fn check_keys(&self) -> Result<(), String> {
        let is_hmac = |algorithm: &Algorithm| algorithm.family() == Family::Hmac;
        let (has_secret, is_set) = match &self.keys {
            None => {
                return Err(
                    "it has no key: write secret, public_key_file, jwks_file or jwks_url"
                        .to_owned(),
                );
            }
            Some(JwtKeys::Secret { .. }) => (true, false),
            Some(JwtKeys::PublicKey(_)) => (false, false),
            Some(JwtKeys::KeySet(_) | JwtKeys::KeySetFile { .. } | JwtKeys::Url { .. }) => {
                (false, true)
            }
        };
        if let Some(algorithm) = self.algorithms.iter().find(|it| is_hmac(it) != has_secret) {
            return Err(match has_secret {
                true => {
                    format!("algorithms: {algorithm} needs a public key, and there is a secret")
                }
                false => {
                    format!("algorithms: {algorithm} needs a secret, and there is a public key")
                }
            });
        }
        let first = self.algorithms.first().map(|it| it.family());
        let other = self.algorithms.iter().find(|it| Some(it.family()) != first);
        if let (Some(other), false) = (other, is_set) {
            return Err(format!(
                "algorithms: one key is not for {other} and for the first: make a [[jwt]] of each, or use a set of keys"
            ));
        }
        match &self.keys {
            Some(JwtKeys::Secret {
                current,
                previous,
                previous_until,
            }) => {
                self.check_secret("secret", current)?;
                if let Some(previous) = previous {
                    self.check_secret("secret_previous", previous)?;
                }
                match (previous.is_some(), previous_until.is_some()) {
                    (true, false) => Err(
                        "secret_previous has no end: add secret_previous_until = 2027-01-01T00:00:00Z"
                            .to_owned(),
                    ),
                    (false, true) => Err("secret_previous_until is there without secret_previous".to_owned()),
                    _ => Ok(()),
                }
            }
            Some(JwtKeys::Url { url, .. }) => check_url(url),
            Some(keys) => check_public(keys, &self.algorithms),
            None => Ok(()),
        }
    }

    fn check_secret(&self, key: &str, secret: &Secret) -> Result<(), String> {
        let bytes = secret.expose().len();
        let needs = self
            .algorithms
            .iter()
            .map(|it| (it.secret_bytes_min(), *it));
        match needs.max_by_key(|(min, _)| *min) {
            Some((min, algorithm)) if bytes < min => Err(format!(
                "{key}: it has {bytes} bytes, and {algorithm} needs {min}: `openssl rand -hex {}` makes one",
                min / 2
            )),
            _ => Ok(()),
        }
    }
}

/// Milliseconds that can be set for the life of a token: ten years.
pub const LIFE_MS_MAX: u64 = 10 * 366 * 86_400_000;

/// Whether keys can be fetched from an address: by https, or from this machine.
fn check_url(url: &str) -> Result<(), String> {
    if url.contains(['{', '}']) || url.contains(char::is_whitespace) {
        return Err("jwks_url: it is taken as it stands, without variables and blanks".to_owned());
    }
    let host = url.strip_prefix("http://").map(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        match authority.strip_prefix('[') {
            Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        }
    });
    let is_loopback = |host: &str| {
        let address = host.parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    match (url.strip_prefix("https://"), host) {
        (Some(rest), _) if !rest.is_empty() => Ok(()),
        (_, Some(host)) if is_loopback(host) => Ok(()),
        _ => Err(
            "jwks_url: it must be https://…, or http to this machine: who can change the keys on their way is every user"
                .to_owned(),
        ),
    }
}

#[cfg(feature = "jwt")]
fn check_public(keys: &JwtKeys, algorithms: &[Algorithm]) -> Result<(), String> {
    use crate::signature::jwk::read_key_set;
    use crate::signature::keys::Key;
    match keys {
        JwtKeys::PublicKey(pem) => Key::from_pem(pem.as_bytes(), algorithms)
            .map(|_| ())
            .map_err(|problem| format!("public_key_file: {problem}")),
        JwtKeys::KeySet(text) | JwtKeys::KeySetFile { text, .. } => {
            let read = read_key_set(text.as_bytes(), algorithms);
            let read = read.map_err(|problem| format!("jwks_file: {problem}"))?;
            match read.keys.is_empty() {
                true => Err("jwks_file: no key in it is for one of the algorithms".to_owned()),
                false => Ok(()),
            }
        }
        JwtKeys::Secret { .. } | JwtKeys::Url { .. } => Ok(()),
    }
}

#[cfg(not(feature = "jwt"))]
fn check_public(_: &JwtKeys, _: &[Algorithm]) -> Result<(), String> {
    Ok(())
}

impl fmt::Display for Jwt {
    /// In words, without keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.algorithms.iter().map(|it| it.name()).collect();
        write!(f, "{} algorithms={}", self.name, names.join(","))?;
        let texts = [
            ("issuer", &self.issuer),
            ("token_type", &self.token_type),
            ("subject_prefix", &self.subject_prefix),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                write!(f, " {key}={text}")?;
            }
        }
        if !self.audience.is_empty() {
            write!(f, " audience={}", self.audience.join(","))?;
        }
        match &self.keys {
            None => Ok(()),
            Some(JwtKeys::Secret {
                previous_until: Some(until),
                ..
            }) => write!(
                f,
                " secret=set secret_previous_until={}",
                time::Timestamp(*until)
            ),
            Some(JwtKeys::Secret { .. }) => f.write_str(" secret=set"),
            Some(JwtKeys::PublicKey(_)) => f.write_str(" public_key_file=set"),
            Some(JwtKeys::KeySet(_) | JwtKeys::KeySetFile { .. }) => f.write_str(" jwks_file=set"),
            Some(JwtKeys::Url { url, .. }) => write!(f, " jwks_url={url}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_secret(text: &str, secret: &str) -> Result<(), String> {
        let mut jwt = Jwt::parse(text)?;
        jwt.keys = Some(JwtKeys::secret(secret));
        jwt.check()
    }

    #[test]
    fn forms_of_flags() {
        let text = "idp algorithms=RS256,ES256 issuer=https://idp.example audience=umbel,b jwks_url=https://idp.example/keys";
        let jwt = Jwt::parse(text).expect("an issuer");
        jwt.check().expect("it can stand");
        assert_eq!(jwt.to_string(), text);
        assert_eq!(jwt.leeway_ms, 30_000);
        let more = "a algorithms=EdDSA require= leeway_ms=5s token_bytes_max=4KiB claims_at=https://a.example/c life_max_ms=1h \
                    may_manage=true may_outlive=true token_type=at+jwt jwks_url=http://[::1]:1/k audience=x";
        let jwt = Jwt::parse(more).expect("an issuer");
        jwt.check().expect("it can stand");
        assert!(jwt.require.is_empty() && jwt.may_manage && jwt.may_outlive);
        assert_eq!(jwt.life_max_ms, 3_600_000);
    }

    #[test]
    fn wrong_forms_are_told() {
        let url = "jwks_url=https://a.example/k audience=x";
        for (text, told) in [
            ("algorithms=ES256", "a name has"),
            ("a URL", "algorithms = ["),
            ("a algorithms=ES512 URL", "use ES256, ES384 or EdDSA"),
            ("a algorithms=ES256K URL", "is not supported"),
            ("a algorithms=Ed25519 URL", "use EdDSA"),
            ("a algorithms=none URL", "never taken"),
            ("a algorithms=es256 URL", "there are HS256, "),
            ("a algorithms=HS256 URL", "HS256 needs a secret"),
            ("a algorithms=ES256", "has no key"),
            (
                "a algorithms=ES256 jwks_url=https://a.example/k",
                "audience = [\"umbel\"]",
            ),
            (
                "a algorithms=ES256 jwks_url=http://a.example/k",
                "must be https",
            ),
            (
                "a algorithms=ES256 jwks_url=http://127.0.0.1.evil.example/k",
                "must be https",
            ),
            (
                "a algorithms=ES256 jwks_url=https://a.example/{tenant}",
                "without variables",
            ),
            ("a algorithms=ES256 issuer= URL", "issuer: it is empty"),
            (
                "a algorithms=ES256 claims_at=sub URL",
                "a meaning of its own",
            ),
            (
                "a algorithms=ES256 require=exp,scope URL",
                "none of exp, sub",
            ),
            ("a algorithms=ES256 leeway_ms=1h URL", "from 0 to 600000"),
            ("a algorithms=ES256 secret=x", "of the file alone"),
            ("a algorithms=ES256 key=x", "no `key`"),
            ("a algorithms", "says nothing"),
        ] {
            let text = text.replace("URL", url);
            let text = text
                .strip_prefix("algorithms")
                .map_or(text.clone(), |rest| format!("a/b algorithms{rest}"));
            let error = Jwt::parse(&text).and_then(|jwt| jwt.check());
            let error = error.expect_err(&text);
            assert!(error.contains(told), "{text}: {error}");
        }
        let short = with_secret("a algorithms=HS256", "0123456789abcdef");
        let short = short.expect_err("too short");
        assert!(short.contains("16 bytes, and HS256 needs 32"), "{short}");
        assert!(short.contains("openssl rand -hex 16"), "{short}");
        let long = "0".repeat(40);
        assert_eq!(with_secret("a algorithms=HS256", &long), Ok(()));
        assert!(with_secret("a algorithms=HS256,HS384", &long).is_err());
        assert!(with_secret("a algorithms=ES256", &long).is_err());
    }
}
