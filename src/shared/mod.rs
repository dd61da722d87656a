//! State that all reactors share, and what reaches them besides mail.

pub mod brought;
pub mod control;
pub mod deadlines;
pub mod jobs;
pub mod leases;
pub mod lifecycle;
pub mod limits;
pub mod lines;
pub mod live;
pub mod paces;
pub mod receipts;
pub mod replays;
pub mod terms;
pub mod timers;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use crate::auth::Authority;
use crate::auth::failures::Failures;
use crate::auth::hook::Hook;
use crate::auth::shares::Shares;
use crate::auth::waiting::Waiting;
use crate::config::{Hosts, Origins, Proxies, Surface};
use crate::connection::Settings;
use crate::handler::{Handler, Hooks, Route};
use crate::inside::Inside;
use crate::metrics::Metrics;
use crate::rate::gate::Gate;
use crate::worker::Shards;
use brought::CommandQueues;
use control::ControlState;
pub use lifecycle::{Lifecycle, LifecycleCell};
use lines::LineBounds;
use live::LiveCell;

/// An own endpoint.
#[derive(Clone)]
pub struct OwnEndpoint {
    /// The path; one that ends with `*` stands for all that begin as it does.
    pub path: Box<str>,
    /// Code of the endpoint.
    pub code: OwnCode,
}

/// Code of an own endpoint.
#[derive(Clone)]
pub enum OwnCode {
    /// For WebSockets.
    Handler(Arc<dyn Handler>),
    /// For other requests.
    Route(Arc<dyn Route>),
}

impl OwnEndpoint {
    /// One for WebSockets.
    pub fn handler(path: &str, handler: impl Handler) -> OwnEndpoint {
        OwnEndpoint {
            path: path.into(),
            code: OwnCode::Handler(Arc::new(handler)),
        }
    }

    /// One for other requests.
    pub fn route(path: &str, route: impl Route) -> OwnEndpoint {
        OwnEndpoint {
            path: path.into(),
            code: OwnCode::Route(Arc::new(route)),
        }
    }

    /// Its name in errors.
    pub fn kind(&self) -> &'static str {
        match self.code {
            OwnCode::Handler(_) => "handler",
            OwnCode::Route(_) => "route",
        }
    }
}

/// The part of a listener that concerns requests.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Name in the log.
    pub name: Box<str>,
    /// Surface that it shows.
    pub surface: Surface,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Proxies in front of it. None: there are none.
    pub proxies: Option<Arc<Proxies>>,
    /// Its TCP port. None: it has none.
    pub port: Option<u16>,
}

/// Tells which listeners stay to the end, for whoever probes: those for operators, or all where there are none.
pub fn keeps_probes(listeners: &[Listening]) -> impl Fn(u8) -> bool {
    let is_admin = |listening: &Listening| listening.surface == Surface::Admin;
    let has_admin = listeners.iter().any(is_admin);
    let kept: Vec<bool> = listeners
        .iter()
        .map(|listening| !has_admin || is_admin(listening))
        .collect();
    move |number| kept.get(usize::from(number)) == Some(&true)
}

/// Tables about callers, of all reactors together. They are asked when somebody comes, shows a credential or goes.
#[derive(Debug, Default)]
pub struct Callers {
    /// Connections that have yet to show a credential.
    pub waiting: Mutex<Waiting>,
    /// Networks that have shown wrong credentials.
    pub failures: Mutex<Failures>,
    /// There are such, perhaps.
    pub has_failures: AtomicBool,
    /// Addresses that connections came from, where they are bounded.
    pub gate: Gate,
    /// Connections of each subject, where they are bounded.
    pub shares: Mutex<Shares>,
    /// Bounds on lines of the log.
    pub lines: LineBounds,
    /// The log has the warning about a proxy that is not trusted.
    pub is_proxy_told: AtomicBool,
}

/// State that all reactors share.
#[derive(Clone)]
pub struct Shared {
    /// The limits.
    pub settings: Arc<Settings>,
    /// The hub.
    pub shards: Arc<Shards>,
    /// Authority over rights.
    pub authority: Arc<Authority>,
    /// Web origins that may connect.
    pub origins: Arc<Origins>,
    /// Hosts that requests may be sent to.
    pub hosts: Arc<Hosts>,
    /// Subprotocols that `/ws/{topic}` agrees to.
    pub subprotocols: Arc<[Box<str>]>,
    /// Own endpoints.
    pub routes: Arc<[OwnEndpoint]>,
    /// Subscriptions of the program.
    pub inside: Arc<Inside>,
    /// The application that is asked who somebody is, and what it may.
    pub hook: Option<Arc<dyn Hook>>,
    /// The program's hooks.
    pub hooks: Hooks,
    /// The listeners, each at its number.
    pub listeners: Arc<[Listening]>,
    /// Metrics of all threads.
    pub metrics: Arc<Metrics>,
    /// Commands for connections that others than their peers bring.
    pub commands: Arc<CommandQueues>,
    /// State of the server.
    pub lifecycle: Arc<LifecycleCell>,
    /// The newest settings.
    pub live: Arc<LiveCell>,
    /// Tables about callers.
    pub callers: Arc<Callers>,
    /// State of the control API.
    pub control: Arc<ControlState>,
}

impl Shared {
    /// Proxies in front of a listener.
    pub fn proxies(&self, listener: u8) -> Option<&Proxies> {
        self.listeners
            .get(usize::from(listener))?
            .proxies
            .as_deref()
    }

    /// Whether connections of a listener begin with a PROXY header.
    pub fn has_proxy_headers(&self, listener: u8) -> bool {
        self.proxies(listener)
            .is_some_and(|proxies| proxies.protocol)
    }

    /// Whether the listener of a number speaks TLS.
    pub fn speaks_tls(&self, listener: u8) -> bool {
        let listening = self.listeners.get(usize::from(listener));
        listening.is_some_and(|listening| listening.tls)
    }

    /// Name of the listener of a number.
    pub fn listener_name(&self, listener: u8) -> &str {
        let listening = self.listeners.get(usize::from(listener));
        listening.map_or("", |listening| &listening.name)
    }
}
