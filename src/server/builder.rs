//! The builder: what a server is put together from.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Assembly, Policy, Server, listening};
use crate::auth::Authority;
use crate::auth::access::Authorizer;
use crate::auth::tokens::TokenRights;
use crate::config::{Config, ConfigError, Listener};
use crate::dialect::Dialects;
use crate::error::Error;
use crate::handler::{Echo, Handler};
use crate::net::binding::InheritedSocket;
use crate::route::check_own_path;
use crate::shared::OwnEndpoint;
use crate::topic::TopicRule;

/// Puts a server together. See [`Server::builder`].
pub struct Builder {
    config: Config,
    authorizer: Option<Arc<dyn Authorizer>>,
    routes: Vec<OwnEndpoint>,
    dialects: Dialects,
    inherited: Vec<(String, InheritedSocket)>,
}

impl Builder {
    /// That of the defaults.
    pub(super) fn new() -> Builder {
        let echo = OwnEndpoint {
            path: "/echo".into(),
            handler: Arc::new(Echo),
        };
        Builder {
            config: Config::default(),
            authorizer: None,
            routes: vec![echo],
            dialects: Dialects::default(),
            inherited: Vec::new(),
        }
    }

    /// The dialects that it speaks: for tests of what a dialect may want.
    #[doc(hidden)]
    #[must_use]
    pub fn dialects(mut self, dialects: Dialects) -> Builder {
        self.dialects = dialects;
        self
    }

    /// Settings of the server. Without this call it is [`Config::default`].
    #[must_use]
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// Address to listen on; port 0 lets the system choose. It may be called again, for one more. Without a listener, of the
    /// configuration or of the builder, the server listens on 127.0.0.1:8080.
    #[must_use]
    pub fn listen(self, address: SocketAddr) -> Builder {
        self.listener(Listener::new(address))
    }

    /// Listener, besides those there are.
    ///
    /// ```
    /// # use umbel::Server;
    /// # fn main() -> Result<(), String> {
    /// let builder = Server::builder()
    ///     .listener("0.0.0.0:8080".parse()?)
    ///     .listener("unix:/run/umbel/admin.sock#admin".parse()?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn listener(mut self, listener: Listener) -> Builder {
        self.config.listeners.push(listener);
        self
    }

    /// Socket that listens already, for the listener `fd:` and this name. Several of one name are dealt to the reactors.
    /// [`bind`](Builder::bind) refuses one that no listener takes.
    #[must_use]
    pub fn inherited(mut self, name: &str, socket: impl Into<InheritedSocket>) -> Builder {
        self.inherited.push((name.to_owned(), socket.into()));
        self
    }

    /// Adds a rule for the topics of a pattern, behind earlier ones. The first rule that matches a topic counts.
    ///
    /// ```
    /// # use umbel::{Server, TopicRuleError};
    /// # fn main() -> Result<(), TopicRuleError> {
    /// let builder = Server::builder().topic_rule("orders/** history=1000 slow_consumer=latest".parse()?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn topic_rule(mut self, rule: TopicRule) -> Builder {
        self.config.topic_rules.push(rule);
        self
    }

    /// Adds an endpoint of your own at this exact path. The path begins with `/`. A later one replaces an earlier one.
    /// [`bind`](Builder::bind) refuses a path that no request could reach: one of the server's own, such as those under
    /// `/ws/`, and one that no request line holds as it is written, such as `/a b` for `/a%20b`.
    #[must_use]
    pub fn handler(mut self, path: &str, handler: impl Handler) -> Builder {
        self.routes.retain(|route| *route.path != *path);
        self.routes.push(OwnEndpoint {
            path: path.into(),
            handler: Arc::new(handler),
        });
        self
    }

    /// Sets the code that decides about rights. It replaces the configuration's `publish`, `subscribe` and `observe`. It is
    /// asked whatever `Host` a request names, unless the configuration lists `hosts`.
    #[must_use]
    pub fn authorizer(mut self, authorizer: impl Authorizer) -> Builder {
        self.authorizer = Some(Arc::new(authorizer));
        self
    }

    /// Takes the port. Connections that come from here on wait until [`Server::run`].
    ///
    /// # Errors
    /// When a setting cannot stand, the address cannot be listened on, or an event loop cannot be set up.
    pub fn bind(mut self) -> Result<Server, Error> {
        if self.authorizer.is_some() {
            self.config.leave_rights_to_code();
        }
        self.config.check()?;
        for OwnEndpoint { path, .. } in &self.routes {
            check_own_path(path, self.config.limits.target_bytes_max, &self.dialects)
                .map_err(|why| ConfigError::new("handler", path.escape_debug(), why))?;
        }
        for warning in self.config.warnings() {
            log::warn!("{warning}");
        }
        let rights = self.config.rights()?;
        let policy = Policy {
            rights: rights.clone(),
            by_code: self.authorizer.is_some(),
        };
        let authority = match self.authorizer.take() {
            Some(authorizer) => {
                let bytes_max = self.config.limits.authorizer_head_bytes_total_max;
                Authority::of_embedder(authorizer, bytes_max)
            }
            None => Authority::Tokens(TokenRights::new(&rights)),
        };
        let (listeners, acceptors) =
            listening::bind(&self.config, self.inherited, self.config.reactor_count())?;
        let parts = (rights, authority, self.routes, self.dialects);
        Assembly::new(&self.config, parts, &listeners)?.finish(policy, listeners, acceptors)
    }
}
