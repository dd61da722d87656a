//! Tokens of peers that have one topic, or make requests: they come with the request, and cannot be shown again.

use super::many::Tongue;
use super::peer::{Kind, Peer, Surroundings};
use super::records::Records;
use super::rights::held::Holder;
use super::rights::scopes::Action;
use super::rights::{May, Rights};
use super::topics::Target;

impl Peer {
    /// Makes it somebody, if it is to be somebody.
    pub fn identify(&mut self, rights: &mut Rights, now_ms: u64) {
        match (self.kind, &mut self.many) {
            (Kind::Many, Some(many)) if many.tongue != Tongue::Toy && rights.random.chance(80) => {
                let is_known = rights.random.chance(80);
                let badge = is_known.then(|| rights.issue(now_ms));
                many.holder = Some(Holder::new(badge));
            }
            (Kind::Subscriber | Kind::EventReader | Kind::Publisher, _)
                if rights.random.chance(60) =>
            {
                self.badge = Some(rights.issue(now_ms));
            }
            _ => {}
        }
    }

    /// The line of a request that shows its token.
    pub(super) fn token_line(&self, records: &Records) -> String {
        let first = || self.many.as_ref()?.holder.as_ref()?.first();
        let badge = self.badge.or_else(first).zip(records.rights.as_ref());
        badge.map_or(String::new(), |(badge, rights)| {
            format!("Authorization: Bearer {}\r\n", rights.badge(badge).token)
        })
    }

    /// What its token says of an action within a span.
    fn may(&self, action: Action, span_ms: (u64, u64), records: &Records) -> May {
        let rights = records.rights.as_ref();
        rights.map_or(May::ALWAYS, |rights| {
            rights.may(self.badge, action, span_ms)
        })
    }

    fn admits(&self, span_ms: (u64, u64), records: &Records) -> May {
        let known = self.badge.zip(records.rights.as_ref());
        known.map_or(May::ALWAYS, |(badge, rights)| rights.admits(badge, span_ms))
    }

    /// The answer to a request for one topic. True: it is not let in.
    pub(super) fn is_turned_away(&self, status: u16, around: &mut Surroundings<'_>) -> bool {
        if self.badge.is_none() {
            return false;
        }
        let span_ms = (self.asked_ms, around.now_ms);
        let action = Action::Subscribe(Target::Topic(self.topic));
        let (may, admits) = (
            self.may(action, span_ms, around.records),
            self.admits(span_ms, around.records),
        );
        let of = (self.id, self.badge);
        match status {
            101 | 200 => assert!(may.perhaps && admits.perhaps, "{of:?} is let in"),
            401 => assert!(!admits.surely, "{of:?} is not let in"),
            403 => {
                assert!(!may.surely, "{of:?} may subscribe");
                around.cover.add("handshake without the right", 1);
            }
            _ => {}
        }
        matches!(status, 401 | 403)
    }

    /// Whether a Close is one of those that come with tokens. Then it has its reason.
    pub(super) fn is_closed_by_right(&self, code: u16, around: &mut Surroundings<'_>) -> bool {
        if let Some(many) = &self.many {
            return many.is_closed_by_right(code, around);
        }
        let (Some(badge), Some(rights)) = (self.badge, &around.records.rights) else {
            return false;
        };
        let (asked_ms, now_ms) = (self.asked_ms, around.now_ms);
        let lacks = |action| !self.may(action, (asked_ms, now_ms), around.records).surely;
        let is_due = match code {
            // At once if it publishes then.
            4401 => rights.badge(badge).end_ms.is_some_and(|it| it <= now_ms),
            4403 => {
                rights.is_denied(badge, (asked_ms, now_ms)).perhaps
                    || lacks(Action::Subscribe(Target::Topic(self.topic)))
            }
            1008 => lacks(Action::Publish(self.topic)),
            _ => return false,
        };
        assert!(is_due, "{code} to {} with {badge}", self.id);
        let path = format!("close {code} for want of a right, of one topic");
        around.cover.add(&path, 1);
        true
    }

    /// A connection for requests, or a stream, may end without a word: its token is denied, or over, or allows nothing.
    pub(super) fn may_be_cut_off(&self, around: &Surroundings<'_>) -> bool {
        let (Some(badge), Some(rights)) = (self.badge, &around.records.rights) else {
            return false;
        };
        rights
            .is_denied(badge, (self.asked_ms, around.now_ms))
            .perhaps
    }

    /// Publishes of a connection of one topic, which are judged by what its token allowed when it opened, or by the last
    /// reload.
    pub(super) fn note_publish(&self, number: usize, around: &mut Surroundings<'_>) {
        if self.badge.is_none() {
            return;
        }
        around.records.publishes[number].may_be_refused = true;
        let (badge, span_ms) = (self.badge, (around.now_ms, around.now_ms));
        let action = Action::Publish(around.records.publishes[number].topic);
        let is_allowed = self.may(action, span_ms, around.records).perhaps;
        if let Some(rights) = &mut around.records.rights
            && (!is_allowed || rights.has_ended(badge, around.now_ms))
        {
            rights.forbid(number);
            around
                .cover
                .add("publish without the right, by one topic", 1);
        }
    }

    /// Whether it would be closed for publishing, and does not want to be.
    pub(super) fn holds_its_tongue(&self, around: &mut Surroundings<'_>) -> bool {
        let span_ms = (around.now_ms, around.now_ms);
        let may = self.may(Action::Publish(self.topic), span_ms, around.records);
        let rights = around.records.rights.as_mut();
        !may.surely && rights.is_some_and(|rights| rights.random.chance(80))
    }

    /// The answer to a publish by request: it was allowed, or it is refused for want of a right.
    pub(super) fn check_answer(&self, number: usize, status: u64, around: &mut Surroundings<'_>) {
        let publish = &around.records.publishes[number];
        let (action, span_ms) = (
            Action::Publish(publish.topic),
            (publish.sent_ms, around.now_ms),
        );
        let may = self.may(action, span_ms, around.records);
        let admits = self.admits(span_ms, around.records);
        let of = (self.id, self.badge, number);
        match status {
            200 => assert!(may.perhaps && admits.perhaps, "{of:?} was published"),
            401 => assert!(!admits.surely, "{of:?} was refused"),
            403 => {
                assert!(!may.surely, "{of:?} was refused");
                around.cover.add("request without the right", 1);
            }
            _ => {}
        }
        if matches!(status, 401 | 403) {
            around.records.refuse(number);
        }
    }

    /// At rest: it is not there if its right or its token is over.
    pub(super) fn check_carried(&self, now_ms: u64, records: &Records) {
        let (Some(badge), Some(rights)) = (self.badge, &records.rights) else {
            return;
        };
        if self.is_open && self.view.is_some() {
            let action = Action::Subscribe(Target::Topic(self.topic));
            let may = rights.may(Some(badge), action, (now_ms, now_ms));
            assert!(may.perhaps, "{} is still subscribed", self.id);
            rights.check_over(badge, now_ms, "is still there");
        }
    }

    /// Every reactor has newer grants: what they do not allow has ended, whenever that is told.
    pub fn lose(&self, (now_ms, step): (u64, u64), records: &mut Records) {
        if let Some(many) = &self.many {
            return many.lose((now_ms, step), records);
        }
        let action = Action::Subscribe(Target::Topic(self.topic));
        let may = self.may(action, (now_ms, now_ms), records);
        if let (Some(view), Some(rights), false) = (self.view, &mut records.rights, may.perhaps) {
            rights.lose(view, step);
        }
    }
}
