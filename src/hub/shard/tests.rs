//! A shard by itself: commands in, effects out.

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
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn every_reactor_gets_the_same_positions_in_order() {
    let mut shard = Shard::new(7, ShardSettings::default());
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
    let mut shard = Shard::new(7, ShardSettings::default());
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
    let mut shard = Shard::new(7, ShardSettings::default());
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
    let mut shard = Shard::new(7, ShardSettings::default());
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
