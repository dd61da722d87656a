//! Close codes and the payload of a close frame: RFC 6455, sections 5.5.1 and 7.4, and IANA's registry.

use super::frame::CONTROL_PAYLOAD_BYTES_MAX;
use super::{ProtocolError, parse_text};
use std::fmt;

/// The longest reason a close frame can carry: a control frame's payload less the code.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;

/// A close code (RFC 6455, section 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// 1001: the server goes down, or the page was left.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// 4403: forbidden. One of those that applications give their own meaning.
    pub const FORBIDDEN: CloseCode = CloseCode(4403);
    /// 1002: a protocol error.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// 1003: a kind of data that the endpoint does not take.
    pub const UNSUPPORTED_DATA: CloseCode = CloseCode(1003);
    /// 1005: stands for a close frame without a code; never on the wire.
    pub const NO_STATUS: CloseCode = CloseCode(1005);
    /// 1006: stands for a connection that ended without a close frame; never on the wire.
    pub const ABNORMAL: CloseCode = CloseCode(1006);
    /// 1007: a message whose data does not fit its type, such as a text that is not UTF-8.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// 1008: against a policy, where no other code fits.
    pub const POLICY_VIOLATION: CloseCode = CloseCode(1008);
    /// 1009: a message that is too big to process.
    pub const MESSAGE_TOO_BIG: CloseCode = CloseCode(1009);
    /// 1010: the client expected an extension that the server did not negotiate.
    pub const MANDATORY_EXTENSION: CloseCode = CloseCode(1010);
    /// 1011: the server met an unexpected condition.
    pub const INTERNAL_ERROR: CloseCode = CloseCode(1011);
    /// 1012: the server restarts; come back after a while.
    pub const SERVICE_RESTART: CloseCode = CloseCode(1012);
    /// 1013: the server is overloaded; try again later.
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);
    /// 1014: a gateway got an invalid response from the server behind it.
    pub const BAD_GATEWAY: CloseCode = CloseCode(1014);
    /// 1015: stands for a failed TLS handshake; never on the wire.
    pub const TLS: CloseCode = CloseCode(1015);

    /// The code with this number, valid on the wire or not.
    pub const fn new(code: u16) -> CloseCode {
        CloseCode(code)
    }

    /// Its number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether a close frame may carry it: the codes that IANA has registered, but for those that only stand
    /// for something (1004 to 1006, 1015), and 3000 to 4999, which belong to libraries and applications.
    pub const fn is_valid_on_wire(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Payload of a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// Code of the close.
    pub code: CloseCode,
    /// Reason for people, at most 123 bytes and often empty.
    pub reason: &'a str,
}

impl<'a> CloseFrame<'a> {
    /// Reads the payload of a close frame. `None` is an empty payload: no code was given.
    ///
    /// # Errors
    ///
    /// One byte, a code that may not stand on the wire, or a reason that is not UTF-8.
    pub fn parse(payload: &'a [u8]) -> Result<Option<CloseFrame<'a>>, ProtocolError> {
        if payload.is_empty() {
            return Ok(None);
        }
        let Some((code, reason)) = payload.split_first_chunk::<2>() else {
            return Err(ProtocolError::CloseTooShort);
        };
        let code = CloseCode(u16::from_be_bytes(*code));
        if !code.is_valid_on_wire() {
            return Err(ProtocolError::InvalidCloseCode);
        }
        let reason = parse_text(reason)?;
        Ok(Some(CloseFrame { code, reason }))
    }

    /// Appends the payload of a close frame, without a header. A reason over 123 bytes is cut at a character
    /// boundary. A code that may not stand on the wire is left out, and its reason with it, so that the
    /// peer sees 1005, "no status".
    pub fn encode(out: &mut Vec<u8>, frame: Option<CloseFrame<'_>>) {
        let Some(frame) = frame.filter(|frame| frame.code.is_valid_on_wire()) else {
            return;
        };
        let mut cut = frame.reason.len().min(CLOSE_REASON_BYTES_MAX);
        while !frame.reason.is_char_boundary(cut) {
            cut -= 1;
        }
        out.extend_from_slice(&frame.code.0.to_be_bytes());
        out.extend_from_slice(&frame.reason.as_bytes()[..cut]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_on_the_wire() {
        // Autobahn 7.7.x and the registry.
        let valid = [
            1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999,
            4000, 4999,
        ];
        // Autobahn 7.9.x and 7.13.x.
        let invalid = [
            0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
        ];
        for code in valid {
            let payload = u16::to_be_bytes(code);
            let parsed = CloseFrame::parse(&payload);
            let code = CloseCode(code);
            assert_eq!(parsed, Ok(Some(CloseFrame { code, reason: "" })));
        }
        for code in invalid {
            let payload = u16::to_be_bytes(code);
            let parsed = CloseFrame::parse(&payload);
            assert_eq!(parsed, Err(ProtocolError::InvalidCloseCode), "{code}");
        }
    }

    #[test]
    fn parses_payloads() {
        assert_eq!(CloseFrame::parse(b""), Ok(None));
        assert_eq!(
            CloseFrame::parse(b"\x03"),
            Err(ProtocolError::CloseTooShort)
        );
        assert_eq!(
            CloseFrame::parse(b"\x03\xe9bye"),
            Ok(Some(CloseFrame {
                code: CloseCode::GOING_AWAY,
                reason: "bye"
            }))
        );
        assert_eq!(
            CloseFrame::parse(b"\x03\xe8\xce\xba\xe1\xbd"),
            Err(ProtocolError::InvalidUtf8)
        );
    }

    #[test]
    fn encodes_payloads() {
        let encode = |frame| {
            let mut out = Vec::new();
            CloseFrame::encode(&mut out, frame);
            out
        };
        assert_eq!(encode(None), b"");
        let code = CloseCode::NORMAL;
        let reason = "done";
        assert_eq!(encode(Some(CloseFrame { code, reason })), b"\x03\xe8done");
        let code = CloseCode::NO_STATUS;
        assert_eq!(encode(Some(CloseFrame { code, reason })), b"");
    }

    #[test]
    fn cuts_a_long_reason_at_a_character() {
        // 122 bytes, then characters of three bytes: the first of them ends at byte 125, over the limit.
        let reason = "x".repeat(122) + "ああ";
        let code = CloseCode::GOING_AWAY;
        let mut out = Vec::new();
        CloseFrame::encode(
            &mut out,
            Some(CloseFrame {
                code,
                reason: &reason,
            }),
        );
        assert_eq!(out.len(), 2 + 122);
        assert!(CloseFrame::parse(&out).is_ok());
    }
}
