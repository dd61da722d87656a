//! Tokens that peers show on open connections, and what the answers to their commands say of their rights.

use serde_json::{Value, json};

use super::{Many, Pending};
use crate::peer::Surroundings;
use crate::records::Records;
use crate::rights::held::Holder;
use crate::rights::scopes::Action;
use crate::topics::{Target, pattern_number, topic_number};

/// A token that is shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown {
    /// It is good.
    Good(usize),
    /// It is good, and somebody else's.
    Foreign,
    /// Its signature is wrong.
    Bad,
}

/// What a command needs a right for.
fn action_of(pending: &Pending) -> Option<Action> {
    Some(match pending {
        Pending::Subscribe(target, _) => Action::Subscribe(*target),
        Pending::Publish(_, topic, _) | Pending::Misuse(_, topic) => Action::Publish(*topic),
        Pending::Presence(topic) => Action::Subscribe(Target::Topic(*topic)),
        Pending::Page(request) => Action::Subscribe(Target::Topic(request.topic)),
        Pending::Unsubscribe(_) | Pending::Ping | Pending::Auth(_) => return None,
    })
}

impl Many {
    /// One that shows tokens.
    #[must_use]
    pub fn holding(mut self, holder: Option<Holder>) -> Many {
        self.holder = holder;
        self
    }

    /// Whether it is somebody, or may come to be.
    pub(super) fn is_holder(&self) -> bool {
        self.holder.is_some()
    }

    /// Whether all that it sent came from the same subject, or all of it from nobody.
    pub(super) fn is_same_throughout(&self) -> bool {
        let is_changing = || {
            self.pending
                .values()
                .any(|it| matches!(it, Pending::Auth(_)))
        };
        self.holder.as_ref().is_none_or(|holder| {
            holder.first().is_some() || holder.newest().is_none() && !is_changing()
        })
    }

    /// Shows another token. False: it does not now.
    pub(super) fn show(&mut self, batch: &mut Vec<Value>, around: &mut Surroundings<'_>) -> bool {
        let (Some(holder), Some(rights)) = (&mut self.holder, &mut around.records.rights) else {
            return false;
        };
        // What was sent by nobody is not sent again by somebody.
        if !self.resend.is_empty() || !rights.random.chance(15) {
            return false;
        }
        let is_foreign = rights.random.chance(10) && !holder.has_shown_foreign;
        let (shown, badge) = match (rights.random.below(10), holder.newest()) {
            (_, Some(newest)) if is_foreign => {
                holder.has_shown_foreign = true;
                (Shown::Foreign, rights.issue_to_other(newest))
            }
            (0, newest) => (Shown::Bad, newest.unwrap_or_else(|| rights.issue())),
            (1..5, Some(newest)) => {
                let again = rights.issue_again(newest);
                (Shown::Good(again), again)
            }
            (5, Some(newest)) => (Shown::Good(newest), newest),
            (_, Some(newest)) => {
                let other = rights.issue_to_same(newest);
                (Shown::Good(other), other)
            }
            (_, None) => {
                let first = rights.issue();
                (Shown::Good(first), first)
            }
        };
        let mut token = rights.badge(badge).token.clone();
        if matches!(shown, Shown::Bad) {
            token = token.replacen('.', ".e", 1);
        }
        let id = self.take_id(Pending::Auth(shown));
        batch.push(json!({"type": "auth", "id": id, "token": token}));
        true
    }

    /// Whether a right is there, of those that a command may have been judged by.
    fn may(&self, id: u32, action: Action, records: &Records) -> bool {
        let badge = self.holder.as_ref().and_then(|holder| holder.at(id));
        let rights = records.rights.as_ref();
        rights.is_none_or(|rights| rights.may(badge, action))
    }

    /// A command was carried out: it was allowed.
    pub(super) fn check_allowed(
        &self,
        id: u32,
        pending: &Pending,
        answer: &Value,
        records: &Records,
    ) {
        if let Some(action) = action_of(pending) {
            let is_allowed = self.may(id, action, records);
            assert!(
                is_allowed,
                "{action:?} is not allowed to {self:?}: {answer}"
            );
        }
    }

    /// A command was refused for want of a right.
    pub(super) fn take_forbidden(
        &mut self,
        id: u32,
        pending: &Pending,
        answer: &Value,
        around: &mut Surroundings<'_>,
    ) {
        let action = action_of(pending);
        let is_allowed = action.is_none_or(|action| self.may(id, action, around.records));
        assert!(!is_allowed, "{pending:?} is allowed to {self:?}: {answer}");
        let path = match action {
            Some(Action::Subscribe(Target::Topic(_))) => "forbidden to subscribe",
            Some(Action::Subscribe(Target::Pattern(_))) => "forbidden to subscribe by a pattern",
            _ => "forbidden to publish",
        };
        around.cover.add(path, 1);
        if let Pending::Publish(number, ..) | Pending::Misuse(number, _) = pending {
            around.records.refuse(*number);
        }
    }

    /// The connection is open, and is who its request says.
    pub(super) fn take_welcome(&self, answer: &Value, around: &Surroundings<'_>) {
        let first = self.holder.as_ref().and_then(Holder::first);
        let (Some(first), Some(rights)) = (first, &around.records.rights) else {
            panic!("it showed nothing: {answer}");
        };
        let subject = format!("u{}", rights.badge(first).subject);
        assert_eq!(answer["subject"], *subject, "{answer}");
    }

    /// A token was taken: what it does not allow is over, and that is told before anything else.
    pub(super) fn take_authenticated(
        &mut self,
        id: u32,
        shown: Shown,
        answer: &Value,
        around: &mut Surroundings<'_>,
    ) {
        let (Shown::Good(badge), Some(mut holder)) = (shown, self.holder.take()) else {
            panic!("{shown:?} was taken: {answer}");
        };
        let rights = around.records.rights.as_ref().expect("it has tokens");
        let subject = format!("u{}", rights.badge(badge).subject);
        assert_eq!(answer["subject"], *subject, "{answer}");
        let joining = self.pending.range(..id).filter_map(|(_, it)| match it {
            Pending::Subscribe(target, _) => Some(*target),
            _ => None,
        });
        let held = self.live.keys().copied().chain(joining);
        let doomed = held.filter(|it| !rights.may(Some(badge), Action::Subscribe(*it)));
        holder.doomed = doomed.collect();
        let path = match holder.newest() {
            None => "signed in on an open connection",
            Some(newest) if rights.is_equal(newest, badge) => "refreshed with equal rights",
            Some(_) => "refreshed with other rights",
        };
        around.cover.add(path, 1);
        holder.take(id, badge);
        self.holder = Some(holder);
    }

    /// A subscription ends that nobody asked to end.
    pub(super) fn take_ended(&mut self, answer: &Value, around: &mut Surroundings<'_>) {
        assert_eq!(answer["code"], "forbidden", "{answer}");
        let target = target_of(answer);
        let holder = self.holder.as_mut().expect("it has tokens");
        assert!(holder.doomed.remove(&target), "it is allowed: {answer}");
        if let Target::Topic(topic) = target {
            self.present.remove(&topic);
        }
        if let Some(view) = self.live.remove(&target) {
            around.records.views[view].ended = true;
            around.cover.add("unsubscribed for want of a right", 1);
            return;
        }
        let is_asked =
            |pending: &Pending| matches!(pending, Pending::Subscribe(of, _) if *of == target);
        let asked = self.pending.iter().find(|(_, pending)| is_asked(pending));
        let id = asked.map(|(id, _)| *id);
        let id = id.unwrap_or_else(|| panic!("of no subscription: {answer}"));
        self.pending.remove(&id);
        around
            .cover
            .add("unsubscribed for want of a right, before subscribed", 1);
    }

    /// Nothing comes before what has to be told of the last token.
    pub(super) fn check_told(&self, kind: &str) {
        let doomed = self.holder.iter().flat_map(|holder| &holder.doomed);
        let doomed: Vec<_> = doomed.collect();
        assert!(
            doomed.is_empty() || kind == "unsubscribed",
            "{doomed:?} are allowed no more, and the next is {kind}"
        );
    }

    /// At rest: it is subscribed to nothing without the right to it.
    pub fn check_rights(&self, records: &Records) {
        self.check_told("nothing");
        for target in self.live.keys() {
            let is_allowed = self.may(u32::MAX, Action::Subscribe(*target), records);
            assert!(is_allowed, "{target:?} is not allowed to {self:?}");
        }
    }

    /// A publish that is surely judged by the last token.
    pub(super) fn note_publish(&self, number: usize, topic: usize, records: &mut Records) {
        let is_changing = self
            .pending
            .values()
            .any(|it| matches!(it, Pending::Auth(_)));
        let is_allowed = self.may(u32::MAX, Action::Publish(topic), records);
        if let Some(rights) = &mut records.rights
            && !is_changing
            && !is_allowed
        {
            rights.forbid(number);
        }
    }
}

/// What an answer is about.
fn target_of(answer: &Value) -> Target {
    match answer["pattern"].as_str() {
        Some(pattern) => Target::Pattern(pattern_number(pattern)),
        None => Target::Topic(topic_number(answer["topic"].as_str().expect("a topic"))),
    }
}
