//! Requests that the server makes itself: what the configuration asks of others.

use std::sync::Arc;

use crate::auth::hook::Hook;
use crate::config::Config;
use crate::error::Error;
use crate::metrics::Metrics;

/// The metrics, and the hook.
pub(super) type Counted = (Metrics, Option<Arc<dyn Hook>>);

/// The hook of a configuration, if it has one. Its counts are in the metrics then.
///
/// # Errors
/// A setting of it cannot stand.
#[cfg(feature = "outgoing")]
pub(super) fn hook(config: &Config, mut metrics: Metrics) -> Result<Counted, Error> {
    use crate::metrics::hook::HookCounts;
    use crate::outgoing::hook::HttpHook;

    let counts = Arc::new(HookCounts::default());
    let hook = HttpHook::of(config, Arc::clone(&counts))?;
    metrics.hook = hook.is_some().then_some(counts);
    Ok((metrics, hook.map(|hook| Arc::new(hook) as Arc<dyn Hook>)))
}

/// None: this build makes no requests. A configuration that wants some was refused.
#[cfg(not(feature = "outgoing"))]
pub(super) fn hook(_: &Config, metrics: Metrics) -> Result<Counted, Error> {
    Ok((metrics, None))
}
