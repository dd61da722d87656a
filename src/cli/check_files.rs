//! `umbel check --config`: files and directories without which the server does not start.

#[cfg(feature = "outgoing")]
use std::sync::Arc;

use umbel::Config;
use umbel::config::ConfigError;
#[cfg(feature = "outgoing")]
use umbel::internals::outgoing::hook::HttpHook;
#[cfg(all(feature = "outgoing", feature = "jwt"))]
use umbel::internals::outgoing::key_sets;
use umbel::internals::shared::control;

/// Reasons that the server does not start.
pub fn look(config: &Config) -> Vec<ConfigError> {
    let found = [
        control::fixed_denials(config).err(),
        control::check_directory(config).err(),
        #[cfg(feature = "outgoing")]
        HttpHook::of(config, Arc::default()).err(),
        #[cfg(all(feature = "outgoing", feature = "jwt"))]
        key_sets::check(config).err(),
    ];
    found.into_iter().flatten().collect()
}
