//! The composition root: builds the parts, spawns the threads, and ends them.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::auth::Authority;
use crate::auth::identity::presence_key;
use crate::config::{Additions, Config, ConfigError, Limits, Rights, Token};
use crate::connection::Settings;
use crate::dialect::Dialects;
use crate::error::Error;
use crate::handle::{Handle, Running};
use crate::handler::Hooks;
use crate::hub::ReactorId;
use crate::inside::Inside;
use crate::mailbox::{Inbox, Mailbox, mailbox};
use crate::metrics::Metrics;
#[cfg(feature = "tls")]
use crate::metrics::certificates::CertificateCounts;
use crate::net;
use crate::net::balance::{Balance, Wake};
use crate::net::clock::ProcessClock;
use crate::net::mio_driver::{MioDriver, Selector};
use crate::reactor::{Context, Reactor};
use crate::shared::brought::CommandQueues;
use crate::shared::control::{ControlState, fixed_denials};
use crate::shared::lifecycle::Drained;
use crate::shared::{LifecycleCell, OwnEndpoint, Shared};
#[cfg(feature = "tls")]
use crate::tls::TlsTerms;
use crate::worker::{Outlet, QueueLimits, Shards, WorkQueue, shard_count};

mod builder;
mod listening;
mod memory;
mod outside;
mod running;

pub use builder::Builder;
use listening::Acceptors;
pub use listening::BoundListener;
pub use running::RunningServer;

/// Sockets that one reactor may have been handed and not yet taken.
const HANDOVER_MAX: usize = 256;

/// How often the end of all threads is looked after while they end.
const SUPERVISE_INTERVAL: Duration = Duration::from_millis(100);

/// The parts of a server while it is put together.
struct Assembly<'a> {
    config: &'a Config,
    clock: ProcessClock,
    selectors: Vec<Selector>,
    inboxes: Vec<Inbox>,
    mailboxes: Vec<Arc<Mailbox>>,
    work: WorkQueue,
    shared: Shared,
    /// TLS of the listeners.
    #[cfg(feature = "tls")]
    tls: Option<Arc<TlsTerms>>,
}

/// What the builder was given, checked.
type Parts = (Rights, Authority, (Vec<OwnEndpoint>, Hooks), Dialects);

fn names_of(texts: &[String]) -> Arc<[Box<str>]> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

impl<'a> Assembly<'a> {
    fn new(
        config: &'a Config,
        (rights, authority, (routes, hooks), dialects): Parts,
        listeners: &[BoundListener],
    ) -> Result<Assembly<'a>, Error> {
        let (limits, reactors) = (&config.limits, config.reactor_count());
        let selectors: Vec<_> = (0..reactors)
            .map(|_| Selector::new())
            .collect::<Result<_, _>>()
            .map_err(Error::Setup)?;
        let (messages_max, bytes_max) = (limits.mailbox_messages_max, limits.mailbox_bytes_max);
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) = (0u16..)
            .map(ReactorId)
            .zip(&selectors)
            .map(|(id, selector)| mailbox(id, messages_max, bytes_max, selector.wake()))
            .unzip();
        let outlets = mailboxes
            .iter()
            .map(|mailbox| Box::new(Arc::clone(mailbox)) as Box<dyn Outlet>);
        let shards = shard_count(reactors, config.worker_count());
        let epochs = (0..shards).map(|_| entropy());
        let epochs = epochs.collect::<Result<Vec<_>, _>>()?;
        let queue = QueueLimits {
            commands_max: limits.commands_max,
            bytes_max: limits.command_bytes_max,
        };
        let clock = ProcessClock::begin();
        let settings = settings_of(config, dialects, clock)?;
        let (shards, work) = Shards::new(
            &epochs,
            outlets.collect(),
            queue,
            &settings.shard_settings(),
            config.inline_shards,
        );
        let (inside, shards) = Inside::beside(shards);
        let metrics = metrics_of(reactors, &settings, &authority, listeners)
            .with_topics(&config.metrics_topics);
        let (metrics, hook) = outside::hook(config, metrics)?;
        let shared = Shared {
            settings: Arc::new(settings),
            shards,
            inside,
            authority: Arc::new(authority),
            origins: Arc::new(rights.origins),
            hosts: Arc::new(rights.hosts),
            subprotocols: names_of(&config.subprotocols),
            routes: routes.into(),
            hook,
            hooks,
            listeners: listeners.iter().map(BoundListener::listening).collect(),
            metrics: Arc::new(metrics),
            commands: Arc::new(CommandQueues::new(reactors, limits)),
            lifecycle: Arc::new(LifecycleCell::default()),
            live: Arc::default(),
            callers: Arc::default(),
            control: Arc::new(control_state(config)?),
        };
        Ok(Assembly {
            config,
            clock,
            selectors,
            inboxes,
            mailboxes,
            work,
            shared,
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// Counts of certificates in the metrics.
    #[cfg(feature = "tls")]
    fn certificate_counts(&self) -> Arc<CertificateCounts> {
        Arc::clone(&self.shared.metrics.certificates)
    }

    fn finish(
        self,
        policy: Policy,
        listeners: Vec<BoundListener>,
        acceptors: Acceptors,
        additions: Additions,
    ) -> Result<Server, Error> {
        let Assembly {
            config,
            clock,
            selectors,
            inboxes,
            mailboxes,
            work,
            shared,
            #[cfg(feature = "tls")]
            tls,
        } = self;
        #[cfg(feature = "tls")]
        let tls_context = listening::tls_context(tls.as_ref(), &shared.metrics, config)?;
        let reactors = selectors.len();
        let (handover, handed): (Vec<_>, Vec<_>) =
            (0..reactors).map(|_| bounded(HANDOVER_MAX)).unzip();
        let balance = Arc::new(Balance::new(handover, wakes_of(&mailboxes)));
        let connections_max = net::descriptors::connections_max(config, reactors);
        show_limits(&shared, &config.limits, connections_max);
        let parts = selectors
            .into_iter()
            .zip(inboxes)
            .zip(acceptors.into_iter().zip(handed));
        let context = Context {
            shared: shared.clone(),
            reactors,
            connections_max,
        };
        let reactors = (0u16..)
            .zip(parts)
            .map(|(number, ((selector, inbox), (acceptors, handed)))| {
                let id = ReactorId(number);
                let balance = Arc::clone(&balance);
                let listeners =
                    net::listener::Listeners::new(acceptors, handed, balance, id, &config.limits);
                let driver = MioDriver::new(selector, listeners, id, &context.shared, clock)
                    .with_ring(config.io_uring && !config.portable);
                #[cfg(feature = "tls")]
                let driver = driver.with_tls(tls_context.clone());
                Reactor::new(driver, inbox, id, context.clone())
            })
            .collect();
        let running = Running::new(config, additions);
        #[cfg(feature = "tls")]
        let running = running.with_tls(tls);
        let handle = Handle::new(shared, mailboxes, clock, running);
        Ok(Server {
            ended: Ended(handle.clone()),
            handle,
            reactors,
            work,
            workers: config.worker_count(),
            listeners: listeners.into(),
            connections_max,
            topic_rules: config.topic_rules.len(),
            policy,
        })
    }
}

/// Shows the limits in force, with the connections that descriptors allow.
fn show_limits(shared: &Shared, limits: &Limits, connections_max: usize) {
    let mut limits = limits.clone();
    limits.connections_max = connections_max;
    shared.metrics.show_limits(&limits);
}

/// State of the control API. What is kept of it has to be readable: else whoever was shut out would be let in.
fn control_state(config: &Config) -> Result<ControlState, Error> {
    let directory = config.state_directory.as_deref();
    let may_deny = |token: &Token| !token.rights.manage.is_empty();
    if directory.is_none() && config.tokens.iter().any(may_deny) {
        log::warn!("state_directory is not set: the deny list ends with the process");
    }
    let state = ControlState::open(directory, fixed_denials(config)?);
    state.map_err(|error| {
        let path = directory.map_or_else(String::new, |it| it.display().to_string());
        ConfigError::new("state_directory", path, error.to_string()).into()
    })
}

fn settings_of(
    config: &Config,
    dialects: Dialects,
    clock: ProcessClock,
) -> Result<Settings, Error> {
    let mut settings = Settings::of(config, dialects);
    settings.began_us = clock.began_us();
    if let Some(key) = &config.presence_key {
        settings.presence_key = presence_key(key.expose());
        return Ok(settings);
    }
    let filled = getrandom::fill(&mut settings.presence_key);
    filled.map_err(|error| Error::Setup(io::Error::other(error)))?;
    Ok(settings)
}

fn wakes_of(mailboxes: &[Arc<Mailbox>]) -> Vec<Wake> {
    let wakes = mailboxes.iter().map(|mailbox| {
        let mailbox = Arc::clone(mailbox);
        Box::new(move || mailbox.wake()) as Wake
    });
    wakes.collect()
}

fn metrics_of(
    reactors: usize,
    settings: &Settings,
    authority: &Authority,
    listeners: &[BoundListener],
) -> Metrics {
    let metrics = Metrics::new(reactors, &settings.dialects.labels()).of(authority.counts());
    match listeners.iter().any(BoundListener::tls) {
        #[cfg(feature = "tls")]
        true => metrics.with_tls(),
        _ => metrics,
    }
}

fn entropy() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| Error::Setup(io::Error::other(error)))
}

/// Who may do what, for the line in the log.
#[derive(Clone, Debug)]
struct Policy {
    rights: Rights,
    by_code: bool,
}

/// Ends the server for its handles when it is dropped.
struct Ended(Handle);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A server that has its port. [`run`](Server::run) serves.
pub struct Server {
    ended: Ended,
    handle: Handle,
    reactors: Vec<Reactor<MioDriver>>,
    work: WorkQueue,
    workers: usize,
    listeners: Arc<[BoundListener]>,
    connections_max: usize,
    topic_rules: usize,
    policy: Policy,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listeners", &self.listeners)
            .field("connections_max", &self.connections_max)
            .finish_non_exhaustive()
    }
}

/// One of the server's threads, by its kind and number.
#[derive(Clone, Copy, Debug)]
enum Thread {
    Reactor(usize),
    Worker(usize),
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thread::Reactor(number) => write!(f, "umbel-reactor-{number}"),
            Thread::Worker(number) => write!(f, "umbel-worker-{number}"),
        }
    }
}

/// How a thread ended: the error of a panic is what it panicked with.
type Ending = (Thread, thread::Result<io::Result<()>>);

impl Server {
    /// A builder with the settings of [`Config::default`] and the handler `/echo`.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A handle for other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Address of the first listener that has one. Port 0 of `0.0.0.0`: none has.
    pub fn local_addr(&self) -> SocketAddr {
        listening::first_address(&self.listeners)
    }

    /// Listeners, in the order in which they were asked for.
    pub fn listeners(&self) -> &[BoundListener] {
        &self.listeners
    }

    /// Most connections at a time, within the descriptor limit.
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Serves until a [`Handle`] shuts it down and all connections are closed.
    ///
    /// # Errors
    /// When a reactor fails or a thread panics. All others have ended by then too.
    pub fn run(self) -> Result<(), Error> {
        let start = self.start_line();
        let Server {
            // Whatever way this ends, nobody waits for a server that is gone.
            ended: _ended,
            handle,
            reactors,
            work,
            workers,
            listeners,
            ..
        } = self;
        // It is closed once every reactor has started, or has failed to.
        let (starting, started) = bounded::<Infallible>(1);
        let (ended, endings) = bounded::<Ending>(reactors.len() + workers);
        let (mut threads, mut failed) = (Vec::new(), None);
        for number in 0..workers {
            let (shards, work) = (Arc::clone(handle.shards()), work.clone());
            let job = move || {
                shards.work(&work);
                Ok(())
            };
            match spawn(Thread::Worker(number), &ended, &handle, job) {
                Ok(thread) => threads.push(thread),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let running_workers = threads.len();
        for (number, mut reactor) in reactors.into_iter().enumerate() {
            let starting = starting.clone();
            let job = move || {
                reactor.start()?;
                drop(starting);
                reactor.run()
            };
            match spawn(Thread::Reactor(number), &ended, &handle, job) {
                Ok(thread) => threads.push(thread),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let running_reactors = threads.len() - running_workers;
        drop(starting);
        let _ = started.recv();
        if failed.is_some() {
            // Half a server is worse than none.
            handle.shutdown_now();
        } else {
            listening::log_ready(&listeners, &start);
        }
        let (watching, ended) = bounded(0);
        let watcher = memory::start(handle.clone(), ended);
        let outcome = supervise(&handle, &endings, running_reactors, running_workers);
        drop(watching);
        threads.extend(watcher);
        for thread in threads {
            // How it ended was reported through the channel.
            let _ = thread.join();
        }
        let outcome = failed.map_or(outcome, Err);
        if let Some(Drained { told, cut, took }) = handle.drained() {
            let took_ms = took.as_millis() as u64;
            log::info!(event = "drained", told, cut, took_ms; "drained: {told} connections were told, {cut} were cut off at the end of the time");
        }
        log::info!(event = "ended"; "the server has ended");
        outcome
    }

    /// The line in the log that says what holds.
    fn start_line(&self) -> String {
        let limit = self.connections_max;
        let places = listening::places(&self.listeners);
        let threads = format!("{} reactors, {} workers", self.reactors.len(), self.workers);
        let rules = match self.topic_rules {
            0 => String::new(),
            1 => "; 1 topic rule".to_owned(),
            count => format!("; {count} topic rules"),
        };
        let mut policy = match self.policy.by_code {
            true => "rights: decided by the program".to_owned(),
            false => self.policy.rights.to_string(),
        };
        let addresses = listening::authorities(&self.listeners);
        if let Some(reach) = self.policy.rights.reach(&addresses) {
            policy = format!("{policy}; {reach}");
        }
        format!("listening on {places} ({policy}; {threads}; at most {limit} connections{rules})")
    }
}

/// Waits for the threads, and ends all when one has ended in a way that it should not.
fn supervise(
    handle: &Handle,
    endings: &Receiver<Ending>,
    mut reactors: usize,
    mut workers: usize,
) -> Result<(), Error> {
    let mut outcome = Ok(());
    while reactors + workers > 0 {
        if reactors == 0 {
            // Nobody brings work any more. The queue may be full at the moment; then the order is given again.
            handle.shards().stop();
        }
        let (thread, ending) = match endings.recv_timeout(SUPERVISE_INTERVAL) {
            Ok(ended) => ended,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        match thread {
            Thread::Reactor(_) => reactors -= 1,
            Thread::Worker(_) => workers -= 1,
        }
        let failed = match (thread, ending) {
            (_, Ok(Ok(()))) => continue,
            (Thread::Reactor(reactor), Ok(Err(source))) => Error::Reactor { reactor, source },
            (Thread::Worker(_), Ok(Err(source))) => Error::Setup(source),
            (thread, Err(_)) => Error::Panicked {
                thread: thread.to_string(),
            },
        };
        log::error!("{failed}");
        outcome = outcome.and(Err(failed));
    }
    outcome
}

fn spawn(
    thread: Thread,
    ended: &Sender<Ending>,
    handle: &Handle,
    job: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let (ended, handle) = (ended.clone(), handle.clone());
    let body = move || {
        // What the closure leaves behind in a panic is never looked at again: the server ends.
        let ending = panic::catch_unwind(AssertUnwindSafe(job));
        if !matches!(ending, Ok(Ok(()))) {
            // Half a server takes nothing more.
            handle.shutdown_now();
        }
        // The supervisor receives until all have ended, and the channel has room for all.
        let _ = ended.send((thread, ending));
    };
    thread::Builder::new()
        .name(thread.to_string())
        .spawn(body)
        .map_err(Error::Setup)
}
