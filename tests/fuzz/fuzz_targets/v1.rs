//! The dialect `umbel.v1`: what its parsers accept is written again as the same command, and what the server writes is
//! JSON, or a binary message, with the same fields.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use umbel::internals::route::json;
use umbel::internals::dialect::umbel_v1::binary;
use umbel::internals::dialect::umbel_v1::{
    Delivery, code_text, encode_command, encode_error, encode_gap, encode_subscribed,
    parse_commands,
};
use umbel::internals::dialect::{
    Command, CommandError, CommandLimits, PublicationFields, Subscribed, Target, info_json,
};
use umbel::internals::hub::{FieldLimits, Kind, Position};
use umbel::internals::topic::SlowConsumer;
use umbel::internals::topic::Topic;

const LIMITS: CommandLimits = CommandLimits {
    commands_max: 16,
    payload_bytes_max: 256,
    fields: FieldLimits::DEFAULT,
};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// What a client says in a text message.
    Text(&'a str),
    /// A batch of commands with these fields.
    Fields(Vec<Vec<(u8, &'a str)>>),
    /// What either side says in a binary message.
    Binary(&'a [u8]),
    /// A line of `POST /pub`.
    Line(&'a [u8]),
    /// What the server says.
    Delivery {
        names: [&'a str; 3],
        epoch: u64,
        offset: u64,
        is_text: bool,
        payload: &'a [u8],
    },
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Text(text) => {
        check_commands(text);
        check_info(text);
    }
    Input::Fields(commands) => check_commands(&batch(&commands)),
    Input::Binary(message) => check_binary(message),
    Input::Line(line) => {
        let _ = json::parse_publish_line(line, &LIMITS);
    }
    Input::Delivery {
        names: [topic, pattern, key],
        epoch,
        offset,
        is_text,
        payload,
    } => {
        let kind = match is_text && std::str::from_utf8(payload).is_ok() {
            true => Kind::Text,
            false => Kind::Binary,
        };
        check_delivery(&Delivery {
            topic: cut(topic),
            pattern: Some(cut(pattern)).filter(|it| !it.is_empty()),
            position: Position { epoch, offset },
            key: Some(cut(key)).filter(|it| !it.is_empty()),
            kind,
            payload,
            fields: PublicationFields::default(),
        });
    }
});

/// The most of a name that the binary framing has room for.
fn cut(name: &str) -> &str {
    let end = (0..=name.len().min(255))
        .rev()
        .find(|at| name.is_char_boundary(*at));
    &name[..end.unwrap_or(0)]
}

/// A JSON array of objects whose fields are mostly the known ones, with values that are often right.
fn batch(commands: &[Vec<(u8, &str)>]) -> String {
    let objects = commands.iter().map(|fields| {
        let fields = fields.iter().map(|(choice, text)| {
            let string = Value::from(*text);
            match choice % 32 {
                0 => r#""type":"subscribe""#.to_owned(),
                1 => r#""type":"unsubscribe""#.to_owned(),
                2 => r#""type":"publish""#.to_owned(),
                3 => r#""type":"presence""#.to_owned(),
                4 => r#""type":"ping""#.to_owned(),
                5 => r#""receipt":true"#.to_owned(),
                6 => r#""since":"00000000000000a1:17""#.to_owned(),
                7 | 8 => format!(r#""id":{}"#, text.len()),
                9 => format!(r#""last":{}"#, text.len()),
                10..=13 => format!(r#""topic":{string}"#),
                14 => format!(r#""pattern":{string}"#),
                15 | 16 => format!(r#""data":{string}"#),
                17 => format!(r#""data":{text}"#),
                18 => format!(r#""base64":{string}"#),
                19 => format!(r#""key":{string}"#),
                20 => format!(r#""since":{string}"#),
                21 => format!(r#""id":{text}"#),
                22 => format!(r#""topic":"{text}""#),
                _ => format!("{string}:{text}"),
            }
        });
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    });
    format!("[{}]", objects.collect::<Vec<_>>().join(","))
}

fn check_commands(text: &str) {
    let mut count = 0;
    parse_commands(text, &LIMITS, &mut |result| {
        count += 1;
        match result {
            Ok(command) => check_command(&command),
            Err(error) => check_error(&error),
        }
    });
    assert!(count <= LIMITS.commands_max);
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        assert_eq!(count, 1, "what is not JSON has one answer");
    }
}

fn check_command(command: &Command<'_>) {
    let mut out = Vec::new();
    encode_command(&mut out, command);
    let text = String::from_utf8(out).expect("JSON is text");
    let mut again = None;
    parse_commands(&text, &LIMITS, &mut |result| {
        again = Some(result.expect("a command"))
    });
    assert_eq!(again.as_ref(), Some(command));

    let mut message = Vec::new();
    if binary::encode_publish(&mut message, command) {
        let parsed = binary::parse_publish(&message, &LIMITS);
        assert_eq!(parsed.as_ref(), Ok(command));
    }
    if let Command::Subscribe { target, .. } = command {
        check_answers(target);
    }
}

fn check_answers(target: &Target) {
    let position = Position {
        epoch: 1,
        offset: 2,
    };
    let mut out = Vec::new();
    let policy = SlowConsumer::Latest;
    let subscribed = Subscribed {
        target,
        position: Some(position),
        recovered: Some(true),
        snapshot: None,
        slow_consumer: policy,
        echo: true,
        is_unasked: false,
        replay: &[],
    };
    encode_subscribed(&mut out, 7, &subscribed);
    let value = parse_json(&out);
    let (field, name) = match target {
        Target::Topic(topic) => ("topic", topic.as_str()),
        Target::Pattern(pattern) => ("pattern", pattern.as_str()),
    };
    assert_eq!(value[field], name);
    assert_eq!(value["position"], "0000000000000001:2");
    if let Target::Topic(topic) = target {
        out.clear();
        encode_gap(&mut out, topic, None, position, position);
        assert_eq!(parse_json(&out)["topic"], name);
    }
}

fn check_error(error: &CommandError) {
    assert!(error.reason.len() < 300, "{}", error.reason);
    let mut out = Vec::new();
    encode_error(&mut out, error);
    let value = parse_json(&out);
    assert_eq!(value["id"].as_u64(), error.id.map(u64::from));
    assert_eq!(value["code"], code_text(error.code));
    assert_eq!(value["reason"], *error.reason);
}

fn check_info(text: &str) {
    let value: Value = serde_json::from_str(&info_json(text)).expect("JSON");
    match serde_json::from_str::<Value>(text) {
        Ok(own) => assert_eq!(value, own),
        Err(_) => assert_eq!(value, text),
    }
}

fn check_binary(message: &[u8]) {
    match binary::parse_publish(message, &LIMITS) {
        Ok(command) => check_command(&command),
        Err(error) => check_error(&error),
    }
    if let Some(delivery) = binary::parse_delivery(message) {
        let mut out = Vec::new();
        binary::encode_delivery(&mut out, &delivery);
        // Unknown fields are gone, and the known ones in an order of their own.
        assert_eq!(binary::parse_delivery(&out), Some(delivery));
    }
}

fn check_delivery(delivery: &Delivery<'_>) {
    let mut out = Vec::new();
    delivery.encode(&mut out);
    let value = parse_json(&out);
    assert_eq!(value["type"], "publication");
    assert_eq!(value["topic"], delivery.topic);
    assert_eq!(value["position"], delivery.position.to_string());
    assert_eq!(
        value.get("pattern").and_then(Value::as_str),
        delivery.pattern
    );
    assert_eq!(value.get("key").and_then(Value::as_str), delivery.key);
    match delivery.kind {
        Kind::Text => assert_eq!(
            value["data"].as_str().map(str::as_bytes),
            Some(delivery.payload)
        ),
        Kind::Binary => assert_eq!(published(&value["base64"]), delivery.payload),
    }
    out.clear();
    binary::encode_delivery(&mut out, delivery);
    assert_eq!(binary::parse_delivery(&out).as_ref(), Some(delivery));
}

/// What comes of base64 when it is published.
fn published(base64: &Value) -> Vec<u8> {
    let line = format!(r#"{{"topic":"t","base64":{base64}}}"#);
    let limits = CommandLimits {
        payload_bytes_max: usize::MAX,
        ..LIMITS
    };
    let line = json::parse_publish_line(line.as_bytes(), &limits).expect("a publication");
    assert_eq!(line.topic, Topic::from_text("t").expect("a topic"));
    line.payload.into_owned()
}

fn parse_json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}
