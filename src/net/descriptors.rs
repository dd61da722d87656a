//! Descriptors of the process, and the connections that they allow.

use crate::config::{Config, Surface};
use crate::requests::limits::{CONNECTIONS_KEPT, REFUSED_MAX};

/// Descriptors that are kept from connections: standard streams, event loops, listeners, and a few to spare.
const DESCRIPTORS_RESERVED: usize = 64;

/// Descriptors that a reactor needs for itself.
const DESCRIPTORS_PER_REACTOR: usize = 5;

/// The cap on connections: what was asked for, or what the descriptors allow if that is less.
pub fn connections_max(config: &Config, reactors: usize) -> usize {
    let asked = match config.limits.connections_max {
        0 => usize::MAX,
        count => count,
    };
    let mut reserved = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_REACTOR * reactors;
    if config
        .listeners
        .iter()
        .any(|listener| listener.surface == Some(Surface::Admin))
    {
        // Those that are told that they are too many take none of theirs.
        reserved += CONNECTIONS_KEPT + REFUSED_MAX;
    }
    let allowed =
        raise_descriptor_limit().map_or(usize::MAX, |limit| limit.saturating_sub(reserved).max(1));
    if asked != usize::MAX && asked > allowed {
        log::warn!(
            "connections_max = {asked}: the limit of descriptors allows {allowed}; raise it (`ulimit -n`, or \
             LimitNOFILE= of the service) or lower --connections-max"
        );
    }
    asked.min(allowed)
}

/// Raises the soft limit of descriptors to the hard one, and gives it. None where there is no such limit.
fn raise_descriptor_limit() -> Option<usize> {
    let (_, hard) = rlimit::Resource::NOFILE.get().ok()?;
    let raised = rlimit::increase_nofile_limit(hard).ok()?;
    usize::try_from(raised).ok()
}
