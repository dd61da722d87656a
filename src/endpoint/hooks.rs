//! Calls of hooks.

use crate::auth::access::Denied;
use crate::caught;
use crate::dialect::{CommandLimits, Target};
use crate::handler::{ConnectionId, Publishing, SubscriptionEvent};
use crate::hub::{Kind, Publication, PublishOptions};
use crate::shared::Shared;
use crate::topic::Topic;

/// A message on its way to a publication.
pub struct Draft<'a> {
    /// Its topic.
    pub topic: &'a Topic,
    /// Text or binary.
    pub kind: Kind,
    /// The message itself.
    pub payload: &'a [u8],
    /// Its other fields.
    pub options: PublishOptions,
    /// The connection that it came by.
    pub connection: Option<ConnectionId>,
}

/// Makes a publication, as the program's hook lets it be.
///
/// # Errors
/// When the hook refuses it, or panics.
pub fn admit(shared: &Shared, draft: Draft<'_>, now_us: u64) -> Result<Publication, Denied> {
    if let Some(topics) = &shared.metrics.topics {
        topics.count_publication(draft.topic);
    }
    if shared.hooks.on_publish.is_none() {
        let publication = Publication::new(draft.kind, draft.payload, now_us);
        return Ok(publication.with_options(draft.options));
    }
    ask(shared, draft, now_us)
}

#[cold]
fn ask(shared: &Shared, draft: Draft<'_>, now_us: u64) -> Result<Publication, Denied> {
    let message = (draft.kind, draft.payload);
    let topic = draft.topic.as_str();
    let mut publishing = Publishing::new(topic, message, draft.options, draft.connection);
    if let Some(on_publish) = &shared.hooks.on_publish {
        caught::call("on_publish", || on_publish(&mut publishing))
            .unwrap_or(Err(Denied::Failed))?;
    }
    let (kind, payload, options) = publishing.into_parts();
    let limits = CommandLimits::of(&shared.settings.limits);
    if payload.len() > limits.payload_bytes_max {
        log::error!("on_publish made a message that is longer than publication_bytes_max");
        return Err(Denied::Failed);
    }
    if let Err(error) = options.check(&limits.fields) {
        log::error!("on_publish set a field of a message that cannot stand: {error}");
        return Err(Denied::Failed);
    }
    Ok(Publication::new(kind, &payload, now_us).with_options(options))
}

/// Tells the program of a subscription that has begun.
pub fn tell_began(shared: &Shared, connection: ConnectionId, target: &Target) {
    if shared.hooks.on_subscription.is_some() {
        let (target, is_pattern) = text_of(target);
        tell(
            shared,
            &SubscriptionEvent::Began {
                connection,
                target,
                is_pattern,
            },
        );
    }
}

/// Tells the program of a subscription that has ended.
pub fn tell_ended(shared: &Shared, connection: ConnectionId, target: &Target) {
    if shared.hooks.on_subscription.is_some() {
        let (target, is_pattern) = text_of(target);
        tell(
            shared,
            &SubscriptionEvent::Ended {
                connection,
                target,
                is_pattern,
            },
        );
    }
}

fn tell(shared: &Shared, event: &SubscriptionEvent<'_>) {
    if let Some(on_subscription) = &shared.hooks.on_subscription {
        caught::call("on_subscription", || on_subscription(event));
    }
}

fn text_of(target: &Target) -> (&str, bool) {
    match target {
        Target::Topic(topic) => (topic.as_str(), false),
        Target::Pattern(pattern) => (pattern.as_str(), true),
    }
}
