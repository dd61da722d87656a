//! Reload: other settings for a server that runs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Handle;
use crate::auth::Authority;
use crate::auth::policy::AccessPolicy;
use crate::config::{Access, Config, ConfigError, Listeners, Origins, Rights};
use crate::connection::Settings;
use crate::dialect::CommandLimits;
use crate::net::descriptors::connections_max;
use crate::shared::Listening;
use crate::shared::control::fixed_denials;
use crate::shared::live::Live;

/// Outcome of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// Number of reloads since the start, this one included.
    pub generation: u64,
    /// Settings that need a restart, and stay as they were. By their names, which are those of flags with underscores.
    pub needs_restart: Vec<&'static str>,
}

/// Reason that nothing was reloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReloadError {
    /// A setting cannot stand. All are as they were.
    Config(ConfigError),
    /// An earlier reload has not reached all topics yet; try again a little later.
    Busy,
    /// The server has ended.
    Closed,
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReloadError::Config(error) => error.fmt(f),
            ReloadError::Busy => f.write_str("an earlier reload has not reached all topics yet"),
            ReloadError::Closed => f.write_str("the server has ended"),
        }
    }
}

impl std::error::Error for ReloadError {}

impl Handle {
    /// Lets the server go on with other settings: rights, tokens, origins, topic rules and limits. It returns before they
    /// have reached all reactors, which is within a tick of each, and all topics, which are brought to their rules in
    /// bounded steps. What needs a restart stays as it was, and is named. Listeners and topic rules of the
    /// [`Builder`](crate::Builder) stay beside those of the configuration.
    ///
    /// Rights of open connections are judged again. A subscription that is no longer allowed ends: on a connection of
    /// umbel.v1 with `unsubscribed`, elsewhere with the connection, by 4403.
    ///
    /// # Errors
    /// When a setting cannot stand; an earlier reload is not through yet; or the server has ended. Then nothing has changed.
    pub fn reload(&self, config: Config) -> Result<Reloaded, ReloadError> {
        let outcome = self.take_config(config);
        match &outcome {
            Ok(_) => self.shared.metrics.reloads.succeed(wall_seconds(), false),
            Err(ReloadError::Config(_)) => self.note_failed_reload(),
            Err(ReloadError::Busy | ReloadError::Closed) => {}
        }
        outcome
    }

    /// Counts a reload that failed because of its file.
    pub fn note_failed_reload(&self) {
        self.shared.metrics.reloads.fail();
    }

    /// Begins to look after the keys of issuers that are new.
    fn start_keys(&self, config: &Config) -> Result<(), ConfigError> {
        #[cfg(all(feature = "jwt", feature = "outgoing"))]
        crate::outgoing::key_sets::start(config, &self.shared.metrics.auth)?;
        #[cfg(feature = "jwt")]
        super::key_files::start(config)?;
        let _ = config;
        Ok(())
    }

    fn take_config(&self, mut config: Config) -> Result<Reloaded, ReloadError> {
        if self.is_closed() {
            return Err(ReloadError::Closed);
        }
        let mut running = self.running();
        config.add(&running.additions);
        let by_code = matches!(*self.shared.authority, Authority::Embedder(_));
        if by_code {
            config.leave_rights_to_code();
        }
        let needs_restart = fit(&mut config, &running.config)?;
        let rights = config.rights().map_err(ReloadError::Config)?;
        let denials = fixed_denials(&config).map_err(ReloadError::Config)?;
        let tls = running.prepare_tls(&config).map_err(ReloadError::Config)?;
        let before = self.shared.live.get();
        let before = before.map_or_else(|| Arc::clone(&self.shared.settings), |live| live.settings);
        let mut settings = Settings::of(&config, before.dialects.clone());
        // As a number: what the descriptors allow, if nothing is said.
        settings.limits.connections_max = connections_max(&config, self.mailboxes.len());
        self.shared.metrics.show_limits(&settings.limits);
        settings.date = before.date.clone();
        settings.began_us = before.began_us;
        settings.presence_key = before.presence_key;
        let subprotocols = config.subprotocols.iter().map(|name| name.as_str().into());
        let live = Live {
            settings: Arc::new(settings),
            authority: match by_code {
                true => Arc::clone(&self.shared.authority),
                false => self.authority_by(&rights),
            },
            origins: Arc::new(rights.origins),
            hosts: Arc::new(rights.hosts),
            subprotocols: subprotocols.collect(),
            listeners: self.listening(&config),
        };
        if !by_code {
            self.start_keys(&config).map_err(ReloadError::Config)?;
        }
        if !self.shared.live.store(live, self.mailboxes.len()) {
            return Err(ReloadError::Busy);
        }
        running.take_tls(tls);
        let deny = &self.shared.control.deny;
        deny.change_for_open(|list| list.set_fixed(denials));
        let publication_bytes_max = config.limits.publication_bytes_max;
        self.publication_bytes_max
            .store(publication_bytes_max, Ordering::Relaxed);
        *self.field_limits() = CommandLimits::of(&config.limits).fields;
        running.config = config;
        for mailbox in self.mailboxes.iter() {
            mailbox.wake();
        }
        Ok(Reloaded {
            generation: self.shared.live.generation(),
            needs_restart,
        })
    }

    /// Authority by the rights of a configuration.
    fn authority_by(&self, rights: &Rights) -> Arc<Authority> {
        let counts = Arc::clone(&self.shared.metrics.auth);
        let policy = AccessPolicy::new(rights, counts);
        Arc::new(Authority::Policy(match self.shared.hook {
            Some(_) => policy.beside_hook(),
            None => policy,
        }))
    }

    /// The listeners, which are those of the start, with the proxies of a configuration.
    fn listening(&self, config: &Config) -> Arc<[Listening]> {
        let listeners = Listeners::of(&config.listeners);
        let proxies = listeners.with_surfaces().map(|(it, _)| it.proxies.set());
        let all = self.shared.listeners.iter().zip(proxies);
        all.map(|(listening, proxies)| Listening {
            proxies,
            ..listening.clone()
        })
        .collect()
    }

    /// Whether a reload has yet to reach all reactors and topics.
    pub fn is_reloading(&self) -> bool {
        self.shared.live.is_busy()
    }
}

/// Sets what a configuration leaves open, and keeps of the running one what needs a restart. Gives the names of that.
fn fit(config: &mut Config, running: &Config) -> Result<Vec<&'static str>, ReloadError> {
    config.check().map_err(ReloadError::Config)?;
    // Queues are shared out among the threads that there are, however many there are to be.
    let threads = (config.reactors, config.workers);
    (config.reactors, config.workers) = (running.reactors, running.workers);
    crate::net::memory::fill(config);
    (config.reactors, config.workers) = threads;
    let needs_restart = config.keep_started(running);
    // What is new has to fit what stays.
    config.check().map_err(ReloadError::Config)?;
    Ok(needs_restart)
}

/// Seconds since 1970 by the machine's clock.
pub(super) fn wall_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Config {
    /// Rights are decided by code, so the configuration need not say them. Gives the names of those that it says.
    pub(crate) fn leave_rights_to_code(&mut self) -> Vec<&'static str> {
        let mut idle = Vec::new();
        let rights = [
            ("publish", &mut self.publish),
            ("subscribe", &mut self.subscribe),
            ("observe", &mut self.observe),
        ];
        for (name, access) in rights {
            match access {
                Some(_) => idle.push(name),
                None => *access = Some(Access::Nobody),
            }
        }
        if self.hook.take().is_some() {
            idle.push("hook_url");
        }
        if Listeners::of(&self.listeners).are_open() {
            self.origins.get_or_insert(Origins::Loopback);
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What only follows from the number of threads is none of the settings that were changed.
    #[test]
    fn queues_are_those_of_the_threads_that_stay() {
        let with = |reactors| Config {
            reactors,
            workers: 1,
            ..Config::default()
        };
        let mut running = with(1);
        crate::net::memory::fill(&mut running);
        let needs_restart = fit(&mut with(300), &running);
        assert_eq!(needs_restart.expect("it can stand"), ["reactors"]);
    }
}
