//! Outboxes of which something goes: case by case here, and against a model.

use std::io::IoSlice;

use super::super::{Outbox, OutboxFull, SEGMENTS_PER_WRITE};
use super::*;

mod model;

/// Flows of the tests: one of a topic, one of a pattern that matches it, and one of another topic.
const FLOWS: u8 = 3;

fn topic(flow: u8) -> Topic {
    Topic::from_text(if flow < 2 { "t" } else { "u" }).expect("a topic")
}

fn pattern(flow: u8) -> Option<Pattern> {
    (flow == 1).then(|| Pattern::parse("*").expect("a pattern"))
}

fn at(offset: u64) -> Position {
    Position { epoch: 7, offset }
}

fn encode_gap(topic: &Topic, pattern: Option<&Pattern>, from: Position, to: Position) -> Box<[u8]> {
    let pattern = pattern.map_or("", Pattern::as_str);
    format!("gap {topic}{pattern} {} {};", from.offset, to.offset)
        .into_bytes()
        .into()
}

fn frame(flow: u8, offset: u64, padding: u16) -> Vec<u8> {
    let (topic, pattern) = (topic(flow), pattern(flow));
    let pattern = pattern.as_ref().map_or("", Pattern::as_str);
    let padding = "x".repeat(usize::from(padding));
    format!("publication {topic}{pattern} {offset} {padding};").into_bytes()
}

fn droppable(policy: SlowConsumer, flow: u8, offset: u64, key: u8) -> Droppable {
    Droppable {
        topic: topic(flow),
        pattern: pattern(flow),
        position: at(offset),
        key: (key > 0).then(|| key.to_string().into()),
        expires_ms: None,
        policy,
        encode_gap: Some(encode_gap),
    }
}

fn own(bytes: &[u8]) -> Segment {
    Segment::Own(bytes.into())
}

fn shared(bytes: &[u8]) -> Segment {
    Segment::Shared(bytes.into())
}

/// The first bytes that wait.
fn head(outbox: &mut Outbox) -> Vec<u8> {
    let mut storage = [IoSlice::new(&[]); SEGMENTS_PER_WRITE];
    let count = outbox.slices(&mut storage);
    storage[..count]
        .iter()
        .flat_map(|piece| piece.to_vec())
        .collect()
}

/// Writes up to `bytes` of what waits; gives them.
fn write(outbox: &mut Outbox, bytes: usize) -> Vec<u8> {
    let mut head = head(outbox);
    head.truncate(bytes);
    outbox.handle_written(head.len());
    head
}

fn drain(outbox: &mut Outbox) -> String {
    let mut all = Vec::new();
    while !outbox.is_empty() {
        all.extend(write(outbox, usize::MAX));
    }
    String::from_utf8(all).expect("frames of the tests are text")
}

const ROOM: usize = 100_000;

/// Room for so many publications of the flow, none of which is padded.
fn room_for(count: usize) -> usize {
    count * (frame(0, 1, 0).len() + SEGMENT_OVERHEAD_BYTES + DROPPABLE_OVERHEAD_BYTES)
}

fn push(
    outbox: &mut Outbox,
    policy: SlowConsumer,
    offset: u64,
    key: u8,
    bytes_max: usize,
) -> Result<Dropped, OutboxFull> {
    let droppable = droppable(policy, 0, offset, key);
    outbox.push_droppable(shared(&frame(0, offset, 0)), 0, droppable, 0, bytes_max)
}

#[test]
fn the_oldest_go_and_one_gap_says_which() {
    let (mut outbox, policy) = (Outbox::default(), SlowConsumer::DropOldest);
    // Of a gap the longest frame is counted that it may have.
    let room = room_for(4) + u64::MAX.to_string().len() - 1;
    push(&mut outbox, policy, 1, 0, room_for(3)).expect("room");
    write(&mut outbox, 1);
    for offset in 2..=6 {
        push(&mut outbox, policy, offset, 0, room).expect("the oldest go");
    }
    let went = outbox.push(own(b"answer;"), 0, 0, room);
    assert_eq!(
        went,
        Ok(Dropped {
            oldest: 1,
            replaced: 0
        })
    );
    // The first was begun, so it stays.
    assert_eq!(
        drain(&mut outbox),
        "ublication t 1 ;gap t 2 5;publication t 6 ;answer;"
    );
}

#[test]
fn no_gap_reaches_over_an_answer() {
    let (mut outbox, policy) = (Outbox::default(), SlowConsumer::DropOldest);
    push(&mut outbox, policy, 1, 0, ROOM).expect("room");
    push(&mut outbox, policy, 2, 0, ROOM).expect("room");
    outbox.push(own(b"subscribed;"), 0, 0, ROOM).expect("room");
    push(&mut outbox, policy, 3, 0, ROOM).expect("room");
    outbox
        .push(shared(b"other topic;"), 0, 0, ROOM)
        .expect("room");
    push(&mut outbox, policy, 4, 0, ROOM).expect("room");
    assert_eq!(outbox.expire_droppable(50, 50).oldest, 4);
    assert_eq!(
        drain(&mut outbox),
        "gap t 1 2;subscribed;gap t 3 4;other topic;"
    );
}

#[test]
fn a_begun_publication_has_no_age_after_what_went_was_taken_out() {
    let (mut outbox, policy) = (Outbox::default(), SlowConsumer::DropOldest);
    push(&mut outbox, policy, 1, 0, ROOM).expect("room");
    write(&mut outbox, 1);
    outbox.push(shared(b"plain;"), 0, 5, ROOM).expect("room");
    for offset in 2..=40 {
        push(&mut outbox, policy, offset, 0, ROOM).expect("room");
    }
    assert_eq!(outbox.oldest_ms(), Some(5));
    let went = outbox.push(own(&[b'x'; ROOM]), 0, 5, ROOM);
    let dropped = Dropped {
        oldest: 39,
        replaced: 0,
    };
    assert_eq!(went, Err(OutboxFull(dropped)));
    assert_eq!(outbox.oldest_ms(), Some(5));
    assert_eq!(drain(&mut outbox), "ublication t 1 ;plain;gap t 2 40;");
}

#[test]
fn the_latest_of_a_key_stands_at_the_end() {
    let (mut outbox, policy) = (Outbox::default(), SlowConsumer::Latest);
    for (offset, key) in [(1, 1), (2, 2), (3, 1), (4, 0), (5, 0), (6, 2)] {
        push(&mut outbox, policy, offset, key, ROOM).expect("room");
    }
    assert_eq!(
        drain(&mut outbox),
        "publication t 3 ;publication t 5 ;publication t 6 ;"
    );
    // Nothing of it makes room for another.
    push(&mut outbox, policy, 1, 1, room_for(2)).expect("room");
    push(&mut outbox, policy, 2, 2, room_for(2)).expect("room");
    assert_eq!(
        push(&mut outbox, policy, 3, 3, room_for(2)),
        Err(OutboxFull(Dropped::default()))
    );
    let went = push(&mut outbox, policy, 4, 2, room_for(2));
    assert_eq!(
        went,
        Ok(Dropped {
            oldest: 0,
            replaced: 1
        })
    );
}

#[test]
fn without_a_gap_to_say_it_nothing_is_dropped() {
    let mut outbox = Outbox::default();
    for offset in 1..=2 {
        let droppable = Droppable {
            encode_gap: None,
            ..droppable(SlowConsumer::DropOldest, 0, offset, 0)
        };
        let pushed = outbox.push_droppable(shared(&[b'x'; 100]), 0, droppable, 0, 200);
        assert_eq!(pushed.is_ok(), offset == 1);
    }
    assert!(
        outbox
            .queue
            .as_ref()
            .is_some_and(|queue| queue.marks.is_none())
    );
}

#[test]
fn replacing_over_and_over_holds_little() {
    let mut outbox = Outbox::default();
    for offset in 0..10_000 {
        push(
            &mut outbox,
            SlowConsumer::Latest,
            offset,
            (offset % 100) as u8,
            ROOM,
        )
        .expect("room");
        let queue = outbox.queue.as_ref().expect("something waits");
        assert!(queue.segments.len() <= 200, "{}", queue.segments.len());
    }
}

#[test]
fn a_peer_that_takes_nothing_is_too_old_in_the_end() {
    let age_max_ms = 100;
    for policy in [SlowConsumer::DropOldest, SlowConsumer::Latest] {
        let (mut outbox, mut now_ms) = (Outbox::default(), 0);
        let mut is_too_old = |outbox: &mut Outbox, takes: usize| {
            now_ms += 10;
            let droppable = droppable(policy, 0, now_ms / 10, 0);
            outbox
                .push_droppable(
                    shared(&frame(0, now_ms / 10, 0)),
                    0,
                    droppable,
                    now_ms,
                    ROOM,
                )
                .expect("room");
            write(outbox, takes);
            outbox.expire_droppable(now_ms, age_max_ms);
            outbox
                .oldest_ms()
                .is_some_and(|oldest_ms| now_ms >= oldest_ms + age_max_ms)
        };
        // One that takes a byte now and then is slow and no more.
        assert!((0..100).all(|_| !is_too_old(&mut outbox, 1)) || policy == SlowConsumer::Latest);
        let until = (1..).find(|_| is_too_old(&mut outbox, 0)).expect("it ends");
        assert!(until <= 2 * age_max_ms / 10, "{policy}: {until}");
    }
}

#[test]
fn what_was_not_begun_goes_with_its_marks() {
    let mut outbox = Outbox::default();
    for offset in 1..=3 {
        push(&mut outbox, SlowConsumer::DropOldest, offset, 0, ROOM).expect("room");
    }
    write(&mut outbox, 1);
    outbox.drop_unbegun();
    outbox.push(own(b"close;"), 0, 0, usize::MAX).expect("room");
    assert_eq!(outbox.oldest_ms(), Some(0));
    assert_eq!(drain(&mut outbox), "ublication t 1 ;close;");
    assert_eq!(outbox.bytes(), 0);
}

/// One of which the time to live is over at this moment.
fn mortal(policy: SlowConsumer, offset: u64, expires_ms: u64) -> Droppable {
    Droppable {
        expires_ms: Some(expires_ms),
        ..droppable(policy, 0, offset, offset as u8)
    }
}

#[test]
fn a_time_to_live_ends_in_the_middle_and_spares_what_is_begun() {
    let mut outbox = Outbox::default();
    let push = |outbox: &mut Outbox, droppable: Droppable, written| {
        let segment = shared(&frame(0, droppable.position.offset, 0));
        let pushed = outbox.push_droppable(segment, written, droppable, 0, 10_000);
        assert!(pushed.is_ok());
    };
    let oldest = SlowConsumer::DropOldest;
    push(&mut outbox, mortal(oldest, 1, 10), 3);
    push(&mut outbox, droppable(oldest, 0, 2, 0), 0);
    push(&mut outbox, mortal(oldest, 3, 10), 0);
    push(&mut outbox, mortal(oldest, 4, 10), 0);
    push(&mut outbox, mortal(oldest, 5, 20), 0);
    assert_eq!(outbox.expire_ttl(9).0, Dropped::default());
    let (dropped, _) = outbox.expire_ttl(10);
    assert_eq!((dropped.oldest, dropped.replaced), (2, 0));
    let expected = [
        frame(0, 1, 0)[3..].to_vec(),
        frame(0, 2, 0),
        encode_gap(&topic(0), pattern(0).as_ref(), at(3), at(4)).into(),
        frame(0, 5, 0),
    ];
    assert_eq!(head(&mut outbox), expected.concat());
    assert_eq!(outbox.expire_ttl(20).0.oldest, 1);
    let last = encode_gap(&topic(0), pattern(0).as_ref(), at(3), at(5)).to_vec();
    assert!(head(&mut outbox).ends_with(&last), "one gap for all");
}

#[test]
fn an_outbox_may_end_with_a_time_to_live() {
    let mut outbox = Outbox::default();
    for offset in 1..=2 {
        let segment = shared(&frame(0, offset, 0));
        let mortal = mortal(SlowConsumer::Latest, offset, 10 * offset);
        let pushed = outbox.push_droppable(segment, 0, mortal, 0, 10_000);
        assert!(pushed.is_ok());
    }
    outbox.set_ping(b"p");
    let (dropped, ping) = outbox.expire_ttl(10);
    assert_eq!((dropped.replaced, ping), (1, None));
    assert_eq!(head(&mut outbox), frame(0, 2, 0));
    let (dropped, ping) = outbox.expire_ttl(20);
    assert_eq!((dropped.replaced, ping.as_deref()), (1, Some(&b"p"[..])));
    assert!(outbox.is_empty());
}
