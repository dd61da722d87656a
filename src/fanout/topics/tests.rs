//! The table of topics by itself.

use super::*;
use crate::hub::Kind;

fn topic(name: &str) -> Topic {
    Topic::from_text(name).expect("a valid topic")
}

fn table() -> Topics {
    Topics::new(ReactorId(0), 2)
}

#[test]
fn the_hub_hears_of_the_first_and_the_last_subscriber_only() {
    let mut topics = table();
    let mut commands = Vec::new();
    let mut submit = |command| {
        commands.push(format!("{command:?}").split(' ').next().map(str::to_owned));
        true
    };
    let first = topics.subscribe(topic("a"), 10, &mut submit).expect("room");
    let second = topics.subscribe(topic("a"), 11, &mut submit).expect("room");
    assert_eq!(
        topics.unsubscribe(first),
        Some((11, first)),
        "the last one moves to the free place"
    );
    assert_ne!(first, second);
    topics.retire(&mut submit);
    topics.unsubscribe(first);
    topics.retire(&mut submit);
    assert_eq!(topics.len(), 0);
    assert_eq!(
        commands,
        [Some("Subscribe".to_owned()), Some("Unsubscribe".to_owned())]
    );
}

#[test]
fn a_full_hub_changes_nothing_and_is_asked_again() {
    let mut topics = table();
    assert_eq!(
        topics.subscribe(topic("a"), 1, |_| false),
        Err(SubscribeError::HubFull)
    );
    assert_eq!(topics.len(), 0);
    let subscription = topics.subscribe(topic("a"), 1, |_| true).expect("room");
    topics.unsubscribe(subscription);
    topics.retire(|_| false);
    assert!(topics.has_forsaken());
    let again = topics
        .subscribe(topic("a"), 2, |_| panic!("the hub still knows it"))
        .expect("room");
    topics.retire(|_| panic!("it has a subscriber again"));
    topics.unsubscribe(again);
    topics.retire(|_| true);
    assert_eq!(topics.len(), 0);
}

#[test]
fn a_topic_is_not_taken_for_the_one_that_stood_in_its_place() {
    let mut topics = table();
    let (mut locals, join) = (Vec::new(), |topics: &mut Topics, name| {
        let mut asked = None;
        let place = topics.begin_join(&topic(name), |local| {
            asked = Some(local);
            Ok(true)
        });
        (place.expect("room"), asked.expect("asked"))
    });
    for name in ["a", "b"] {
        let (place, local) = join(&mut topics, name);
        assert!(topics.is_here(local));
        topics.end_join(place);
        topics.retire(|_| true);
        locals.push(local);
    }
    assert_eq!(locals[0].index, locals[1].index);
    let (_, third) = join(&mut topics, "c");
    let are_here = [locals[0], locals[1], third].map(|local| topics.is_here(local));
    assert_eq!(are_here, [false, false, true]);
}

#[test]
fn a_topic_that_is_only_asked_about_is_told_to_the_hub_again() {
    let mut topics = table();
    let mut asked = None;
    let mut ask = |local| {
        asked = Some(local);
        Ok(false)
    };
    let place = topics.begin_join(&topic("a"), &mut ask).expect("room");
    let full = topics.subscribe(topic("a"), 1, |_| false);
    assert_eq!(full, Err(SubscribeError::HubFull));
    let mut told = None;
    let submit = |command| {
        told = match command {
            Command::Subscribe { local, .. } => Some(local),
            _ => None,
        };
        true
    };
    topics.subscribe(topic("a"), 1, submit).expect("room");
    assert!(told.is_some() && told == asked, "by the same name");
    let unasked = |_| panic!("the hub knows it");
    topics.subscribe(topic("a"), 2, unasked).expect("room");
    topics.end_join(place);
}

#[test]
fn a_topic_that_the_hub_was_never_asked_about_is_told_to_it() {
    let mut topics = table();
    let place = topics.begin_join(&topic("a"), |_| Ok(false));
    // The connection that asked was closed, for too much waited already.
    topics.end_join(place.expect("room"));
    let mut is_told = false;
    let submit = |_| {
        is_told = true;
        true
    };
    topics.subscribe(topic("a"), 1, submit).expect("room");
    assert!(is_told);
}

#[test]
fn an_audience_lasts_as_long_as_somebody_is_in_it() {
    let mut topics = table();
    let first = topics.subscribe(topic("a"), 1, |_| true).expect("room");
    let place = first.topic();
    topics.enter_audience(place, Form::PAYLOAD);
    assert!(topics.audience(place).is_none());
    topics.enter_audience(place, Form::PAYLOAD_LARGE);
    topics.enter_audience(place, Form::COHORT);
    assert_eq!(topics.audience(place).expect("two").keeping_context, 1);
    assert!(topics.leave_audience(place, Form::COHORT));
    assert!(!topics.leave_audience(place, Form::PAYLOAD_LARGE));
    assert!(topics.audience(place).is_none() && topics.extras.is_empty());
}

#[test]
fn topics_are_bounded() {
    let mut topics = table();
    topics.subscribe(topic("a"), 1, |_| true).expect("room");
    topics.subscribe(topic("b"), 1, |_| true).expect("room");
    assert_eq!(
        topics.subscribe(topic("c"), 1, |_| true),
        Err(SubscribeError::TooManyTopics)
    );
    topics
        .subscribe(topic("a"), 2, |_| true)
        .expect("it is there already");
}

#[test]
fn a_publication_for_an_earlier_use_of_the_place_is_dropped() {
    let mut topics = table();
    let mut locals = Vec::new();
    let mut submit = |command| {
        if let Command::Subscribe { local, .. } = command {
            locals.push(local);
        }
        true
    };
    let subscription = topics.subscribe(topic("a"), 1, &mut submit).expect("room");
    topics.unsubscribe(subscription);
    topics.retire(&mut submit);
    topics.subscribe(topic("b"), 1, &mut submit).expect("room");
    assert_eq!(locals[0].index, locals[1].index);
    let publication = Arc::new(Publication::new(Kind::Text, b"x", 0));
    let stale = topics.queue(locals[0], Arc::clone(&publication));
    stale.expect_err("the place is another topic's now");
    assert!(topics.begin_delivery().is_empty());
    topics.queue(locals[1], publication).expect("it is there");
    assert_eq!(topics.begin_delivery(), [locals[1].index]);
}

/// 400 connections with 1,024 topics each take 14 MiB of these slabs.
#[test]
fn what_members_took_is_given_back() {
    let mut topics = Topics::new(ReactorId(0), 20_000);
    let members: Vec<(u32, u32)> = (0..20_000)
        .map(|number| {
            let topic = topic(&number.to_string());
            let place = topics.begin_join(&topic, |_| Ok(true)).expect("room");
            let id = topics.add_member(place, 1, Form::default());
            topics.end_join(place);
            (place, id)
        })
        .collect();
    assert!(topics.extras.capacity() >= 20_000 && topics.places.capacity() >= 20_000);
    for (place, id) in members.into_iter().rev() {
        topics.remove_member(place, id, Form::default());
    }
    topics.retire(|_| true);
    assert_eq!(topics.len(), 0);
    assert!(
        topics.extras.capacity() <= 1024,
        "{}",
        topics.extras.capacity()
    );
    assert!(
        topics.places.capacity() <= 1024,
        "{}",
        topics.places.capacity()
    );
}
