//! Publications compressed each by itself (RFC 7692, section 7.2.1): a frame that refers to no other, which is made once
//! and shared by all connections and threads, whether they keep their context or not.
//!
//! There are two of it, by the window that the receiver agreed to: the largest, which nearly all have, and one for all
//! smaller ones. What does not shrink is sent as it is, and its compressed form is the plain frame itself.

use std::mem;
use std::sync::Arc;

use crate::config::Deflate;
use crate::dialect::umbel_v1::{self, Delivery};
use crate::hub::publication::FrameClass;
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
    /// The window of a connection that agreed to so many bits.
    pub fn of(agreed_bits: u8) -> Window {
        if agreed_bits >= WINDOW_BITS_MAX {
            Window::Large
        } else {
            Window::Small
        }
    }

    fn class(self) -> FrameClass {
        match self {
            Window::Large => FrameClass::Deflated,
            Window::Small => FrameClass::DeflatedSmall,
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
    /// The message of `umbel.v1` that is being compressed.
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

    /// The frame for connections that agreed to such a window. The first caller makes it. It is the plain frame if the
    /// publication is not to be compressed, or does not shrink.
    pub fn encode<'p>(&mut self, publication: &'p Publication, window: Window) -> &'p Arc<[u8]> {
        if !self.rule.takes(publication) {
            return publication.frame();
        }
        publication.encoded(window.class(), |publication| {
            let (payload, kind) = (publication.payload(), publication.kind());
            let frame = self.deflate(kind, payload, window);
            frame.unwrap_or_else(|| Arc::clone(publication.frame()))
        })
    }

    /// The frame of `umbel.v1`, or `umbel.v1.bin`, in the largest window. The first caller makes it. It is the plain
    /// one where [`encode`](FrameDeflater::encode) gives that.
    pub fn encode_v1<'p>(
        &mut self,
        publication: &'p Publication,
        is_binary: bool,
    ) -> &'p Arc<[u8]> {
        if !self.rule.takes(publication) {
            return umbel_v1::frame_of(publication, is_binary);
        }
        let (class, kind) = match is_binary {
            true => (FrameClass::V1BinaryDeflated, Kind::Binary),
            false => (FrameClass::V1Deflated, Kind::Text),
        };
        publication.encoded(class, |publication| {
            let mut message = mem::take(&mut self.message);
            message.clear();
            message.shrink_to(BUFFER_BYTES_KEPT);
            Delivery::new(publication, None).encode_as(&mut message, is_binary);
            let frame = self.deflate(kind, &message, Window::Large);
            self.message = message;
            frame.unwrap_or_else(|| Arc::clone(umbel_v1::frame_of(publication, is_binary)))
        })
    }

    /// The compressed frame of a message, unless it does not shrink.
    fn deflate(&mut self, kind: Kind, payload: &[u8], window: Window) -> Option<Arc<[u8]>> {
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
            .encode(kind, |out| deflater.deflate(payload, out));
        frame.map(Arc::from)
    }

    /// Whether the publication goes out plain, though it is to be compressed. Its frame must have been
    /// [encoded](FrameDeflater::encode).
    pub fn is_left_plain(&mut self, publication: &Publication, window: Window) -> bool {
        self.rule.takes(publication)
            && Arc::ptr_eq(self.encode(publication, window), publication.frame())
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
        kind: Kind,
        deflate: impl FnOnce(&mut Vec<u8>) -> Option<usize>,
    ) -> Option<&[u8]> {
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_BYTES_KEPT);
        self.bytes.resize(SERVER_HEADER_BYTES_MAX, 0);
        let payload_len = deflate(&mut self.bytes)?;
        let opcode = match kind {
            Kind::Text => Opcode::Text,
            Kind::Binary => Opcode::Binary,
        };
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
        for window in [Window::Large, Window::Small] {
            let frame = Arc::clone(deflater.encode(&publication, window));
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
            assert!(Arc::ptr_eq(&frame, deflater.encode(&publication, window)));
        }
        let (large, small) = (Window::Large, Window::Small);
        assert!(!Arc::ptr_eq(
            &deflater.encode(&publication, large).clone(),
            deflater.encode(&publication, small)
        ));
        assert!(deflater.bytes() > 200_000);
    }

    #[test]
    fn what_is_short_binary_or_does_not_shrink_is_the_plain_frame() {
        let mut deflater = deflater(Deflate::Text);
        let unshrinking = Publication::new(Kind::Text, &(32..132).collect::<Vec<u8>>(), 0);
        for publication in [
            publication(Kind::Text, 99),
            publication(Kind::Text, 100_001),
            publication(Kind::Binary, 1000),
            unshrinking,
        ] {
            let frame = deflater.encode(&publication, Window::Large);
            assert!(Arc::ptr_eq(frame, publication.frame()));
        }
        let binary = publication(Kind::Binary, 1000);
        let mut deflater = self::deflater(Deflate::All);
        assert!(deflater.encode(&binary, Window::Small).len() < 100);
        assert!(!deflater.is_left_plain(&binary, Window::Small));
    }

    #[test]
    fn messages_of_umbel_v1_are_compressed_with_all_they_hold() {
        let mut deflater = deflater(Deflate::Text);
        let publication = self::publication(Kind::Text, 5000);
        for (is_binary, opcode) in [(false, Opcode::Text), (true, Opcode::Binary)] {
            let frame = Arc::clone(deflater.encode_v1(&publication, is_binary));
            let (header, header_len) = Header::parse(&frame).unwrap().unwrap();
            assert!(header.rsv1 && header.opcode == opcode);
            let mut message = Vec::new();
            let received =
                Inflater::new(false).inflate(opcode, &frame[header_len..], 1 << 20, &mut message);
            let mut expected = Vec::new();
            Delivery::new(&publication, None).encode_as(&mut expected, is_binary);
            match received.unwrap() {
                Received::Text(text) => assert_eq!(text.as_bytes(), expected),
                Received::Binary(bytes) => assert_eq!(bytes, expected),
                other => panic!("{other:?}"),
            }
            assert!(Arc::ptr_eq(
                &frame,
                deflater.encode_v1(&publication, is_binary)
            ));
        }
        let short = self::publication(Kind::Text, 99);
        let plain = Arc::clone(deflater.encode_v1(&short, false));
        assert!(Arc::ptr_eq(&plain, umbel_v1::frame_of(&short, false)));
    }

    #[test]
    fn windows_of_14_bits_and_less_share_a_frame() {
        assert_eq!(
            [15, 14, 9].map(Window::of),
            [Window::Large, Window::Small, Window::Small]
        );
    }
}
