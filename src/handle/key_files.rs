//! Key sets of files: each is looked at for a change, by a thread of its own.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use crate::auth::jwt::remote::RemoteKeys;
use crate::config::{Config, ConfigError, Jwt, JwtKeys};
use crate::signature::jwk::{KEY_SET_BYTES_MAX, read_key_set};
use crate::signature::keys::KeySet;

/// A file, and the keys that are made of it.
struct KeyFile {
    jwt: Jwt,
    keys: Weak<RemoteKeys>,
    /// Its text when it was last taken.
    text: String,
    interval: Duration,
    /// The log has it that it cannot be taken as it is.
    is_told: bool,
}

/// Begins to look at each file that nobody looks at yet.
///
/// # Errors
/// No thread can be started.
pub fn start(config: &Config) -> Result<(), ConfigError> {
    let interval = Duration::from_millis(config.limits.certificate_check_ms);
    for (row, jwt) in config.jwts.iter().enumerate() {
        let Some(JwtKeys::KeySetFile { text, .. }) = &jwt.keys else {
            continue;
        };
        let Some(keys) = RemoteKeys::of(jwt).without_fetcher() else {
            continue;
        };
        let file = KeyFile {
            jwt: jwt.clone(),
            keys: Arc::downgrade(&keys),
            text: text.clone(),
            interval,
            is_told: false,
        };
        let name = format!("jwks {}", jwt.name);
        let spawned = thread::Builder::new().name(name).spawn(|| file.watch());
        let spawned = spawned.map_err(|error| {
            let why = format!("no thread can be started: {error}");
            ConfigError::new("jwts", &jwt.name, why).in_row(row)
        })?;
        let thread = spawned.thread().clone();
        keys.wake_by(Box::new(move || thread.unpark()));
    }
    Ok(())
}

impl KeyFile {
    /// Looks until nobody has the keys any more.
    fn watch(mut self) {
        loop {
            thread::park_timeout(self.interval);
            let Some(keys) = self.keys.upgrade() else {
                return;
            };
            self.look(&keys);
        }
    }

    fn look(&mut self, keys: &RemoteKeys) {
        let Some(JwtKeys::KeySetFile { path, .. }) = &self.jwt.keys else {
            return;
        };
        let name = &self.jwt.name;
        let read = read_text(path).and_then(|text| {
            if text == self.text {
                return Ok(None);
            }
            let read = read_key_set(text.as_bytes(), &self.jwt.algorithms)?;
            match read.keys.is_empty() {
                true => Err("no key in it is for one of the algorithms".to_owned()),
                false => Ok(Some((text, read))),
            }
        });
        match read {
            Ok(None) => self.is_told = false,
            Ok(Some((text, read))) => {
                for warning in &read.warnings {
                    log::warn!("jwks_file of {name}: {warning}");
                }
                let generation = keys.set().map_or(1, |set| set.generation() + 1);
                log::info!("jwks_file of {name} has changed: {} keys", read.keys.len());
                keys.put(Arc::new(KeySet::new(generation, read.keys)));
                (self.text, self.is_told) = (text, false);
            }
            // It may be in the midst of being written.
            Err(problem) => {
                if !std::mem::replace(&mut self.is_told, true) {
                    log::error!("jwks_file of {name}: {problem}; the keys read last stay");
                }
            }
        }
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let told = |problem: std::io::Error| format!("{}: {problem}", path.display());
    let mut text = String::new();
    let file = File::open(path).map_err(told)?;
    let mut start = file.take(KEY_SET_BYTES_MAX as u64 + 1);
    start.read_to_string(&mut text).map_err(told)?;
    match text.len() > KEY_SET_BYTES_MAX {
        true => Err(format!("it is longer than {KEY_SET_BYTES_MAX} bytes")),
        false => Ok(text),
    }
}
