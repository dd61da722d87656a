//! Identities by the word of the embedding program.

use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::identity::{self, IdentityLimits, IdentityParts, Source};
use super::rights::{Rights, RightsLists};

/// End of the year 9999, in seconds since 1970. A later moment is taken for it.
const SECONDS_MAX: u64 = 253_402_300_799;

/// Identity from an [`Authorizer`](super::access::Authorizer).
///
/// It goes with the verdict, [`Verdict::Allow`](super::verdict::Verdict::Allow), on the request that opens a connection, or on
/// any other. From then on the server knows the connection by it: the control API lists it by its subject, presence shows what
/// the topic's rule shows of it, `connections_per_identity_max` and the deny list count for it, and it is closed with 4401 once
/// it has expired and `token_grace_ms` are over. Who a connection is does not change: what later verdicts say of that is passed
/// over, and [`AccessRequest::identity`](super::access::AccessRequest::identity) tells the program what it said.
///
/// One with [rights](IdentityBuilder::rights) says what somebody may as well. The server judges by these, this action and all
/// later ones, and asks no more about the connection. About one without, the authorizer is asked each time.
///
/// A clone copies a pointer, so a program may keep one for each of its users.
///
/// ```
/// use std::time::{SystemTime, UNIX_EPOCH};
/// use umbel::{AccessRequest, Authorizer, Denied, Identity, Server, Verdict};
///
/// /// Knows people by a cookie.
/// struct Cookies;
///
/// impl Authorizer for Cookies {
///     fn authorize(&self, request: &AccessRequest<'_>) -> Verdict {
///         let Some(user) = request.cookie("user") else {
///             return Verdict::Deny(Denied::Unauthenticated("log in first".into()));
///         };
///         let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
///         let identity = Identity::builder(user)
///             .info(r#"{"name":"Anna"}"#)
///             .expires_at_ms(now.as_millis() as u64 + 3_600_000)
///             .subscribe(["news/**", "user/{sub}/*"])
///             .publish(["user/{sub}/out"])
///             .build();
///         match identity {
///             Ok(identity) => Verdict::Allow(identity),
///             Err(error) => Verdict::Deny(Denied::Forbidden(error.to_string().into())),
///         }
///     }
/// }
///
/// let builder = Server::builder().authorizer(Cookies);
/// ```
#[derive(Clone, Debug)]
pub struct Identity(Option<Arc<identity::Identity>>);

impl Identity {
    /// Nobody in particular. It leaves a connection that of whoever it is already.
    #[must_use]
    pub fn anonymous() -> Identity {
        Identity(None)
    }

    /// Somebody by this name: 1 to 255 bytes without control characters, the same for all connections of one person.
    pub fn builder(subject: &str) -> IdentityBuilder {
        IdentityBuilder {
            subject: subject.into(),
            token_id: None,
            issued_at: None,
            expires_at_ms: None,
            info: None,
            meta: None,
            lists: None,
            join: Vec::new(),
            limits: IdentityLimits::default(),
        }
    }

    /// That of the server's table.
    pub(crate) fn of(identity: Option<&Arc<identity::Identity>>) -> Identity {
        Identity(identity.cloned())
    }

    pub(super) fn into_known(self) -> Option<Arc<identity::Identity>> {
        self.0
    }

    /// Its subject. None: nobody in particular.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.0.as_ref()?.subject()
    }

    /// JSON that presence shows.
    #[must_use]
    pub fn info(&self) -> Option<&str> {
        self.0.as_ref()?.info()
    }

    /// JSON that only the server and the program see.
    #[must_use]
    pub fn meta(&self) -> Option<&str> {
        self.0.as_ref()?.meta()
    }
}

/// Builder of an [`Identity`].
#[derive(Clone, Debug)]
#[must_use]
pub struct IdentityBuilder {
    subject: Box<str>,
    token_id: Option<Box<str>>,
    issued_at: Option<u64>,
    expires_at_ms: Option<u64>,
    info: Option<String>,
    meta: Option<String>,
    lists: Option<RightsLists>,
    join: Vec<Box<str>>,
    limits: IdentityLimits,
}

impl IdentityBuilder {
    /// JSON that presence shows, apart from what the client says of itself. At most 1,024 bytes.
    pub fn info(mut self, json: impl Into<String>) -> IdentityBuilder {
        self.info = Some(json.into());
        self
    }

    /// JSON that only the control API and [`Identity::meta`] show. At most 4,096 bytes.
    pub fn meta(mut self, json: impl Into<String>) -> IdentityBuilder {
        self.meta = Some(json.into());
        self
    }

    /// Name of the credential behind it.
    ///
    /// For the deny list and the control API.
    pub fn token_id(mut self, token_id: &str) -> IdentityBuilder {
        self.token_id = Some(token_id.into());
        self
    }

    /// Time at which it was signed in, in seconds since 1970. A subject that is denied with `issued_before` may come back with a
    /// later one.
    pub fn issued_at(mut self, seconds: u64) -> IdentityBuilder {
        self.issued_at = Some(seconds);
        self
    }

    /// Its end, in milliseconds since 1970. Without one it does not end.
    pub fn expires_at_ms(mut self, at_ms: u64) -> IdentityBuilder {
        self.expires_at_ms = Some(at_ms);
        self
    }

    /// Topics to subscribe to, as patterns, with those of former calls. `{sub}` stands for the subject.
    pub fn subscribe<T: Into<String>>(
        mut self,
        patterns: impl IntoIterator<Item = T>,
    ) -> IdentityBuilder {
        let list = &mut self.lists.get_or_insert_default().subscribe;
        list.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Topics to publish to, as patterns, with those of former calls. `{sub}` stands for the subject.
    pub fn publish<T: Into<String>>(
        mut self,
        patterns: impl IntoIterator<Item = T>,
    ) -> IdentityBuilder {
        let list = &mut self.lists.get_or_insert_default().publish;
        list.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// All that it may, in place of what was said before. Empty lists allow nothing.
    pub fn rights(mut self, lists: RightsLists) -> IdentityBuilder {
        self.lists = Some(lists);
        self
    }

    /// Topics that its connections join.
    ///
    /// The server subscribes them, as far as its rights go. `{sub}` stands for the subject.
    pub fn join<T: AsRef<str>>(mut self, topics: impl IntoIterator<Item = T>) -> IdentityBuilder {
        self.join
            .extend(topics.into_iter().map(|topic| topic.as_ref().into()));
        self
    }

    /// Subscriptions of one of its connections: 1 at least, and no more than `subscriptions_max` of the server.
    pub fn subscriptions_max(mut self, max: u32) -> IdentityBuilder {
        self.limits.subscriptions = Some(max.max(1));
        self
    }

    /// Messages and requests of one connection in a second. As many may come at once, 1 at least; behind them the connection is not
    /// read from, and one that is over the rate for `rate_patience_ms` is closed. A slower `messages_per_connection_per_second` of
    /// the server holds too.
    pub fn messages_per_second(mut self, count: u32) -> IdentityBuilder {
        self.limits.messages_per_second = Some(count.max(1));
        self
    }

    /// The identity.
    ///
    /// # Errors
    /// The subject is none, `info` or `meta` is no JSON or too long, or a pattern is none.
    pub fn build(self) -> Result<Identity, IdentityError> {
        let json = |name: &str, text: Option<String>| {
            let parsed = text.map(RawValue::from_string).transpose();
            parsed.map_err(|error| IdentityError(format!("{name} is no JSON: {error}")))
        };
        let rights = match self.lists {
            None => Rights::none(),
            Some(lists) => {
                let rights = Rights::from_lists(&lists);
                rights.map_err(|error| IdentityError(error.to_string()))?
            }
        };
        let known = identity::Identity::new(IdentityParts {
            subject: Some(self.subject),
            token_id: self.token_id,
            issued_at: self.issued_at.map(|it| it.min(SECONDS_MAX)),
            expires_at_ms: self.expires_at_ms.map(|it| it.min(SECONDS_MAX * 1000)),
            rights,
            info: json("info", self.info)?,
            meta: json("meta", self.meta)?,
            join: self.join,
            limits: self.limits,
            ..IdentityParts::of(Source::Program)
        });
        let known = known.map_err(|error| IdentityError(error.to_string()))?;
        Ok(Identity(Some(known)))
    }
}

/// Reason that something is no [`Identity`], in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityError(String);

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for IdentityError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_stand_is_named() {
        let error = |builder: IdentityBuilder| builder.build().expect_err("none").to_string();
        assert!(error(Identity::builder("")).contains("subject"));
        assert!(error(Identity::builder("a\n")).contains("subject"));
        assert!(error(Identity::builder("a").info("{")).contains("info"));
        let long = format!("\"{}\"", "x".repeat(5000));
        assert!(error(Identity::builder("a").meta(long)).contains("meta"));
        let error = error(Identity::builder("a").subscribe(["a/**/b"]));
        assert!(error.contains("subscribe"), "{error}");
        let anna = Identity::builder("anna").info("{\"name\":\"A\"}").build();
        let anna = anna.expect("an identity");
        assert_eq!(anna.subject(), Some("anna"));
        assert_eq!(anna.info(), Some("{\"name\":\"A\"}"));
        assert_eq!(anna.meta(), None);
    }
}
