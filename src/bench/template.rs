//! Messages with a place for the payload, for servers with other protocols.

use super::stamp::STAMP_BYTES;

const PAYLOAD: &str = "{payload}";

/// Stands for the topic's name.
pub const TOPIC: &str = "{topic}";

/// The name of a topic.
pub fn topic_name(topic: usize) -> String {
    format!("bench-{topic}")
}

/// A message as it was given, its escapes replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

/// One topic's message, whose stamp is written anew for each publication.
#[derive(Clone, Debug)]
pub struct Rendered {
    pub bytes: Vec<u8>,
    /// Place of the payload, if there is one.
    pub payload_at: Option<usize>,
}

impl Template {
    /// Only the payload.
    pub fn bare() -> Template {
        Template(PAYLOAD.to_owned())
    }

    /// Reads a template.
    ///
    /// # Errors
    /// For an escape that is none, or more than one payload.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut unescaped = String::with_capacity(text.len());
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            unescaped.push(match character {
                '\\' => match characters.next() {
                    Some('r') => '\r',
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('\\') => '\\',
                    _ => {
                        return Err(format!(
                            "{text:?}: a backslash stands before r, n, t or another backslash"
                        ));
                    }
                },
                character => character,
            });
        }
        match unescaped.matches(PAYLOAD).count() {
            0 | 1 => Ok(Template(unescaped)),
            _ => Err(format!("{text:?}: {PAYLOAD} may stand there once")),
        }
    }

    /// Whether it has a place for the payload.
    pub fn names_payload(&self) -> bool {
        self.0.contains(PAYLOAD)
    }

    /// Whether it depends on the topic.
    pub fn names_topic(&self) -> bool {
        self.0.contains(TOPIC)
    }

    /// The message for one topic, with a payload of so many bytes.
    pub fn render(&self, topic: usize, size_bytes: usize) -> Rendered {
        let text = self.0.replace(TOPIC, &topic_name(topic));
        let payload_at = text.find(PAYLOAD);
        let text = text.replacen(PAYLOAD, &filler(size_bytes), 1);
        Rendered {
            bytes: text.into_bytes(),
            payload_at,
        }
    }
}

impl Rendered {
    /// Place of the stamp.
    ///
    /// # Panics
    /// Without a place for the payload.
    pub fn stamp_mut(&mut self) -> &mut [u8; STAMP_BYTES] {
        let at = self
            .payload_at
            .expect("messages that carry publications name the payload");
        self.bytes[at..]
            .first_chunk_mut()
            .expect("a payload holds a stamp")
    }
}

/// Text of a payload's length.
fn filler(size_bytes: usize) -> String {
    ('a'..='z').cycle().take(size_bytes).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places_and_escapes() {
        let template = Template::parse("PUB {topic} 24\\r\\n{payload}\\r\\n\\\\").unwrap();
        assert!(template.names_payload() && template.names_topic());
        let mut rendered = template.render(3, 24);
        assert_eq!(rendered.stamp_mut(), b"abcdefghijklmnopqrst");
        assert_eq!(
            rendered.bytes,
            b"PUB bench-3 24\r\nabcdefghijklmnopqrstuvwx\r\n\\"
        );
        assert!(!Template::parse("{\"a\":1}").unwrap().names_payload());
    }

    #[test]
    fn what_is_no_template() {
        for text in ["\\x", "\\", "{payload}{payload}"] {
            Template::parse(text).unwrap_err();
        }
    }
}
