//! Messages with no field, with one, and with all of them, and how each way out shows them.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use umbel::Message;

/// A message and what it carries.
#[derive(Clone, Copy, Default)]
pub struct Carried {
    pub text: Option<&'static str>,
    pub binary: Option<&'static [u8]>,
    pub key: Option<&'static str>,
    pub event: Option<&'static str>,
    pub id: Option<&'static str>,
    pub content_type: Option<&'static str>,
    pub tags: &'static [(&'static str, &'static str)],
    pub is_tombstone: bool,
    /// The way in names the content type of JSON, and does not only show that the message is JSON.
    pub names_json: bool,
}

const BARE_TEXT: Carried = Carried {
    text: Some("hello\nworld"),
    binary: None,
    key: None,
    event: None,
    id: None,
    content_type: None,
    tags: &[],
    is_tombstone: false,
    names_json: true,
};

const BARE_BINARY: Carried = Carried {
    text: None,
    binary: Some(&[0, 0xff, 7]),
    ..BARE_TEXT
};

const ALL: Carried = Carried {
    text: Some(r#"{"price": 3}"#),
    key: Some("EUR"),
    event: Some("price-changed"),
    id: Some("order 7 \u{e9}"),
    content_type: Some("application/json"),
    tags: &[("region", "eu"), ("a_b-9", "x \"y\"")],
    ..BARE_TEXT
};

/// Messages with no field, with one, and with all of them.
pub fn table() -> Vec<Carried> {
    vec![
        BARE_TEXT,
        BARE_BINARY,
        Carried {
            text: Some(""),
            ..BARE_TEXT
        },
        Carried {
            key: Some("k"),
            ..BARE_TEXT
        },
        Carried {
            event: Some("e"),
            ..BARE_TEXT
        },
        Carried {
            event: Some("e"),
            ..BARE_BINARY
        },
        Carried {
            id: Some("i"),
            ..BARE_TEXT
        },
        Carried {
            content_type: Some("text/csv"),
            ..BARE_TEXT
        },
        Carried {
            content_type: Some("application/json"),
            text: Some("[1]"),
            ..BARE_TEXT
        },
        Carried {
            content_type: Some("application/x-own+json;v=1"),
            text: Some("[1]"),
            ..BARE_TEXT
        },
        Carried {
            content_type: Some("image/png"),
            ..BARE_BINARY
        },
        Carried {
            tags: &[("only", "")],
            ..BARE_TEXT
        },
        Carried {
            is_tombstone: true,
            key: Some("k"),
            text: Some(""),
            ..BARE_TEXT
        },
        ALL,
        Carried {
            text: None,
            content_type: Some("application/cbor"),
            binary: Some(&[1, 0xfe]),
            ..ALL
        },
    ]
}

impl Carried {
    pub fn payload(&self) -> &'static [u8] {
        self.text
            .map_or_else(|| self.binary.expect("a payload"), str::as_bytes)
    }

    pub fn message(&self) -> Message<'static> {
        match self.text {
            Some(text) => Message::Text(text),
            None => Message::Binary(self.payload()),
        }
    }

    /// The fields of a line, and of a command.
    pub fn json(&self, topic: &str) -> Value {
        let mut line = json!({ "topic": topic });
        match self.text {
            Some(text) => line["data"] = text.into(),
            None => line["base64"] = BASE64_STANDARD.encode(self.payload()).into(),
        }
        self.add_fields(&mut line);
        line
    }

    pub fn add_fields(&self, value: &mut Value) {
        let fields = [
            ("key", self.key),
            ("event", self.event),
            ("message_id", self.id),
            ("content_type", self.content_type),
        ];
        for (name, field) in fields {
            if let Some(field) = field {
                value[name] = field.into();
            }
        }
        for (name, tag) in self.tags {
            value["tags"][name] = (*tag).into();
        }
        if self.is_tombstone {
            value["tombstone"] = true.into();
        }
    }

    /// The publication as a subscriber of umbel.v1 gets it, but for its position.
    pub fn delivered(&self, topic: &str, is_binary: bool) -> Value {
        let mut value = json!({ "type": "publication", "topic": topic });
        match (self.text, is_binary) {
            (Some(text), _) => value["data"] = text.into(),
            (None, false) => value["base64"] = BASE64_STANDARD.encode(self.payload()).into(),
            (None, true) => value["bytes"] = self.payload().into(),
        }
        self.add_fields(&mut value);
        // The compact form tells of JSON beside other fields alone, unless it was named.
        let others = ["event", "message_id", "publisher", "tags", "time", "ttl_ms"];
        let has_others = others.iter().any(|name| !value[*name].is_null());
        if is_binary
            && !has_others
            && !self.names_json
            && value["content_type"] == "application/json"
        {
            value
                .as_object_mut()
                .expect("an object")
                .remove("content_type");
        }
        value
    }

    /// The lines of the event behind its id.
    pub fn event_lines(&self) -> String {
        let mut lines = String::new();
        match (self.event, self.text) {
            (Some(event), Some(_)) => lines += &format!("event: {event}\n"),
            (Some(event), None) => lines += &format!("event: {event}\numbel-base64: 1\n"),
            (None, None) => lines += "event: binary\n",
            (None, Some(_)) => {}
        }
        match self.text {
            Some(text) => {
                for line in text.split('\n') {
                    lines += format!("data: {line}").trim_end();
                    lines.push('\n');
                }
            }
            None => lines += &format!("data: {}\n", BASE64_STANDARD.encode(self.payload())),
        }
        lines
    }
}
