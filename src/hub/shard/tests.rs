//! A shard by itself: commands in, effects out.

use std::sync::Mutex;

use super::*;
use crate::hub::history::TOPIC_BYTES;
use crate::hub::{Kind, PatternPart, Receipt, Report, Scope, Share};
use crate::topic::{Pattern, TopicRule};

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
        &PatternPart::default(),
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
    shard.handle_command(command, &PatternPart::default(), &mut Vec::new());
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
    shard.handle_command(gone, &PatternPart::default(), &mut Vec::new());
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
    shard.handle_command(again, &PatternPart::default(), &mut Vec::new());
    let late = Command::Unsubscribe {
        topic: topic("a"),
        reactor: ReactorId(0),
        local: old,
    };
    shard.handle_command(late, &PatternPart::default(), &mut Vec::new());
    assert_eq!(publish(&mut shard, "a", Origin::Detached).len(), 1);
}

/// A shard with rules of its own.
fn ruled(rules: &[&str]) -> Shard {
    bounded(rules, ShardSettings::default().history_bytes_max)
}

fn bounded(rules: &[&str], history_bytes_max: usize) -> Shard {
    let rules = rules
        .iter()
        .map(|text| TopicRule::parse(text).expect("a rule"));
    let settings = ShardSettings {
        rules: TopicRules::new(rules.collect()),
        history_bytes_max,
        ..ShardSettings::default()
    };
    Shard::new(7, settings)
}

fn publish_at(shard: &mut Shard, name: &str, at_us: u64) -> Vec<Effect> {
    let mut effects = Vec::new();
    let command = Command::Publish {
        topic: topic(name),
        publication: Arc::new(Publication::new(Kind::Text, b"x", at_us)),
        origin: Origin::Detached,
    };
    shard.handle_command(command, &PatternPart::default(), &mut effects);
    effects
}

fn join(shard: &mut Shard, name: &str, connection: u64, start: Start) -> (Vec<Effect>, Joined) {
    let mut effects = Vec::new();
    let command = Command::Join(Box::new(Join {
        topic: topic(name),
        reactor: ReactorId(0),
        local: local(0),
        connection,
        request: 9,
        start,
        info: Some("me".into()),
        identity: None,
    }));
    shard.handle_command(command, &PatternPart::default(), &mut effects);
    match effects.pop() {
        Some(Effect::Joined {
            reactor: ReactorId(0),
            connection: answered,
            request: 9,
            joined,
            ..
        }) if answered == connection => (effects, *joined),
        other => panic!("{other:?}"),
    }
}

fn local(index: u32) -> LocalTopic {
    LocalTopic {
        index,
        generation: 1,
    }
}

fn leave(shard: &mut Shard, name: &str, connection: u64) -> Vec<Effect> {
    let mut effects = Vec::new();
    let command = Command::Leave {
        topic: topic(name),
        reactor: ReactorId(0),
        connection,
    };
    shard.handle_command(command, &PatternPart::default(), &mut effects);
    effects
}

fn unsubscribe(shard: &mut Shard, name: &str) {
    let command = Command::Unsubscribe {
        topic: topic(name),
        reactor: ReactorId(0),
        local: local(0),
    };
    shard.handle_command(command, &PatternPart::default(), &mut Vec::new());
}

fn expire(shard: &mut Shard, now_us: u64) {
    shard.handle_command(
        Command::Expire { shard: 0, now_us },
        &PatternPart::default(),
        &mut Vec::new(),
    );
}

fn offsets(joined: &Joined) -> Vec<u64> {
    let publications = joined.publications.iter();
    publications.map(|next| next.position().offset).collect()
}

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset }
}

#[test]
fn who_comes_back_gets_exactly_what_it_missed() {
    let mut shard = ruled(&["a history=3"]);
    (0..4).for_each(|_| drop(publish(&mut shard, "a", Origin::Detached)));
    for (since, recovered, missed) in [
        (at(7, 4), true, vec![]),
        (at(7, 3), true, vec![4]),
        (at(7, 1), true, vec![2, 3, 4]),
        (at(7, 0), false, vec![]),
        (at(7, 5), false, vec![]),
        (at(7, u64::MAX), false, vec![]),
        (at(6, 4), false, vec![]),
    ] {
        let (_, joined) = join(&mut shard, "a", 0, Start::Since(since));
        assert_eq!(joined.position, at(7, 4));
        assert_eq!(joined.recovered, Some(recovered), "{since}");
        assert_eq!(offsets(&joined), missed);
    }
    for (count, last) in [(0, vec![]), (2, vec![3, 4]), (u32::MAX, vec![2, 3, 4])] {
        let (_, joined) = join(&mut shard, "a", 0, Start::Last(count));
        assert_eq!((joined.recovered, offsets(&joined)), (None, last));
    }
    let (_, joined) = join(&mut shard, "a", 0, Start::Now);
    assert_eq!((joined.recovered, offsets(&joined)), (None, vec![]));
    assert_eq!(
        positions(&publish(&mut shard, "a", Origin::Detached)),
        [at(7, 5)]
    );
}

#[test]
fn a_topic_without_history_recovers_who_missed_nothing() {
    let mut shard = ruled(&[]);
    subscribe(&mut shard, "a", 1, 0);
    publish(&mut shard, "a", Origin::Detached);
    let (_, joined) = join(&mut shard, "a", 0, Start::Since(at(7, 1)));
    assert_eq!(joined.recovered, Some(true));
    let (_, joined) = join(&mut shard, "a", 0, Start::Since(at(7, 0)));
    assert_eq!(joined.recovered, Some(false));
}

#[test]
fn a_topic_stands_at_offset_0_before_its_first_publication() {
    let mut shard = ruled(&["a history=3"]);
    let (_, joined) = join(&mut shard, "a", 0, Start::Last(10));
    assert_eq!((joined.position, offsets(&joined)), (at(7, 0), vec![]));
}

#[test]
fn a_history_keeps_its_topic_until_it_is_too_old() {
    let mut shard = ruled(&["a history=3 history_age_max_ms=1000"]);
    publish_at(&mut shard, "a", 0);
    publish_at(&mut shard, "a", 1);
    expire(&mut shard, 1_000_000);
    assert_eq!(shard.topic_count(), 1);
    let (_, joined) = join(&mut shard, "a", 0, Start::Last(10));
    assert_eq!((joined.position, offsets(&joined)), (at(7, 2), vec![2]));
    // A subscriber keeps the topic too, and with it the epoch.
    expire(&mut shard, 1_000_001);
    assert_eq!((shard.topic_count(), shard.history_bytes()), (1, 0));
    let (_, joined) = join(&mut shard, "a", 0, Start::Since(at(7, 1)));
    assert_eq!(joined.recovered, Some(false));
    unsubscribe(&mut shard, "a");
    expire(&mut shard, 3_000_001);
    assert_eq!(shard.topic_count(), 0);
    let (_, joined) = join(&mut shard, "a", 0, Start::Since(at(7, 2)));
    assert_eq!((joined.recovered, joined.position), (Some(false), at(8, 0)));
}

#[test]
fn who_left_before_the_first_publication_recovers_what_could_be_kept() {
    for (publishes, recovered) in [(0, true), (3, true), (4, false)] {
        let mut shard = ruled(&["a history=3 history_age_max_ms=1000"]);
        let (_, joined) = join(&mut shard, "a", 0, Start::Now);
        assert_eq!(joined.position, at(7, 0));
        unsubscribe(&mut shard, "a");
        assert!(shard.history_bytes() > 0, "the head counts");
        expire(&mut shard, 999_999);
        for _ in 0..publishes {
            publish_at(&mut shard, "a", 999_999);
        }
        let (_, joined) = join(&mut shard, "a", 0, Start::Since(at(7, 0)));
        assert_eq!(joined.recovered, Some(recovered), "{publishes}");
        assert_eq!(joined.position, at(7, publishes));
        unsubscribe(&mut shard, "a");
        // So does the head of what was published and has become too old.
        expire(&mut shard, 1_999_999);
        assert_eq!((shard.topic_count(), shard.history_publications()), (1, 0));
        let (_, joined) = join(&mut shard, "a", 0, Start::Since(at(7, publishes)));
        assert_eq!(joined.recovered, Some(true));
        unsubscribe(&mut shard, "a");
        expire(&mut shard, 1_999_999 + 1_000_000 + 1_000_000);
        assert_eq!((shard.topic_count(), shard.history_bytes()), (0, 0));
        let (_, joined) = join(&mut shard, "a", 0, Start::Since(at(7, publishes)));
        assert_eq!(joined.recovered, Some(false), "it is forgotten");
    }
}

#[test]
fn the_coldest_heads_go_first() {
    let heads = 10;
    let mut shard = bounded(&["** history=3"], heads * TOPIC_BYTES);
    let names: Vec<String> = (0..heads + 2).map(|number| format!("t{number}")).collect();
    for name in &names {
        join(&mut shard, name, 0, Start::Now);
        unsubscribe(&mut shard, name);
    }
    assert_eq!(shard.history_bytes(), heads * TOPIC_BYTES);
    for (number, name) in (0..).zip(&names) {
        let since = Start::Since(at(7 + number, 0));
        let (_, joined) = join(&mut shard, name, 0, since);
        assert_eq!(joined.recovered, Some(number > 1), "{name}");
    }
}

#[test]
fn a_head_alone_is_not_listed() {
    let mut shard = ruled(&["a history=3"]);
    join(&mut shard, "a", 0, Start::Now);
    let listed = |shard: &Shard| {
        let scope = Scope::Topic(topic("a"));
        let Effect::Listed { listing } = shard.list(&scope, ReactorId(0), 0) else {
            panic!("a listing is answered by one");
        };
        listing.topics.len()
    };
    assert_eq!(listed(&shard), 1);
    unsubscribe(&mut shard, "a");
    assert_eq!((listed(&shard), shard.topic_count()), (0, 1));
}

#[test]
fn a_history_outlives_its_subscribers() {
    let mut shard = ruled(&["a history=3 history_age_max_ms=1000"]);
    join(&mut shard, "a", 0, Start::Now);
    publish_at(&mut shard, "a", 0);
    unsubscribe(&mut shard, "a");
    assert_eq!(shard.topic_count(), 1);
    expire(&mut shard, 2_000_000);
    assert_eq!(shard.topic_count(), 0);
}

#[test]
fn without_a_rule_of_its_own_a_topic_has_no_history() {
    let mut shard = ruled(&["a history=3"]);
    publish(&mut shard, "b", Origin::Detached);
    assert_eq!((shard.topic_count(), shard.history_bytes()), (0, 0));
}

#[test]
fn patterns_get_the_publications_of_all_topics_that_they_match() {
    let mut shard = ruled(&[]);
    let pattern = Pattern::parse("a/*").expect("a pattern");
    let name = LocalTopic {
        index: LocalTopic::PATTERN_BIT | 4,
        generation: 0,
    };
    let mut patterns = PatternPart::default();
    for _ in 0..2 {
        patterns.subscribe(&pattern, ReactorId(1), name);
    }
    let matched = |shard: &mut Shard, patterns: &PatternPart, name: &str| {
        let command = Command::Publish {
            topic: topic(name),
            publication: Arc::new(Publication::new(Kind::Text, b"x", 0)),
            origin: Origin::Detached,
        };
        let mut effects = Vec::new();
        let visits = shard.handle_command(command, patterns, &mut effects);
        assert_eq!(visits > 0, !patterns.is_empty());
        effects
    };
    subscribe(&mut shard, "a/b", 1, 0);
    let effects = matched(&mut shard, &patterns, "a/b");
    let [
        Effect::Deliver {
            local: by_topic, ..
        },
        Effect::Deliver {
            local: by_pattern,
            publication,
            ..
        },
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert!(!by_topic.is_pattern() && by_pattern.is_pattern());
    assert_eq!(publication.topic(), Some(&topic("a/b")));
    assert_eq!(matched(&mut shard, &patterns, "a/c").len(), 1);
    assert!(matched(&mut shard, &patterns, "a/b/c").is_empty());
    patterns.unsubscribe(&pattern, ReactorId(1), name);
    assert!(matched(&mut shard, &patterns, "a/c").is_empty());
    assert_eq!(shard.topic_count(), 1);
}

fn changes(effects: &[Effect]) -> Vec<(u16, u64, bool)> {
    let changes = effects.iter().map(|effect| match effect {
        Effect::PresenceChanged {
            reactor, change, ..
        } => {
            assert_eq!(change.topic, topic("a"));
            (reactor.0, change.member.connection, change.is_join)
        }
        other => panic!("{other:?}"),
    });
    changes.collect()
}

#[test]
fn who_is_present_is_told_to_all_reactors_and_keeps_the_topic() {
    let mut shard = ruled(&["a presence=on"]);
    subscribe(&mut shard, "a", 1, 0);
    let (told, _) = join(&mut shard, "a", 5, Start::Now);
    assert_eq!(changes(&told), [(1, 5, true), (0, 5, true)]);
    let mut effects = Vec::new();
    let asked = Command::Present {
        topic: topic("a"),
        reactor: ReactorId(1),
        connection: 3,
        request: 2,
    };
    shard.handle_command(asked, &PatternPart::default(), &mut effects);
    let [
        Effect::Present {
            reactor: ReactorId(1),
            connection: 3,
            request: 2,
            members,
            total: 1,
        },
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    let expected = Member {
        reactor: ReactorId(0),
        connection: 5,
        info: Some("me".into()),
        identity: None,
    };
    assert_eq!(**members, [expected]);
    unsubscribe(&mut shard, "a");
    let late = Command::Unsubscribe {
        topic: topic("a"),
        reactor: ReactorId(1),
        local: local(0),
    };
    shard.handle_command(late, &PatternPart::default(), &mut Vec::new());
    assert_eq!(shard.topic_count(), 1, "somebody is present");
    assert_eq!(changes(&leave(&mut shard, "a", 5)), []);
    assert_eq!(shard.topic_count(), 0);
    assert!(leave(&mut shard, "a", 5).is_empty());
}

#[test]
fn nobody_is_present_where_the_rule_does_not_say_so() {
    let mut shard = ruled(&["b presence=on"]);
    let (told, _) = join(&mut shard, "a", 5, Start::Now);
    assert!(told.is_empty());
    for name in ["a", "b"] {
        let mut effects = Vec::new();
        let asked = Command::Present {
            topic: topic(name),
            reactor: ReactorId(0),
            connection: 5,
            request: 0,
        };
        shard.handle_command(asked, &PatternPart::default(), &mut effects);
        assert!(matches!(effects[..], [Effect::Present { total: 0, .. }]));
    }
    assert_eq!(shard.topic_count(), 1, "a question makes no topic");
}

#[test]
fn a_receipt_waits_for_a_share_of_each_delivery() {
    let mut shard = ruled(&["a history=3"]);
    let reports: Arc<Mutex<Vec<Report>>> = Arc::default();
    let publish = |shard: &mut Shard| {
        let seen = Arc::clone(&reports);
        let done = move |report| seen.lock().expect("no panic").push(report);
        let receipt = Arc::new(Receipt::new(Box::new(done)));
        let publication = Publication::new(Kind::Text, b"x", 0).with_receipt(receipt);
        let mut effects = Vec::new();
        let command = Command::Publish {
            topic: topic("a"),
            publication: Arc::new(publication),
            origin: Origin::Detached,
        };
        shard.handle_command(command, &PatternPart::default(), &mut effects);
        effects
    };
    let matched = |index: usize| {
        let reports = reports.lock().expect("no panic");
        let report = reports.get(index);
        report.map(|report| (report.position, report.matched))
    };
    assert!(publish(&mut shard).is_empty());
    assert_eq!(matched(0), Some((at(7, 1), 0)));
    subscribe(&mut shard, "a", 0, 0);
    subscribe(&mut shard, "a", 1, 0);
    let effects = publish(&mut shard);
    assert_eq!(effects.len(), 2);
    for effect in &effects {
        assert_eq!(matched(1), None);
        if let Effect::Deliver { publication, .. } = effect {
            let share = Share {
                matched: 2,
                ..Share::default()
            };
            publication.receipt().expect("it has one").add(&share);
        }
    }
    assert_eq!(matched(1), Some((at(7, 2), 4)));
}
