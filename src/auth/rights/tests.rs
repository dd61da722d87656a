//! Tests of rights.

use std::borrow::Cow;

use super::*;
use crate::topic::template::VariableName;

struct Subject(Option<&'static str>);

impl Values for Subject {
    fn value(&self, name: &VariableName) -> Option<Cow<'_, str>> {
        let subject = (*name == VariableName::Subject).then_some(self.0)?;
        subject.map(Cow::Borrowed)
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn compile(lists: &RightsLists) -> Rights {
    Rights::from_lists(lists).expect("rights")
}

fn decide_by<'r>(
    all: &'r [Rights],
    subject: Option<&'static str>,
    action: Action<'_>,
) -> Decision<'r, usize> {
    let parts = all.iter().enumerate();
    let parts = parts.map(|(owner, rights)| Part {
        owner,
        rights,
        denies_only: false,
    });
    decide(&parts, action, &Subject(subject))
}

fn may(all: &[Rights], subject: Option<&'static str>, action: Action<'_>) -> bool {
    matches!(decide_by(all, subject, action), Decision::Allowed(..))
}

#[test]
fn deny_wins_wherever_it_stands() {
    let news = compile(&RightsLists {
        subscribe: texts(&["news/**", "a"]),
        publish: texts(&["a"]),
        ..RightsLists::default()
    });
    let closed = compile(&RightsLists {
        deny: DenyLists {
            subscribe: texts(&["news/internal/**"]),
            publish: texts(&["a"]),
            ..DenyLists::default()
        },
        ..RightsLists::default()
    });
    for all in [[news.clone(), closed.clone()], [closed, news]] {
        for (action, is_allowed) in [
            (Action::Subscribe("news/eu"), true),
            (Action::Subscribe("a"), true),
            (Action::Subscribe("b"), false),
            (Action::Subscribe("news/internal/x"), false),
            (Action::Publish("a"), false),
            (Action::SubscribePattern("news/eu/**"), true),
            (Action::SubscribePattern("news/**"), false),
            (Action::SubscribePattern("a"), true),
            (Action::SubscribePattern("a**"), false),
            (Action::Connect, true),
            (Action::PublishMany, true),
            (Action::Open("/echo"), true),
            (Action::Observe, false),
            (Action::Manage(None), false),
        ] {
            assert_eq!(may(&all, None, action), is_allowed, "{action:?}");
        }
    }
}

#[test]
fn the_pattern_that_decides_is_named() {
    let all = [compile(&RightsLists {
        subscribe: texts(&["news/**"]),
        deny: DenyLists {
            subscribe: texts(&["news/x"]),
            ..DenyLists::default()
        },
        ..RightsLists::default()
    })];
    let decide = |topic| decide_by(&all, None, Action::Subscribe(topic));
    assert_eq!(decide("news/y"), Decision::Allowed(0, "news/**"));
    assert_eq!(decide("news/x"), Decision::Denied(0, "news/x"));
    assert_eq!(decide("y"), Decision::NotAllowed);
    let pattern = decide_by(&all, None, Action::SubscribePattern("news/*"));
    assert_eq!(pattern, Decision::Denied(0, "news/x"));
}

#[test]
fn presence_and_history_follow_the_subscription_where_absent() {
    let lists = RightsLists {
        subscribe: texts(&["rooms/*"]),
        deny: DenyLists {
            subscribe: texts(&["rooms/secret"]),
            ..DenyLists::default()
        },
        ..RightsLists::default()
    };
    let absent = [compile(&lists)];
    for (topic, is_allowed) in [("rooms/a", true), ("rooms/secret", false), ("x", false)] {
        for action in [Action::Presence(topic), Action::History(topic)] {
            assert_eq!(may(&absent, None, action), is_allowed, "{action:?}");
        }
    }
    let said = [compile(&RightsLists {
        presence: Some(Vec::new()),
        history: Some(texts(&["old/*"])),
        ..lists
    })];
    assert!(!may(&said, None, Action::Presence("rooms/a")));
    assert!(!may(&said, None, Action::History("rooms/a")));
    assert!(may(&said, None, Action::History("old/a")));
    assert!(!may(&said, None, Action::Subscribe("old/a")));
    // A deny elsewhere closes what follows here.
    let closed = compile(&RightsLists {
        deny: DenyLists {
            subscribe: texts(&["rooms/a"]),
            ..DenyLists::default()
        },
        ..RightsLists::default()
    });
    let both = [absent[0].clone(), closed];
    assert!(!may(&both, None, Action::Presence("rooms/a")));
    assert!(may(&both, None, Action::Presence("rooms/b")));
}

#[test]
fn all_of_manage_needs_all_topics() {
    let with = |manage: &[&str], deny: &[&str]| {
        [compile(&RightsLists {
            manage: texts(manage),
            deny: DenyLists {
                manage: texts(deny),
                ..DenyLists::default()
            },
            ..RightsLists::default()
        })]
    };
    let rooms = with(&["rooms/**"], &[]);
    assert!(may(&rooms, None, Action::Manage(Some("rooms/a"))));
    assert!(!may(&rooms, None, Action::Manage(Some("a"))));
    // A pattern is covered whole, or refused.
    for (pattern, is_allowed) in [
        ("rooms/*", true),
        ("rooms/**", true),
        ("**", false),
        ("*/a", false),
    ] {
        let outcome = may(&rooms, None, Action::Manage(Some(pattern)));
        assert_eq!(outcome, is_allowed, "{pattern}");
    }
    assert!(!may(&rooms, None, Action::Manage(None)));
    assert!(may(&with(&["**"], &[]), None, Action::Manage(None)));
    assert!(!may(&with(&["**"], &["a"]), None, Action::Manage(None)));
}

#[test]
fn variables_that_cannot_be_filled_allow_nothing_and_deny_all() {
    let all = [compile(&RightsLists {
        subscribe: texts(&["user/{sub}/**", "news"]),
        publish: texts(&["**"]),
        deny: DenyLists {
            publish: texts(&["user/{sub}/in"]),
            ..DenyLists::default()
        },
        ..RightsLists::default()
    })];
    let subscribe = |subject, topic| may(&all, subject, Action::Subscribe(topic));
    assert!(subscribe(Some("42"), "user/42/x") && subscribe(Some("42"), "news"));
    assert!(!subscribe(Some("42"), "user/43/x"));
    assert!(may(&all, Some("42"), Action::SubscribePattern("user/42/*")));
    assert!(!may(&all, Some("42"), Action::SubscribePattern("user/*/x")));
    for subject in ["*", "**", "a/b", "a.b", "{sub}", "..", "", "x/y"] {
        for topic in ["user/x/y", "user/a/b/c", "news", "user/*/x"] {
            assert!(!subscribe(Some(subject), topic), "{subject} {topic}");
        }
    }
    // With grants of others that allow it, the deny holds for every value.
    let open = compile(&RightsLists {
        publish: texts(&["**"]),
        ..RightsLists::default()
    });
    let both = [all[0].clone(), open];
    assert!(!may(&both, Some("a.b"), Action::Publish("user/43/in")));
    assert!(may(&both, Some("42"), Action::Publish("user/43/in")));
    assert!(may(&both, Some("a.b"), Action::Publish("user/43/out")));
}

#[test]
fn limits_and_errors_name_the_text() {
    let with = |subscribe: Vec<String>| {
        Rights::from_lists(&RightsLists {
            subscribe,
            ..RightsLists::default()
        })
    };
    let many = |count| (0..count).map(|it| format!("a/{it}")).collect();
    assert!(with(many(256)).is_ok());
    let error = with(many(257)).expect_err("too many").to_string();
    assert!(error.contains("257 patterns"), "{error}");
    let long = (0..70)
        .map(|it| format!("{it}{}", "a".repeat(250)))
        .collect();
    let error = with(long).expect_err("too long").to_string();
    assert!(error.contains("16384 bytes"), "{error}");
    let error = with(texts(&["a", "a/**/b"])).expect_err("no pattern");
    assert_eq!((error.list, error.index), ("subscribe", 1));
    assert!(error.to_string().starts_with("subscribe: `a/**/b`: "));
    for text in ["", "user/{id}", "t?b=1&a=1", "a\nb"] {
        assert!(with(texts(&[text])).is_err(), "{text}");
    }
}

#[test]
fn rights_of_the_same_text_are_one() {
    let lists = |name: &str| RightsLists {
        subscribe: texts(&[name, "shared/{sub}"]),
        ..RightsLists::default()
    };
    let one = compile(&lists("shared/a"));
    assert!(one.is_shared_with(&compile(&lists("shared/a"))));
    assert!(!one.is_shared_with(&compile(&lists("shared/b"))));
    let present = RightsLists {
        presence: Some(Vec::new()),
        ..lists("shared/a")
    };
    assert!(!one.is_shared_with(&compile(&present)));
    // What nobody uses is swept out.
    for number in 0..1000 {
        compile(&lists(&format!("shared/{number}")));
    }
    let in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    let count = in_use.as_ref().map_or(0, |it| it.tables.len());
    assert!(count < 500, "{count}");
}
