//! The answer to HTTP/2 with prior knowledge (RFC 9113 section 3.3): that its client is to speak HTTP/1.1.

/// The head that such a client's preface looks like to a reader of HTTP/1.1; `SM` and an empty line follow.
const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// What clients show of the answer, if they show anything.
const WORDS: &[u8] = b"this server speaks HTTP/1.1; with curl: --http1.1";

/// Bytes of a frame's header.
const FRAME_HEADER_BYTES: usize = 9;
/// Types of frames (RFC 9113 section 6).
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// The error code that asks for HTTP/1.1 (RFC 9113 section 7).
const HTTP_1_1_REQUIRED: u32 = 0xd;

/// Whether a whole head is the beginning of HTTP/2.
#[must_use]
pub fn is_preface(head: &[u8]) -> bool {
    head == PREFACE_HEAD
}

/// Appends empty SETTINGS and a GOAWAY. The SETTINGS have to come first, and the connection closes behind them.
pub fn encode_go_away(out: &mut Vec<u8>) {
    out.reserve(2 * FRAME_HEADER_BYTES + 8 + WORDS.len());
    encode_frame_header(out, 0, SETTINGS);
    encode_frame_header(out, 8 + WORDS.len(), GOAWAY);
    // No stream was opened.
    out.extend_from_slice(&0u32.to_be_bytes());
    out.extend_from_slice(&HTTP_1_1_REQUIRED.to_be_bytes());
    out.extend_from_slice(WORDS);
}

/// A frame about the connection, without flags.
fn encode_frame_header(out: &mut Vec<u8>, length: usize, kind: u8) {
    debug_assert!(length <= usize::from(u8::MAX), "the frames are short");
    out.extend_from_slice(&[0, 0, length as u8, kind, 0, 0, 0, 0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_first_and_go_away_says_why() {
        let mut out = Vec::new();
        encode_go_away(&mut out);
        let (settings, go_away) = out.split_at(9);
        assert_eq!(settings, [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(usize::from(go_away[2]), go_away.len() - 9);
        assert_eq!(go_away[3..9], [7, 0, 0, 0, 0, 0]);
        assert_eq!(go_away[9..17], [0, 0, 0, 0, 0, 0, 0, 0xd]);
        assert!(go_away.ends_with(b"--http1.1"));
    }

    #[test]
    fn the_preface_is_known_whole() {
        assert!(is_preface(b"PRI * HTTP/2.0\r\n\r\n"));
        assert!(!is_preface(b"PRI * HTTP/2.0\r\nHost: a\r\n\r\n"));
        assert!(!is_preface(b"PRI / HTTP/2.0\r\n\r\n"));
    }
}
