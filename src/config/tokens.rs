//! Tokens of the configuration: those that can be guessed are for this machine alone.

use std::collections::HashSet;

use super::{Access, Config, ConfigError, Listeners, Secret, TOKENS_MAX, TokenValue};

/// Fewest bytes of a token that other machines can try.
const TOKEN_BYTES_MIN: usize = 16;

/// A warning, with the setting that it is about and the row there.
type Warning = (Option<(&'static str, usize)>, String);

/// Bytes of a key for the hashes of subjects, at least.
const PRESENCE_KEY_BYTES_MIN: usize = 16;

impl Config {
    /// The tokens, each with the right that it gives.
    fn tokens(&self) -> impl Iterator<Item = (&'static str, &Secret)> {
        let rights = [
            ("publish", &self.publish),
            ("subscribe", &self.subscribe),
            ("observe", &self.observe),
        ];
        rights
            .into_iter()
            .filter_map(|(name, access)| match access {
                Some(Access::Token(token)) => Some((name, token)),
                _ => None,
            })
            .chain(self.tokens.iter().filter_map(|token| match &token.value {
                TokenValue::Secret(secret) => Some(("tokens", secret)),
                TokenValue::Sha256(_) => None,
            }))
    }

    pub(super) fn token_errors(&self) -> impl Iterator<Item = ConfigError> {
        let are_loopback = Listeners::of(&self.listeners).are_loopback();
        self.tokens().filter_map(move |(name, token)| {
            let way_out = match token.expose() {
                "" => Some("the token is empty; give one or choose nobody".to_owned()),
                _ if are_loopback => None,
                token => weakness(token),
            };
            way_out.map(|way_out| ConfigError::new(name, "token", way_out))
        })
    }

    /// A key of the hashes of subjects that cannot stand.
    pub(super) fn presence_key_error(&self) -> Option<ConfigError> {
        let key = self.presence_key.as_ref()?.expose();
        let way_out = format!("must have {PRESENCE_KEY_BYTES_MIN} bytes at least, by chance");
        (key.len() < PRESENCE_KEY_BYTES_MIN)
            .then(|| ConfigError::new("presence_key", "(secret)", way_out))
    }

    /// Named tokens that cannot stand.
    pub(super) fn named_token_errors(&self) -> Vec<ConfigError> {
        let tokens = &self.tokens;
        if tokens.len() > TOKENS_MAX {
            let way_out = format!("there can be at most {TOKENS_MAX}");
            return vec![ConfigError::new("tokens", tokens.len(), way_out)];
        }
        let (mut names, mut errors) = (HashSet::new(), Vec::new());
        for (row, token) in tokens.iter().enumerate() {
            let twice = match tokens[..row].iter().any(|other| other.value == token.value) {
                true => {
                    Some("an earlier one is the same token; give it the rights of both".to_owned())
                }
                false if names.insert(&token.name) => None,
                false => Some("an earlier one has the same name".to_owned()),
            };
            let own_name = Config::is_own_name(&token.name)
                .then(|| "grants know another source by this name: take another".to_owned());
            let problem = token.check().err().or(twice).or(own_name);
            errors.extend(
                problem.map(|way_out| ConfigError::new("tokens", &token.name, way_out).in_row(row)),
            );
        }
        errors
    }

    /// What is an error on other addresses.
    pub(super) fn token_warnings(&self) -> Vec<Warning> {
        let weak = self.tokens().filter_map(|(name, token)| {
            let weakness = weakness(token.expose()).or_else(|| unfit(token.expose()))?;
            Some((None, format!("{name} = token: {weakness}")))
        });
        weak.collect()
    }
}

/// Why a token gets nobody in by `Authorization`. It can still stand in a URL, a subprotocol or a frame.
fn unfit(token: &str) -> Option<String> {
    let is_fit = |byte: u8| byte.is_ascii_graphic() && byte != b',';
    (!token.bytes().all(is_fit)).then(|| {
        "the token holds a blank, a comma, a control character or one that is not ASCII, and no Authorization header \
         can show it"
            .to_owned()
    })
}

/// What is wrong with a token that is not empty, and the remedy.
fn weakness(token: &str) -> Option<String> {
    let problem = match token.trim() {
        "" => "the token is blank, and no header can show it".to_owned(),
        trimmed if trimmed != token => {
            "the token begins or ends with a blank, and no header can show that".to_owned()
        }
        _ if token.len() < TOKEN_BYTES_MIN => {
            format!("the token has {} bytes and can be guessed", token.len())
        }
        _ => return None,
    };
    Some(format!(
        "{problem}; a good one has at least {TOKEN_BYTES_MIN} bytes, as `openssl rand -hex 16` makes it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origins;

    fn with(listener: &str, token: &str) -> Config {
        Config {
            listeners: vec![listener.parse().expect("a listener")],
            publish: Some(Access::Anyone),
            subscribe: Some(Access::Anyone),
            observe: Some(Access::Token(token.into())),
            origins: Some(Origins::Any),
            ..Config::default()
        }
    }

    #[test]
    fn weak_token_is_for_this_machine() {
        for (token, told) in [
            ("0123456789abcde", "has 15 bytes and can be guessed"),
            ("                ", "is blank"),
            ("\t", "is blank"),
            ("0123456789abcdef\n", "ends with a blank"),
        ] {
            for elsewhere in ["0.0.0.0:1", "unix:/a", "fd:a", "[::]:1"] {
                let error = with(elsewhere, token).check().expect_err(token);
                assert_eq!(error.setting(), "observe");
                let error = error.to_string();
                assert!(
                    error.contains(told) && error.contains("16 bytes"),
                    "{error}"
                );
            }
            for here in ["127.0.0.1:1", "localhost:1", "[::1]:1"] {
                let config = with(here, token);
                config.check().expect("it is for this machine");
                let warnings = config.warnings();
                assert!(
                    warnings.len() == 1 && warnings[0].contains(told),
                    "{warnings:?}"
                );
            }
        }
        for unfit in [
            "0123456789 abcdef",
            "0123456789,abcdef",
            "0123456789\nabcdef",
            "012345678\u{e4}abcdef",
        ] {
            let config = with("0.0.0.0:1", unfit);
            config
                .check()
                .expect("other places than a header can show it");
            let warnings = config.warnings();
            assert!(
                warnings.len() == 1 && warnings[0].contains("no Authorization header"),
                "{warnings:?}"
            );
        }
        let good = with("0.0.0.0:1", "0123456789abcdef");
        good.check().expect("it is long enough");
        assert!(good.warnings().is_empty());
        assert!(with("127.0.0.1:1", "").check().is_err());
    }
}
