//! Names of settings, and the nearest to an unknown one.

pub use crate::nearest::nearest;

/// The name in small letters and with underscores, as settings are called.
pub fn plain(name: &str) -> String {
    name.trim_start_matches('-')
        .to_lowercase()
        .replace('-', "_")
}
