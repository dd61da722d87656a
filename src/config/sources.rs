//! Sources of identities: names that must not be mistaken for each other, and the grants about them.

use super::{Config, ConfigError, GRANTS_MAX, JWTS_MAX, Jwt, JwtKeys, Origins, URL_KEYS_MAX};

/// A source that names subjects.
struct SubjectSource<'c> {
    /// Setting that it stands in, and its row there.
    setting: &'static str,
    row: usize,
    name: &'c str,
    /// Whether it says what stands before its subjects.
    has_prefix: bool,
}

/// Names that sources have by themselves.
const OWN_NAMES: [&str; 4] = ["anonymous", "hook", "certificate", "signed_url"];

impl Config {
    /// Sources that name subjects. Tokens of the configuration are one together: whoever writes it knows all their subjects.
    fn subject_sources(&self) -> Vec<SubjectSource<'_>> {
        let tokens = self.tokens.iter().enumerate();
        let tokens = tokens.filter(|(_, token)| token.subject.is_some());
        let url_keys = self.url_keys.iter().enumerate();
        let url_keys = url_keys.map(|(row, key)| SubjectSource {
            setting: "url_keys",
            row,
            name: &key.kid,
            has_prefix: key.subject_prefix.is_some(),
        });
        let jwts = self.jwts.iter().enumerate();
        let jwts = jwts.map(|(row, jwt)| SubjectSource {
            setting: "jwts",
            row,
            name: &jwt.name,
            has_prefix: jwt.subject_prefix.is_some(),
        });
        let hook = self.hook.iter().map(|hook| SubjectSource {
            setting: "hook_subject_prefix",
            row: 0,
            name: "hook",
            has_prefix: hook.subject_prefix.is_some(),
        });
        let listeners = self.listeners.iter().enumerate();
        let listeners = listeners.filter(|(_, listener)| listener.clients.identity.is_some());
        let listeners = listeners.map(|(row, listener)| SubjectSource {
            setting: "listen",
            row,
            name: &listener.name,
            has_prefix: listener.clients.subject_prefix.is_some(),
        });
        tokens
            .map(|(row, token)| SubjectSource {
                setting: "tokens",
                row,
                name: &token.name,
                has_prefix: token.subject_prefix.is_some(),
            })
            .chain(jwts)
            .chain(url_keys)
            .chain(hook)
            .chain(listeners)
            .collect()
    }

    /// Whether there is more than one source that names subjects.
    fn has_many_sources(&self) -> bool {
        let sources = self.subject_sources();
        // Tokens are one together, and so are client certificates.
        let is_one = |source: &&SubjectSource<'_>| matches!(source.setting, "tokens" | "listen");
        let others = sources.iter().filter(|source| !is_one(source)).count();
        let has = |setting| usize::from(sources.iter().any(|source| source.setting == setting));
        others + has("tokens") + has("listen") > 1
    }

    /// Whether a source of identities is configured.
    pub(super) fn has_identities(&self) -> bool {
        !self.tokens.is_empty()
            || !self.grants.is_empty()
            || !self.jwts.is_empty()
            || !self.url_keys.is_empty()
            || self.hook.is_some()
            || self
                .listeners
                .iter()
                .any(|listener| listener.clients.identity.is_some())
    }

    pub(super) fn source_errors(&self) -> Vec<ConfigError> {
        let mut errors = self.grant_errors();
        if self.has_many_sources() {
            let unsaid = self.subject_sources().into_iter();
            errors.extend(unsaid.filter(|source| !source.has_prefix).map(|source| {
                let way_out = "more than one source names subjects, and the same name may be another user there: add \
                               subject_prefix = \"NAME:\", or subject_prefix = \"\" where they are the same users";
                ConfigError::new(source.setting, source.name, way_out).in_row(source.row)
            }));
        }
        errors
    }

    fn grant_errors(&self) -> Vec<ConfigError> {
        let grants = &self.grants;
        if grants.len() > GRANTS_MAX {
            let way_out = format!("there can be at most {GRANTS_MAX}");
            return vec![ConfigError::new("grants", grants.len(), way_out)];
        }
        let has_many_sources = self.has_many_sources();
        let mut errors = Vec::new();
        for (row, grant) in grants.iter().enumerate() {
            let checked = grant.check().and_then(|()| match &grant.when.source {
                Some(name) if !self.has_source(name) => {
                    let name = name.escape_debug();
                    Err(format!(
                        "there is no source `{name}`: it is the name of a [[token]] or a [[jwt]], or hook, certificate or \
                         signed_url"
                    ))
                }
                None if has_many_sources && grant.when.needs_source() => Err(
                    "more than one source names subjects, and the word of one is not that of another: add source = \
                     \"NAME\" beside role or claim"
                        .to_owned(),
                ),
                _ => Ok(()),
            });
            if let Err(way_out) = checked {
                errors.push(ConfigError::new("grants", grant, way_out).in_row(row));
            }
        }
        errors
    }

    /// Issuers of tokens that cannot stand.
    pub(super) fn jwt_errors(&self) -> Vec<ConfigError> {
        let jwts = &self.jwts;
        if jwts.len() > JWTS_MAX {
            let way_out = format!("there can be at most {JWTS_MAX}");
            return vec![ConfigError::new("jwts", jwts.len(), way_out)];
        }
        let mut errors = Vec::new();
        if !jwts.is_empty() && !cfg!(feature = "jwt") {
            let way_out =
                "this library was built without JSON web tokens: build it with the feature jwt";
            errors.push(ConfigError::new("jwts", jwts.len(), way_out));
        }
        let is_fetched = |jwt: &Jwt| matches!(jwt.keys, Some(JwtKeys::Url { .. }));
        if !cfg!(feature = "outgoing") && jwts.iter().any(is_fetched) {
            let way_out = "jwks_url: this library was built without requests of its own: build it with the feature outgoing";
            errors.push(ConfigError::new("jwts", jwts.len(), way_out));
        }
        for (row, jwt) in jwts.iter().enumerate() {
            let before = &jwts[..row];
            let is_taken = |name: &str| {
                Config::is_own_name(name)
                    || before.iter().any(|other| other.name == name)
                    || self.tokens.iter().any(|token| token.name == name)
            };
            let twice = if is_taken(&jwt.name) {
                Some("another source has the same name: choose another")
            } else if before.iter().any(|other| other.issuer == jwt.issuer) {
                Some(match jwt.issuer {
                    Some(_) => "an earlier [[jwt]] has the same issuer: make one of both",
                    None => {
                        "an earlier [[jwt]] has no issuer either, and gets all tokens: add issuer = \"…\""
                    }
                })
            } else {
                None
            };
            let problem = jwt.check().err().or(twice.map(str::to_owned));
            errors.extend(
                problem.map(|way_out| ConfigError::new("jwts", &jwt.name, way_out).in_row(row)),
            );
        }
        errors
    }

    /// Keys of signed URLs that cannot stand.
    pub(super) fn url_key_errors(&self) -> Vec<ConfigError> {
        let keys = &self.url_keys;
        if keys.len() > URL_KEYS_MAX {
            let way_out = format!("there can be at most {URL_KEYS_MAX}");
            return vec![ConfigError::new("url_keys", keys.len(), way_out)];
        }
        let mut errors = Vec::new();
        if !keys.is_empty() && !cfg!(feature = "jwt") {
            let way_out =
                "this library was built without signatures: build it with the feature jwt";
            errors.push(ConfigError::new("url_keys", keys.len(), way_out));
        }
        for (row, key) in keys.iter().enumerate() {
            let is_taken = keys[..row].iter().any(|other| other.kid == key.kid);
            let twice = is_taken.then(|| "an earlier one has the same kid".to_owned());
            let problem = key.check().err().or(twice);
            errors.extend(
                problem.map(|way_out| ConfigError::new("url_keys", key, way_out).in_row(row)),
            );
        }
        errors
    }

    /// A cookie is sent by itself, so it cannot count for pages of any origin.
    pub(super) fn cookie_error(&self) -> Option<ConfigError> {
        let name = self.cookie.as_deref()?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let way_out = if name.is_empty() || !name.bytes().all(is_name) {
            "it is no name of a cookie, such as __Host-umbel"
        } else if matches!(self.origins, Some(Origins::Any)) {
            "with origin any every page could act for its visitor: list the origins that may"
        } else {
            return None;
        };
        Some(ConfigError::new("cookie", name, way_out))
    }

    fn has_source(&self, name: &str) -> bool {
        OWN_NAMES[1..].contains(&name)
            || self.tokens.iter().any(|token| token.name == name)
            || self.jwts.iter().any(|jwt| jwt.name == name)
    }

    /// Whether a name is one that a source has by itself.
    pub(super) fn is_own_name(name: &str) -> bool {
        OWN_NAMES.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Grant, Token};

    #[test]
    fn grants_name_their_source() {
        let digest = "0".repeat(64);
        let with = |grant: &str| {
            let token = format!("bot sha256={digest} subject=bot");
            let config = Config {
                origins: Some(Origins::Any),
                tokens: vec![Token::parse(&token).expect("a token")],
                grants: vec![Grant::parse(grant).expect("a grant")],
                ..Config::default()
            };
            config.check().map_err(|error| error.to_string())
        };
        assert_eq!(with("source=bot subscribe=a"), Ok(()));
        assert_eq!(with("source=hook role=x subscribe=a"), Ok(()));
        assert_eq!(with("role=x subscribe=a"), Ok(()));
        let error = with("source=bat subscribe=a").expect_err("no such source");
        assert!(error.contains("no source `bat`"), "{error}");
    }
}
