//! Tests of events that wait.

use super::*;

fn asking(asks_max: usize) -> Asking {
    Asking::new(ReactorId(0), Weak::new(), asks_max)
}

fn id(index: u32) -> ConnectionId {
    ConnectionId::from_bits(0, u64::from(index))
}

fn outcome(asking: &Asking, key: &str) -> Option<Result<(), Denied>> {
    asking.decided(&key, |decision| match decision {
        Decision::Access(outcome) => Some(outcome.clone()),
        _ => None,
    })
}

/// An event that asks.
fn ask(asking: &mut Asking, id: ConnectionId, key: &str) -> Pending {
    asking.begin(id);
    let pending = Pending::new();
    asking.note(&key, pending.clone()).expect("there is room");
    assert!(asking.has_noted());
    asking.finish(id, true);
    pending
}

#[test]
fn event_comes_again_with_all_that_was_decided() {
    let mut asking = asking(10);
    let first = ask(&mut asking, id(1), "a");
    assert!(asking.poll(0, 100).is_empty());
    first.answer(Ok(()));
    assert_eq!(asking.poll(1, 100), [id(1)]);
    asking.begin(id(1));
    assert_eq!(outcome(&asking, "a"), Some(Ok(())));
    assert_eq!(outcome(&asking, "b"), None);
    let second = Pending::new();
    asking.note(&"b", second.clone()).expect("room");
    asking.finish(id(1), true);
    second.answer(Err(Denied::Failed));
    assert_eq!(asking.poll(2, 100), [id(1)]);
    asking.begin(id(1));
    assert_eq!(outcome(&asking, "a"), Some(Ok(())));
    assert_eq!(outcome(&asking, "b"), Some(Err(Denied::Failed)));
    asking.finish(id(1), false);
    // It is forgotten with the event.
    asking.begin(id(1));
    assert_eq!(outcome(&asking, "a"), None);
    assert!(asking.is_empty());
    assert!(asking.poll(1000, 100).is_empty());
    assert_eq!(asking.next_deadline_ms(), None);
}

#[test]
fn answer_before_the_event_is_kept() {
    let mut asking = asking(10);
    asking.begin(id(1));
    let pending = Pending::new();
    pending.answer(Ok(()));
    asking.note(&"a", pending).expect("room");
    asking.finish(id(1), true);
    assert_eq!(asking.poll(0, 100), [id(1)]);
    asking.begin(id(1));
    assert_eq!(outcome(&asking, "a"), Some(Ok(())));
}

#[test]
fn whoever_waits_too_long_is_told() {
    let mut asking = asking(10);
    let kept = [1, 2].map(|index| ask(&mut asking, id(index), "a"));
    assert_eq!(asking.next_deadline_ms(), Some(0));
    assert!(asking.poll(50, 100).is_empty());
    assert_eq!(asking.next_deadline_ms(), Some(150));
    assert!(asking.poll(149, 100).is_empty());
    assert_eq!(asking.poll(150, 100), [id(1), id(2)]);
    // What comes later is nobody's.
    kept[0].answer(Ok(()));
    assert!(asking.poll(151, 100).is_empty());
    asking.begin(id(1));
    let late = outcome(&asking, "a").expect("decided");
    assert!(matches!(late, Err(Denied::Unavailable(_))));
}

#[test]
fn shorter_waits_end_earlier() {
    let mut asking = asking(10);
    let _long = ask(&mut asking, id(1), "a");
    asking.begin(id(2));
    let kept = Pending::new();
    asking.note_within(&"b", kept.clone(), 20).expect("room");
    asking.finish(id(2), true);
    assert!(asking.poll(0, 100).is_empty());
    assert_eq!(asking.next_deadline_ms(), Some(20));
    assert_eq!(asking.poll(20, 100), [id(2)]);
    assert_eq!(asking.next_deadline_ms(), Some(100));
    assert_eq!(asking.poll(100, 100), [id(1)]);
}

#[test]
fn answer_to_a_former_connection_of_the_slot_is_nobodys() {
    let mut asking = asking(10);
    let former = ask(&mut asking, id(1), "a");
    asking.forget(id(1));
    assert!(asking.is_empty());
    let next = ConnectionId {
        generation: 7,
        ..id(1)
    };
    let _kept = ask(&mut asking, next, "a");
    former.answer(Ok(()));
    assert!(asking.poll(0, 100).is_empty());
    assert_eq!(asking.len(), 1);
}

#[test]
fn no_more_wait_than_may() {
    let mut asking = asking(1);
    let _kept = ask(&mut asking, id(1), "a");
    asking.begin(id(2));
    let denied = asking.note(&"a", Pending::new()).expect_err("full");
    assert!(matches!(denied, Denied::Unavailable(_)));
    assert!(!asking.has_noted());
    asking.finish(id(2), false);
    assert_eq!(asking.len(), 1);
}
