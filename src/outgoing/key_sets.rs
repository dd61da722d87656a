//! Key sets that are fetched: a thread for each `jwks_url`.
//!
//! A set is fetched at the start, then at intervals, and sooner when a token has a `kid` that no fetched set has. What was
//! fetched last stays when a fetch fails, up to an age, and a copy in `state_directory` outlives the process.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::address::Plain;
use super::client::{Answered, Client, ClientSettings, RequestError};
use super::key_set_copy::{self, Copy};
use super::target::Target;
use crate::auth::counts::{AuthCounts, SourceCounts};
use crate::auth::jwt::remote::RemoteKeys;
use crate::config::{Config, ConfigError, Jwt, JwtKeys};
use crate::signature::jwk::{KEY_SET_BYTES_MAX, read_key_set};
use crate::signature::keys::KeySet;

/// Time for a fetch, redirects included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the first fetches: one more second than one may take.
const FIRST_FETCH_MAX: Duration = Duration::from_secs(6);

/// Time between two looks whether they have ended.
const FIRST_FETCH_LOOKED_AT: Duration = Duration::from_millis(10);

/// Redirects within the origin that are followed.
const REDIRECTS_MAX: u32 = 3;

/// Bounds of a `max-age` that sets the interval.
const MAX_AGE_S: std::ops::RangeInclusive<u64> = 60..=86_400;

/// Times of fetches.
#[derive(Clone, Copy, Debug)]
struct Times {
    refresh: Duration,
    refresh_min: Duration,
    stale_max: Duration,
}

/// Whether sets can be fetched by what the configuration says. Nothing is fetched yet.
///
/// # Errors
/// The address or the certificates of an issuer cannot stand.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    for (row, jwt) in config.jwts.iter().enumerate() {
        let client = client_of(jwt, config.outgoing_proxy.clone());
        client.transpose().map_err(|why| told(jwt, row, why))?;
    }
    Ok(())
}

fn told(jwt: &Jwt, row: usize, why: String) -> ConfigError {
    ConfigError::new("jwts", &jwt.name, why).in_row(row)
}

/// Starts a fetcher for each set that has none yet. `counts`: those of its fetches.
///
/// # Errors
/// The address or the certificates of an issuer cannot stand.
pub fn start(config: &Config, counts: &AuthCounts) -> Result<(), ConfigError> {
    let limits = &config.limits;
    let times = Times {
        refresh: Duration::from_millis(limits.jwks_refresh_ms),
        refresh_min: Duration::from_millis(limits.jwks_refresh_min_ms),
        stale_max: Duration::from_millis(limits.jwks_stale_max_ms),
    };
    for (row, jwt) in config.jwts.iter().enumerate() {
        let Some(client) = client_of(jwt, config.outgoing_proxy.clone()) else {
            continue;
        };
        let told = |why| told(jwt, row, why);
        let client = client.map_err(told)?;
        let Some(keys) = RemoteKeys::of(jwt).without_fetcher() else {
            continue;
        };
        let fetcher = Fetcher {
            jwt: jwt.clone(),
            client,
            keys: Arc::downgrade(&keys),
            times,
            counts: counts.of_source(&jwt.name),
            copy: config
                .state_directory
                .as_deref()
                .map(|directory| key_set_copy::path_of(directory, &jwt.name)),
            last: None,
        };
        let name = format!("jwks {}", jwt.name);
        let spawned = thread::Builder::new().name(name).spawn(|| fetcher.run());
        let spawned =
            spawned.map_err(|error| told(format!("no thread can be started: {error}")))?;
        let thread: Thread = spawned.thread().clone();
        keys.wake_by(Box::new(move || thread.unpark()));
    }
    Ok(())
}

/// Waits for the first fetch of each set. It takes as long as a fetch may.
///
/// # Errors
/// A set could not be fetched, and there is no copy of it.
pub fn await_first(config: &Config) -> Result<(), ConfigError> {
    let begun = Instant::now();
    for (row, jwt) in config.jwts.iter().enumerate() {
        let Some(JwtKeys::Url { url, .. }) = &jwt.keys else {
            continue;
        };
        let keys = RemoteKeys::of(jwt);
        while !keys.has_ended_fetch() && begun.elapsed() < FIRST_FETCH_MAX {
            thread::sleep(FIRST_FETCH_LOOKED_AT);
        }
        if keys.set().is_none() {
            let why = format!(
                "its keys could not be fetched from {url}, as the log says, and jwks_required_at_start is set"
            );
            return Err(ConfigError::new("jwts", &jwt.name, why).in_row(row));
        }
    }
    Ok(())
}

/// Client of an issuer's address. None: its keys are not fetched.
fn client_of(jwt: &Jwt, proxy: Option<String>) -> Option<Result<Client, String>> {
    let Some(JwtKeys::Url { url, ca_file }) = &jwt.keys else {
        return None;
    };
    let target = Target::parse(url, Plain::Loopback);
    let target = target.map_err(|problem| format!("jwks_url: {problem}"));
    Some(target.and_then(|target| {
        let client = Client::new(ClientSettings {
            target,
            timeout: TIMEOUT,
            body_bytes_max: KEY_SET_BYTES_MAX,
            redirects_max: REDIRECTS_MAX,
            ca_file: ca_file.as_ref().map(PathBuf::from),
            proxy,
            idle_max: 1,
        });
        client.map_err(|(setting, problem)| format!("{setting}: {problem}"))
    }))
}

/// The set that was fetched last.
struct Fetched {
    body: Vec<u8>,
    entity_tag: Option<String>,
    set: Arc<KeySet>,
    at: Instant,
    /// Age that it had then: that of a copy.
    age_then: Duration,
}

impl Fetched {
    /// It was fetched again, and is the same.
    fn renew(&mut self) {
        self.at = Instant::now();
        self.age_then = Duration::ZERO;
    }

    fn age(&self) -> Duration {
        self.age_then.saturating_add(self.at.elapsed())
    }
}

struct Fetcher {
    jwt: Jwt,
    client: Client,
    keys: Weak<RemoteKeys>,
    times: Times,
    counts: Arc<SourceCounts>,
    /// Place of the copy on disk.
    copy: Option<PathBuf>,
    last: Option<Fetched>,
}

/// Seconds since 1970 by the machine's clock.
fn wall_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

impl Fetcher {
    /// Takes the copy of an earlier process, if it is not too old.
    fn read_copy(&mut self) {
        let (Some(path), Some(JwtKeys::Url { url, .. })) = (&self.copy, &self.jwt.keys) else {
            return;
        };
        let Some(copy) = key_set_copy::read(path, url) else {
            return;
        };
        let age = Duration::from_secs(wall_seconds().saturating_sub(copy.fetched_at));
        if age >= self.times.stale_max {
            return;
        }
        let body = copy.keys.into_bytes();
        if let Ok(read) = read_key_set(&body, &self.jwt.algorithms) {
            self.last = Some(Fetched {
                body,
                entity_tag: None,
                set: Arc::new(KeySet::new(1, read.keys)),
                at: Instant::now(),
                age_then: age,
            });
        }
    }

    /// Writes the copy, with the time of this fetch.
    fn write_copy(&self) {
        let (Some(path), Some(last)) = (&self.copy, &self.last) else {
            return;
        };
        let (Some(JwtKeys::Url { url, .. }), Ok(keys)) =
            (&self.jwt.keys, String::from_utf8(last.body.clone()))
        else {
            return;
        };
        let copy = Copy {
            url: url.clone(),
            fetched_at: wall_seconds(),
            keys,
        };
        if let Err(error) = key_set_copy::write(path, &copy) {
            log::warn!("jwks_url of {}: {}: {error}", self.jwt.name, path.display());
        }
    }

    /// Fetches until nobody has the keys any more.
    fn run(mut self) {
        self.read_copy();
        if let (Some(keys), Some(last)) = (self.keys.upgrade(), &self.last) {
            keys.put(Arc::clone(&last.set));
        }
        while let Some(keys) = self.keys.upgrade() {
            let begun = Instant::now();
            // What was asked for until here, this fetch answers.
            keys.take_wanted();
            let refresh_min_ms = u64::try_from(self.times.refresh_min.as_millis());
            keys.begin_fetch(wall_ms().saturating_add(refresh_min_ms.unwrap_or(u64::MAX)));
            let fetched = self.fetch();
            let is_done = fetched.is_ok();
            self.counts.add_fetch(is_done);
            let next = match fetched {
                Ok(next) => {
                    if let Some(last) = &self.last {
                        keys.put(Arc::clone(&last.set));
                    }
                    self.write_copy();
                    next
                }
                Err(problem) => {
                    self.fail(&keys, &problem);
                    self.times.refresh_min
                }
            };
            keys.end_fetch(is_done, wall_ms());
            drop(keys);
            self.wait(begun, next);
        }
    }

    /// Waits for the next fetch: until its time, or until one is wanted and may be.
    fn wait(&self, begun: Instant, next: Duration) {
        loop {
            let Some(keys) = self.keys.upgrade() else {
                return;
            };
            let due = match keys.is_wanted() {
                true => next.min(self.times.refresh_min),
                false => next,
            };
            drop(keys);
            let Some(left) = due.checked_sub(begun.elapsed()).filter(|it| !it.is_zero()) else {
                return;
            };
            thread::park_timeout(left);
        }
    }

    /// Fetches once. Gives the time until the next fetch.
    fn fetch(&mut self) -> Result<Duration, String> {
        let tag = self.last.as_ref().and_then(|last| last.entity_tag.clone());
        let conditions: Vec<_> = tag
            .iter()
            .map(|tag| ("If-None-Match", tag.as_str()))
            .collect();
        let answer = self.client.get(&conditions);
        let answer = answer.map_err(|error: RequestError| error.to_string())?;
        let next = self.interval(&answer);
        match (answer.status, &mut self.last) {
            (304, Some(last)) => last.renew(),
            (200, _) => self.take(answer)?,
            (status, _) => return Err(format!("the answer has the status {status}")),
        }
        Ok(next)
    }

    fn take(&mut self, answer: Answered) -> Result<(), String> {
        let entity_tag = answer.header("etag").map(str::to_owned);
        if let Some(last) = &mut self.last
            && last.body == answer.body
        {
            last.renew();
            last.entity_tag = entity_tag;
            return Ok(());
        }
        let read = read_key_set(&answer.body, &self.jwt.algorithms)?;
        let name = &self.jwt.name;
        for warning in &read.warnings {
            log::warn!("jwks_url of {name}: {warning}");
        }
        let (count, passed_over) = (read.keys.len(), read.passed_over);
        log::info!("jwks_url of {name}: {count} keys fetched, {passed_over} passed over");
        let generation = self
            .last
            .as_ref()
            .map_or(1, |last| last.set.generation() + 1);
        self.last = Some(Fetched {
            body: answer.body,
            entity_tag,
            set: Arc::new(KeySet::new(generation, read.keys)),
            at: Instant::now(),
            age_then: Duration::ZERO,
        });
        Ok(())
    }

    /// Notes a failed fetch: the last set stays, up to an age.
    fn fail(&self, keys: &RemoteKeys, problem: &str) {
        let name = &self.jwt.name;
        match &self.last {
            Some(last) if last.age() < self.times.stale_max => {
                log::warn!("jwks_url of {name}: {problem}; the keys fetched last stay");
            }
            _ => {
                keys.expire();
                log::error!("jwks_url of {name}: {problem}; its tokens are refused with 503");
            }
        }
    }

    /// Time until the next fetch: a tenth more or less, so that servers do not fetch at once, or what the answer says.
    fn interval(&self, answer: &Answered) -> Duration {
        let spread = getrandom::u32().unwrap_or_default() % 201;
        let refresh = self.times.refresh * (900 + spread) / 1000;
        let max_age = answer.header("cache-control").and_then(max_age_of);
        max_age.map_or(refresh, |seconds| {
            let seconds = seconds.clamp(*MAX_AGE_S.start(), *MAX_AGE_S.end());
            refresh.min(Duration::from_secs(seconds))
        })
    }
}

/// Milliseconds of the Unix epoch by the machine's clock.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
}

/// The `max-age` of a `Cache-Control`.
fn max_age_of(value: &str) -> Option<u64> {
    let mut directives = value.split(',').map(str::trim);
    let found = directives.find_map(|it| {
        let (name, value) = it.split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then_some(value)
    });
    found?.trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_age_is_read() {
        for (value, seconds) in [
            ("max-age=600", Some(600)),
            ("public, Max-Age=60, must-revalidate", Some(60)),
            ("s-maxage=5, max-age=\"7\"", Some(7)),
            ("no-store", None),
            ("max-age=-1", None),
            ("", None),
        ] {
            assert_eq!(max_age_of(value), seconds, "{value}");
        }
    }
}
