//! Tokens judged elsewhere, or by keys that have yet to come.

use super::AccessPolicy;
use crate::auth::access::{Action, Denied, TokenFault};
use crate::auth::caller::Caller;
use crate::auth::credential::{Place, RequestFacts, Shown, shown};
use crate::auth::identity::{Nobody, TokenDigest};
use crate::auth::rights::follows_subscription;
#[cfg(feature = "jwt")]
use crate::auth::signed_url;
use crate::auth::verdict::Pending;
use crate::config::QueryToken;
use crate::http::kept::HeadView;

impl AccessPolicy {
    /// Whether a right to read follows the subscription. That may be another's to decide.
    pub(in crate::auth) fn follows_subscription(
        &self,
        caller: &Caller<'_>,
        action: Action<'_>,
    ) -> bool {
        let identity = match caller {
            Caller::Known(identity) => self.newest(identity),
            Caller::Anonymous => None,
            Caller::Unknown | Caller::Embedder(_) => return false,
        };
        let Some(identity) = identity else {
            return follows_subscription(&self.parts(None), action, &Nobody);
        };
        let parts = self.parts(Some((identity, identity.rights())));
        follows_subscription(&parts, action, &**identity)
    }

    /// Token of a request that is the hook's to judge. Of one that shows none, None within.
    ///
    /// # Errors
    /// Its credentials cannot be read, or stand where they may not.
    pub(in crate::auth) fn token_for_hook(
        &self,
        head: HeadView<'_>,
        cookie_counts: bool,
    ) -> Result<Option<Option<String>>, Denied> {
        // A signature is judged here, whoever made it.
        if self.judges_signature(head)? {
            return Ok(None);
        }
        let cookie = self.cookie.as_deref().filter(|_| cookie_counts);
        match shown(head, cookie)? {
            Shown::Nothing => Ok(Some(None)),
            Shown::Token(token, _) if !self.is_for_hook(&token) => Ok(None),
            // Nobody knows how long it lives.
            Shown::Token(_, Place::Query) if self.query_token != QueryToken::Allow => {
                Err(Denied::Invalid(TokenFault::InUrl))
            }
            Shown::Token(token, _) => Ok(Some(Some(token.into_owned()))),
        }
    }

    /// Whether a request shows a signature, for the keys of this server to judge.
    ///
    /// # Errors
    /// It does, and there are no keys: it is a credential of nobody's, and not none.
    pub(super) fn judges_signature(&self, head: HeadView<'_>) -> Result<bool, Denied> {
        #[cfg(feature = "jwt")]
        if let Some((_, query)) = head.target.split_once('?')
            && signed_url::is_shown(query)
        {
            return match self.url_keys.is_some() {
                true => Ok(true),
                false => Err(Denied::Invalid(TokenFault::Invalid)),
            };
        }
        let _ = head;
        Ok(false)
    }

    /// Wait for the keys of a token. None: it can be judged, or no keys come soon.
    pub(in crate::auth) fn wait_for_keys(&self, token: &str, now_ms: u64) -> Option<Pending> {
        #[cfg(feature = "jwt")]
        if self.fetches_keys()
            && let Some(signed) = &self.signed
            && !self.tokens.contains_key(&TokenDigest::of(token))
        {
            return signed.wait_for_keys(token, now_ms);
        }
        let _ = (token, now_ms);
        None
    }

    /// Whether a token may have to wait for keys.
    fn fetches_keys(&self) -> bool {
        #[cfg(feature = "jwt")]
        return matches!(&self.signed, Some(signed) if signed.issuers().fetches_keys());
        #[cfg(not(feature = "jwt"))]
        false
    }

    /// Wait for the keys of the token that a request shows.
    pub(in crate::auth) fn wait_for_keys_of(
        &self,
        head: HeadView<'_>,
        request: &RequestFacts<'_>,
    ) -> Option<Pending> {
        if !self.fetches_keys() {
            return None;
        }
        let cookie = self.cookie.as_deref().filter(|_| request.cookie_counts);
        match shown(head, cookie) {
            Ok(Shown::Token(token, _)) => self.wait_for_keys(&token, request.now_ms),
            _ => None,
        }
    }

    /// Whether a token is none of the configuration's, and of none of its issuers.
    pub(in crate::auth) fn is_for_hook(&self, token: &str) -> bool {
        #[cfg(feature = "jwt")]
        if self
            .signed
            .as_ref()
            .is_some_and(|signed| signed.takes(token))
        {
            return false;
        }
        !self.tokens.contains_key(&TokenDigest::of(token))
    }
}
