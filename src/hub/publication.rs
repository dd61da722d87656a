//! A publication: a message with its place in a topic, and the frames that carry it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::protocol::{Opcode, encode_server_header};

/// Whether the payload is text (valid UTF-8, checked where it came in) or binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Valid UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// A place in a topic: the offset counts from 1 within an epoch, and an epoch ends when continuity cannot be vouched
/// for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Names one unbroken run of offsets. Two runs of the same topic never share an epoch.
    pub epoch: u64,
    /// 1 for the first publication of the epoch, then one more each time. 0 stands before the first.
    pub offset: u64,
}

impl fmt::Display for Position {
    /// `epoch:offset`, the epoch as 16 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.epoch, self.offset)
    }
}

/// The ways to put a publication on the wire that are encoded once and then shared by all who need them. The plain
/// WebSocket frame is not among them: every publication is born with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameClass {
    /// An event of `text/event-stream`.
    Sse,
    /// A WebSocket frame that is compressed by itself, in a window of 15 bits.
    Deflated,
    /// A WebSocket frame that is compressed by itself, in a window of 9 bits.
    DeflatedSmall,
}

const FRAME_CLASSES: usize = 3;

/// A message of a topic.
///
/// The payload is copied once, into the WebSocket frame that most subscribers receive as it stands:
///
/// ```text
///  frame: [ header, 2 to 10 bytes | payload ]
///                                 ^ payload_start
/// ```
pub struct Publication {
    frame: Arc<[u8]>,
    payload_start: u8,
    kind: Kind,
    position: Position,
    published_at_us: u64,
    encoded: [OnceLock<Arc<[u8]>>; FRAME_CLASSES],
}

impl Publication {
    /// Copies `payload` into a publication that has no place in a topic yet. `published_at_us` is the moment of the
    /// publish on the process's monotonic clock.
    pub fn new(kind: Kind, payload: &[u8], published_at_us: u64) -> Publication {
        let opcode = match kind {
            Kind::Text => Opcode::Text,
            Kind::Binary => Opcode::Binary,
        };
        let (header, header_len) = encode_server_header(opcode, true, payload.len() as u64);
        // Filling with zeroes first keeps this to one allocation and safe code; the copy that follows finds the
        // memory in cache.
        let mut frame: Arc<[u8]> = std::iter::repeat_n(0, header_len + payload.len()).collect();
        let bytes = Arc::get_mut(&mut frame).expect("nobody else holds a frame that was just made");
        bytes[..header_len].copy_from_slice(&header[..header_len]);
        bytes[header_len..].copy_from_slice(payload);
        Publication {
            frame,
            payload_start: header_len as u8,
            kind,
            position: Position {
                epoch: 0,
                offset: 0,
            },
            published_at_us,
            encoded: [const { OnceLock::new() }; FRAME_CLASSES],
        }
    }

    /// Whether the payload is text or binary.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message itself.
    pub fn payload(&self) -> &[u8] {
        &self.frame[usize::from(self.payload_start)..]
    }

    /// The unmasked, unfragmented WebSocket frame of the payload.
    pub fn frame(&self) -> &Arc<[u8]> {
        &self.frame
    }

    /// Where it stands in its topic.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Microseconds on the process's monotonic clock at which it was published.
    pub fn published_at_us(&self) -> u64 {
        self.published_at_us
    }

    /// The publication in another form, encoded by whoever asks first.
    pub fn encoded(
        &self,
        class: FrameClass,
        encode: impl FnOnce(&Publication) -> Arc<[u8]>,
    ) -> &Arc<[u8]> {
        self.encoded[class as usize].get_or_init(|| encode(self))
    }

    pub(super) fn place(&mut self, position: Position) {
        self.position = position;
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publication")
            .field("position", &self.position)
            .field("kind", &self.kind)
            .field("payload_bytes", &self.payload().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_holds_the_payload_behind_a_minimal_header() {
        for (len, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let payload = vec![b'x'; len];
            let publication = Publication::new(Kind::Binary, &payload, 0);
            assert_eq!(publication.payload(), payload);
            assert_eq!(publication.frame().len(), header + len);
            assert_eq!(publication.frame()[0], 0x82);
        }
    }

    #[test]
    fn another_form_is_encoded_once() {
        let publication = Publication::new(Kind::Text, b"hi", 0);
        let first = publication
            .encoded(FrameClass::Sse, |p| p.payload().into())
            .clone();
        let second = publication.encoded(FrameClass::Sse, |_| unreachable!("it is there already"));
        assert!(Arc::ptr_eq(&first, second));
    }
}
