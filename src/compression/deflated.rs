//! Publications compressed each by itself (RFC 7692, section 7.2.1): a frame that refers to no other, which is made once
//! and shared by all connections and threads, whether they keep their context or not.
//!
//! There are two of it, by the window that the receiver agreed to: the largest, which nearly all have, and one for all
//! smaller ones. What does not shrink is sent as it is, and its compressed form is the plain frame itself.

use std::mem;
use std::sync::Arc;

use crate::config::Deflate;
use crate::dialect::{Class, Dialects, Encoding, Form};
use crate::hub::{Kind, Publication};
use crate::protocol::deflate::{Compression, Deflater, WINDOW_BITS_MAX, WINDOW_BITS_MIN};
use crate::protocol::{Opcode, SERVER_HEADER_BYTES_MAX, encode_server_header};

/// RSV1, which says that the payload is compressed (RFC 7692, section 6).
const RSV1: u8 = 0x40;

/// What a buffer keeps after a large message went through it.
const BUFFER_BYTES_KEPT: usize = 256 * 1024;

/// Selection of publications to compress, and the level.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Text, or all.
    pub kinds: Deflate,
    /// Bytes of the shortest payload that is compressed. An empty one never is.
    pub bytes_min: usize,
    /// Bytes of the longest.
    pub bytes_max: usize,
    /// 1 to 9.
    pub level: u8,
}

impl Rule {
    /// Whether the publication is to be compressed for those who take it.
    pub fn takes(&self, publication: &Publication) -> bool {
        let of_kind = match self.kinds {
            Deflate::Off => false,
            Deflate::Text => publication.kind() == Kind::Text,
            Deflate::All => true,
        };
        let len = publication.payload().len();
        of_kind && len > 0 && (self.bytes_min..=self.bytes_max).contains(&len)
    }
}

/// The window that a frame was compressed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// 15 bits.
    Large,
    /// 9 bits, which is right for 9 to 14.
    Small,
}

impl Window {
    /// That of a class of compression, which is the largest for all but one.
    fn of_class(class: Class) -> Window {
        match class {
            Class::Small => Window::Small,
            Class::Plain | Class::Large | Class::Cohort => Window::Large,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Window::Large => WINDOW_BITS_MAX,
            Window::Small => WINDOW_BITS_MIN,
        }
    }
}

/// A thread's compressors for frames that refer to no other.
pub struct FrameDeflater {
    rule: Rule,
    deflaters: [Option<Deflater>; 2],
    frame: FrameBuffer,
    /// The message that is being compressed, where it is not the payload itself.
    message: Vec<u8>,
}

impl FrameDeflater {
    /// Without a compressor yet.
    pub fn new(rule: Rule) -> FrameDeflater {
        FrameDeflater {
            rule,
            deflaters: [None, None],
            frame: FrameBuffer::default(),
            message: Vec::new(),
        }
    }

    /// Selection of publications to compress.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Heap bytes of the compressors.
    pub fn bytes(&self) -> usize {
        self.deflaters.iter().flatten().map(Deflater::bytes).sum()
    }

    /// The frame of a compressed form. The first caller makes it. It is that of the plain form if the publication is not
    /// to be compressed, or does not shrink.
    pub fn encode<'p>(
        &mut self,
        publication: &'p Publication,
        form: Form,
        dialects: &Dialects,
    ) -> &'p Arc<[u8]> {
        let (encoding, window) = (form.encoding(), Window::of_class(form.class()));
        if !self.rule.takes(publication) {
            return dialects.encode(encoding, publication);
        }
        publication.encoded_unless_same(
            form.number(),
            form.plain().number(),
            || self.encode_compressed(publication, encoding, window, dialects),
            || dialects.encode_anew(encoding, publication, None).into(),
        )
    }

    fn encode_compressed(
        &mut self,
        publication: &Publication,
        encoding: Encoding,
        window: Window,
        dialects: &Dialects,
    ) -> Option<Arc<[u8]>> {
        let dialect = dialects.get(encoding);
        let opcode = dialect.publication_opcode(publication);
        if encoding == Encoding::PAYLOAD {
            return self.deflate(opcode, publication.payload(), window);
        }
        let mut message = mem::take(&mut self.message);
        message.clear();
        message.shrink_to(BUFFER_BYTES_KEPT);
        dialect.encode_publication(&mut message, publication, None);
        let frame = self.deflate(opcode, &message, window);
        self.message = message;
        frame
    }

    /// The compressed frame of a message, unless it does not shrink.
    fn deflate(&mut self, opcode: Opcode, payload: &[u8], window: Window) -> Option<Arc<[u8]>> {
        let level = self.rule.level;
        let deflater = self.deflaters[window as usize].get_or_insert_with(|| {
            Deflater::new(Compression {
                level,
                window_bits: window.bits(),
                ..Compression::default()
            })
        });
        let frame = self
            .frame
            .encode(opcode, |out| deflater.deflate(payload, out));
        frame.map(Arc::from)
    }

    /// Whether the publication goes out plain, though it is to be compressed. Its frame must have been
    /// [encoded](FrameDeflater::encode).
    pub fn is_left_plain(
        &mut self,
        publication: &Publication,
        form: Form,
        dialects: &Dialects,
    ) -> bool {
        self.rule.takes(publication) && {
            let frame = self.encode(publication, form, dialects);
            Arc::ptr_eq(frame, dialects.encode(form.encoding(), publication))
        }
    }
}

/// Room for one frame.
///
/// ```text
///  [ unused | header, 2 to 10 bytes | compressed payload ]
///  0                                ^ SERVER_HEADER_BYTES_MAX
/// ```
#[derive(Default)]
pub(crate) struct FrameBuffer {
    bytes: Vec<u8>,
}

impl FrameBuffer {
    /// The compressed frame whose payload `deflate` appends, unless it says that there is none.
    pub(crate) fn encode(
        &mut self,
        opcode: Opcode,
        deflate: impl FnOnce(&mut Vec<u8>) -> Option<usize>,
    ) -> Option<&[u8]> {
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_BYTES_KEPT);
        self.bytes.resize(SERVER_HEADER_BYTES_MAX, 0);
        let payload_len = deflate(&mut self.bytes)?;
        let (mut header, header_len) = encode_server_header(opcode, true, payload_len as u64);
        header[0] |= RSV1;
        let start = SERVER_HEADER_BYTES_MAX - header_len;
        self.bytes[start..SERVER_HEADER_BYTES_MAX].copy_from_slice(&header[..header_len]);
        Some(&self.bytes[start..])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::deflate::Inflater;
    use crate::protocol::{Header, Received};

    const LARGE: Form = Form::PAYLOAD_LARGE;
    const SMALL: Form = Form::new(Encoding::PAYLOAD, Class::Small);

    fn deflater(kinds: Deflate) -> FrameDeflater {
        FrameDeflater::new(Rule {
            kinds,
            bytes_min: 100,
            bytes_max: 100_000,
            level: 3,
        })
    }

    fn publication(kind: Kind, len: usize) -> Publication {
        Publication::new(kind, &b"all the same, ".repeat(len)[..len], 0)
    }

    #[test]
    fn a_frame_is_made_once_for_each_window_and_inflates() {
        let mut deflater = deflater(Deflate::Text);
        let publication = publication(Kind::Text, 70_000);
        let dialects = Dialects::default();
        for form in [LARGE, SMALL] {
            let frame = Arc::clone(deflater.encode(&publication, form, &dialects));
            let (header, header_len) = Header::parse(&frame).unwrap().unwrap();
            assert!(header.rsv1 && header.opcode == Opcode::Text);
            let mut message = Vec::new();
            let received = Inflater::new(false).inflate(
                Opcode::Text,
                &frame[header_len..],
                1 << 20,
                &mut message,
            );
            let text = std::str::from_utf8(publication.payload()).unwrap();
            assert_eq!(received, Ok(Received::Text(text)));
            assert!(Arc::ptr_eq(
                &frame,
                deflater.encode(&publication, form, &dialects)
            ));
        }
        assert!(!Arc::ptr_eq(
            &deflater.encode(&publication, LARGE, &dialects).clone(),
            deflater.encode(&publication, SMALL, &dialects)
        ));
        assert!(deflater.bytes() > 200_000);
    }

    #[test]
    fn what_is_short_binary_or_does_not_shrink_is_the_plain_frame() {
        let (mut deflater, dialects) = (deflater(Deflate::Text), Dialects::default());
        let unshrinking = Publication::new(Kind::Text, &(32..132).collect::<Vec<u8>>(), 0);
        for publication in [
            publication(Kind::Text, 99),
            publication(Kind::Text, 100_001),
            publication(Kind::Binary, 1000),
            unshrinking,
        ] {
            let frame = deflater.encode(&publication, LARGE, &dialects);
            assert!(Arc::ptr_eq(frame, publication.frame()));
        }
        let binary = publication(Kind::Binary, 1000);
        let mut deflater = self::deflater(Deflate::All);
        assert!(deflater.encode(&binary, SMALL, &dialects).len() < 100);
        assert!(!deflater.is_left_plain(&binary, SMALL, &dialects));
    }

    #[test]
    fn messages_of_other_dialects_are_compressed_with_all_they_hold() {
        let (mut deflater, dialects) = (deflater(Deflate::Text), Dialects::default());
        let publication = self::publication(Kind::Text, 5000);
        let with_messages = dialects.rows().filter(|(it, _)| !dialects.is_stream(*it));
        for (encoding, row) in with_messages {
            let form = Form::new(encoding, Class::Large);
            let frame = Arc::clone(deflater.encode(&publication, form, &dialects));
            let (header, header_len) = Header::parse(&frame).unwrap().unwrap();
            let opcode = row.dialect.publication_opcode(&publication);
            assert!(header.rsv1 && header.opcode == opcode);
            let mut message = Vec::new();
            let received =
                Inflater::new(false).inflate(opcode, &frame[header_len..], 1 << 20, &mut message);
            let mut expected = Vec::new();
            let dialect = &row.dialect;
            dialect.encode_publication(&mut expected, &publication, None);
            match received.unwrap() {
                Received::Text(text) => assert_eq!(text.as_bytes(), expected),
                Received::Binary(bytes) => assert_eq!(bytes, expected),
                other => panic!("{other:?}"),
            }
            assert!(Arc::ptr_eq(
                &frame,
                deflater.encode(&publication, form, &dialects)
            ));
            let short = self::publication(Kind::Text, 99);
            let plain = Arc::clone(deflater.encode(&short, form, &dialects));
            assert!(Arc::ptr_eq(&plain, dialects.encode(encoding, &short)));
        }
    }
}
