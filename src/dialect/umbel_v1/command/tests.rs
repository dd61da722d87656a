//! Commands as text messages hold them: right ones, wrong ones, hostile ones.
#![allow(clippy::unwrap_used)]

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::hub::{FieldLimits, Kind, PublishOptions};
use crate::topic::Topic;

const LIMITS: CommandLimits = CommandLimits {
    commands_max: 3,
    payload_bytes_max: 10,
    fields: FieldLimits::DEFAULT,
};

fn parse(text: &str) -> Vec<Result<Command<'_>, CommandError>> {
    let mut results = Vec::new();
    parse_commands(text, &LIMITS, &mut |result| results.push(result));
    results
}

fn one(text: &str) -> Result<Command<'_>, CommandError> {
    let mut results = parse(text);
    assert_eq!(results.len(), 1, "{text}");
    results.pop().unwrap()
}

/// The id and the code that a message is answered with, whose reason is short.
fn fault(text: &str) -> (Option<u32>, ErrorCode) {
    let error = one(text).expect_err("a fault");
    assert!((1..200).contains(&error.reason.len()), "{}", error.reason);
    (error.id, error.code)
}

fn topic(text: &str) -> Topic {
    Topic::from_text(text).unwrap()
}

fn publish<'a>(kind: Kind, payload: &'a [u8]) -> Command<'a> {
    Command::Publish {
        id: Some(4),
        topic: topic("t"),
        kind,
        payload: payload.into(),
        options: PublishOptions::default(),
        wants_receipt: false,
        once: None,
    }
}

#[test]
fn subscriptions() {
    let target = Target::Topic(topic("orders/eu"));
    let (id, start) = (Some(1), Start::Now);
    let echo = true;
    let mut subscribe = Command::Subscribe {
        id,
        target,
        start,
        echo,
        signature: None,
    };
    assert_eq!(
        one(r#"{"type":"subscribe","id":1,"topic":"orders/eu"}"#),
        Ok(subscribe.clone())
    );
    for (field, from) in [
        (
            r#""since":"00000000000000a1:17""#,
            Start::Since(Position {
                epoch: 0xa1,
                offset: 17,
            }),
        ),
        (r#""last":10"#, Start::Last(10)),
    ] {
        let text = format!(r#" {{"topic" : "orders/eu", {field}, "id":1,"type":"subscribe"}} "#);
        if let Command::Subscribe { start, .. } = &mut subscribe {
            *start = from;
        }
        assert_eq!(one(&text), Ok(subscribe.clone()));
    }
    let target = Target::Pattern(Pattern::parse("orders/*").unwrap());
    assert_eq!(
        one(r#"{"type":"unsubscribe","pattern":"orders/*"}"#),
        Ok(Command::Unsubscribe {
            id: None,
            target: target.clone()
        })
    );
    let id = Some(u32::MAX);
    let start = Start::Now;
    assert_eq!(
        one(r#"{"type":"subscribe","id":4294967295,"pattern":"orders/*"}"#),
        Ok(Command::Subscribe {
            id,
            target,
            start,
            echo,
            signature: None,
        })
    );
    let escaped = r#"{"\u0074ype":"p\u0069ng","i\u0064":7}"#;
    assert_eq!(one(escaped), Ok(Command::Ping { id: Some(7) }));
}

#[test]
fn publications() {
    let begin = r#"{"type":"publish","id":4,"topic":"t","#;
    for (end, kind, payload) in [
        (r#""data":"text"}"#, Kind::Text, &b"text"[..]),
        (r#""data":""}"#, Kind::Text, b""),
        (
            r#""data":"\u0000\n\u2028"}"#,
            Kind::Text,
            "\0\n\u{2028}".as_bytes(),
        ),
        (r#""data": {"p": 1} }"#, Kind::Text, br#"{"p": 1}"#),
        (r#""data":null}"#, Kind::Text, b"null"),
        (r#""base64":"AAE="}"#, Kind::Binary, &[0, 1]),
        (
            r#""base64":"AAECAwQFBgcICQ=="}"#,
            Kind::Binary,
            &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        ),
    ] {
        let text = [begin, end].concat();
        let mut expected = publish(kind, payload);
        if let Command::Publish { options, .. } = &mut expected
            && (payload.starts_with(b"{") || payload == b"null")
        {
            *options = PublishOptions::default().json();
        }
        assert_eq!(one(&text), Ok(expected), "{text}");
    }
    let text = r#"{"type":"publish","topic":"t","data":"x","key":"EURUSD","receipt":true}"#;
    let command = Command::Publish {
        id: None,
        topic: topic("t"),
        kind: Kind::Text,
        payload: b"x"[..].into(),
        options: PublishOptions::default().key("EURUSD"),
        wants_receipt: true,
        once: None,
    };
    assert_eq!(one(text), Ok(command));
}

#[test]
fn what_is_not_escaped_is_borrowed() {
    let text = r#"{"type":"publish","topic":"t","data":"x","key":"k"}"#;
    let Ok(Command::Publish { payload, .. }) = one(text) else {
        panic!("a publish");
    };
    assert!(matches!(payload, Cow::Borrowed(_)));
}

#[test]
fn a_batch_is_carried_out_in_order_and_faults_stand_in_their_place() {
    let results = parse(r#" [{"type":"ping","id":1}, 7, {"type":"presence","id":2,"topic":"t"}]"#);
    let topic = topic("t");
    assert_eq!(results[0], Ok(Command::Ping { id: Some(1) }));
    assert!(results[1].is_err());
    assert_eq!(results[2], Ok(Command::Presence { id: Some(2), topic }));
    // A name that nobody can decode is JSON, and spoils its own command only.
    let results = parse(r#"[{"type":"ping","id":1},{"\ud800":0,"type":"ping","id":2}]"#);
    let codes = results
        .iter()
        .map(|it| it.as_ref().map_err(|it| (it.id, it.code)));
    let ping = Command::Ping { id: Some(1) };
    let fault_of_2 = (Some(2), ErrorCode::InvalidCommand);
    assert!(codes.eq([Ok(&ping), Err(fault_of_2)]), "{results:?}");
    assert_eq!(parse("[]"), []);
    assert_eq!(fault("[1,2,3,4]"), (None, ErrorCode::TooBig));
    let half = r#"[{"type":"ping","id":1},{"type":"ping","id":2}"#;
    assert_eq!(fault(half), (None, ErrorCode::InvalidJson));
}

#[test]
fn what_is_not_json() {
    for text in [
        "",
        " ",
        "x",
        "{",
        "[",
        "{}{}",
        "[] []",
        "{\"type\":\"ping\"",
        "nul",
        "\u{feff}{}",
        "{\"a\n\":1}",
    ] {
        assert_eq!(fault(text), (None, ErrorCode::InvalidJson), "{text:?}");
    }
}

#[test]
fn what_is_no_command_is_answered_with_its_id() {
    let command = ErrorCode::InvalidCommand;
    for text in [
        "7",
        "null",
        "\"ping\"",
        "{}",
        r#"{"type":"ping","id":-1}"#,
        r#"{"type":"ping","id":1e999}"#,
        r#"{"type":"ping","id":1.0}"#,
        r#"{"type":"ping","id":4294967296}"#,
        r#"{"type":"ping","id":"1"}"#,
        r#"{"type":"ping","id":null}"#,
        r#"{"type":"ping","id":[1]}"#,
        r#"[["ping",1]]"#,
    ] {
        assert_eq!(fault(text), (None, command), "{text}");
    }
    for fields in [
        "",
        r#""type":"pong""#,
        r#""type":7"#,
        r#""type":"\ud800""#,
        r#""type":"ping","topic":"t""#,
        r#""type":"ping","type":"ping""#,
        r#""type":"ping","what":1"#,
        r#""type":"subscribe""#,
        r#""type":"subscribe","topic":1"#,
        r#""type":"subscribe","topic":null"#,
        r#""type":"subscribe","topic":"\udc00""#,
        r#""type":"subscribe","topic":"t","topic":"u""#,
        r#""type":"subscribe","topic":"t","pattern":"t""#,
        r#""type":"subscribe","pattern":"*","last":1"#,
        r#""type":"subscribe","topic":"t","last":-1"#,
        r#""type":"subscribe","topic":"t","last":1e999"#,
        r#""type":"subscribe","topic":"t","since":1"#,
        r#""type":"subscribe","topic":"t","last":1,"since":"00000000000000a1:1""#,
        r#""type":"unsubscribe","topic":"t","last":1"#,
        r#""type":"publish","topic":"t""#,
        r#""type":"publish","topic":"t","data":"x","base64":"""#,
        r#""type":"publish","topic":"t","base64":"A""#,
        r#""type":"publish","topic":"t","base64":"_-==""#,
        r#""type":"publish","topic":"t","data":"\ud800x""#,
        r#""type":"publish","topic":"t","data":1e999"#,
        r#""type":"publish","topic":"t","data":["\udfff"]"#,
        r#""type":"publish","topic":"t","data":"x","key":"""#,
        r#""type":"publish","topic":"t","data":"x","key":"a\u0000""#,
        r#""type":"publish","topic":"t","data":"x","receipt":"true""#,
    ] {
        let comma = if fields.is_empty() { "" } else { "," };
        let text = format!("{{{fields}{comma}\"id\":9}}");
        assert_eq!(fault(&text), (Some(9), command), "{text}");
    }
}

#[test]
fn topics_patterns_positions_and_sizes_have_codes_of_their_own() {
    let long = format!(
        r#"{{"type":"presence","topic":"{}","id":9}}"#,
        "x".repeat(256)
    );
    let big = r#"{"type":"publish","topic":"t","data":"01234567890","id":9}"#;
    for (text, code) in [
        (&*long, ErrorCode::InvalidTopic),
        (
            r#"{"type":"presence","topic":"","id":9}"#,
            ErrorCode::InvalidTopic,
        ),
        (
            r#"{"type":"presence","topic":"a\u0000b","id":9}"#,
            ErrorCode::InvalidTopic,
        ),
        (
            r#"{"type":"presence","topic":"a\u001b[2J","id":9}"#,
            ErrorCode::InvalidTopic,
        ),
        (
            r#"{"type":"subscribe","pattern":"a*b","id":9}"#,
            ErrorCode::InvalidPattern,
        ),
        (
            r#"{"type":"subscribe","pattern":"","id":9}"#,
            ErrorCode::InvalidPattern,
        ),
        (
            r#"{"type":"subscribe","topic":"t","since":"a1:1","id":9}"#,
            ErrorCode::InvalidPosition,
        ),
        (
            r#"{"type":"subscribe","topic":"t","since":"","id":9}"#,
            ErrorCode::InvalidPosition,
        ),
        (big, ErrorCode::TooBig),
        (
            r#"{"type":"publish","topic":"t","base64":"AAECAwQFBgcICQo=","id":9}"#,
            ErrorCode::TooBig,
        ),
    ] {
        assert_eq!(fault(text), (Some(9), code), "{text}");
    }
}

#[test]
fn hostile_sizes_are_faults_with_short_reasons() {
    let deep = "[".repeat(100_000);
    let closed = "[".repeat(100_000) + &"]".repeat(100_000);
    let (invalid, command) = (ErrorCode::InvalidJson, ErrorCode::InvalidCommand);
    assert_eq!(fault(&deep), (None, invalid));
    assert_eq!(fault(&closed), (None, command));
    let objects = r#"{"a":"#.repeat(100_000);
    assert_eq!(fault(&objects), (None, invalid));
    let data = format!(r#"{{"type":"publish","id":1,"topic":"t","data":{closed}}}"#);
    assert_eq!(fault(&data), (Some(1), command));
    for (depth, is_sound) in [(127, true), (128, false)] {
        let data = "[".repeat(depth) + &"]".repeat(depth);
        let text = format!(r#"{{"type":"publish","topic":"t","data":{data}}}"#);
        let limits = CommandLimits {
            payload_bytes_max: 1000,
            ..LIMITS
        };
        parse_commands(&text, &limits, &mut |it| assert_eq!(it.is_ok(), is_sound));
    }
    let long = "7".repeat(20_000_000);
    for text in [
        format!(r#"{{"type":"ping","id":{long}}}"#),
        format!(r#"{{"type":"ping","id":"{long}"}}"#),
        format!(r#"{{"type":"{long}"}}"#),
        format!(r#"{{"type":"ping","{long}":1}}"#),
        format!("\"{long}\""),
    ] {
        assert_eq!(fault(&text), (None, command));
    }
    let topic = format!(r#"{{"type":"presence","topic":"{long}"}}"#);
    assert_eq!(fault(&topic), (None, ErrorCode::InvalidTopic));
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        "[a/.?=\"\u{e9}]{1,9}".prop_filter_map("no topic", |text| {
            Topic::from_text(&text).ok().map(Target::Topic)
        }),
        "[a/.*]{1,5}".prop_filter_map("no pattern", |text| {
            Pattern::parse(&text).ok().map(Target::Pattern)
        }),
    ]
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        Just(Start::Now),
        any::<u32>().prop_map(Start::Last),
        any::<(u64, u64)>().prop_map(|(epoch, offset)| Start::Since(Position { epoch, offset })),
    ]
}

fn payload() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    prop_oneof![
        any::<String>().prop_map(|text| (Kind::Text, text.into_bytes())),
        any::<Vec<u8>>().prop_map(|bytes| (Kind::Binary, bytes)),
    ]
}

fn command() -> impl Strategy<Value = Command<'static>> {
    let id = || any::<Option<u32>>();
    let key = prop::option::of("[a\"\\\\\u{e9}\u{2028}]{1,9}");
    let once = prop::option::of(("[a\"\u{e9}]{1,9}", any::<Option<u32>>()).prop_map(
        |(key, first_sent_ms)| Once {
            key: key.into(),
            first_sent_ms,
        },
    ));
    prop_oneof![
        (id(), target(), start(), any::<bool>()).prop_map(
            |(id, target, start, echo)| match target {
                Target::Topic(_) => Command::Subscribe {
                    id,
                    target,
                    start,
                    echo,
                    signature: (!echo).then(|| {
                        Box::new(TopicSignature {
                            expires_at: 1_800_003_600,
                            subject: "42".into(),
                            kid: "k1".into(),
                            signature: "sig".into(),
                        })
                    }),
                },
                Target::Pattern(_) => Command::Unsubscribe { id, target },
            }
        ),
        (id(), "[a-z]{1,3}", payload(), key, any::<bool>(), once).prop_map(
            |(id, name, (kind, payload), key, wants_receipt, once)| Command::Publish {
                id,
                topic: topic(&name),
                kind,
                payload: payload.into(),
                options: key.map_or_else(PublishOptions::default, |key: String| {
                    PublishOptions::default().key(key)
                }),
                wants_receipt,
                once: id.and(once).map(Box::new),
            }
        ),
        (id(), "[a-z]{1,3}").prop_map(|(id, name)| Command::Presence {
            id,
            topic: topic(&name)
        }),
        id().prop_map(|id| Command::Ping { id }),
    ]
}

proptest! {
    #[test]
    fn commands_come_back_one_by_one_and_in_batches(commands in prop::collection::vec(command(), 1..5)) {
        let limits = CommandLimits { commands_max: 5, payload_bytes_max: 1 << 20, fields: FieldLimits::DEFAULT };
        let mut batch = b"[".to_vec();
        for (index, command) in commands.iter().enumerate() {
            batch.extend_from_slice(if index > 0 { b" ," } else { b"" });
            let mut single = Vec::new();
            encode_command(&mut single, command);
            batch.extend_from_slice(&single);
            let single = String::from_utf8(single).unwrap();
            parse_commands(&single, &limits, &mut |result| assert_eq!(result.as_ref(), Ok(command)));
        }
        batch.push(b']');
        let mut results = Vec::new();
        let batch = String::from_utf8(batch).unwrap();
        parse_commands(&batch, &limits, &mut |result| results.push(result.unwrap()));
        prop_assert_eq!(results, commands);
    }

    #[test]
    fn no_text_panics(text in ".*|[\\[\\]{}:,\"a-z0-9]*") {
        parse_commands(&text, &LIMITS, &mut |_| {});
    }
}

/// Wherever it stops, it goes on there: each command once, in order.
#[test]
fn rest_of_an_array_at_its_place() {
    let ping = |id: u32| format!(r#"{{"type":"ping","id":{id}}}"#);
    let limits = CommandLimits {
        commands_max: 5,
        ..LIMITS
    };
    let [a, b, c] = [ping(1), ping(2), ping(3)];
    for text in [
        a.clone(),
        format!("[{a},{b},{c}]"),
        format!(" [ {a} ,\n{b}\t,  1,\"a]b\" ,{c} ]\n"),
        "[1,2,[3]]".to_owned(),
        "[]".to_owned(),
        "[1,".to_owned(),
    ] {
        let mut expected = Vec::new();
        parse_commands(&text, &limits, &mut |it| expected.push(it));
        for at_once in 1..4 {
            let (mut results, mut place) = (Vec::new(), Some(0));
            while let Some(from) = place {
                let mut left = at_once;
                place = take_commands(&text, from, &limits, &mut |it| {
                    if left == 0 {
                        return ControlFlow::Break(());
                    }
                    left -= 1;
                    results.push(it);
                    ControlFlow::Continue(())
                });
            }
            assert_eq!(results, expected, "{at_once} of {text}");
        }
    }
}
