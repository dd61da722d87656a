//! A publication: a message with its place in a topic, and the frames that carry it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::receipt::{Receipt, Share};
use crate::protocol::{Opcode, encode_server_header};
use crate::topic::Topic;

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
    /// Number within the epoch, from 1. 0 stands before the first publication. 0 stands before the first.
    pub offset: u64,
}

/// Digits of the epoch in a position's text.
const EPOCH_DIGITS: usize = 16;

/// Digits of the greatest offset.
const OFFSET_DIGITS_MAX: usize = 20;

impl Position {
    /// The position of a text as [`Display`](fmt::Display) writes it: 16 hexadecimal digits of either case, a colon,
    /// and 1 to 20 decimal digits. None for anything else.
    pub fn parse(text: &str) -> Option<Position> {
        let (epoch, offset) = text.split_once(':')?;
        let is_epoch =
            epoch.len() == EPOCH_DIGITS && epoch.bytes().all(|digit| digit.is_ascii_hexdigit());
        let is_offset = (1..=OFFSET_DIGITS_MAX).contains(&offset.len())
            && offset.bytes().all(|digit| digit.is_ascii_digit());
        if !is_epoch || !is_offset {
            return None;
        }
        Some(Position {
            epoch: u64::from_str_radix(epoch, 16).ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

impl fmt::Display for Position {
    /// `epoch:offset`, the epoch as 16 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.epoch, self.offset)
    }
}

/// Shared encodings of a publication, each made once. The plain WebSocket frame is not among them: every publication is
/// born with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameClass {
    /// An event of `text/event-stream`.
    Sse,
    /// A WebSocket frame that is compressed by itself, in a window of 15 bits.
    Deflated,
    /// A WebSocket frame that is compressed by itself, in a window of 9 bits.
    DeflatedSmall,
    /// A text frame of the dialect `umbel.v1`.
    V1,
    /// The same, compressed by itself.
    V1Deflated,
    /// A binary frame of the dialect `umbel.v1.bin`.
    V1Binary,
    /// The same, compressed by itself.
    V1BinaryDeflated,
}

const FRAME_CLASSES: usize = 7;

/// What an [`Arc`] keeps in front of its value.
const REFERENCE_COUNTS_BYTES: usize = 16;

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
    topic: Option<Topic>,
    key: Option<Arc<str>>,
    receipt: Option<Arc<Receipt>>,
    /// Made with the first of them, for most publications go out as they were born.
    encoded: OnceLock<Box<Encoded>>,
    /// Where they are counted, if its topic has a history.
    form_bytes: Option<Arc<FormBytes>>,
}

/// A publication in its other forms, by [`FrameClass`].
#[derive(Debug)]
struct Encoded {
    forms: [OnceLock<Arc<[u8]>>; FRAME_CLASSES],
    counted_in: Option<Arc<FormBytes>>,
}

/// Bytes of the other forms of publications, for as long as these live.
#[derive(Debug, Default)]
pub(super) struct FormBytes(AtomicUsize);

impl FormBytes {
    /// The sum.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Encoded {
    fn new(counted_in: Option<Arc<FormBytes>>) -> Encoded {
        if let Some(sum) = &counted_in {
            sum.0.fetch_add(size_of::<Encoded>(), Ordering::Relaxed);
        }
        Encoded {
            forms: [const { OnceLock::new() }; FRAME_CLASSES],
            counted_in,
        }
    }

    fn form(&self, class: FrameClass, encode: impl FnOnce() -> Arc<[u8]>) -> &Arc<[u8]> {
        self.forms[class as usize].get_or_init(|| {
            let form = encode();
            if let Some(sum) = &self.counted_in {
                sum.0.fetch_add(form_bytes(&form), Ordering::Relaxed);
            }
            form
        })
    }

    fn bytes(&self) -> usize {
        let forms = self.forms.iter().filter_map(OnceLock::get);
        size_of::<Encoded>() + forms.map(form_bytes).sum::<usize>()
    }
}

impl Drop for Encoded {
    fn drop(&mut self) {
        if let Some(sum) = &self.counted_in {
            sum.0.fetch_sub(self.bytes(), Ordering::Relaxed);
        }
    }
}

fn form_bytes(form: &Arc<[u8]>) -> usize {
    REFERENCE_COUNTS_BYTES + form.len()
}

impl Publication {
    /// Copies `payload` into a publication without a position. `published_at_us` is the moment of the publish on the
    /// process's monotonic clock.
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
            topic: None,
            key: None,
            receipt: None,
            encoded: OnceLock::new(),
            form_bytes: None,
        }
    }

    /// This publication with a conflation key.
    #[must_use]
    pub fn with_key(mut self, key: Arc<str>) -> Publication {
        self.key = Some(key);
        self
    }

    /// This publication with a receipt.
    #[must_use]
    pub fn with_receipt(mut self, receipt: Arc<Receipt>) -> Publication {
        self.receipt = Some(receipt);
        self
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

    /// Its position in its topic.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Microseconds on the process's monotonic clock at which it was published.
    pub fn published_at_us(&self) -> u64 {
        self.published_at_us
    }

    /// Its topic. None until it has its place.
    pub fn topic(&self) -> Option<&Topic> {
        self.topic.as_ref()
    }

    /// Conflation key. Under `latest`, it replaces earlier publications of the same topic and key.
    pub fn key(&self) -> Option<&Arc<str>> {
        self.key.as_ref()
    }

    /// Its receipt, if somebody asked for one.
    pub fn receipt(&self) -> Option<&Arc<Receipt>> {
        self.receipt.as_ref()
    }

    /// Adds one reactor's share to its receipt, if it has one.
    pub fn add_share(&self, share: &Share) {
        if let Some(receipt) = &self.receipt {
            receipt.add(share);
        }
    }

    /// Bytes that it costs to keep: itself, its frame, its key and its receipt, with their reference counts. Its
    /// other forms come with its subscribers, and are counted apart.
    pub fn retained_bytes(&self) -> usize {
        let key = self.key.as_ref();
        size_of::<Publication>()
            + self.frame.len()
            + key.map_or(0, |key| REFERENCE_COUNTS_BYTES + key.len())
            + self
                .receipt
                .as_ref()
                .map_or(0, |_| REFERENCE_COUNTS_BYTES + size_of::<Receipt>())
            + 2 * REFERENCE_COUNTS_BYTES
            + size_of::<Arc<Publication>>()
    }

    /// The publication in another form, encoded by whoever asks first.
    pub fn encoded(
        &self,
        class: FrameClass,
        encode: impl FnOnce(&Publication) -> Arc<[u8]>,
    ) -> &Arc<[u8]> {
        let new = || Box::new(Encoded::new(self.form_bytes.clone()));
        let encoded = self.encoded.get_or_init(new);
        encoded.form(class, || encode(self))
    }

    /// Bytes of its other forms.
    pub(super) fn form_bytes(&self) -> usize {
        self.encoded.get().map_or(0, |encoded| encoded.bytes())
    }

    /// Gives it its place. `forms`: where its other forms are counted, of which it has none yet.
    pub(super) fn place(
        &mut self,
        topic: Topic,
        position: Position,
        forms: Option<&Arc<FormBytes>>,
    ) {
        debug_assert!(self.encoded.get().is_none());
        self.topic = Some(topic);
        self.position = position;
        self.form_bytes = forms.cloned();
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
    fn a_position_is_read_as_it_is_written() {
        for (epoch, offset) in [(0xa1, 17), (0, 0), (u64::MAX, u64::MAX)] {
            let position = Position { epoch, offset };
            assert_eq!(Position::parse(&position.to_string()), Some(position));
        }
        let upper = Position::parse("00000000000000A1:017");
        let expected = Position {
            epoch: 0xa1,
            offset: 17,
        };
        assert_eq!(upper, Some(expected));
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in [
            "",
            ":",
            "00000000000000a1",
            "00000000000000a1:",
            ":1",
            "0000000000000a1:1",
            "000000000000000a1:1",
            "+0000000000000a1:1",
            "00000000000000g1:1",
            "00000000000000a1:-1",
            "00000000000000a1:+1",
            "00000000000000a1: 1",
            "00000000000000a1:1:",
            "00000000000000a1:18446744073709551616",
            "00000000000000a1:000000000000000000001",
            "00000000000000a1:1e3",
            "0000000000000\u{e9}1:1",
        ] {
            assert_eq!(Position::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_it_costs_to_keep_counts_its_parts() {
        let plain = Publication::new(Kind::Text, b"hi", 0);
        let longer = Publication::new(Kind::Text, b"hello", 0);
        assert_eq!(longer.retained_bytes(), plain.retained_bytes() + 3);
        let keyed = Publication::new(Kind::Text, b"hi", 0).with_key("EURUSD".into());
        assert!(keyed.retained_bytes() >= plain.retained_bytes() + 6);
        assert_eq!(keyed.key().map(|key| &**key), Some("EURUSD"));
        let receipt = Arc::new(Receipt::new(Box::new(|_| {})));
        let asked = Publication::new(Kind::Text, b"hi", 0).with_receipt(receipt);
        assert!(asked.retained_bytes() > plain.retained_bytes());
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
