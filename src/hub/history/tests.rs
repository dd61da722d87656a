//! Histories by themselves: what stays, what goes, and in which order.

use std::cell::Cell;

use super::*;
use crate::hub::{Kind, Position, PublishOptions};
use crate::topic::Topic;

const MANY: RecoveryLimits = RecoveryLimits {
    publications_max: usize::MAX,
    bytes_max: usize::MAX,
};

const WIDE: HistoryLimits = HistoryLimits {
    publications_max: 1000,
    bytes_max: usize::MAX,
    age_max_ms: 1000,
    latest_only: false,
};

thread_local! {
    /// The offset of the newest publication of a test.
    static OFFSET: Cell<u64> = const { Cell::new(0) };
}

fn publication(text: &str, at_us: u64) -> Arc<Publication> {
    placed(Publication::new(Kind::Text, text.as_bytes(), at_us))
}

/// One that is over after so many milliseconds.
fn mortal(text: &str, at_us: u64, ttl_ms: u64) -> Arc<Publication> {
    let options = PublishOptions::default().ttl_ms(ttl_ms);
    placed(Publication::new(Kind::Text, text.as_bytes(), at_us).with_options(options))
}

/// Gives it the next offset.
fn placed(mut publication: Publication) -> Arc<Publication> {
    let offset = OFFSET.get() + 1;
    OFFSET.set(offset);
    let topic = Topic::from_text("t").expect("a topic");
    publication.place(topic, Position { epoch: 1, offset }, None, false);
    Arc::new(publication)
}

/// What one of [`publication`]'s costs.
fn cost() -> usize {
    publication("x", 0).retained_bytes()
}

fn texts(histories: &mut Histories, ring: RingId, count: usize) -> String {
    let (newest, _) = histories.newest_after(ring, 0, MANY);
    let newest = newest.iter().skip(newest.len().saturating_sub(count));
    let texts = newest.map(|next| next.payload().to_vec());
    String::from_utf8(texts.flatten().collect()).expect("text")
}

fn emptied(histories: &mut Histories) -> Vec<u32> {
    std::iter::from_fn(|| histories.take_emptied()).collect()
}

#[test]
fn a_ring_keeps_the_newest_by_count_and_by_bytes() {
    for limits in [
        HistoryLimits {
            publications_max: 2,
            ..WIDE
        },
        HistoryLimits {
            bytes_max: 2 * cost() + 1,
            ..WIDE
        },
    ] {
        let mut histories = Histories::new(usize::MAX);
        let mut ring = None;
        for text in ["a", "b", "c"] {
            ring = Some(histories.push(ring, 0, limits, publication(text, 0)));
        }
        let ring = ring.expect("pushed");
        assert_eq!(texts(&mut histories, ring, 10), "bc");
        assert_eq!(texts(&mut histories, ring, 1), "c");
        assert_eq!(histories.bytes(), 2 * cost() + TOPIC_BYTES);
        assert_eq!(histories.publications(), 2);
        assert_eq!(histories.size(ring).publications, 2);
    }
}

#[test]
fn what_is_too_old_goes_and_an_empty_ring_leaves_nothing() {
    let mut histories = Histories::new(usize::MAX);
    let ring = histories.push(None, 7, WIDE, publication("a", 0));
    histories.push(Some(ring), 7, WIDE, publication("b", 500_000));
    histories.expire(999_999);
    assert_eq!(texts(&mut histories, ring, 10), "ab");
    histories.expire(1_000_000);
    assert_eq!(texts(&mut histories, ring, 10), "b");
    assert!(emptied(&mut histories).is_empty());
    histories.expire(1_500_000);
    assert_eq!(emptied(&mut histories), [7]);
    assert_eq!((histories.bytes(), histories.rings.len()), (0, 0));
    assert!(histories.expiries.is_empty());
    assert_eq!((histories.coldest, histories.hottest), (NONE, NONE));
}

#[test]
fn a_publish_to_another_topic_tells_the_time() {
    let mut histories = Histories::new(usize::MAX);
    let old = histories.push(None, 0, WIDE, publication("a", 0));
    histories.push(None, 1, WIDE, publication("b", 1_000_000));
    assert_eq!(texts(&mut histories, old, 10), "");
    assert_eq!(emptied(&mut histories), [0]);
}

#[test]
fn the_coldest_ring_is_trimmed_first() {
    let bytes_max = 4 * cost() + 3 * TOPIC_BYTES;
    let mut histories = Histories::new(bytes_max);
    let first = histories.push(None, 0, WIDE, publication("a", 0));
    let second = histories.push(None, 1, WIDE, publication("A", 0));
    histories.push(Some(first), 0, WIDE, publication("b", 0));
    histories.push(Some(second), 1, WIDE, publication("B", 0));
    // A recovery is a use.
    assert_eq!(texts(&mut histories, first, 10), "ab");
    let third = histories.push(None, 2, WIDE, publication("1", 0));
    assert_eq!(texts(&mut histories, second, 10), "B");
    assert_eq!(texts(&mut histories, first, 10), "ab");
    assert!(emptied(&mut histories).is_empty());
    for _ in 0..100 {
        histories.push(Some(third), 2, WIDE, publication("2", 0));
    }
    assert_eq!(emptied(&mut histories), [0, 1]);
    let fitting = (bytes_max - TOPIC_BYTES) / cost();
    assert_eq!(histories.publications(), fitting);
    histories.push(Some(third), 2, WIDE, publication("3", 0));
    let texts = texts(&mut histories, third, 100);
    assert_eq!(texts, "2".repeat(fitting - 1) + "3");
}

/// A publication whose other forms count, given one of so many bytes.
fn with_form(histories: &Histories, text: &str, form_bytes: usize) -> Arc<Publication> {
    let mut publication = Publication::new(Kind::Text, text.as_bytes(), 0);
    let topic = Topic::from_text("t").expect("a topic");
    let offset = OFFSET.get() + 1;
    OFFSET.set(offset);
    let position = Position { epoch: 1, offset };
    publication.place(topic, position, Some(histories.forms()), false);
    publication.encoded(4, || vec![0; form_bytes].into());
    Arc::new(publication)
}

#[test]
fn other_forms_count_for_as_long_as_they_live() {
    let mut histories = Histories::new(usize::MAX);
    let publication = with_form(&histories, "a", 1000);
    let (live, forms) = (Arc::clone(&publication), publication.form_bytes());
    assert!(forms >= 1000);
    let ring = histories.push(None, 0, WIDE, publication);
    assert_eq!(histories.bytes(), cost() + TOPIC_BYTES + forms);
    assert_eq!(histories.size(ring).bytes, cost());
    live.encoded(8, || vec![0; 500].into());
    assert!(histories.bytes() >= cost() + TOPIC_BYTES + forms + 500);
    histories.expire(1_000_000);
    assert_eq!(histories.bytes(), live.form_bytes());
    drop(live);
    assert_eq!(histories.bytes(), 0);
}

#[test]
fn forms_that_come_later_make_the_coldest_give_way() {
    let bytes_max = 2 * (cost() + TOPIC_BYTES) + 1500;
    let mut histories = Histories::new(bytes_max);
    let cold = with_form(&histories, "a", 1000);
    histories.push(None, 0, WIDE, Arc::clone(&cold));
    let hot = histories.push(None, 1, WIDE, with_form(&histories, "b", 10));
    histories.expire(0);
    assert!(emptied(&mut histories).is_empty());
    cold.encoded(8, || vec![0; 500].into());
    histories.expire(0);
    assert_eq!(emptied(&mut histories), [0]);
    // What is on its way out still counts, and yet nothing else goes for it.
    assert_eq!(texts(&mut histories, hot, 10), "b");
}

#[test]
fn what_no_ring_may_hold_is_not_kept() {
    let mut histories = Histories::new(cost() - 1);
    histories.push(None, 3, WIDE, publication("a", 0));
    assert_eq!(emptied(&mut histories), [3]);
    assert_eq!(histories.bytes(), 0);
}

#[test]
fn recovery_hands_out_no_more_than_its_limits() {
    let mut histories = Histories::new(usize::MAX);
    let ring = histories.push(None, 0, WIDE, publication("a", 0));
    for text in ["b", "c"] {
        histories.push(Some(ring), 0, WIDE, publication(text, 0));
    }
    let newest = OFFSET.get();
    let frame_bytes = publication("x", 0).frame().len();
    for limits in [
        RecoveryLimits {
            publications_max: 2,
            ..MANY
        },
        RecoveryLimits {
            bytes_max: 3 * frame_bytes - 1,
            ..MANY
        },
    ] {
        assert_eq!(histories.newest_after(ring, newest - 3, limits).0.len(), 2);
        assert!(histories.all_after(ring, newest - 3, limits).is_none());
        let two = histories
            .all_after(ring, newest - 2, limits)
            .expect("within the limits");
        assert_eq!(two[0].payload(), b"b");
    }
}

#[test]
fn what_is_over_is_kept_no_longer_and_recovered_by_nobody() {
    let mut histories = Histories::new(usize::MAX);
    let ring = histories.push(None, 0, WIDE, publication("a", 0));
    for (text, ttl_ms) in [("b", 5), ("c", 300), ("d", 5)] {
        histories.push(Some(ring), 0, WIDE, mortal(text, 0, ttl_ms));
    }
    histories.push(Some(ring), 0, WIDE, publication("e", 4_999));
    assert_eq!(texts(&mut histories, ring, 10), "abcde");
    // The moment is known by a publication; the memory goes with the next look.
    histories.push(Some(ring), 0, WIDE, publication("f", 5_000));
    assert_eq!(texts(&mut histories, ring, 10), "acef");
    assert_eq!(histories.publications(), 6);
    histories.expire(5_000);
    assert_eq!(histories.publications(), 4);
    assert_eq!(histories.size(ring).publications, 4);
    let newest = OFFSET.get();
    for (after, count) in [
        (newest - 6, 4),
        (newest - 5, 3),
        (newest - 4, 3),
        (newest - 1, 1),
    ] {
        let all = histories.all_after(ring, after, MANY);
        assert_eq!(
            all.map(|all| all.len()),
            Some(count),
            "nothing else is missing"
        );
    }
    histories.expire(300_000);
    assert_eq!(texts(&mut histories, ring, 10), "aef");
    // What goes for its age is missing, what was over is not.
    histories.expire(1_000_000);
    assert_eq!(texts(&mut histories, ring, 10), "ef");
    assert!(histories.all_after(ring, newest - 6, MANY).is_none());
    assert_eq!(
        histories
            .all_after(ring, newest - 5, MANY)
            .map(|all| all.len()),
        Some(2)
    );
    let left = histories.bytes() - TOPIC_BYTES;
    assert_eq!(left, 2 * cost());
}

#[test]
fn a_queue_that_has_shrunk_gives_its_memory_back() {
    let mut histories = Histories::new(usize::MAX);
    let ring = histories.push(None, 0, WIDE, publication("a", 0));
    for number in 1..1000 {
        histories.push(Some(ring), 0, WIDE, publication("a", number));
    }
    histories.expire(1_000_000 + 997);
    let queue = &histories.rings[ring.0 as usize].publications;
    assert_eq!(queue.len(), 2);
    assert!(queue.capacity() <= 2 * PLACES_KEPT, "{}", queue.capacity());
}

/// One of a key; without a text, the key is deleted.
fn keyed(key: &str, text: Option<&str>) -> Arc<Publication> {
    let mut options = PublishOptions::default().key(key);
    if text.is_none() {
        options = options.tombstone();
    }
    let payload = text.unwrap_or_default().as_bytes();
    placed(Publication::new(Kind::Text, payload, 0).with_options(options))
}

fn snapshot(histories: &mut Histories, ring: RingId) -> (String, bool) {
    let (newest, is_whole) = histories.snapshot(ring, MANY);
    let texts = newest.iter().map(|next| next.payload().to_vec());
    let texts = String::from_utf8(texts.flatten().collect());
    (texts.expect("text"), is_whole)
}

#[test]
fn the_newest_of_each_key_stays_and_deleted_ones_go() {
    let latest = HistoryLimits {
        publications_max: 3,
        latest_only: true,
        ..WIDE
    };
    let mut histories = Histories::new(usize::MAX);
    let ring = histories.push(None, 0, latest, keyed("a", Some("1")));
    let push = |histories: &mut Histories, key, text| {
        histories.push(Some(ring), 0, latest, keyed(key, text));
    };
    for (key, text) in [("b", "2"), ("a", "3"), ("c", "4"), ("b", "5")] {
        push(&mut histories, key, Some(text));
    }
    assert_eq!(snapshot(&mut histories, ring), ("345".to_owned(), true));
    assert_eq!(histories.publications(), 3);
    // Who was there before gets what is newest since, and the tombstone.
    push(&mut histories, "a", None);
    assert_eq!(snapshot(&mut histories, ring), ("45".to_owned(), true));
    let newest = OFFSET.get();
    let since = histories.all_after(ring, newest - 3, MANY).expect("all");
    assert_eq!(since.len(), 3, "4, 5 and the tombstone");
    // A tombstone that goes leaves nothing missing; a key that goes does.
    push(&mut histories, "d", Some("6"));
    push(&mut histories, "d", Some("7"));
    assert_eq!(snapshot(&mut histories, ring), ("57".to_owned(), false));
    let bytes = histories.size(ring).bytes;
    assert_eq!(histories.bytes(), bytes + TOPIC_BYTES);
    histories.expire(1_000_000);
    assert_eq!(emptied(&mut histories), [0]);
    assert_eq!(histories.bytes(), 0);
    assert_eq!(histories.publications(), 0);
}

#[test]
fn a_rule_that_becomes_latest_lets_earlier_ones_of_a_key_go() {
    let mut histories = Histories::new(usize::MAX);
    let ring = histories.push(None, 0, WIDE, keyed("a", Some("1")));
    for (key, text) in [("b", "2"), ("a", "3")] {
        histories.push(Some(ring), 0, WIDE, keyed(key, Some(text)));
    }
    let latest = HistoryLimits {
        latest_only: true,
        ..WIDE
    };
    assert!(histories.approach(ring, latest, 100));
    assert_eq!(snapshot(&mut histories, ring).0, "23");
    assert!(histories.approach(ring, WIDE, 100));
    histories.push(Some(ring), 0, WIDE, keyed("a", Some("4")));
    assert_eq!(texts(&mut histories, ring, 10), "234");
    let bytes = histories.size(ring).bytes;
    assert_eq!(histories.bytes(), bytes + TOPIC_BYTES);
    histories.expire(1_000_000);
    assert_eq!((histories.bytes(), histories.publications()), (0, 0));
}

#[test]
fn a_ring_that_a_recovery_found_too_old_has_no_snapshot() {
    let latest = HistoryLimits {
        latest_only: true,
        ..WIDE
    };
    let mut histories = Histories::new(usize::MAX);
    let ring = histories.push(None, 0, latest, keyed("a", Some("1")));
    histories.push(None, 1, WIDE, publication("x", 1_000_000));
    assert!(histories.all_after(ring, 0, MANY).is_none());
    assert_eq!(snapshot(&mut histories, ring), (String::new(), false));
}
