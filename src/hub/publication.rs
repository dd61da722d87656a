//! A publication: a message with its place in a topic, and the frames that carry it.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::command::ReactorId;
use super::options::{Extras, JSON, PublishOptions};
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
///
/// ```
/// let position: umbel::Position = "00000000000000a1:7".parse()?;
/// assert_eq!((position.epoch, position.offset), (0xa1, 7));
/// assert_eq!(position.to_string(), "00000000000000a1:7");
/// # Ok::<(), umbel::PositionError>(())
/// ```
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
    /// No place in any topic.
    pub const NOWHERE: Position = Position {
        epoch: 0,
        offset: 0,
    };

    /// The position of the next publication.
    pub(super) fn next(self) -> Position {
        Position {
            epoch: self.epoch,
            offset: self.offset + 1,
        }
    }

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

impl FromStr for Position {
    type Err = PositionError;

    /// As [`Position::parse`].
    fn from_str(text: &str) -> Result<Position, PositionError> {
        Position::parse(text).ok_or(PositionError)
    }
}

/// Error of text that is no [`Position`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionError;

impl fmt::Display for PositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a position is epoch:offset, as in 00000000000000a1:7")
    }
}

impl std::error::Error for PositionError {}

impl fmt::Display for Position {
    /// `epoch:offset`, the epoch as 16 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.epoch, self.offset)
    }
}

/// What an [`Arc`] keeps in front of its value.
pub(super) const REFERENCE_COUNTS_BYTES: usize = 16;

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
    /// The publisher says that the payload is JSON.
    is_json: bool,
    /// The publisher named the content type of JSON.
    names_json: bool,
    /// It says that its key is deleted.
    is_tombstone: bool,
    /// Its topic's rule shows when it was published.
    shows_time: bool,
    position: Position,
    published_at_us: u64,
    topic: Option<Topic>,
    /// What most publications do without.
    extras: Option<Box<Extras>>,
    /// Its other forms, for most publications go out as they were born.
    encoded: OnceLock<EncodedForm>,
    /// Where they are counted, if its topic has a history.
    form_bytes: Option<Arc<FormBytes>>,
}

/// The number of the form that every publication is born in.
const BORN_IN: u8 = 0;

/// A publication in another form, and those that somebody asked for after it. It is a list, for of the many forms that
/// there may be a publication needs few.
struct EncodedForm {
    bytes: Arc<[u8]>,
    form: u8,
    /// Another form whose bytes are the same; `form` if there is none.
    same_as: u8,
    next: OnceLock<Box<EncodedForm>>,
}

impl EncodedForm {
    fn is(&self, form: u8) -> bool {
        self.form == form || self.same_as == form
    }

    /// This one and all behind it.
    fn all(&self) -> impl Iterator<Item = &EncodedForm> {
        std::iter::successors(Some(self), |it| it.next.get().map(|next| &**next))
    }
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
            is_json: false,
            names_json: false,
            is_tombstone: false,
            shows_time: false,
            position: Position {
                epoch: 0,
                offset: 0,
            },
            published_at_us,
            topic: None,
            extras: None,
            encoded: OnceLock::new(),
            form_bytes: None,
        }
    }

    /// This publication with the fields of these options.
    #[must_use]
    pub fn with_options(mut self, options: PublishOptions) -> Publication {
        self.extras = options.extras;
        self.is_json = options.is_json;
        self.names_json = options.names_json;
        self.is_tombstone = options.is_tombstone;
        self
    }

    /// This publication with a receipt.
    #[must_use]
    pub fn with_receipt(mut self, receipt: Arc<Receipt>) -> Publication {
        self.extras.get_or_insert_default().receipt = Some(receipt);
        self
    }

    /// This publication without an echo. Its own connection does not get it where it wants none.
    #[must_use]
    pub fn without_echo(mut self, reactor: ReactorId, connection: u64) -> Publication {
        self.extras.get_or_insert_default().own = Some((reactor, connection));
        self
    }

    /// The connection that wants no echo of it.
    pub fn own(&self) -> Option<(ReactorId, u64)> {
        self.extras.as_ref()?.own
    }

    /// Whether somebody wants its receipt, or no echo of it.
    pub fn needs_care(&self) -> bool {
        self.extras
            .as_ref()
            .is_some_and(|extras| extras.receipt.is_some() || extras.own.is_some())
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

    /// Milliseconds since 1970 at which it was published, by the process's clock.
    pub fn time_ms(&self) -> u64 {
        self.published_at_us / 1000
    }

    /// That time, if its topic's rule shows it to subscribers.
    pub fn shown_time_ms(&self) -> Option<u64> {
        self.shows_time.then(|| self.time_ms())
    }

    /// Its topic. None until it has its place.
    pub fn topic(&self) -> Option<&Topic> {
        self.topic.as_ref()
    }

    /// Conflation key. Under `latest`, it replaces earlier publications of the same topic and key.
    pub fn key(&self) -> Option<&Arc<str>> {
        self.extras.as_ref()?.key.as_ref()
    }

    /// The fields that most publications do without.
    pub fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    /// End of its time to live, in microseconds on the process's clock. None: it has no end.
    pub fn expires_at_us(&self) -> Option<u64> {
        let ttl_ms = self.extras.as_ref()?.ttl_ms?;
        Some(
            self.published_at_us
                .saturating_add(ttl_ms.saturating_mul(1000)),
        )
    }

    /// Whether its time to live is over.
    pub fn is_expired(&self, now_us: u64) -> bool {
        self.expires_at_us().is_some_and(|end_us| end_us <= now_us)
    }

    /// Whether it says that its key is deleted.
    pub fn is_tombstone(&self) -> bool {
        self.is_tombstone
    }

    /// Whether the publisher named the content type of JSON. A JSON value alone does not.
    pub fn names_json(&self) -> bool {
        self.names_json
    }

    /// Content type, where it says more than the kind.
    pub fn content_type(&self) -> Option<&str> {
        match self.is_json {
            true => Some(JSON),
            false => self.extras.as_ref()?.content_type.as_deref(),
        }
    }

    /// Its receipt, if somebody asked for one.
    pub fn receipt(&self) -> Option<&Arc<Receipt>> {
        self.extras.as_ref()?.receipt.as_ref()
    }

    /// Adds one reactor's share to its receipt, if it has one.
    pub fn add_share(&self, share: &Share) {
        if let Some(receipt) = self.receipt() {
            receipt.add(share);
        }
    }

    /// Bytes that it costs to keep: itself, its frame, and its extras with their key and receipt, with their reference
    /// counts. Its other forms come with its subscribers, and are counted apart.
    pub fn retained_bytes(&self) -> usize {
        size_of::<Publication>()
            + self.frame.len()
            + self.extras.as_ref().map_or(0, |extras| extras.bytes())
            + 2 * REFERENCE_COUNTS_BYTES
            + size_of::<Arc<Publication>>()
    }

    /// Bytes of a form, by its number. They are made by whoever asks first. 0 is the form that it was born in.
    pub fn encoded(&self, form: u8, encode: impl FnOnce() -> Arc<[u8]>) -> &Arc<[u8]> {
        self.find_or_encode(form, || (encode(), form))
    }

    /// Bytes of a form that may come to those of another one. `encode` gives None then, and `encode_other` is called if
    /// nobody has asked for that other one yet.
    pub fn encoded_unless_same(
        &self,
        form: u8,
        other: u8,
        encode: impl FnOnce() -> Option<Arc<[u8]>>,
        encode_other: impl FnOnce() -> Arc<[u8]>,
    ) -> &Arc<[u8]> {
        self.find_or_encode(form, || match (encode(), self.find(other)) {
            (Some(bytes), _) => (bytes, form),
            (None, Some(bytes)) => (Arc::clone(bytes), form),
            (None, None) => (encode_other(), other),
        })
    }

    fn find_or_encode(&self, form: u8, encode: impl FnOnce() -> (Arc<[u8]>, u8)) -> &Arc<[u8]> {
        if form == BORN_IN {
            return &self.frame;
        }
        let mut encode = Some(encode);
        let mut new = |node_bytes| {
            let (bytes, same_as) = encode.take().expect("the first one made is the one sought")();
            if let Some(sum) = &self.form_bytes {
                sum.0
                    .fetch_add(node_bytes + form_bytes(&bytes), Ordering::Relaxed);
            }
            EncodedForm {
                bytes,
                form,
                same_as,
                next: OnceLock::new(),
            }
        };
        let mut at = self.encoded.get_or_init(|| new(0));
        while !at.is(form) {
            at = at
                .next
                .get_or_init(|| Box::new(new(size_of::<EncodedForm>())));
        }
        &at.bytes
    }

    /// A form that somebody has asked for.
    fn find(&self, form: u8) -> Option<&Arc<[u8]>> {
        if form == BORN_IN {
            return Some(&self.frame);
        }
        let mut all = self.encoded.get()?.all();
        all.find(|it| it.is(form)).map(|it| &it.bytes)
    }

    /// Bytes of its other forms. The first has its place in the publication itself.
    pub(super) fn form_bytes(&self) -> usize {
        let Some(first) = self.encoded.get() else {
            return 0;
        };
        let bytes = first.all().map(|it| form_bytes(&it.bytes));
        (first.all().count() - 1) * size_of::<EncodedForm>() + bytes.sum::<usize>()
    }

    /// Gives it its place. `forms`: where its other forms are counted, of which it has none yet.
    pub(super) fn place(
        &mut self,
        topic: Topic,
        position: Position,
        forms: Option<&Arc<FormBytes>>,
        shows_time: bool,
    ) {
        debug_assert!(self.encoded.get().is_none());
        self.topic = Some(topic);
        self.position = position;
        self.shows_time = shows_time;
        self.form_bytes = forms.cloned();
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        if let Some(sum) = &self.form_bytes {
            sum.0.fetch_sub(self.form_bytes(), Ordering::Relaxed);
        }
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
        let keyed = Publication::new(Kind::Text, b"hi", 0)
            .with_options(PublishOptions::default().key("EURUSD"));
        assert!(keyed.retained_bytes() >= plain.retained_bytes() + 6);
        assert_eq!(keyed.key().map(|key| &**key), Some("EURUSD"));
        let receipt = Arc::new(Receipt::new(Box::new(|_| {})));
        let asked = Publication::new(Kind::Text, b"hi", 0).with_receipt(receipt);
        assert!(asked.retained_bytes() > plain.retained_bytes());
    }

    #[test]
    fn bare_publication_is_no_larger() {
        // It was 144 bytes when its key and its receipt had places of their own.
        assert_eq!(size_of::<Publication>(), 128);
        assert!(Publication::new(Kind::Text, b"hi", 0).extras().is_none());
    }

    #[test]
    fn another_form_is_encoded_once() {
        let publication = Publication::new(Kind::Text, b"hi", 0);
        for form in [7, 255, 3] {
            let first = publication.encoded(form, || [form; 5].into()).clone();
            let second = publication.encoded(form, || unreachable!("it is there already"));
            assert!(Arc::ptr_eq(&first, second) && **second == [form; 5]);
        }
        let born = publication.encoded(BORN_IN, || unreachable!("it is there from the start"));
        assert!(Arc::ptr_eq(born, publication.frame()));
    }

    #[test]
    fn forms_that_come_to_the_same_bytes_share_them() {
        let unreachable = || unreachable!("it is there already");
        let publication = Publication::new(Kind::Text, b"hi", 0);
        let same = publication.encoded_unless_same(5, 4, || None, || [4].into());
        assert!(Arc::ptr_eq(same, publication.encoded(4, unreachable)));
        publication.encoded(8, || [8].into());
        let same = publication.encoded_unless_same(9, 8, || None, unreachable);
        assert!(Arc::ptr_eq(same, publication.encoded(8, unreachable)));
        let same = publication.encoded_unless_same(1, BORN_IN, || None, unreachable);
        assert!(Arc::ptr_eq(same, publication.frame()));
        let other = publication.encoded_unless_same(13, 12, || Some([1].into()), unreachable);
        assert_eq!(**other, [1]);
    }
}
