//! A shard against a naive model: any sequence of commands has the effects that the model foresees.
//!
//! Beside the model stands a ledger that knows nothing of rings and rules. It holds what each publication was when it
//! was published, and checks what subscribers see: offsets without a hole or a repetition from what they were handed
//! when they joined on, and one epoch for each life of a topic.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::model::{
    JoinStart, Model, PATTERNS, RELOADS, Seen, TOPICS, TopicModel, name, rules, settings,
};
use super::*;
use crate::hub::{Kind, PatternPart, Read, Scope};
use crate::topic::Pattern;

/// Payload of the longest publication.
const PAYLOAD_BYTES_MAX: usize = 300;

/// Where a join begins, in terms of where the topic stands.
#[derive(Clone, Copy, Debug)]
enum Beginning {
    Now,
    Last(u32),
    /// So many before the newest; a negative number: behind it.
    Back(i8),
    OtherEpoch(u64),
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize, usize),
    Subscribe(usize, u16),
    /// The flag: by an older name.
    Unsubscribe(usize, u16, bool),
    Join(usize, u16, u64, Beginning),
    /// The number: publications of the page.
    Read(usize, Beginning, u32),
    Leave(usize, u16, u64),
    Present(usize),
    SubscribePattern(usize, u16),
    UnsubscribePattern(usize, u16),
    Wait(u64),
    Expire,
    Reload(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let topic = || 0..TOPICS.len();
    let pattern = || 0..PATTERNS.len();
    let beginning = || {
        prop_oneof![
            Just(Beginning::Now),
            (0..8u32).prop_map(Beginning::Last),
            (-1..8i8).prop_map(Beginning::Back),
            (0..40u64).prop_map(Beginning::OtherEpoch),
        ]
    };
    let step = prop_oneof![
        12 => (topic(), 4..PAYLOAD_BYTES_MAX).prop_map(|(topic, bytes)| Step::Publish(topic, bytes)),
        2 => (topic(), 0..3u16).prop_map(|(topic, reactor)| Step::Subscribe(topic, reactor)),
        4 => (topic(), 0..3u16, prop::bool::weighted(0.2))
            .prop_map(|(topic, reactor, old)| Step::Unsubscribe(topic, reactor, old)),
        6 => (topic(), 0..3u16, 0..4u64, beginning())
            .prop_map(|(topic, reactor, connection, beginning)| Step::Join(topic, reactor, connection, beginning)),
        3 => (topic(), 0..3u16, 0..4u64)
            .prop_map(|(topic, reactor, connection)| Step::Leave(topic, reactor, connection)),
        3 => (topic(), beginning(), 1..6u32).prop_map(|(topic, beginning, limit)| Step::Read(topic, beginning, limit)),
        1 => topic().prop_map(Step::Present),
        1 => (pattern(), 0..3u16).prop_map(|(pattern, reactor)| Step::SubscribePattern(pattern, reactor)),
        1 => (pattern(), 0..3u16).prop_map(|(pattern, reactor)| Step::UnsubscribePattern(pattern, reactor)),
        3 => (0..2000u64).prop_map(Step::Wait),
        1 => Just(Step::Expire),
        1 => (0..RELOADS.len()).prop_map(Step::Reload),
    ];
    prop::collection::vec(step, 1..200)
}

/// What was published, and what each subscriber is to see next.
#[derive(Default)]
struct Ledger {
    published: BTreeMap<(usize, u64, u64), Vec<u8>>,
    /// The epochs that there were.
    epochs: BTreeSet<u64>,
    /// The epochs of the topics that live.
    lives: BTreeMap<usize, u64>,
    /// By topic, reactor and connection: the local name, and the position of the newest publication seen.
    streams: BTreeMap<(usize, u16, u64), (LocalTopic, Position)>,
}

impl Ledger {
    /// An epoch is that of the topic's life, or one that never was.
    fn see_epoch(&mut self, topic: usize, epoch: u64) {
        match self.lives.insert(topic, epoch) {
            Some(known) => assert_eq!(known, epoch, "one epoch for one life"),
            None => assert!(self.epochs.insert(epoch), "an epoch of its own"),
        }
    }

    fn see_delivery(&mut self, topic: usize, reactor: u16, local: LocalTopic, position: Position) {
        for (_, (known, newest)) in self
            .streams
            .range_mut((topic, reactor, 0)..=(topic, reactor, u64::MAX))
        {
            if *known == local {
                newest.offset += 1;
                assert_eq!(*newest, position, "no hole and no repetition");
            }
        }
    }

    fn see_joined(&mut self, topic: usize, since: Option<Position>, joined: &Joined) {
        let first = joined.position.offset + 1 - joined.publications.len() as u64;
        for (offset, publication) in (first..).zip(&joined.publications) {
            let epoch = joined.position.epoch;
            assert_eq!(publication.position(), Position { epoch, offset });
            assert_eq!(
                publication.payload(),
                self.published[&(topic, epoch, offset)]
            );
        }
        if joined.recovered == Some(true) {
            let since = since.expect("a position was asked for");
            assert_eq!(
                (since.epoch, since.offset + 1),
                (joined.position.epoch, first)
            );
        }
        if joined.recovered == Some(false) {
            assert!(joined.publications.is_empty());
        }
    }
}

struct World {
    shard: Shard,
    patterns: PatternPart,
    model: Model,
    ledger: Ledger,
    /// Names that reactors have given, the newest last.
    names: BTreeMap<(usize, u16), Vec<LocalTopic>>,
    generation: u32,
    clock_us: u64,
}

impl World {
    fn new() -> World {
        World {
            shard: Shard::new(1 << 32, settings()),
            patterns: PatternPart::default(),
            model: Model::new(),
            ledger: Ledger::default(),
            names: BTreeMap::new(),
            generation: 0,
            clock_us: 0,
        }
    }

    fn new_name(&mut self, topic: usize, reactor: u16) -> LocalTopic {
        self.generation += 1;
        let local = LocalTopic {
            index: topic as u32,
            generation: self.generation,
        };
        self.names.entry((topic, reactor)).or_default().push(local);
        // Who was there under an older name is gone, or the reactor would not give a new one.
        let streams = &mut self.ledger.streams;
        streams.retain(|name, _| (name.0, name.1) != (topic, reactor));
        local
    }

    /// What the reactor calls the topic at present.
    fn known_name(&self, topic: usize, reactor: u16) -> Option<LocalTopic> {
        let state = self.model.topics.get(&topic)?;
        let known = state.reactors.iter().find(|known| known.0 == reactor)?;
        Some(known.1)
    }

    /// Has a command carried out, and holds its effects against what was foreseen.
    fn run(&mut self, topic: usize, command: Command, mut expected: Vec<Seen>) -> Vec<Effect> {
        let mut effects = Vec::new();
        let since = match &command {
            Command::Join(join) => match join.start {
                Start::Since(since) => Some(since),
                Start::Now | Start::Last(_) => None,
            },
            _ => None,
        };
        self.shard
            .handle_command(command, &self.patterns, &mut effects);
        let mut seen: Vec<Seen> = effects
            .iter()
            .map(|effect| self.see(topic, since, effect))
            .collect();
        // The order of patterns among each other is nobody's business.
        let deliveries = |seen: &[Seen]| {
            let is_delivery = |one: &&Seen| matches!(one, Seen::Deliver(..));
            seen.iter().take_while(is_delivery).count()
        };
        let (seen_to, expected_to) = (deliveries(&seen), deliveries(&expected));
        seen[..seen_to].sort();
        expected[..expected_to].sort();
        assert_eq!(seen, expected);
        assert_eq!(self.shard.topic_count(), self.model.topics.len());
        let bytes = self.model.topics.values().map(TopicModel::cost);
        assert_eq!(self.shard.history_bytes(), bytes.sum::<usize>());
        let shard = &self.shard;
        let places = 0..shard.topics.places_end();
        let present = places.filter_map(|place| shard.kept(place)?.presence.as_ref());
        let bytes = present.map(Presence::bytes).sum::<usize>();
        assert_eq!(shard.presence_bytes(), bytes);
        let topics = &self.model.topics;
        self.ledger
            .lives
            .retain(|topic, _| topics.contains_key(topic));
        let place = self.shard.topics.find(&name(topic));
        if let Some(state) = place.and_then(|place| self.shard.topics.get_mut(place)) {
            self.ledger.see_epoch(topic, state.position.epoch);
        }
        effects
    }

    fn see(&mut self, topic: usize, since: Option<Position>, effect: &Effect) -> Seen {
        let ledger = &mut self.ledger;
        match effect {
            Effect::Deliver {
                reactor,
                local,
                publication,
            } => {
                let position = publication.position();
                ledger.see_epoch(topic, position.epoch);
                ledger.see_delivery(topic, reactor.0, *local, position);
                Seen::Deliver(reactor.0, local.index, local.generation, position.offset)
            }
            Effect::Published { position, .. } => {
                ledger.see_epoch(topic, position.epoch);
                Seen::Published(position.offset)
            }
            Effect::Joined {
                reactor,
                local,
                connection,
                joined,
                ..
            } => {
                let position = joined.position;
                ledger.see_epoch(topic, position.epoch);
                ledger.see_joined(topic, since, joined);
                let stream = (topic, reactor.0, *connection);
                ledger.streams.insert(stream, (*local, position));
                let publications = joined.publications.iter();
                let offsets = publications.map(|next| next.position().offset).collect();
                let (newest, recovered) = (position.offset, joined.recovered);
                Seen::Joined(reactor.0, *connection, newest, recovered, offsets)
            }
            Effect::PresenceChanged {
                reactor,
                local,
                change,
            } => Seen::Changed(
                reactor.0,
                local.index,
                change.member.connection,
                change.is_join,
            ),
            Effect::Present { members, total, .. } => {
                let names = members.iter();
                let names = names.map(|member| (member.reactor.0, member.connection));
                Seen::Present(names.collect(), *total)
            }
            Effect::Read { page, .. } => {
                let publications = page.publications.iter();
                let offsets = publications.map(|next| next.position().offset).collect();
                let newest = page.position.map(|position| position.offset);
                Seen::Read(newest, page.recovered, offsets, page.has_more)
            }
            Effect::Listed { .. } | Effect::Migrated { .. } => {
                panic!("it was not asked for")
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish(topic, bytes) => self.publish(topic, bytes),
            Step::Subscribe(topic, reactor) => {
                let local = self.new_name(topic, reactor);
                self.model.subscribe(topic, reactor, local);
                let command = Command::Subscribe {
                    topic: name(topic),
                    reactor: ReactorId(reactor),
                    local,
                };
                self.run(topic, command, vec![]);
            }
            Step::Unsubscribe(topic, reactor, by_older_name) => {
                self.unsubscribe(topic, reactor, by_older_name);
            }
            Step::Join(topic, reactor, connection, beginning) => {
                self.join(topic, reactor, connection, beginning);
            }
            Step::Read(topic, beginning, limit) => self.read(topic, beginning, limit),
            Step::Leave(topic, reactor, connection) => {
                self.ledger.streams.remove(&(topic, reactor, connection));
                let expected = self.model.leave(topic, reactor, connection);
                let command = Command::Leave {
                    topic: name(topic),
                    reactor: ReactorId(reactor),
                    connection,
                };
                self.run(topic, command, expected);
            }
            Step::Present(topic) => {
                let expected = self.model.present(topic);
                let command = Command::Present {
                    topic: name(topic),
                    reactor: ReactorId(0),
                    connection: 0,
                    request: 0,
                };
                self.run(topic, command, expected);
            }
            Step::SubscribePattern(pattern, reactor) => self.subscribe_pattern(pattern, reactor),
            Step::UnsubscribePattern(pattern, reactor) => {
                self.unsubscribe_pattern(pattern, reactor);
            }
            Step::Wait(us) => self.clock_us += us,
            Step::Expire => self.expire(self.clock_us),
            Step::Reload(rules) => self.reload(RELOADS[rules]),
        }
    }

    /// What the steps of a migration do together is what the model does at once.
    fn reload(&mut self, texts: &[&str]) {
        let settings = ShardSettings {
            rules: rules(texts),
            ..settings()
        };
        let mut expected = self.model.reload(settings.rules.clone());
        let mut effects = Vec::new();
        let settings = Box::new(settings);
        let command = Command::Reload { shard: 0, settings };
        self.shard
            .handle_command(command, &self.patterns, &mut effects);
        assert!(effects.is_empty());
        let reactor = ReactorId(0);
        for _ in 0..100 {
            let command = Command::Migrate { shard: 0, reactor };
            self.shard
                .handle_command(command, &self.patterns, &mut effects);
            let Some(Effect::Migrated { is_done, .. }) = effects.pop() else {
                panic!("each step is answered last");
            };
            if is_done {
                break;
            }
        }
        assert!(self.shard.migration.is_none(), "it ends");
        let seen = effects.iter().map(|effect| self.see(0, None, effect));
        let mut seen: Vec<_> = seen.collect();
        seen.sort();
        expected.sort();
        assert_eq!(seen, expected);
        self.run(
            0,
            Command::Expire {
                shard: 0,
                now_us: 0,
            },
            vec![],
        );
    }

    fn publish(&mut self, topic: usize, bytes: usize) {
        self.generation += 1;
        let mut payload = self.generation.to_be_bytes().to_vec();
        payload.resize(bytes, b'x');
        let publication = Publication::new(Kind::Binary, &payload, self.clock_us);
        let expected = self.model.publish(topic, &publication);
        let command = Command::Publish {
            topic: name(topic),
            publication: Arc::new(publication),
            origin: Origin::Connection {
                reactor: ReactorId(0),
                connection: 0,
                sequence: 0,
            },
        };
        let effects = self.run(topic, command, expected);
        let Some(Effect::Published { position, .. }) = effects.last() else {
            panic!("the publisher is told last");
        };
        let place = (topic, position.epoch, position.offset);
        self.ledger.published.insert(place, payload);
    }

    fn unsubscribe(&mut self, topic: usize, reactor: u16, by_older_name: bool) {
        let names = self.names.get(&(topic, reactor));
        let Some(&newest) = names.and_then(|names| names.last()) else {
            return;
        };
        let local = if by_older_name {
            LocalTopic {
                generation: newest.generation - 1,
                ..newest
            }
        } else {
            let streams = &mut self.ledger.streams;
            streams.retain(|name, _| (name.0, name.1) != (topic, reactor));
            newest
        };
        self.model.unsubscribe(topic, reactor, local);
        let command = Command::Unsubscribe {
            topic: name(topic),
            reactor: ReactorId(reactor),
            local,
        };
        self.run(topic, command, vec![]);
    }

    fn read(&mut self, topic: usize, beginning: Beginning, limit: u32) {
        let (start, wanted) = self.start(topic, beginning);
        let expected = self.model.read(topic, wanted, limit);
        let command = Command::Read(Box::new(Read {
            topic: name(topic),
            reactor: ReactorId(0),
            connection: 0,
            request: 0,
            start,
            publications_max: limit,
            now_us: 0,
        }));
        self.run(topic, command, expected);
    }

    /// What a beginning is for the shard, and for the model.
    fn start(&self, topic: usize, beginning: Beginning) -> (Start, JoinStart) {
        let newest = self
            .model
            .topics
            .get(&topic)
            .map_or(0, |topic| topic.newest);
        let life = self.ledger.lives.get(&topic).copied();
        match beginning {
            Beginning::Now => (Start::Now, JoinStart::Nothing),
            Beginning::Last(count) => (Start::Last(count), JoinStart::Last(count.into())),
            Beginning::Back(back) => {
                let offset = newest.saturating_add_signed(-i64::from(back));
                let position = Position {
                    epoch: life.unwrap_or(0),
                    offset,
                };
                let missed = life.and_then(|_| newest.checked_sub(offset));
                (Start::Since(position), JoinStart::Since(missed))
            }
            Beginning::OtherEpoch(back) => {
                let epoch = self.shard.next_epoch - 1 - back;
                let is_other = life != Some(epoch);
                let position = Position { epoch, offset: 0 };
                let missed = (!is_other).then_some(newest);
                (Start::Since(position), JoinStart::Since(missed))
            }
        }
    }

    fn join(&mut self, topic: usize, reactor: u16, connection: u64, beginning: Beginning) {
        let (start, wanted) = self.start(topic, beginning);
        let local = match self.known_name(topic, reactor) {
            Some(local) => local,
            None => self.new_name(topic, reactor),
        };
        self.model.subscribe(topic, reactor, local);
        let expected = self.model.join(topic, reactor, connection, wanted);
        let command = Command::Join(Box::new(Join {
            topic: name(topic),
            reactor: ReactorId(reactor),
            local,
            connection,
            request: 0,
            start,
            info: None,
            identity: None,
        }));
        self.run(topic, command, expected);
    }

    fn pattern_name(pattern: usize) -> LocalTopic {
        LocalTopic {
            index: LocalTopic::PATTERN_BIT | pattern as u32,
            generation: 0,
        }
    }

    fn subscribe_pattern(&mut self, pattern: usize, reactor: u16) {
        let local = World::pattern_name(pattern);
        self.model.patterns.insert((pattern, reactor), local);
        let wanted = Pattern::parse(PATTERNS[pattern]).expect("a pattern");
        self.patterns.subscribe(&wanted, ReactorId(reactor), local);
    }

    fn unsubscribe_pattern(&mut self, pattern: usize, reactor: u16) {
        self.model.patterns.remove(&(pattern, reactor));
        let unwanted = Pattern::parse(PATTERNS[pattern]).expect("a pattern");
        let local = World::pattern_name(pattern);
        self.patterns
            .unsubscribe(&unwanted, ReactorId(reactor), local);
    }

    fn expire(&mut self, now_us: u64) {
        self.model.expire(now_us);
        self.run(0, Command::Expire { shard: 0, now_us }, vec![]);
        self.list();
    }

    /// The topics, a few places at a time, are those of the model, and each is listed once.
    fn list(&self) {
        let mut listed = BTreeMap::new();
        let (mut next, mut others) = (Some(0), BTreeSet::new());
        while let Some(first) = next {
            let scope = Scope::Places {
                shard: 0,
                first,
                topics_max: 2,
            };
            let Effect::Listed { mut listing } = self.shard.list(&scope, ReactorId(9), 5) else {
                panic!("a listing is answered by one");
            };
            next = listing.next;
            while listing.reactor() != listing.asker() {
                others.insert(listing.reactor().0);
                listing.add(|_| 0);
            }
            assert!(listing.add(|_| 3) && listing.topics.len() <= 2);
            for topic in listing.topics {
                assert_eq!(topic.subscribers, 3);
                let history = topic.history.unwrap_or_default();
                let present = topic.present.unwrap_or(0) as usize;
                let (newest, publications) = (topic.position.offset, history.publications);
                let seen = (newest, publications, history.bytes, present);
                let before = listed.insert(topic.topic.as_str().to_owned(), seen);
                assert_eq!(before, None, "it is listed twice");
            }
        }
        let topics = self
            .model
            .topics
            .iter()
            .filter(|(_, topic)| topic.is_listed());
        let expected = topics.map(|(&topic, state)| (TOPICS[topic].to_owned(), state.listed()));
        assert_eq!(listed, expected.collect());
        let reactors = self.model.topics.values().flat_map(|state| &state.reactors);
        assert_eq!(others, reactors.map(|known| known.0).collect());
    }

    /// Everybody leaves, and time passes.
    fn end(&mut self) {
        for topic in 0..TOPICS.len() {
            for reactor in 0..3 {
                for connection in 0..4 {
                    self.step(&Step::Leave(topic, reactor, connection));
                }
                self.unsubscribe(topic, reactor, false);
            }
        }
        for pattern in 0..PATTERNS.len() {
            (0..3).for_each(|reactor| self.unsubscribe_pattern(pattern, reactor));
        }
        self.expire(u64::MAX);
        assert_eq!(self.shard.topic_count(), 0);
        assert_eq!(self.shard.histories.bytes(), 0);
        assert!(self.patterns.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_shard_does_what_the_model_foresees(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.end();
    }
}
