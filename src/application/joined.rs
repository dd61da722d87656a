//! Topics to which a credential subscribes its connection.

use super::Application;
use super::joins::Question;
use crate::auth::access::Action;
use crate::auth::table::IdentityHandle;
use crate::dialect::Target;
use crate::fanout::subscribed::{Membership, Subscribed};
use crate::handler::ConnectionId;
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
            let template = Template::parse(text).ok();
            let name = template.as_ref().and_then(|it| it.fill(&*identity, None));
            let topic = name.and_then(|name| Topic::from_text(&name).ok());
            let Some(topic) = topic else {
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
            self.shared.authority.judge(caller, action)
        };
        judged.map_err(|_| "there is no right to it")?;
        self.check_room(subscribed, &Target::Topic(topic.clone()))
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
