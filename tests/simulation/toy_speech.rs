//! Peers that speak the toy of `tests/support/toy.rs`: what they say and hear is that of `umbel.v1`, in other words.

use serde_json::{Value, json};
use umbel::internals::dialect::{ErrorCode, umbel_v1};
use umbel::internals::hub::Position;

use super::peer::{Peer, Surroundings};
use super::topics::{parse_place, place_text};
use super::toy::{self, Fields, Line, parse_position, position_text};

/// What a command, or a batch of them, is in the toy's words.
pub fn message(commands: &Value) -> String {
    let mut out = Vec::new();
    let one = std::slice::from_ref(commands);
    for command in commands.as_array().map_or(one, Vec::as_slice) {
        let word = command["type"].as_str().expect("a type");
        let mut line = Line::new(&mut out, word).field_if("id", command["id"].as_u64());
        for (own, name) in [
            ("topic", "topic"),
            ("pattern", "pattern"),
            ("key", "key"),
            ("text", "data"),
        ] {
            line = line.field_if(own, command[name].as_str());
        }
        let since = command["since"].as_str().map(|text| {
            let (epoch, offset) = parse_place(text);
            position_text(Position { epoch, offset })
        });
        line.field_if("since", since)
            .field_if("last", command["last"].as_u64())
            .field_if("receipt", command["receipt"].as_bool());
    }
    String::from_utf8(out).expect("a message is text")
}

/// The code that `umbel.v1` has for this one of the toy's.
pub fn close_code(code: u16) -> u16 {
    match code {
        toy::TOO_SLOW => 1013,
        toy::COME_BACK => 1001,
        toy::NO_PONG | toy::OTHER => 1008,
        code => code,
    }
}

/// A line of the node's as `umbel.v1` has it.
fn answer(line: &Fields<'_>) -> Value {
    let mut answer = json!({ "type": line.word });
    let text = |name: &str| line.get(name).map(|text| text.into_owned());
    for name in ["topic", "pattern", "key", "connection"] {
        if let Some(value) = text(name) {
            answer[name] = value.into();
        }
    }
    if let Some(id) = line.number("id") {
        answer["id"] = id.into();
    }
    if let Some(position) = text("position") {
        let position = parse_position(&position).expect("a position");
        answer["position"] = place_text((position.epoch, position.offset)).into();
    }
    match line.word {
        "msg" => {
            answer["type"] = "publication".into();
            answer["data"] = text("text").expect("a text").into();
        }
        "subscribed" => {
            if let Some(recovered) = text("recovered") {
                answer["recovered"] = (recovered == "true").into();
            }
            if let Some(rule) = text("slow_consumer").filter(|rule| rule != "close") {
                answer["slow_consumer"] = rule.into();
            }
        }
        "skipped" => {
            answer["type"] = "presence_skipped".into();
            answer["members"] = line.number("members").into();
        }
        "published" => {
            if let Some(receipt) = text("receipt") {
                answer["receipt"] = serde_json::from_str(&receipt).expect("JSON");
            }
        }
        "present" => {
            answer["type"] = "presence".into();
            answer["total"] = line.number("total").into();
            let members = line.all("member").map(|member| {
                let (name, info) = member.split_once(' ').expect("a name and more");
                let info: Value = serde_json::from_str(info).expect("JSON");
                json!({"connection": name, "info": info})
            });
            answer["members"] = members.collect();
        }
        "error" => {
            let number = line.number("code").expect("a code") as usize - 100;
            answer["code"] = umbel_v1::code_text(ErrorCode::ALL[number]).into();
        }
        _ => {}
    }
    answer
}

impl Peer {
    /// A text message of the node's.
    pub(super) fn take_toy_message(&mut self, message: &[u8], around: &mut Surroundings<'_>) {
        let text = std::str::from_utf8(message).expect("text");
        let lines: Vec<_> = text.split('\n').map(Fields::parse).collect();
        around
            .cover
            .add("several lines of the toy's", u64::from(lines.len() > 1));
        for line in lines {
            match line.word {
                "hello" => around.cover.add("greeting of the toy's", 1),
                "ping" => {
                    around.cover.add("ping of the toy's", 1);
                    self.send_message(0x81, b"pong", around);
                }
                _ => self.take_json(&answer(&line), around),
            }
        }
    }
}
