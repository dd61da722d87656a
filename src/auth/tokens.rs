//! Static tokens of the configuration, and whoever shows them.

use std::sync::Arc;

use super::identity::{Identity, IdentityParts, Source, TokenDigest};
use super::rights::Rights;
use crate::config::{self, Access, Token, TokenValue};

/// Whoever shows a token of the configuration.
pub(super) fn of_token(token: &Token) -> (TokenDigest, Arc<Identity>) {
    let digest = match &token.value {
        TokenValue::Secret(secret) => TokenDigest::of(secret.expose()),
        TokenValue::Sha256(digest) => TokenDigest::from(*digest),
    };
    let rights = Rights::from_lists(&token.rights);
    let parts = IdentityParts {
        subject: token.full_subject().map(Into::into),
        expires_at_ms: token.expires_at.map(|end| end.saturating_mul(1000)),
        rights: rights.clone().unwrap_or_else(|_| Rights::none()),
        credential: Some(digest),
        ..IdentityParts::of(Source::Token((*token.name).into()))
    };
    let identity = Identity::new(parts);
    debug_assert!(
        rights.is_ok() && identity.is_ok(),
        "the configuration was checked"
    );
    let identity = identity.unwrap_or_else(|_| {
        let nobody = Identity::new(IdentityParts::of(Source::Token((*token.name).into())));
        nobody.expect("a name alone makes an identity")
    });
    (digest, identity)
}

/// Tokens that stand in the settings `publish`, `subscribe` and `observe`. One may stand in several.
pub(super) fn of_settings(rights: &config::Rights) -> Vec<Token> {
    let settings = [
        ("publish", &rights.publish),
        ("subscribe", &rights.subscribe),
        ("observe", &rights.observe),
    ];
    let mut tokens: Vec<Token> = Vec::new();
    for (name, access) in settings {
        let Access::Token(secret) = access else {
            continue;
        };
        let value = TokenValue::Secret(secret.clone());
        let known = tokens.iter().position(|token| token.value == value);
        let place = known.unwrap_or_else(|| {
            tokens.push(Token::new("", value));
            tokens.len() - 1
        });
        let token = &mut tokens[place];
        token.name = match &*token.name {
            "" => format!("for {name}"),
            names => format!("{names} and {name}"),
        };
        let all = || vec!["**".to_owned()];
        match name {
            "publish" => token.rights.publish = all(),
            "subscribe" => token.rights.subscribe = all(),
            _ => token.rights.observe = true,
        }
    }
    tokens
}
