//! One shard of the hub: the order of its topics, and which reactors have subscribers of each.

use std::sync::Arc;

use super::publication::{Position, Publication};
use crate::http::topic::Topic;
use crate::topic_table::TopicTable;

/// A reactor, by its number from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReactorId(pub u16);

/// A topic as one reactor knows it: its place in that reactor's table. It spares the reactor a hash of the topic's
/// name for each publication. The generation tells a place from a later use of the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalTopic {
    /// The place in the reactor's table.
    pub index: u32,
    /// Counts the uses of that place.
    pub generation: u32,
}

/// Who published, and so who is told the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody waits for an answer.
    Detached,
    /// A connection waits. `connection` is opaque to the hub; `sequence` tells the publications of one request apart.
    Connection {
        /// The reactor that owns the connection.
        reactor: ReactorId,
        /// The reactor's own name for the connection.
        connection: u64,
        /// The place within the request, from 0.
        sequence: u32,
    },
}

/// What is asked of a shard.
#[derive(Debug)]
pub enum Command {
    /// Give the publication its place in the topic and hand it to all subscribers.
    Publish {
        /// The topic.
        topic: Topic,
        /// The publication, which nobody else holds yet.
        publication: Arc<Publication>,
        /// Who is told the position.
        origin: Origin,
    },
    /// From here on the reactor has subscribers of the topic.
    Subscribe {
        /// The topic.
        topic: Topic,
        /// The reactor.
        reactor: ReactorId,
        /// The reactor's name for the topic, which deliveries bear.
        local: LocalTopic,
    },
    /// The reactor's last subscriber of the topic is gone.
    Unsubscribe {
        /// The topic.
        topic: Topic,
        /// The reactor.
        reactor: ReactorId,
        /// The reactor's name for the topic. An older one than the hub knows is ignored.
        local: LocalTopic,
    },
}

impl Command {
    /// The topic that the command is about, which decides its shard.
    pub fn topic(&self) -> &Topic {
        match self {
            Command::Publish { topic, .. }
            | Command::Subscribe { topic, .. }
            | Command::Unsubscribe { topic, .. } => topic,
        }
    }

    /// Bytes that it holds while it waits.
    pub fn bytes(&self) -> usize {
        match self {
            Command::Publish { publication, .. } => publication.frame().len(),
            Command::Subscribe { .. } | Command::Unsubscribe { .. } => 0,
        }
    }
}

/// What a shard wants done, in order. All effects are for one reactor's mailbox.
#[derive(Debug)]
pub enum Effect {
    /// Write the publication to the reactor's subscribers of the topic.
    Deliver {
        /// The reactor.
        reactor: ReactorId,
        /// Its name for the topic.
        local: LocalTopic,
        /// The publication.
        publication: Arc<Publication>,
    },
    /// Tell a publisher where its publication stands.
    Published {
        /// The reactor that owns the publisher.
        reactor: ReactorId,
        /// The reactor's own name for the connection.
        connection: u64,
        /// The place within the publisher's request.
        sequence: u32,
        /// Where the publication stands.
        position: Position,
    },
}

impl Effect {
    /// The reactor whose mailbox it goes to.
    pub fn reactor(&self) -> ReactorId {
        match self {
            Effect::Deliver { reactor, .. } | Effect::Published { reactor, .. } => *reactor,
        }
    }

    /// Bytes that it holds while it waits.
    pub fn bytes(&self) -> usize {
        match self {
            Effect::Deliver { publication, .. } => publication.frame().len(),
            Effect::Published { .. } => 0,
        }
    }
}

/// The reactors with subscribers of a topic, and what they call it: few, and walked for each publication, hence a list.
#[derive(Debug)]
enum Reactors {
    One(ReactorId, LocalTopic),
    #[expect(
        clippy::box_collection,
        reason = "there may be a million topics, each on one reactor"
    )]
    Many(Box<Vec<(ReactorId, LocalTopic)>>),
}

impl Reactors {
    /// Adds a reactor, or what it calls the topic from now on.
    fn set(&mut self, reactor: ReactorId, local: LocalTopic) {
        match self {
            Reactors::One(known, name) if *known == reactor => *name = local,
            Reactors::One(known, name) => {
                let both = vec![(*known, *name), (reactor, local)];
                *self = Reactors::Many(Box::new(both));
            }
            Reactors::Many(list) => match list.iter_mut().find(|(known, _)| *known == reactor) {
                Some((_, name)) => *name = local,
                None => list.push((reactor, local)),
            },
        }
    }

    /// Takes a reactor away, if it calls the topic so. True if none is left.
    fn remove(&mut self, reactor: ReactorId, local: LocalTopic) -> bool {
        match self {
            Reactors::One(known, name) => (*known, *name) == (reactor, local),
            Reactors::Many(list) => {
                list.retain(|known| *known != (reactor, local));
                list.is_empty()
            }
        }
    }

    fn for_each(&self, mut with: impl FnMut(ReactorId, LocalTopic)) {
        match self {
            Reactors::One(reactor, local) => with(*reactor, *local),
            Reactors::Many(list) => list
                .iter()
                .for_each(|&(reactor, local)| with(reactor, local)),
        }
    }
}

/// A topic that somebody subscribes to.
#[derive(Debug)]
struct TopicState {
    position: Position,
    reactors: Reactors,
}

// There may be as many topics as connections.
const _: () = assert!(size_of::<TopicState>() <= 32);

/// The topics of one shard. A topic exists while a reactor has subscribers of it, and leaves nothing behind.
#[derive(Debug)]
pub struct Shard {
    topics: TopicTable<TopicState>,
    /// The epoch of the next topic that comes into being.
    next_epoch: u64,
}

impl Shard {
    /// A shard without topics. `first_epoch` must differ between shards and between runs of the process by more than
    /// the number of topics that a shard ever sees: take it from the system's entropy.
    pub fn new(first_epoch: u64) -> Shard {
        Shard {
            topics: TopicTable::default(),
            next_epoch: first_epoch,
        }
    }

    /// Topics with subscribers.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Carries out one command. What is to be done next is appended to `effects`, in order.
    pub fn handle_command(&mut self, command: Command, effects: &mut Vec<Effect>) {
        match command {
            Command::Publish {
                topic,
                publication,
                origin,
            } => {
                self.handle_publish(&topic, publication, origin, effects);
            }
            Command::Subscribe {
                topic,
                reactor,
                local,
            } => self.handle_subscribe(topic, reactor, local),
            Command::Unsubscribe {
                topic,
                reactor,
                local,
            } => {
                self.handle_unsubscribe(&topic, reactor, local);
            }
        }
    }

    fn handle_publish(
        &mut self,
        topic: &Topic,
        mut publication: Arc<Publication>,
        origin: Origin,
        effects: &mut Vec<Effect>,
    ) {
        let place = self.topics.find(topic);
        let state = place.and_then(|place| self.topics.get_mut(place));
        let position = match &state {
            Some(state) => Position {
                epoch: state.position.epoch,
                offset: state.position.offset + 1,
            },
            // Nobody keeps this topic, so nothing vouches for what came before or comes after.
            None => Position {
                epoch: Shard::take_epoch(&mut self.next_epoch),
                offset: 1,
            },
        };
        Arc::get_mut(&mut publication)
            .expect("a publication is shared only after it has its position")
            .place(position);
        if let Some(state) = state {
            state.position = position;
            state.reactors.for_each(|reactor, local| {
                effects.push(Effect::Deliver {
                    reactor,
                    local,
                    publication: Arc::clone(&publication),
                });
            });
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
            });
        }
    }

    fn handle_subscribe(&mut self, topic: Topic, reactor: ReactorId, local: LocalTopic) {
        let place = self.topics.find(&topic);
        if let Some(state) = place.and_then(|place| self.topics.get_mut(place)) {
            state.reactors.set(reactor, local);
            return;
        }
        let epoch = Shard::take_epoch(&mut self.next_epoch);
        let state = TopicState {
            position: Position { epoch, offset: 0 },
            reactors: Reactors::One(reactor, local),
        };
        self.topics.insert(topic, state);
    }

    fn handle_unsubscribe(&mut self, topic: &Topic, reactor: ReactorId, local: LocalTopic) {
        let Some(place) = self.topics.find(topic) else {
            return;
        };
        let state = self.topics.get_mut(place);
        if state.is_some_and(|state| state.reactors.remove(reactor, local)) {
            self.topics.remove(place);
        }
    }

    fn take_epoch(next_epoch: &mut u64) -> u64 {
        let epoch = *next_epoch;
        *next_epoch = next_epoch.wrapping_add(1);
        epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Kind;

    fn topic(name: &str) -> Topic {
        Topic::from_text(name).expect("a valid topic")
    }

    fn publish(shard: &mut Shard, name: &str, origin: Origin) -> Vec<Effect> {
        let mut effects = Vec::new();
        let publication = Arc::new(Publication::new(Kind::Text, b"x", 0));
        shard.handle_command(
            Command::Publish {
                topic: topic(name),
                publication,
                origin,
            },
            &mut effects,
        );
        effects
    }

    fn subscribe(shard: &mut Shard, name: &str, reactor: u16, index: u32) -> LocalTopic {
        let local = LocalTopic {
            index,
            generation: 1,
        };
        let command = Command::Subscribe {
            topic: topic(name),
            reactor: ReactorId(reactor),
            local,
        };
        shard.handle_command(command, &mut Vec::new());
        local
    }

    fn positions(effects: &[Effect]) -> Vec<Position> {
        effects
            .iter()
            .map(|effect| match effect {
                Effect::Deliver { publication, .. } => publication.position(),
                Effect::Published { position, .. } => *position,
            })
            .collect()
    }

    #[test]
    fn every_reactor_gets_the_same_positions_in_order() {
        let mut shard = Shard::new(7);
        subscribe(&mut shard, "a", 0, 3);
        subscribe(&mut shard, "a", 1, 9);
        for offset in 1..=3 {
            let effects = publish(&mut shard, "a", Origin::Detached);
            let expected = Position { epoch: 7, offset };
            assert_eq!(positions(&effects), [expected, expected]);
        }
    }

    #[test]
    fn the_publisher_is_told_the_position_after_the_deliveries() {
        let mut shard = Shard::new(7);
        subscribe(&mut shard, "a", 1, 0);
        let origin = Origin::Connection {
            reactor: ReactorId(0),
            connection: 42,
            sequence: 5,
        };
        let effects = publish(&mut shard, "a", origin);
        assert!(matches!(
            effects[0],
            Effect::Deliver {
                reactor: ReactorId(1),
                ..
            }
        ));
        assert!(matches!(
            effects[1],
            Effect::Published {
                connection: 42,
                sequence: 5,
                ..
            }
        ));
    }

    #[test]
    fn a_topic_without_subscribers_leaves_nothing_behind_and_repeats_no_epoch() {
        let mut shard = Shard::new(7);
        let local = subscribe(&mut shard, "a", 0, 0);
        publish(&mut shard, "a", Origin::Detached);
        let gone = Command::Unsubscribe {
            topic: topic("a"),
            reactor: ReactorId(0),
            local,
        };
        shard.handle_command(gone, &mut Vec::new());
        assert_eq!(shard.topic_count(), 0);
        subscribe(&mut shard, "a", 0, 0);
        let effects = publish(&mut shard, "a", Origin::Detached);
        assert_eq!(
            positions(&effects),
            [Position {
                epoch: 8,
                offset: 1
            }]
        );
    }

    #[test]
    fn a_late_unsubscribe_does_not_undo_a_newer_subscription() {
        let mut shard = Shard::new(7);
        let old = subscribe(&mut shard, "a", 0, 0);
        let new = LocalTopic {
            index: 0,
            generation: 2,
        };
        let again = Command::Subscribe {
            topic: topic("a"),
            reactor: ReactorId(0),
            local: new,
        };
        shard.handle_command(again, &mut Vec::new());
        let late = Command::Unsubscribe {
            topic: topic("a"),
            reactor: ReactorId(0),
            local: old,
        };
        shard.handle_command(late, &mut Vec::new());
        assert_eq!(publish(&mut shard, "a", Origin::Detached).len(), 1);
    }
}
