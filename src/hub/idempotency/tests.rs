//! Keys by themselves: what is carried out, and what is remembered.

use super::*;

/// Options that say nothing.
const PLAIN: PublishOptions = PublishOptions {
    extras: None,
    is_json: false,
    names_json: false,
    is_tombstone: false,
};

const AGE_US: u64 = 1000;

fn keys(total: usize, each: usize) -> Idempotency {
    Idempotency::new(KeySettings {
        age_us: AGE_US,
        since_us: 0,
        budget: Arc::new(KeyBudget::new(total, each)),
    })
}

fn roomy() -> Idempotency {
    keys(1 << 20, 1 << 20)
}

fn publisher(number: u8) -> Publisher {
    Publisher::of_address(Some([10, 0, 0, number].into()))
}

fn key(by: Publisher, text: &str, body: &str) -> IdempotencyKey {
    let topic = Topic::from_text("a").expect("a topic");
    IdempotencyKey::new(by, &topic, text, None).of(Kind::Text, body.as_bytes(), &PLAIN)
}

fn at(offset: u64) -> Position {
    Position { epoch: 7, offset }
}

/// Publishes, and gives the outcome.
fn publish(keys: &mut Idempotency, key: &IdempotencyKey, now_us: u64) -> Outcome {
    keys.expire(now_us, 32);
    let (outcome, _) = keys.begin(key, now_us);
    if outcome == Outcome::Placed {
        keys.remember(key, at(now_us), now_us);
    }
    outcome
}

#[test]
fn same_key_and_body_is_a_duplicate_until_the_age() {
    let mut keys = roomy();
    let key = key(publisher(1), "k", "x");
    assert_eq!(publish(&mut keys, &key, 5), Outcome::Placed);
    assert_eq!(
        keys.begin(&key, 5 + AGE_US - 1),
        (Outcome::Duplicate, Some(at(5)))
    );
    assert_eq!(publish(&mut keys, &key, 5 + AGE_US), Outcome::Placed);
    assert_eq!(keys.begin(&key, 5 + AGE_US).1, Some(at(5 + AGE_US)));
}

#[test]
fn scope_is_publisher_topic_key_and_line() {
    let mut keys = roomy();
    let by = publisher(1);
    assert_eq!(publish(&mut keys, &key(by, "k", "x"), 0), Outcome::Placed);
    assert_eq!(
        publish(&mut keys, &key(by, "k", "y"), 0),
        Outcome::KeyReused
    );
    let topic = Topic::from_text("b").expect("a topic");
    let of_line = |line| IdempotencyKey::new(by, &topic, "k", line).of(Kind::Text, b"y", &PLAIN);
    for other in [
        key(publisher(2), "k", "y"),
        key(by, "l", "y"),
        of_line(None),
        of_line(Some(0)),
        of_line(Some(1)),
    ] {
        assert_eq!(publish(&mut keys, &other, 0), Outcome::Placed);
    }
}

#[test]
fn body_is_kind_key_and_payload() {
    let topic = Topic::from_text("a").expect("a topic");
    let of = |kind, payload: &[u8], options| {
        IdempotencyKey::new(publisher(1), &topic, "k", None).of(kind, payload, &options)
    };
    let text = of(Kind::Text, b"x", PLAIN);
    assert_eq!(text, of(Kind::Text, b"x", PLAIN));
    assert_ne!(text, of(Kind::Binary, b"x", PLAIN));
    assert_ne!(text, of(Kind::Text, b"xx", PLAIN));
    assert_ne!(text, of(Kind::Text, b"x", PLAIN.key("EUR")));
    let tagged = |options: PublishOptions| of(Kind::Text, b"x", options.tag("c", ""));
    let in_order = tagged(PLAIN.tag("a", "1").tag("b", "2"));
    assert_eq!(in_order, tagged(PLAIN.tag("b", "2").tag("a", "1")));
    assert_ne!(in_order, tagged(PLAIN.tag("a", "2").tag("b", "1")));
}

#[test]
fn publishers_are_told_apart_by_address_or_credential() {
    let of = |text: &str| Publisher::of_address(Some(text.parse().expect("an address")));
    assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    assert_ne!(of("10.0.0.1"), Publisher::of_address(None));
    assert_ne!(
        Publisher::of_credential(b"a"),
        Publisher::of_credential(b"b")
    );
}

#[test]
fn no_key_is_forgotten_for_want_of_room() {
    let room = 4 * KEY_BYTES + PUBLISHER_BYTES;
    let mut keys = keys(room, room);
    let by = publisher(1);
    for number in 0..4 {
        let key = key(by, &number.to_string(), "x");
        assert_eq!(publish(&mut keys, &key, number), Outcome::Placed);
    }
    let fifth = key(by, "4", "x");
    assert_eq!(publish(&mut keys, &fifth, AGE_US - 1), Outcome::KeysFull);
    for number in 0..4 {
        let key = key(by, &number.to_string(), "x");
        assert_eq!(publish(&mut keys, &key, AGE_US - 1), Outcome::Duplicate);
    }
    assert_eq!(publish(&mut keys, &fifth, AGE_US), Outcome::Placed);
    assert_eq!(
        publish(&mut keys, &key(by, "5", "x"), AGE_US),
        Outcome::KeysFull
    );
}

#[test]
fn one_publisher_leaves_room_for_others() {
    let mut keys = keys(1 << 20, 2 * KEY_BYTES + PUBLISHER_BYTES);
    let (one, other) = (publisher(1), publisher(2));
    for (by, text, outcome) in [
        (one, "1", Outcome::Placed),
        (one, "2", Outcome::Placed),
        (one, "3", Outcome::KeysFull),
        (other, "1", Outcome::Placed),
    ] {
        assert_eq!(publish(&mut keys, &key(by, text, "x"), 0), outcome);
    }
}

#[test]
fn repetition_of_what_may_be_forgotten_is_not_carried_out() {
    let mut keys = roomy();
    keys.settings.since_us = 50;
    let fresh = |text: &str, first_us| key(publisher(1), text, "x").sent_before(first_us);
    for (text, first_us, now_us, outcome) in [
        ("before the process", -1, 60, Outcome::FateUnknown),
        ("before the memory", 49, 60, Outcome::FateUnknown),
        ("in time", 50, 60, Outcome::Placed),
        ("again", 50, 50 + AGE_US - 1, Outcome::Placed),
        ("too late", 50, 50 + AGE_US, Outcome::FateUnknown),
    ] {
        assert_eq!(
            publish(&mut keys, &fresh(text, first_us), now_us),
            outcome,
            "{text}"
        );
    }
    // What is remembered is known, whatever the sender says.
    assert_eq!(
        keys.begin(&fresh("again", -1), AGE_US + 60).0,
        Outcome::Duplicate
    );
}

/// A command may wait until another has let its key go.
#[test]
fn repetition_that_waited_too_long_is_not_carried_out() {
    let mut keys = roomy();
    let key = key(publisher(1), "k", "x");
    assert_eq!(publish(&mut keys, &key, 0), Outcome::Placed);
    keys.expire(AGE_US, 32);
    let again = key.sent_before(0);
    assert_eq!(keys.begin(&again, AGE_US - 1).0, Outcome::FateUnknown);
    assert_eq!(keys.begin(&key, 0).0, Outcome::FateUnknown);
    assert_eq!(keys.begin(&key, 1).0, Outcome::Placed);
}

#[test]
fn room_is_given_back_with_age_and_with_the_shard() {
    let mut keys = roomy();
    let budget = Arc::clone(&keys.settings.budget);
    let count = 3 * BLOCK as u64 + 7;
    for number in 0..count {
        let key = key(publisher((number % 5) as u8), &number.to_string(), "x");
        assert_eq!(publish(&mut keys, &key, number), Outcome::Placed);
    }
    let all = count as usize * KEY_BYTES + 5 * PUBLISHER_BYTES;
    assert_eq!((keys.len, budget.bytes()), (count as usize, all));
    keys.expire(AGE_US + 99, usize::MAX);
    assert_eq!(keys.len, count as usize - 100);
    let known = key(publisher(0), "100", "x");
    assert_eq!(keys.begin(&known, AGE_US + 99).0, Outcome::Duplicate);
    keys.expire(2 * AGE_US + count, usize::MAX);
    assert!(keys.is_empty() && budget.bytes() == 0 && budget.lock().is_empty());
    assert_eq!(publish(&mut keys, &known, 5 * AGE_US), Outcome::Placed);
    drop(keys);
    assert_eq!(budget.bytes(), 0);
}

/// Against a list, over numbers that begin again.
#[test]
fn numbers_begin_again() {
    let mut keys = roomy();
    keys.first = NUMBERS - 3;
    for number in 0..10 {
        let key = key(publisher(1), &number.to_string(), "x");
        assert_eq!(publish(&mut keys, &key, number * 300), Outcome::Placed);
        assert_eq!(publish(&mut keys, &key, number * 300), Outcome::Duplicate);
    }
    assert_eq!(keys.len, 4);
}
