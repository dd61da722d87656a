//! The builder: what a server is put together from.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Assembly, Policy, Server, listening};
use crate::auth::Authority;
use crate::auth::access::{Authorizer, Denied};
use crate::auth::policy::AccessPolicy;
use crate::config::{Additions, Config, ConfigError, Listener};
use crate::dialect::Dialects;
use crate::error::Error;
use crate::handler::{Echo, Handler, Hooks, Publishing, Route, SubscriptionEvent};
use crate::net::binding::InheritedSocket;
use crate::route::check_own_path;
use crate::shared::OwnEndpoint;
#[cfg(feature = "tls")]
use crate::tls::TlsTerms;
use crate::topic::TopicRule;

/// Path of the server's own handler.
const ECHO_PATH: &str = "/echo";

/// Puts a server together. See [`Server::builder`].
///
/// What several calls say is added up, in whichever order they come. Where they contradict each other, as two
/// configurations do, [`bind`](Builder::bind) refuses.
pub struct Builder {
    config: Option<Config>,
    additions: Additions,
    authorizer: Option<Arc<dyn Authorizer>>,
    routes: Vec<OwnEndpoint>,
    hooks: Hooks,
    dialects: Dialects,
    inherited: Vec<(String, InheritedSocket)>,
    /// The first setting that was given again.
    contradiction: Option<ConfigError>,
}

impl Builder {
    /// That of the defaults.
    pub(super) fn new() -> Builder {
        Builder {
            config: None,
            additions: Additions::default(),
            authorizer: None,
            routes: Vec::new(),
            hooks: Hooks::default(),
            dialects: Dialects::default(),
            inherited: Vec::new(),
            contradiction: None,
        }
    }

    /// The dialects that it speaks: for tests of what a dialect may want.
    #[doc(hidden)]
    #[must_use]
    pub fn dialects(mut self, dialects: Dialects) -> Builder {
        self.dialects = dialects;
        self
    }

    /// Settings of the server. Without this call they are those of [`Config::default`]. Its listeners and topic rules come
    /// before those of the builder, and stay beside them.
    #[must_use]
    pub fn config(mut self, config: Config) -> Builder {
        if self.config.is_some() {
            self.contradict("config", "given twice", "put all of it into one");
        }
        self.config = Some(config);
        self
    }

    /// Address to listen on; port 0 lets the system choose. It may be called again, for one more. Without a listener, of the
    /// configuration or of the builder, the server listens on 127.0.0.1:8080.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use umbel::{Config, Server};
    ///
    /// # fn main() -> Result<(), umbel::Error> {
    /// let mut config = Config::default();
    /// config.reactors = 1;
    /// let address = SocketAddr::from(([127, 0, 0, 1], 0));
    /// // In either order: the configuration takes nothing away.
    /// let server = Server::builder().listen(address).config(config).bind()?;
    /// assert_ne!(server.local_addr().port(), 8080);
    /// # Ok(())
    /// # }
    /// ```
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
        self.additions.listeners.push(listener);
        self
    }

    /// Socket that listens already, for the listener `fd:` and this name. Several of one name are dealt to the reactors.
    /// [`bind`](Builder::bind) refuses one that no listener takes.
    #[must_use]
    pub fn inherited(mut self, name: &str, socket: impl Into<InheritedSocket>) -> Builder {
        self.inherited.push((name.to_owned(), socket.into()));
        self
    }

    /// Adds a rule for the topics of a pattern. It stands behind earlier ones and those of the configuration; the first rule
    /// that matches a topic counts. A [reload](crate::Handle::reload) keeps it.
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
        self.additions.topic_rules.push(rule);
        self
    }

    /// Adds an endpoint of your own for WebSockets at a path. The path begins with `/`. One that ends with `*` stands for all
    /// that begin as it does; the exact path comes before the longest beginning. At `/echo` it replaces the server's own.
    /// [`bind`](Builder::bind) refuses a path that has a handler already, and one that no request could reach: one of the
    /// server's own, such as those under `/ws/`, and one that no request line holds as it is written, such as `/a b` for
    /// `/a%20b`. Paths under `/api/v1/` may be taken: on listeners that show endpoints and the control API, yours comes first, a
    /// `/*` too.
    #[must_use]
    pub fn handler(mut self, path: &str, handler: impl Handler) -> Builder {
        self.add_endpoint(OwnEndpoint::handler(path, handler));
        self
    }

    /// Adds an HTTP route of your own, as [`handler`](Builder::handler) does for WebSockets: `respond` answers every request to
    /// the path that asks for no upgrade. A path may have a handler and a route.
    ///
    /// The request's body is read first, up to `body_bytes_max`. The right to [open](crate::Action::Open) the path is asked
    /// for. Pages of origins that may not connect get through by GET, HEAD and OPTIONS alone, and cannot read the answer.
    #[must_use]
    pub fn route(mut self, path: &str, respond: impl Route) -> Builder {
        self.add_endpoint(OwnEndpoint::route(path, respond));
        self
    }

    fn add_endpoint(&mut self, endpoint: OwnEndpoint) {
        let is_same =
            |own: &OwnEndpoint| own.path == endpoint.path && own.kind() == endpoint.kind();
        if self.routes.iter().any(is_same) {
            let (kind, path) = (endpoint.kind(), endpoint.path.escape_debug());
            let way_out = format!("there is a {kind} at this path already; take another one");
            self.contradict(kind, path, &way_out);
        }
        self.routes.push(endpoint);
    }

    /// Sets the code that decides about rights. The configuration's `publish`, `subscribe` and `observe` decide nothing
    /// then: [`bind`](Builder::bind) warns in the log of those that are set. It is asked whatever `Host` a request names,
    /// unless the configuration lists `hosts`.
    #[must_use]
    pub fn authorizer(mut self, authorizer: impl Authorizer) -> Builder {
        if self.authorizer.is_some() {
            let way_out = "one authorizer decides; let it ask the other";
            self.contradict("authorizer", "given twice", way_out);
        }
        self.authorizer = Some(Arc::new(authorizer));
        self
    }

    /// Sets code that sees every publication before it is placed. It may [rewrite](Publishing) it or refuse it, whether it comes
    /// by a request, by a connection or by a [`Handle`](crate::Handle).
    ///
    /// It runs on the thread that publishes, so it must answer at once. Who publishes may do so: rights are asked first. A
    /// refusal is told as one of rights; a connection of one topic is closed with 1008, as it gets no answers. A publish
    /// that is sent again with its idempotency key is seen again, and is the same as what was sent before, whatever the code made of
    /// either. A panic counts as [`Denied::Failed`].
    ///
    /// ```
    /// use umbel::{Denied, Message, PublishOptions, Server};
    ///
    /// # fn main() -> Result<(), umbel::Error> {
    /// let server = Server::builder()
    ///     .listen(([127, 0, 0, 1], 0).into())
    ///     .on_publish(|publishing| match publishing.message() {
    ///         Message::Text(text) if publishing.topic().starts_with("chat/") => {
    ///             let text = text.replace("damn", "****");
    ///             publishing.set_text(text);
    ///             publishing.change_options(|options| options.event("chat"));
    ///             Ok(())
    ///         }
    ///         Message::Binary(_) => Err(Denied::Forbidden("text only".into())),
    ///         Message::Text(_) => Ok(()),
    ///     })
    ///     .bind()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn on_publish(
        mut self,
        hook: impl Fn(&mut Publishing<'_>) -> Result<(), Denied> + Send + Sync + 'static,
    ) -> Builder {
        if self.hooks.on_publish.is_some() {
            let way_out = "one hook sees publications; let it call the other";
            self.contradict("on_publish", "given twice", way_out);
        }
        self.hooks.on_publish = Some(Arc::new(hook));
        self
    }

    /// Sets code that hears when subscriptions of connections begin and end.
    ///
    /// It runs on the thread of the connection's reactor, so it must not wait. A panic is caught, logged and counted. At the
    /// end of the server, every subscription that has begun ends.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// use umbel::{Server, SubscriptionEvent};
    ///
    /// let audience = Arc::new(AtomicUsize::new(0));
    /// let count = Arc::clone(&audience);
    /// let builder = Server::builder().on_subscription(move |event| match event {
    ///     SubscriptionEvent::Began { target: "news", .. } => {
    ///         count.fetch_add(1, Ordering::Relaxed);
    ///     }
    ///     SubscriptionEvent::Ended { target: "news", .. } => {
    ///         count.fetch_sub(1, Ordering::Relaxed);
    ///     }
    ///     _ => {}
    /// });
    /// ```
    #[must_use]
    pub fn on_subscription(
        mut self,
        hook: impl Fn(&SubscriptionEvent<'_>) + Send + Sync + 'static,
    ) -> Builder {
        if self.hooks.on_subscription.is_some() {
            let way_out = "one hook hears of subscriptions; let it call the other";
            self.contradict("on_subscription", "given twice", way_out);
        }
        self.hooks.on_subscription = Some(Arc::new(hook));
        self
    }

    /// Takes the port. Connections that come from here on wait until [`Server::run`].
    ///
    /// # Errors
    /// When a setting cannot stand or contradicts another, the address cannot be listened on, or an event loop cannot be set
    /// up.
    pub fn bind(mut self) -> Result<Server, Error> {
        if let Some(contradiction) = self.contradiction.take() {
            return Err(contradiction.into());
        }
        let mut config = self.config.take().unwrap_or_default();
        config.add(&self.additions);
        if self.authorizer.is_some() {
            for setting in config.leave_rights_to_code() {
                log::warn!("{setting} is set and decides nothing: the program's authorizer does");
            }
        }
        config.check()?;
        crate::net::memory::fill(&mut config);
        for endpoint in &self.routes {
            let (kind, path) = (endpoint.kind(), &endpoint.path);
            check_own_path(path, config.limits.target_bytes_max, &self.dialects)
                .map_err(|why| ConfigError::new(kind, path.escape_debug(), why))?;
        }
        for warning in config.warnings() {
            log::warn!("{warning}");
        }
        if !self.routes.iter().any(|own| *own.path == *ECHO_PATH) {
            self.routes.push(OwnEndpoint::handler(ECHO_PATH, Echo));
        }
        let rights = config.rights()?;
        let policy = Policy {
            rights: rights.clone(),
            by_code: self.authorizer.is_some(),
        };
        let authority = match self.authorizer.take() {
            Some(authorizer) => {
                let bytes_max = config.limits.authorizer_head_bytes_total_max;
                Authority::of_embedder(authorizer, bytes_max)
            }
            None => {
                let policy = AccessPolicy::new(&rights, Arc::default());
                Authority::Policy(match config.hook {
                    Some(_) => policy.beside_hook(),
                    None => policy,
                })
            }
        };
        #[cfg(all(feature = "jwt", feature = "outgoing"))]
        if matches!(authority, Authority::Policy(_)) {
            crate::outgoing::key_sets::start(&config, &authority.counts())?;
            if config.jwks_required_at_start {
                crate::outgoing::key_sets::await_first(&config)?;
            }
        }
        #[cfg(feature = "jwt")]
        if matches!(authority, Authority::Policy(_)) {
            crate::handle::key_files::start(&config)?;
        }
        #[cfg(feature = "tls")]
        let tls = TlsTerms::open(&config)?;
        let (listeners, acceptors) =
            listening::bind(&config, self.inherited, config.reactor_count())?;
        let parts = (rights, authority, (self.routes, self.hooks), self.dialects);
        let assembly = Assembly::new(&config, parts, &listeners)?;
        #[cfg(feature = "tls")]
        tls.start(assembly.certificate_counts());
        #[cfg(feature = "tls")]
        let assembly = Assembly {
            tls: Some(tls),
            ..assembly
        };
        assembly.finish(policy, listeners, acceptors, self.additions)
    }

    /// Notes that a setting was given again. The first one is told.
    fn contradict(&mut self, setting: &str, value: impl fmt::Display, way_out: &str) {
        let error = ConfigError::new(setting, value, way_out);
        self.contradiction.get_or_insert(error);
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.routes.iter().map(|route| &route.path).collect();
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("additions", &self.additions)
            .field("handlers", &paths)
            .field("hooks", &self.hooks)
            .field("inherited", &self.inherited)
            .finish_non_exhaustive()
    }
}
