//! Topics to which a credential subscribes its connection.

use super::Application;
use super::joins::Question;
use crate::asking::hook;
use crate::auth::access::Action;
use crate::auth::caller::Caller;
use crate::auth::identity::{Identity, Source};
use crate::auth::table::IdentityHandle;
use crate::dialect::Target;
use crate::fanout::subscribed::Subscribed;
use crate::fanout::subscriptions::Membership;
use crate::handler::ConnectionId;
use crate::http::refusal::Refusal;
use crate::hub::Start;
use crate::topic::Topic;
use crate::topic::template::Template;

impl Application {
    /// Subscribes a connection to the topics that its credential lists. One to which it has no right, or no room, is left
    /// out: the rest of the credential is good all the same.
    pub fn join_topics(
        &mut self,
        id: ConnectionId,
        subscribed: Subscribed,
        caller: IdentityHandle,
    ) {
        let Some(identity) = self.identities.get(caller).identity().cloned() else {
            return;
        };
        for text in identity.join() {
            let Some(topic) = made_topic(&identity, text) else {
                log::debug!(connection:% = id; "a topic that its token joins cannot be made");
                continue;
            };
            if let Err(reason) = self.join_topic(id, subscribed, caller, topic) {
                log::debug!(connection:% = id; "a topic that its token joins is left out: {reason}");
            }
        }
    }

    fn join_topic(
        &mut self,
        id: ConnectionId,
        subscribed: Subscribed,
        caller: IdentityHandle,
        topic: Topic,
    ) -> Result<(), &'static str> {
        let judged = {
            let caller = self.identities.get(caller);
            let action = Action::Subscribe(topic.as_str());
            let is_hooks = caller
                .identity()
                .is_some_and(|it| *it.source() == Source::Hook);
            match hook::asked(&self.shared, action) {
                // It has said so as it said who this is.
                Some(_) if is_hooks => hook::check_closed(&self.shared, caller, action),
                Some(_) => return Err("the application decides about it, and is not asked here"),
                None => self.shared.authority.judge(caller, action),
            }
        };
        judged.map_err(|_| "there is no right to it")?;
        self.check_room((subscribed, caller), &Target::Topic(topic.clone()))
            .map_err(|(_, reason)| reason)?;
        let identity = self.member_identity(caller, &topic, None);
        let many = self.multi_subscriptions.get_mut(subscribed);
        let many = many.ok_or("it is no connection of many topics")?;
        let request = many.next_request();
        let question = Question {
            connection: id,
            request,
            start: Start::Now,
            info: many.info.clone(),
            identity,
        };
        let place = self
            .ask_to_join(&topic, question, None)
            .map_err(|_| "the hub, or the table of topics, is full")?;
        let topic = self.topics.topic_at(place).cloned().unwrap_or(topic);
        if let Some(many) = self.multi_subscriptions.get_mut(subscribed) {
            let membership = Membership::Joining { request, id: None };
            many.subscriptions.insert(Target::Topic(topic), membership);
            self.multi_subscriptions.topics += 1;
        }
        self.terms.note_unasked(id.index, request);
        Ok(())
    }
}

/// A topic that an identity joins, its template filled in.
fn made_topic(identity: &Identity, text: &str) -> Option<Topic> {
    let template = Template::parse(text).ok()?;
    let name = template.fill(identity, None)?;
    Topic::from_text(&name).ok()
}

/// The topic of a connection that names none and has one: that which its credential joins. None: it joins none.
///
/// # Errors
/// It joins several, and nobody could tell their messages apart.
pub fn joined_topic(caller: &Caller<'_>) -> Result<Option<Topic>, Refusal> {
    let Some(identity) = caller.identity() else {
        return Ok(None);
    };
    let mut topics = identity
        .join()
        .iter()
        .filter_map(|it| made_topic(identity, it));
    match (topics.next(), topics.next()) {
        (_, Some(_)) => Err(Refusal::bad_request(
            "its token joins several topics, and this connection has one: name it in the path, or use umbel.v1",
        )),
        (topic, None) => Ok(topic),
    }
}
