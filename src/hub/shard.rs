//! One shard of the hub: the order of its topics, what they keep, and which reactors have subscribers of each.

use std::sync::Arc;

use super::command::{Command, Effect, Join, Joined, LocalTopic, Origin, ReactorId, Start};
use super::history::{Histories, RecoveryLimits};
use super::idempotency::{Idempotency, KeySettings, Outcome};
use super::patterns::MatchPatterns;
use super::presence::{Member, Presence, PresenceChange};
use super::publication::{Position, Publication};
use super::topic_state::{Kept, Reactors, TopicState};
use crate::topic::Topic;
use crate::topic::TopicRules;
use crate::topic::table::TopicTable;

mod listings;
mod migration;
mod once;
mod read;

/// Bytes of histories that one command lets go of.
const SHED_BYTES_MAX: usize = 4 << 20;

/// Settings of a shard: rules and limits of its topics.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// Rules of topics.
    pub rules: TopicRules,
    /// Bytes of the histories of this shard's topics.
    pub history_bytes_max: usize,
    /// Publications handed to one subscriber at once. Where more were missed, none are handed out.
    pub recovery_publications_max: usize,
    /// Bytes of their WebSocket frames.
    pub recovery_bytes_max: usize,
    /// Those present on one topic of whom others are told. More only count.
    pub presence_max: usize,
    /// Idempotency keys. A reload leaves them as they are.
    pub keys: KeySettings,
}

impl Default for ShardSettings {
    /// No rules, and so no histories.
    fn default() -> ShardSettings {
        ShardSettings {
            rules: TopicRules::default(),
            history_bytes_max: 256 << 20,
            recovery_publications_max: 10_000,
            recovery_bytes_max: 1 << 20,
            presence_max: 10_000,
            keys: KeySettings::default(),
        }
    }
}

/// A reactor that subscribes, and what it calls the topic or pattern.
type Subscriber = (ReactorId, LocalTopic);

/// The topics of one shard. A topic exists while a reactor has subscribers of it, while somebody is present there, and
/// while it has a history, or a head that its history leaves. It leaves nothing behind.
#[derive(Debug)]
pub struct Shard {
    topics: TopicTable<TopicState>,
    histories: Histories,
    rules: TopicRules,
    recovery: RecoveryLimits,
    presence_max: usize,
    /// Bytes that the members of its topics count as.
    presence_bytes: usize,
    key_settings: KeySettings,
    /// The idempotency keys of its topics, while there are any.
    keys: Option<Box<Idempotency>>,
    /// Publications that were given their place.
    publications: u64,
    /// Topics are on their way to new settings.
    migration: Option<Box<migration::Migration>>,
    /// The epoch of the next topic that comes into being.
    next_epoch: u64,
}

impl Shard {
    /// A shard without topics. `first_epoch` must differ between shards and between runs of the process by more than
    /// the number of topics that a shard ever sees: take it from the system's entropy.
    pub fn new(first_epoch: u64, settings: ShardSettings) -> Shard {
        Shard {
            topics: TopicTable::default(),
            histories: Histories::new(settings.history_bytes_max),
            rules: settings.rules,
            recovery: RecoveryLimits {
                publications_max: settings.recovery_publications_max,
                bytes_max: settings.recovery_bytes_max,
            },
            presence_max: settings.presence_max,
            presence_bytes: 0,
            key_settings: settings.keys,
            keys: None,
            publications: 0,
            migration: None,
            next_epoch: first_epoch,
        }
    }

    /// Topics with subscribers, with somebody present, or with a history.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Publications that were given their place since the start.
    pub fn publications(&self) -> u64 {
        self.publications
    }

    /// Bytes that count towards what the histories of all topics may hold.
    pub fn history_bytes(&self) -> usize {
        self.histories.bytes()
    }

    /// Bytes that the members of all topics count as.
    pub fn presence_bytes(&self) -> usize {
        self.presence_bytes
    }

    /// Publications in the histories of all topics.
    pub fn history_publications(&self) -> usize {
        self.histories.publications()
    }

    /// Carries out one command. What is to be done next is appended to `effects`, in order. Gives the visits that
    /// patterns cost: see `VISITS_MAX`.
    pub fn handle_command(
        &mut self,
        command: Command,
        patterns: &impl MatchPatterns,
        effects: &mut Vec<Effect>,
    ) -> usize {
        match command {
            Command::Publish {
                topic,
                publication,
                origin,
            } => return self.handle_publish(topic, publication, origin, patterns, effects),
            Command::PublishOnce(once) => return self.publish_once(*once, patterns, effects),
            Command::Subscribe {
                topic,
                reactor,
                local,
            } => {
                self.subscribe(&topic, (reactor, local));
            }
            Command::Unsubscribe {
                topic,
                reactor,
                local,
            } => self.handle_unsubscribe(&topic, reactor, local),
            Command::Join(join) => self.handle_join(*join, effects),
            Command::Leave {
                topic,
                reactor,
                connection,
            } => self.handle_leave(&topic, reactor, connection, effects),
            Command::Present {
                topic,
                reactor,
                connection,
                request,
            } => effects.push(self.present(&topic, reactor, connection, request)),
            Command::Read(read) => effects.push(self.read(*read)),
            Command::Empty {
                topic,
                reactor,
                connection,
            } => effects.push(self.empty(&topic, reactor, connection)),
            Command::List {
                scope,
                reactor,
                connection,
            } => effects.push(self.list(&scope, reactor, connection)),
            Command::PassOn { listing } => effects.push(Effect::Listed { listing }),
            Command::Expire { now_us, .. } => self.handle_expire(now_us),
            Command::Shed { bytes, .. } => {
                self.histories.shed(bytes.min(SHED_BYTES_MAX));
                self.remove_emptied();
            }
            Command::Reload { settings, .. } => self.reload(*settings),
            Command::Migrate { reactor, .. } => {
                let is_done = self.migrate(effects);
                effects.push(Effect::Migrated { reactor, is_done });
            }
        }
        0
    }

    fn handle_publish(
        &mut self,
        topic: Topic,
        mut publication: Arc<Publication>,
        origin: Origin,
        patterns: &impl MatchPatterns,
        effects: &mut Vec<Effect>,
    ) -> usize {
        self.publications += 1;
        let (mut shows_time, place) = (false, self.topics.find(&topic));
        let place = place.or_else(|| self.insert_for_history(&topic, &mut shows_time));
        let kept = place.and_then(|place| self.kept(place));
        shows_time |= kept.is_some_and(|kept| kept.shows_time);
        let kept_at = place.filter(|_| kept.is_some_and(|kept| kept.history.publications_max > 0));
        // All that a history keeps share one name.
        let known = kept_at.and_then(|place| self.topics.topic(place)).cloned();
        let topic = known.unwrap_or(topic);
        let state = place.and_then(|place| self.topics.get_mut(place));
        // Nobody keeps a topic without a state, so nothing vouches for what came before or comes after.
        let position = state.as_ref().map(|state| state.position.next());
        let position = position.unwrap_or_else(|| Position {
            epoch: Shard::take_epoch(&mut self.next_epoch),
            offset: 1,
        });
        let forms = kept_at.map(|_| self.histories.forms());
        let unshared = Arc::get_mut(&mut publication);
        let unshared = unshared.expect("a publication is shared only after it has its position");
        unshared.place(topic, position, forms, shows_time);
        let delivered_from = effects.len();
        let mut deliver = |(reactor, local): Subscriber| {
            effects.push(Effect::Deliver {
                reactor,
                local,
                publication: Arc::clone(&publication),
            });
        };
        if let Some(state) = state {
            state.position = position;
            state
                .reactors
                .for_each(|reactor, local| deliver((reactor, local)));
        }
        let visits = publication.topic().map_or(0, |topic| {
            patterns.for_each_match(topic, |reactor, local| deliver((reactor, local)))
        });
        if let Some(receipt) = publication.receipt() {
            let shares = effects.len() - delivered_from;
            receipt.begin(position, publication.published_at_us(), shares);
        }
        if let Origin::Connection {
            reactor,
            connection,
            sequence,
        } = origin
        {
            effects.push(Effect::Published {
                reactor,
                connection,
                sequence,
                position,
                outcome: Outcome::Placed,
                lost_receipt: false,
            });
        }
        if let Some(place) = kept_at {
            self.keep(place, publication);
        }
        visits
    }

    /// What a topic has besides subscribers.
    fn kept(&self, place: u32) -> Option<&Kept> {
        let (_, state) = self.topics.get(place)?;
        state.reactors.kept_ref()
    }

    /// Keeps a publication in the history of its topic, which has one.
    fn keep(&mut self, place: u32, publication: Arc<Publication>) {
        let state = self.topics.get_mut(place);
        let Some(kept) = state.and_then(|state| state.reactors.kept()) else {
            return;
        };
        let ring = self
            .histories
            .push(kept.ring, place, kept.history, publication);
        kept.ring = Some(ring);
        self.remove_emptied();
    }

    /// The reactor has subscribers of the topic, which comes into being with them. Gives the topic's place.
    fn subscribe(&mut self, topic: &Topic, (reactor, local): Subscriber) -> u32 {
        if let Some(place) = self.topics.find(topic)
            && let Some(state) = self.topics.get_mut(place)
        {
            state.reactors.set(reactor, local);
            return place;
        }
        let mut reactors = match self.begin_keeping(topic) {
            Some(kept) => Reactors::Kept(kept),
            None => Reactors::One(reactor, local),
        };
        reactors.set(reactor, local);
        self.insert(topic.clone(), reactors)
    }

    /// A topic that nobody knows comes into being with its first publication, if its rule gives it a history.
    /// Sets `shows_time` if the rule says so, history or not.
    fn insert_for_history(&mut self, topic: &Topic, shows_time: &mut bool) -> Option<u32> {
        let kept = self.begin_keeping(topic)?;
        *shows_time = kept.shows_time;
        let has_history = kept.history.publications_max > 0;
        has_history.then(|| self.insert(topic.clone(), Reactors::Kept(kept)))
    }

    /// What a topic that comes into being gets by its rule, besides subscribers.
    fn begin_keeping(&self, topic: &Topic) -> Option<Box<Kept>> {
        if self.rules.is_empty() {
            return None;
        }
        Kept::new(&self.rules.rule(topic))
    }

    fn insert(&mut self, topic: Topic, reactors: Reactors) -> u32 {
        let epoch = Shard::take_epoch(&mut self.next_epoch);
        let position = Position { epoch, offset: 0 };
        self.topics.insert(topic, TopicState { position, reactors })
    }

    fn handle_unsubscribe(&mut self, topic: &Topic, reactor: ReactorId, local: LocalTopic) {
        let Some(place) = self.topics.find(topic) else {
            return;
        };
        let Some(state) = self.topics.get_mut(place) else {
            return;
        };
        let had_subscribers = state.reactors.has_any();
        let is_unused = state.reactors.remove(reactor, local);
        let is_left = had_subscribers && !state.reactors.has_any();
        match state.reactors.kept() {
            // Whoever was here may come back, and ask for what was published meanwhile.
            Some(kept) if is_left && kept.history.publications_max > 0 => {
                let head = self.histories.keep_head(kept.ring, place, kept.history);
                kept.ring = Some(head);
                self.remove_emptied();
            }
            _ if is_unused => {
                self.topics.remove(place);
            }
            _ => {}
        }
    }

    fn handle_join(
        &mut self,
        Join {
            topic,
            reactor,
            local,
            connection,
            request,
            start,
            info,
            identity,
        }: Join,
        effects: &mut Vec<Effect>,
    ) {
        let member = Member {
            reactor,
            connection,
            info,
            identity,
        };
        let place = self.subscribe(&topic, (reactor, local));
        let state = self.topics.get_mut(place);
        // The program itself is nobody's company.
        if reactor != ReactorId::INSIDE
            && let Some(kept) = state.and_then(|state| state.reactors.kept())
            && let Some(presence) = &mut kept.presence
        {
            let join = |presence: &mut Presence| presence.join(member, self.presence_max);
            let come = counted(&mut self.presence_bytes, presence, join);
            if let Some(member) = come {
                let told = (member, true, presence.len());
                tell(&topic, told, &kept.reactors, effects);
            }
        }
        effects.push(Effect::Joined {
            reactor,
            local,
            connection,
            request,
            joined: Box::new(self.recover(place, start)),
        });
    }

    /// Where the topic stands, and what a subscriber that begins there gets first.
    fn recover(&mut self, place: u32, start: Start) -> Joined {
        let state = self
            .topics
            .get_mut(place)
            .expect("a topic with a subscriber is in the table");
        let position = state.position;
        let kept = state.reactors.kept_ref();
        let latest_only = kept.is_some_and(|kept| kept.history.latest_only);
        let ring = kept.and_then(|kept| kept.ring);
        let (histories, limits) = (&mut self.histories, self.recovery);
        let (recovered, mut publications) = match start {
            Start::Now => (None, Vec::new()),
            Start::Last(count) => {
                let after = position.offset.saturating_sub(u64::from(count));
                let newest = ring.map(|ring| histories.newest_after(ring, after, limits).0);
                (None, newest.unwrap_or_default())
            }
            Start::Since(since) => {
                let is_known = since.epoch == position.epoch && since.offset <= position.offset;
                let missed = match (is_known, ring) {
                    (true, _) if since.offset == position.offset => Some(Vec::new()),
                    (true, Some(ring)) => histories.all_after(ring, since.offset, limits),
                    _ => None,
                };
                (Some(missed.is_some()), missed.unwrap_or_default())
            }
        };
        let wants_snapshot = start == Start::Now || recovered == Some(false);
        let mut snapshot = None;
        if latest_only && wants_snapshot {
            let (newest, is_whole) = ring.map_or_else(
                || (Vec::new(), position.offset == 0),
                |ring| histories.snapshot(ring, limits),
            );
            (publications, snapshot) = (newest, Some(is_whole));
        }
        // What was asked for may turn out to be too old.
        self.remove_emptied();
        let after = match start {
            Start::Since(since) if recovered == Some(true) => Some(since.offset),
            _ => None,
        };
        Joined {
            position,
            recovered,
            after,
            snapshot,
            publications,
        }
    }

    fn handle_leave(
        &mut self,
        topic: &Topic,
        reactor: ReactorId,
        connection: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(place) = self.topics.find(topic) else {
            return;
        };
        let state = self.topics.get_mut(place);
        let Some(reactors) = state.map(|state| &mut state.reactors) else {
            return;
        };
        if let Some(kept) = reactors.kept()
            && let Some(presence) = &mut kept.presence
        {
            let leave = |presence: &mut Presence| presence.leave(reactor, connection);
            let (gone, come) = counted(&mut self.presence_bytes, presence, leave);
            for (member, is_join) in [(gone, false), (come, true)] {
                if let Some(member) = member {
                    let told = (member, is_join, presence.len());
                    tell(topic, told, &kept.reactors, effects);
                }
            }
        }
        if reactors.is_unused() {
            self.topics.remove(place);
        }
    }

    /// The answer to who is present.
    fn present(
        &mut self,
        topic: &Topic,
        reactor: ReactorId,
        connection: u64,
        request: u32,
    ) -> Effect {
        let place = self.topics.find(topic);
        let state = place.and_then(|place| self.topics.get_mut(place));
        let kept = state.and_then(|state| state.reactors.kept());
        let presence = kept.and_then(|kept| kept.presence.as_mut());
        let (members, total) = presence.map_or_else(
            || (Arc::default(), 0),
            |presence| {
                let members = counted(&mut self.presence_bytes, presence, Presence::members);
                (members, presence.len())
            },
        );
        Effect::Present {
            reactor,
            connection,
            request,
            members,
            total: u32::try_from(total).unwrap_or(u32::MAX),
        }
    }

    fn handle_expire(&mut self, now_us: u64) {
        self.histories.expire(now_us);
        self.remove_emptied();
        self.expire_keys(now_us);
    }

    /// Topics whose history has gone stay only if something else keeps them.
    fn remove_emptied(&mut self) {
        while let Some(place) = self.histories.take_emptied() {
            let Some(state) = self.topics.get_mut(place) else {
                continue;
            };
            if let Some(kept) = state.reactors.kept() {
                kept.ring = None;
            }
            if state.reactors.is_unused() {
                self.topics.remove(place);
            }
        }
    }

    fn take_epoch(next_epoch: &mut u64) -> u64 {
        let epoch = *next_epoch;
        *next_epoch = next_epoch.wrapping_add(1);
        epoch
    }
}

/// Changes the members of a topic, and the bytes that those of all topics count as.
fn counted<T>(
    bytes: &mut usize,
    presence: &mut Presence,
    change: impl FnOnce(&mut Presence) -> T,
) -> T {
    let before = presence.bytes();
    let outcome = change(presence);
    *bytes = *bytes + presence.bytes() - before;
    outcome
}

/// Tells the reactors with subscribers of a topic who came or went.
fn tell(
    topic: &Topic,
    (member, is_join, members): (Member, bool, usize),
    reactors: &[Subscriber],
    effects: &mut Vec<Effect>,
) {
    let change = Arc::new(PresenceChange {
        topic: topic.clone(),
        member,
        is_join,
        members: u32::try_from(members).unwrap_or(u32::MAX),
    });
    effects.extend(
        reactors
            .iter()
            .map(|&(reactor, local)| Effect::PresenceChanged {
                reactor,
                local,
                change: Arc::clone(&change),
            }),
    );
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod sequences;
#[cfg(test)]
mod tests;
