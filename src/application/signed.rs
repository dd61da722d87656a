//! Rights to subscribe: by the rights of who asks, by the hook's word, or by a signature that the command bears.

use super::Application;
use super::commands::CommandTurn;
use crate::asking::hook;
use crate::auth::access::Action;
use crate::auth::caller::Caller;
use crate::auth::identity::{Source, UrlKeyMark};
use crate::auth::verdict::Terms;
use crate::dialect::{CommandError, Target, TopicSignature};
use crate::handler::ConnectionId;
use crate::hub::Start;

/// Terms on which a subscription is allowed.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Its end, and what others see of it.
    pub terms: Terms,
    /// Key of the signature that allows it; nobody is asked again then.
    pub signed_by: Option<UrlKeyMark>,
}

impl Allowed {
    /// By whoever was asked about this action, if somebody was.
    pub fn by(terms: Option<Terms>) -> Allowed {
        Allowed {
            terms: terms.unwrap_or_default(),
            signed_by: None,
        }
    }
}

/// The action that a subscription is.
fn action_of(target: &Target) -> Action<'_> {
    match target {
        Target::Topic(topic) => Action::Subscribe(topic.as_str()),
        Target::Pattern(pattern) => Action::SubscribePattern(pattern.as_str()),
    }
}

impl Application {
    /// Whether a connection may have a subscription, and on what terms.
    pub(super) fn authorize_subscription(
        &mut self,
        turn: &mut CommandTurn<'_>,
        id: Option<u32>,
        (target, start): (&Target, Start),
        signature: Option<&TopicSignature>,
    ) -> Result<Allowed, CommandError> {
        if let (Some(signature), Target::Topic(topic)) = (signature, target) {
            let caller = self.identities.get(turn.identity);
            let (authority, topic) = (&self.shared.authority, topic.as_str());
            let signed = authority.identify_signed(caller, topic, signature, self.wall_ms());
            let signed = signed.and_then(|identity| {
                let expires_at_ms = identity.expires_at_ms();
                let signed_by = match identity.source() {
                    Source::SignedUrl(key) => Some(*key),
                    _ => None,
                };
                // What it is signed for is all that it has, and what is denied to either is denied.
                let signed = Caller::Known(identity);
                authority.authorize(&signed, Action::Subscribe(topic))?;
                hook::check_closed(&self.shared, caller, Action::Subscribe(topic))?;
                if matches!(start, Start::Last(_)) {
                    authority.authorize(&signed, Action::History(topic))?;
                    hook::check_closed(&self.shared, caller, Action::History(topic))?;
                }
                Ok(Allowed {
                    terms: Terms {
                        expires_at_ms,
                        info: None,
                    },
                    signed_by,
                })
            });
            return signed.map_err(|denied| turn.denied(id, denied));
        }
        let action = action_of(target);
        self.asking.set_start(start);
        self.authorize_command(turn, id, action)?;
        if let (Start::Last(_), Target::Topic(topic)) = (start, target) {
            self.authorize_command(turn, id, Action::History(topic.as_str()))?;
        }
        Ok(Allowed::by(self.asking.terms(action)))
    }

    /// A subscription was allowed on terms. With an end it ends then, unless whoever was asked allows it again.
    pub fn begin_lease(&mut self, id: ConnectionId, target: &Target, allowed: &Allowed) {
        if let Some(end_ms) = allowed.terms.expires_at_ms {
            let leases = &mut self.terms.leases;
            leases.begin(id, target.clone(), end_ms, allowed.signed_by);
        }
    }

    /// Whether somebody may keep a subscription.
    pub fn keeps(&self, id: ConnectionId, caller: &Caller<'_>, target: &Target) -> bool {
        let action = action_of(target);
        match self.terms.leases.signed_by(id.index, target) {
            Some(key) => {
                self.shared.authority.has_url_key(key)
                    && hook::check_closed(&self.shared, caller, action).is_ok()
            }
            None => self.stands(caller, action).is_ok(),
        }
    }
}
