//! State of one topic in its shard.

use super::command::{LocalTopic, ReactorId};
use super::history::RingId;
use super::presence::Presence;
use super::publication::Position;
use crate::topic::{HistoryLimits, Rule};

/// One topic: where it stands, and who has subscribers of it.
#[derive(Debug)]
pub(super) struct TopicState {
    pub position: Position,
    pub reactors: Reactors,
}

// There may be as many topics as connections.
const _: () = assert!(size_of::<TopicState>() <= 32);

/// The reactors with subscribers of a topic, and what they call it: few, and walked for each publication, hence a list.
#[derive(Debug)]
pub(super) enum Reactors {
    One(ReactorId, LocalTopic),
    #[expect(
        clippy::box_collection,
        reason = "there may be a million topics, each on one reactor"
    )]
    Many(Box<Vec<(ReactorId, LocalTopic)>>),
    /// Those of a topic whose rule gives it more than subscribers.
    Kept(Box<Kept>),
}

/// What a topic has whose rule gives it more than subscribers: a history, presence, times.
#[derive(Debug)]
pub(super) struct Kept {
    /// Reactors with subscribers. None while only history or members keep the topic.
    pub reactors: Vec<(ReactorId, LocalTopic)>,
    pub history: HistoryLimits,
    /// The history, or the head that is left of it.
    pub ring: Option<RingId>,
    /// None where the rule has no presence.
    pub presence: Option<Presence>,
    /// Its publications show when they were published.
    pub shows_time: bool,
}

impl Kept {
    /// State that a topic of this rule begins with. None if the rule gives it subscribers only.
    pub fn new(rule: &Rule) -> Option<Box<Kept>> {
        let has_history = rule.history.publications_max > 0;
        (has_history || rule.presence || rule.time).then(|| {
            Box::new(Kept {
                reactors: Vec::new(),
                history: rule.history,
                ring: None,
                presence: rule.presence.then(|| Presence::new(rule.presence_of)),
                shows_time: rule.time,
            })
        })
    }

    fn is_unused(&self) -> bool {
        let nobody_is_present = self.presence.as_ref().is_none_or(|who| who.len() == 0);
        self.reactors.is_empty() && self.ring.is_none() && nobody_is_present
    }
}

impl Reactors {
    /// Those of a topic that has subscribers only. None where nobody subscribes.
    pub fn of(mut list: Vec<(ReactorId, LocalTopic)>) -> Option<Reactors> {
        match &list[..] {
            [] => None,
            &[(reactor, local)] => Some(Reactors::One(reactor, local)),
            _ => {
                list.shrink_to_fit();
                Some(Reactors::Many(Box::new(list)))
            }
        }
    }

    /// Adds a reactor, or what it calls the topic from now on.
    pub fn set(&mut self, reactor: ReactorId, local: LocalTopic) {
        let list = match self {
            Reactors::One(known, name) if *known == reactor => {
                *name = local;
                return;
            }
            Reactors::One(known, name) => {
                let both = vec![(*known, *name), (reactor, local)];
                *self = Reactors::Many(Box::new(both));
                return;
            }
            Reactors::Many(list) => &mut **list,
            Reactors::Kept(kept) => &mut kept.reactors,
        };
        match list.iter_mut().find(|(known, _)| *known == reactor) {
            Some((_, name)) => *name = local,
            None => list.push((reactor, local)),
        }
    }

    /// Takes a reactor away, if it calls the topic so. True if nothing keeps the topic any more.
    pub fn remove(&mut self, reactor: ReactorId, local: LocalTopic) -> bool {
        match self {
            Reactors::One(known, name) => (*known, *name) == (reactor, local),
            Reactors::Many(list) => {
                list.retain(|known| *known != (reactor, local));
                list.is_empty()
            }
            Reactors::Kept(kept) => {
                kept.reactors.retain(|known| *known != (reactor, local));
                kept.is_unused()
            }
        }
    }

    /// Whether any reactor has subscribers of it.
    pub fn has_any(&self) -> bool {
        self.kept_ref().is_none_or(|kept| !kept.reactors.is_empty())
    }

    pub fn for_each(&self, mut with: impl FnMut(ReactorId, LocalTopic)) {
        let list = match self {
            Reactors::One(reactor, local) => return with(*reactor, *local),
            Reactors::Many(list) => list,
            Reactors::Kept(kept) => &kept.reactors,
        };
        list.iter()
            .for_each(|&(reactor, local)| with(reactor, local));
    }

    /// State beyond subscribers, to read.
    pub fn kept_ref(&self) -> Option<&Kept> {
        match self {
            Reactors::Kept(kept) => Some(kept),
            Reactors::One(..) | Reactors::Many(_) => None,
        }
    }

    /// State beyond subscribers, to change.
    pub fn kept(&mut self) -> Option<&mut Kept> {
        match self {
            Reactors::Kept(kept) => Some(kept),
            Reactors::One(..) | Reactors::Many(_) => None,
        }
    }

    /// Whether nothing keeps the topic.
    pub fn is_unused(&self) -> bool {
        // Lists without a history or presence go with their last reactor.
        matches!(self, Reactors::Kept(kept) if kept.is_unused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::SlowConsumer;

    fn local(index: u32) -> LocalTopic {
        LocalTopic {
            index,
            generation: 1,
        }
    }

    fn seen(reactors: &Reactors) -> Vec<(u16, u32)> {
        let mut seen = Vec::new();
        reactors.for_each(|reactor, local| seen.push((reactor.0, local.index)));
        seen
    }

    fn kept() -> Reactors {
        let rule = Rule {
            history: HistoryLimits {
                publications_max: 1,
                bytes_max: 1,
                age_max_ms: 1,
                latest_only: false,
            },
            slow_consumer: SlowConsumer::Close,
            presence: true,
            ..Rule::default()
        };
        Reactors::Kept(Kept::new(&rule).expect("it has a history"))
    }

    #[test]
    fn reactors_come_are_renamed_and_go_the_same_way_in_each_form() {
        for mut reactors in [Reactors::One(ReactorId(0), local(1)), kept()] {
            reactors.set(ReactorId(0), local(1));
            reactors.set(ReactorId(1), local(2));
            reactors.set(ReactorId(1), local(3));
            assert_eq!(seen(&reactors), [(0, 1), (1, 3)]);
            assert!(!reactors.remove(ReactorId(1), local(2)), "an older name");
            assert!(!reactors.remove(ReactorId(0), local(1)));
            assert_eq!(seen(&reactors), [(1, 3)]);
            assert!(reactors.remove(ReactorId(1), local(3)));
        }
    }

    #[test]
    fn a_rule_without_history_and_presence_keeps_nothing() {
        let rule = Rule {
            history: HistoryLimits {
                publications_max: 0,
                bytes_max: 1,
                age_max_ms: 1,
                latest_only: false,
            },
            slow_consumer: SlowConsumer::Latest,
            presence: false,
            ..Rule::default()
        };
        assert!(Kept::new(&rule).is_none());
    }
}
