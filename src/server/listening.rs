//! The listeners of a server: bound, dealt to the reactors, and told of in the log.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::config::{Config, ConfigError, ListenAddress, Listeners, Proxies, Surface};
use crate::error::Error;
#[cfg(feature = "tls")]
use crate::metrics::Metrics;
use crate::net::acceptor::Acceptor;
use crate::net::binding::{Binding, Bound, InheritedSocket};
use crate::shared::Listening;
#[cfg(feature = "tls")]
use crate::tls::{HandshakeThreads, TlsContext, TlsTerms};

/// A listener of a server that has its address.
#[derive(Debug)]
pub struct BoundListener {
    name: String,
    surface: Surface,
    tls: bool,
    proxies: Option<Arc<Proxies>>,
    bound: Bound,
}

impl BoundListener {
    /// Name in the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Resources that it shows.
    pub fn surface(&self) -> Surface {
        self.surface
    }

    pub(super) fn listening(&self) -> Listening {
        Listening {
            name: self.name.as_str().into(),
            surface: self.surface,
            tls: self.tls,
            proxies: self.proxies.clone(),
            port: self.bound.address.map(|address| address.port()),
        }
    }

    /// Whether it speaks TLS.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// IP address, of `localhost` the first. None: it has none.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.bound.address
    }
}

impl fmt::Display for BoundListener {
    /// Place where it listens: `http://127.0.0.1:8080`, `https://0.0.0.0:443`, `unix:/run/umbel.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bound.place)
    }
}

/// Listening sockets, each with the number of its listener, by reactor.
pub(super) type Acceptors = Vec<Vec<(Acceptor, u8)>>;

/// Takes the addresses of all listeners, in their order. `inherited`: sockets that the process was given, by name.
pub(super) fn bind(
    config: &Config,
    mut inherited: Vec<(String, InheritedSocket)>,
    reactors: usize,
) -> Result<(Vec<BoundListener>, Acceptors), Error> {
    let binding = Binding {
        reactors,
        shares_ports: !config.portable,
        limits: &config.limits,
        ipv6_only: false,
        scheme: "http",
    };
    let mut acceptors: Acceptors = (0..reactors).map(|_| Vec::new()).collect();
    let mut listeners = Vec::new();
    for (number, (listener, surface)) in
        (0u8..).zip(Listeners::of(&config.listeners).with_surfaces())
    {
        let address = &listener.address;
        let given = take_named(&mut inherited, address);
        let binding = Binding {
            ipv6_only: listener.ipv6_only,
            scheme: if listener.tls { "https" } else { "http" },
            ..binding
        };
        let bound = binding.bind(usize::from(number), address, given);
        let wrong = |source| Error::Listen {
            address: address.clone(),
            source,
        };
        let mut bound = bound.map_err(wrong)?;
        for (reactor, acceptor) in bound.acceptors.drain(..) {
            #[cfg(feature = "tls")]
            let acceptor = match listener.tls {
                true => acceptor.with_tls(number).map_err(wrong)?,
                false => acceptor,
            };
            acceptors[reactor].push((acceptor, number));
        }
        // A port that the system chose is told in the name too.
        let name = match (listener.name == address.to_string(), bound.address) {
            (true, Some(address)) => address.to_string(),
            _ => listener.name.clone(),
        };
        listeners.push(BoundListener {
            name,
            surface,
            tls: listener.tls,
            proxies: listener.proxies.set(),
            bound,
        });
    }
    match inherited.first() {
        None => Ok((listeners, acceptors)),
        Some((name, _)) => {
            let way_out = format!(
                "a socket of this name was handed over, and no listener takes it: add fd:{name}"
            );
            Err(ConfigError::new("listen", format!("fd:{name}"), way_out).into())
        }
    }
}

/// Takes out the sockets that this address names.
fn take_named(
    inherited: &mut Vec<(String, InheritedSocket)>,
    address: &ListenAddress,
) -> Vec<InheritedSocket> {
    let ListenAddress::Inherited(name) = address else {
        return Vec::new();
    };
    let taken = inherited.extract_if(.., |(of, _)| of == name);
    taken.map(|(_, socket)| socket).collect()
}

/// The address of the first listener that has one; else port 0 of no address.
pub(super) fn first_address(listeners: &[BoundListener]) -> SocketAddr {
    let mut addresses = listeners.iter().filter_map(BoundListener::local_addr);
    addresses
        .next()
        .unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into())
}

/// Where they listen, for the line in the log.
pub(super) fn places(listeners: &[BoundListener]) -> String {
    let places: Vec<_> = listeners.iter().map(BoundListener::to_string).collect();
    places.join(", ")
}

/// Where they are reached over TCP, as a `Host` header has it.
pub(super) fn authorities(listeners: &[BoundListener]) -> String {
    let places = places(listeners);
    places.replace("https://", "").replace("http://", "")
}

/// Logs that the server is ready. Where one listener shows everything, `start` says all that there is to it; else each listener
/// has a line before that.
pub(super) fn log_ready(listeners: &[BoundListener], start: &str) {
    let version = env!("CARGO_PKG_VERSION");
    if let [one] = listeners
        && one.surface == Surface::All
    {
        let (name, tls) = (&one.name, one.tls);
        log::info!(event = "ready", version, listener:% = name, address:% = one, tls; "{start}");
        return;
    }
    for listener in listeners {
        let (name, surface) = (&listener.name, listener.surface);
        log::info!(event = "listening", listener:% = name, address:% = listener, tls = listener.tls, surface:%; "listener {name}: {listener}, surface {surface}");
    }
    log::info!(event = "ready", version; "{start}");
}

/// What the reactors need for TLS. None: no listener speaks it.
///
/// # Errors
/// A thread for handshakes cannot be started.
#[cfg(feature = "tls")]
pub(super) fn tls_context(
    terms: Option<&Arc<TlsTerms>>,
    metrics: &Metrics,
    config: &Config,
) -> Result<Option<Arc<TlsContext>>, Error> {
    let (Some(terms), Some(counts)) = (terms.cloned(), metrics.tls.clone()) else {
        return Ok(None);
    };
    let reactors = config.reactor_count();
    let threads = match config.tls_threads.unwrap_or((reactors / 4).max(1)) {
        0 => None,
        count => Some(HandshakeThreads::start(count, reactors).map_err(Error::Setup)?),
    };
    let of_clients = Arc::clone(&terms);
    let identify = move |listener, leaf: &[u8]| of_clients.identify(usize::from(listener), leaf);
    let terms_of = move |listener| terms.server_config(usize::from(listener));
    let context = TlsContext::new(Box::new(terms_of), counts, &config.limits);
    Ok(Some(Arc::new(
        context
            .with_threads(threads)
            .identifying(Box::new(identify)),
    )))
}
