//! Tests of the deny list.

use super::*;
use crate::auth::identity::IdentityParts;
use std::sync::Arc;

const NOW_MS: u64 = 1_800_000_000_000;

fn identity(issued_at: Option<u64>) -> Arc<Identity> {
    Identity::new(IdentityParts {
        subject: Some("42".into()),
        token_id: Some("b1c2".into()),
        issued_at,
        ..IdentityParts::of(Source::Jwt("app".into()))
    })
    .expect("it can stand")
}

fn entry(kind: &str, value: &str) -> Entry {
    Entry {
        denial: Denial::parse(kind, value).expect("it can stand"),
        issued_before: None,
        until_ms: None,
        is_fixed: false,
        ends_open: true,
    }
}

fn list_of(entries: &[Entry]) -> DenyList {
    let mut list = DenyList::default();
    for entry in entries {
        list.add(entry.clone(), 100, NOW_MS).expect("room");
    }
    list
}

#[test]
fn token_subject_source_and_peer_are_denied() {
    let known = identity(Some(1));
    for (kind, value, is_denied) in [
        ("jti", "b1c2", true),
        ("jti", "other", false),
        ("subject", "42", true),
        ("subject", "43", false),
        ("source", "app", true),
        ("source", "idp", false),
        ("token", "app", false),
    ] {
        let list = list_of(&[entry(kind, value)]);
        assert_eq!(list.denies(&known, NOW_MS), is_denied, "{kind} {value}");
        assert_eq!(entry(kind, value).denies(Some(&known), None), is_denied);
    }
    let list = list_of(&[
        entry("peer", "203.0.113.7/24"),
        entry("peer", "::1"),
        entry("peer", "::ffff:198.51.100.7"),
        entry("peer", "::ffff:192.0.2.0/120"),
    ]);
    for (peer, is_denied) in [
        ("203.0.113.9", true),
        ("203.0.114.9", false),
        ("::1", true),
        ("198.51.100.7", true),
        ("192.0.2.9", true),
        ("192.0.3.9", false),
    ] {
        let peer: IpAddr = peer.parse().expect("an address");
        assert_eq!(list.denies_peer(peer, NOW_MS), is_denied, "{peer}");
    }
}

#[test]
fn subject_is_denied_by_issue_with_leeway() {
    let before = Entry {
        issued_before: Some(1000),
        ..entry("subject", "42")
    };
    let list = list_of(&[before]);
    for (issued_at, is_denied) in [
        (Some(900), true),
        (Some(1000), true),
        (Some(1029), true),
        (Some(1031), false),
        (None, true),
    ] {
        let known = identity(issued_at);
        assert_eq!(list.denies(&known, NOW_MS), is_denied, "{issued_at:?}");
    }
}

#[test]
fn entry_stays_for_twice_the_leeway_and_makes_room() {
    let mut list = DenyList::default();
    let until = |until_ms| Entry {
        until_ms: Some(until_ms),
        ..entry("jti", "b1c2")
    };
    let known = identity(None);
    list.add(until(NOW_MS), 1, NOW_MS).expect("room");
    assert!(list.denies(&known, NOW_MS + 2 * LEEWAY_MS));
    assert!(!list.denies(&known, NOW_MS + 2 * LEEWAY_MS + 1));
    let other = entry("jti", "x");
    assert_eq!(list.add(other.clone(), 1, NOW_MS), Err(DenyListFull));
    // The same again is no other entry, and ends later.
    assert_eq!(list.add(until(NOW_MS + 5), 1, NOW_MS), Ok(0));
    assert_eq!(
        list.page(0, NOW_MS).next().and_then(|it| it.1.until_ms),
        Some(NOW_MS + 5)
    );
    assert_eq!(list.add(other, 1, NOW_MS + 2 * LEEWAY_MS + 6), Ok(1));
    assert_eq!(list.len(), 1);
}

#[test]
fn file_is_read_as_it_is_written() {
    let mut list = list_of(&[entry("peer", "10.0.0.0/8"), entry("subject", "a \"b\"")]);
    list.take_off(0).expect("it is there");
    let fixed = |text: &str| DenyList::parse_fixed(text).expect("lines");
    list.set_fixed(fixed("# a comment\njti:x\n\nsub:7\npeer:::1\n"));
    assert_eq!(list.len(), 4);
    let again = DenyList::decode(&list.encode()).expect("it is whole");
    let entries: Vec<_> = again
        .page(0, NOW_MS)
        .map(|(id, it)| (id, it.denial.value()))
        .collect();
    assert_eq!(entries, [(1, "a \"b\"".to_owned())]);
    list.set_fixed(fixed("sub:7"));
    assert_eq!(list.len(), 2);
    for text in ["tok:7", "peer:x", "sub:", "jti"] {
        assert!(DenyList::parse_fixed(text).is_err(), "{text}");
    }
    for text in [
        "",
        "{}",
        r#"{"version":2,"next_id":0,"entries":[]}"#,
        r#"{"version":1,"next_id":0,"entries":[{"id":0,"kind":"jti","value":""}]}"#,
        r#"{"version":1,"next_id":0,"entries":[{"id":0,"kind":"x","value":"a"}]}"#,
    ] {
        assert!(DenyList::decode(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn fixed_entries_and_others_do_not_change_each_other() {
    let known = identity(Some(1000));
    let fixed = || DenyList::parse_fixed("sub:42\n").expect("a line");
    for is_fixed_first in [true, false] {
        let mut list = DenyList::default();
        if is_fixed_first {
            list.set_fixed(fixed());
        }
        let short = Entry {
            until_ms: Some(NOW_MS),
            ..entry("subject", "42")
        };
        let id = list.add(short, 1, NOW_MS).expect("room beside the file's");
        list.set_fixed(fixed());
        let ids: Vec<u64> = list.page(0, NOW_MS).map(|(id, _)| id).collect();
        let of_file = *ids.iter().find(|it| **it != id).expect("it has its own");
        assert_eq!(
            (ids.len(), list.take_off(of_file)),
            (2, Err(NotTakenOff::Fixed))
        );
        assert_eq!(list.take_off(9), Err(NotTakenOff::Unknown));
        assert_eq!(list.take_off(id), Ok(()));
        assert!(list.denies(&known, NOW_MS), "by the file alone");
        list.add(entry("subject", "42"), 1, NOW_MS).expect("room");
        list.set_fixed(Vec::new());
        assert!(list.denies(&known, NOW_MS), "by the other alone");
        assert_eq!(list.len(), 1);
    }
}

#[test]
fn cell_without_entries_asks_for_nothing() {
    let cell = DenyCell::default();
    let asked = || panic!("nobody asks for the address");
    assert_eq!(cell.check(None, asked, NOW_MS), Ok(()));
    cell.change(|list| list.add(entry("peer", "10.0.0.1"), 10, NOW_MS))
        .expect("room");
    let peer = || Some("10.0.0.1".parse().expect("an address"));
    assert_eq!(cell.check(None, peer, NOW_MS), Err(DeniedBy::Peer));
}
