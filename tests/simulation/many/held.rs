//! Tokens that peers show on open connections, and what the answers to their commands say of their rights.

use serde_json::{Value, json};

use super::{Many, Pending};
use crate::peer::Surroundings;
use crate::records::Records;
use crate::rights::held::Holder;
use crate::rights::scopes::Action;
use crate::rights::{May, SLACK_MS};
use crate::topics::{Target, pattern_number, topic_number};

/// A token that is shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown {
    /// It is its own, and good unless it is over.
    Good(usize),
    /// It is somebody else's.
    Foreign(usize),
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
        self.holder.as_ref().is_none_or(|holder| {
            holder.first().is_some() || holder.newest().is_none() && !self.is_changing()
        })
    }

    /// Shows another token. False: it does not now.
    pub(super) fn show(&mut self, batch: &mut Vec<Value>, around: &mut Surroundings<'_>) -> bool {
        // Who it will be is not known yet.
        let is_becoming = self.is_changing();
        let (Some(holder), Some(rights)) = (&mut self.holder, &mut around.records.rights) else {
            return false;
        };
        // What was sent by nobody is not sent again by somebody.
        let is_becoming = is_becoming && holder.newest().is_none();
        if is_becoming || !self.resend.is_empty() || !rights.random.chance(15) {
            return false;
        }
        let now_ms = around.now_ms;
        let is_foreign = rights.random.chance(10) && !holder.has_shown_foreign;
        let (shown, badge) = match (rights.random.below(10), holder.newest()) {
            (_, Some(newest)) if is_foreign => {
                holder.has_shown_foreign = true;
                let other = rights.issue_to_other(newest, now_ms);
                (Shown::Foreign(other), other)
            }
            (0, newest) => (Shown::Bad, newest.unwrap_or_else(|| rights.issue(now_ms))),
            (1..5, Some(newest)) => {
                let again = rights.issue_again(newest, now_ms);
                (Shown::Good(again), again)
            }
            (5, Some(newest)) => (Shown::Good(newest), newest),
            (_, Some(newest)) => {
                let other = rights.issue_to_same(newest, now_ms);
                (Shown::Good(other), other)
            }
            (_, None) => {
                let first = rights.issue(now_ms);
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

    /// Whether a command may have been judged to be allowed.
    fn may(&self, id: u32, action: Action, records: &Records) -> May {
        let badge = self.holder.as_ref().and_then(|holder| holder.at(id));
        let asked_ms = self.asked_ms.get(&id).copied().unwrap_or_default();
        may(records, badge, action, (asked_ms, self.now_ms))
    }

    /// Whether something is allowed by the last token that was taken.
    fn may_now(&self, action: Action, now_ms: u64, records: &Records) -> May {
        let badge = self.holder.as_ref().and_then(Holder::newest);
        may(records, badge, action, (now_ms, now_ms))
    }

    /// A command was carried out: it was allowed, and its token had not ended long ago.
    pub(super) fn check_allowed(
        &self,
        id: u32,
        pending: &Pending,
        answer: &Value,
        records: &Records,
    ) {
        let Some(action) = action_of(pending) else {
            return;
        };
        let may = self.may(id, action, records);
        assert!(
            may.perhaps,
            "{action:?} is not allowed to {self:?}: {answer}"
        );
        let needs_term = !matches!(pending, Pending::Misuse(..));
        let asked_ms = self.asked_ms.get(&id).copied().unwrap_or_default();
        if let Some(end_ms) = self.end_ms(id, records).filter(|_| needs_term) {
            let is_late = asked_ms > end_ms + SLACK_MS;
            assert!(
                !is_late,
                "the token of {self:?} ended at {end_ms}: {answer}"
            );
        }
    }

    /// When the token ends that a command is judged by.
    fn end_ms(&self, id: u32, records: &Records) -> Option<u64> {
        let badge = self.holder.as_ref()?.at(id)?;
        records.rights.as_ref()?.badge(badge).end_ms
    }

    /// A command was refused, for its token or the one that it shows is over.
    pub(super) fn take_unauthorized(
        &mut self,
        id: u32,
        pending: &Pending,
        answer: &Value,
        around: &mut Surroundings<'_>,
    ) {
        let asked_ms = self.asked_ms.get(&id).copied().unwrap_or_default();
        let span_ms = (asked_ms, self.now_ms);
        match pending {
            Pending::Auth(Shown::Bad) => {}
            Pending::Auth(Shown::Good(badge) | Shown::Foreign(badge)) => {
                let rights = around.records.rights.as_ref().expect("it has tokens");
                let may = rights.admits(*badge, span_ms);
                assert!(!may.surely, "{badge} is good for {self:?}: {answer}");
                around.cover.add("refresh by a token that is over", 1);
            }
            Pending::Subscribe(..)
            | Pending::Publish(..)
            | Pending::Misuse(..)
            | Pending::Presence(_)
            | Pending::Page(_) => {
                let end_ms = self.end_ms(id, around.records);
                let has_ended = end_ms.is_some_and(|end_ms| end_ms <= self.now_ms);
                assert!(has_ended, "{end_ms:?} is not over for {self:?}: {answer}");
                around.cover.add("refused behind the end of a token", 1);
            }
            pending => panic!("{answer} to {pending:?}"),
        }
        if let Pending::Publish(number, ..) | Pending::Misuse(number, _) = pending {
            around.records.refuse(*number);
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
        let is_allowed = action.is_none_or(|action| self.may(id, action, around.records).surely);
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
        let asked_ms = self.asked_ms.get(&id).copied().unwrap_or_default();
        let span_ms = (asked_ms, self.now_ms);
        let may = |it: &Target| rights.may(Some(badge), Action::Subscribe(*it), span_ms);
        holder.doomed = held.filter(|it| !may(it).perhaps).collect();
        let may = rights.admits(badge, span_ms);
        assert!(may.perhaps, "{badge} is over: {answer}");
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
        let (is_foretold, newest) = (holder.doomed.remove(&target), holder.newest());
        // By a reload, at any time since it began.
        let rights = around.records.rights.as_ref().expect("it has tokens");
        let since_ms = self
            .live
            .get(&target)
            .map(|view| around.records.views[*view].asked_ms);
        let span_ms = (since_ms.unwrap_or_default(), self.now_ms);
        let may = rights.may(newest, Action::Subscribe(target), span_ms);
        assert!(is_foretold || !may.surely, "it is allowed: {answer}");
        let path = "unsubscribed for want of a right, by a reload";
        around.cover.add(path, u64::from(!is_foretold));
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

    /// At rest: it is subscribed to nothing without the right to it, and is not there if its token is over.
    pub fn check_rights(&self, now_ms: u64, records: &Records) {
        self.check_told("nothing");
        for target in self.live.keys() {
            let may = self.may_now(Action::Subscribe(*target), now_ms, records);
            assert!(may.perhaps, "{target:?} is not allowed to {self:?}");
        }
        self.check_over(now_ms, records, "is still there");
    }

    /// Whoever is over at a moment, and had been for a while, is not there then.
    fn check_over(&self, at_ms: u64, records: &Records, what: &str) {
        if let (Some(badge), Some(rights)) = (self.sure_badge(), &records.rights) {
            rights.check_over(badge, at_ms, what);
        }
    }

    /// Its token, unless another is on its way.
    fn sure_badge(&self) -> Option<usize> {
        let newest = self.holder.as_ref().and_then(Holder::newest);
        newest.filter(|_| !self.is_changing())
    }

    /// A token is on its way.
    fn is_changing(&self) -> bool {
        self.pending
            .values()
            .any(|it| matches!(it, Pending::Auth(_)))
    }

    /// It gets a publication.
    pub(super) fn check_seen(&self, view: usize, number: usize, records: &Records) {
        records.check_seen(self.sure_badge(), (view, number));
    }

    /// Every reactor has newer grants: what they do not allow has ended, whenever that is told.
    pub fn lose(&self, (now_ms, step): (u64, u64), records: &mut Records) {
        if self.holder.is_none() || self.is_changing() {
            return;
        }
        for (target, view) in &self.live {
            let may = self.may_now(Action::Subscribe(*target), now_ms, records);
            if let Some(rights) = records.rights.as_mut().filter(|_| !may.perhaps) {
                rights.lose(*view, step);
            }
        }
    }

    /// A publish that is surely judged by the last token.
    pub(super) fn note_publish(&self, number: usize, topic: usize, records: &mut Records) {
        let may = self.may_now(Action::Publish(topic), self.now_ms, records);
        let badge = self.sure_badge();
        if let Some(rights) = &mut records.rights
            && !self.is_changing()
            && (!may.perhaps || rights.has_ended(badge, self.now_ms))
        {
            rights.forbid(number);
        }
    }

    /// Tokens that it may be known by.
    fn candidates(&self) -> impl Iterator<Item = usize> {
        let newest = self.holder.iter().filter_map(Holder::newest);
        let shown = self.pending.values().filter_map(|it| match it {
            Pending::Auth(Shown::Good(badge)) => Some(*badge),
            _ => None,
        });
        newest.chain(shown)
    }

    /// Whether a Close is one of those that come with tokens. Then it has its reason.
    pub fn is_closed_by_right(&self, code: u16, around: &mut Surroundings<'_>) -> bool {
        let (Some(rights), 4401 | 4403) = (&around.records.rights, code) else {
            return false;
        };
        let now_ms = around.now_ms;
        let is_due = |badge: usize| match code {
            4401 => {
                let end_ms = rights.badge(badge).end_ms;
                end_ms.is_some_and(|end_ms| end_ms + rights.grace_ms / 2 <= now_ms)
            }
            _ => rights.is_denied(badge, (0, now_ms)).perhaps,
        };
        assert!(self.candidates().any(is_due), "{code} to {self:?}");
        true
    }

    /// The answer to the request that opens the connection.
    pub fn check_entry(&self, asked_ms: u64, status: u16, around: &Surroundings<'_>) {
        let first = self.holder.as_ref().and_then(Holder::first);
        let (Some(first), Some(rights)) = (first, &around.records.rights) else {
            assert_ne!(status, 401, "it shows nothing: {self:?}");
            return;
        };
        let may = rights.admits(first, (asked_ms, around.now_ms));
        match status {
            101 => assert!(may.perhaps, "{first} is let in: {self:?}"),
            401 => assert!(!may.surely, "{first} is not let in: {self:?}"),
            _ => {}
        }
    }
}

/// Whether a token allows something within a span. Where there are no tokens, everything is allowed.
fn may(records: &Records, badge: Option<usize>, action: Action, span_ms: (u64, u64)) -> May {
    let rights = records.rights.as_ref();
    rights.map_or(May::ALWAYS, |rights| rights.may(badge, action, span_ms))
}

/// What an answer is about.
fn target_of(answer: &Value) -> Target {
    match answer["pattern"].as_str() {
        Some(pattern) => Target::Pattern(pattern_number(pattern)),
        None => Target::Topic(topic_number(answer["topic"].as_str().expect("a topic"))),
    }
}
