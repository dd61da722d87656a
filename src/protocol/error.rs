//! Errors of a peer after the handshake, in RFC 6455's words.

use super::CloseCode;
use std::fmt;

/// A peer's breach of the protocol or of a limit. Each fails the connection (RFC 6455, section 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// RSV1, RSV2 or RSV3 is set and no extension was negotiated that gives it a meaning (section 5.2).
    ReservedBits,
    /// The opcode is one of 3 to 7 or 11 to 15 (section 5.2).
    ReservedOpcode,
    /// A client sent a frame without a mask (section 5.1).
    UnmaskedFrame,
    /// A server sent a frame with a mask (section 5.1).
    MaskedFrame,
    /// The payload length would have fitted a shorter form (section 5.2).
    NonMinimalLength,
    /// The most significant bit of a 64-bit payload length is set (section 5.2).
    LengthTooLarge,
    /// A control frame without FIN (section 5.5).
    ControlFragmented,
    /// A control frame with more than 125 bytes of payload (section 5.5).
    ControlTooLong,
    /// A continuation frame with no message to continue (section 5.4).
    UnexpectedContinuation,
    /// A new message inside a fragmented one (section 5.4).
    ExpectedContinuation,
    /// A text message or the reason of a close frame is not UTF-8 (section 8.1).
    InvalidUtf8,
    /// A close frame with one byte of payload, half a close code (section 5.5.1).
    CloseTooShort,
    /// A close code that may not stand on the wire (section 7.4).
    InvalidCloseCode,
    /// A compressed message does not inflate, or not to its end (RFC 7692, section 7.2.2).
    InvalidDeflate,
    /// A message, over all its fragments, is longer than the limit, before inflating it or after.
    MessageTooBig,
    /// A message has more fragments than the limit.
    TooManyFragments,
}

// It travels in every result of the decoder.
const _: () = assert!(size_of::<ProtocolError>() <= 16);

impl ProtocolError {
    /// The close code to send for it (section 7.4.1).
    ///
    /// Too many fragments are answered with 1008: the message need not be big, so 1009 would mislead, and
    /// fragmenting is legal, so 1002 would accuse; 1008 is the code for a policy with no code of its own.
    pub fn close_code(self) -> CloseCode {
        match self {
            ProtocolError::InvalidUtf8 | ProtocolError::InvalidDeflate => {
                CloseCode::INVALID_PAYLOAD
            }
            ProtocolError::MessageTooBig => CloseCode::MESSAGE_TOO_BIG,
            ProtocolError::TooManyFragments => CloseCode::POLICY_VIOLATION,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// A reason for the close frame and the log: ASCII, under 124 bytes.
    pub fn reason(self) -> &'static str {
        match self {
            ProtocolError::ReservedBits => "a reserved bit is set",
            ProtocolError::ReservedOpcode => "the opcode is reserved",
            ProtocolError::UnmaskedFrame => "a client's frame is not masked",
            ProtocolError::MaskedFrame => "a server's frame is masked",
            ProtocolError::NonMinimalLength => "the payload length is not in its shortest form",
            ProtocolError::LengthTooLarge => "the payload length has its top bit set",
            ProtocolError::ControlFragmented => "a control frame is fragmented",
            ProtocolError::ControlTooLong => "a control frame is longer than 125 bytes",
            ProtocolError::UnexpectedContinuation => "there is no message to continue",
            ProtocolError::ExpectedContinuation => "a message began inside a fragmented one",
            ProtocolError::InvalidUtf8 => "the text is not valid UTF-8",
            ProtocolError::CloseTooShort => "the close frame has half a close code",
            ProtocolError::InvalidCloseCode => "the close code is not allowed on the wire",
            ProtocolError::InvalidDeflate => "the compressed message is not valid DEFLATE",
            ProtocolError::MessageTooBig => "the message is over the size limit",
            ProtocolError::TooManyFragments => "the message has too many fragments",
        }
    }

    /// The value of a metric label, in snake case.
    pub fn label(self) -> &'static str {
        match self {
            ProtocolError::ReservedBits => "reserved_bits",
            ProtocolError::ReservedOpcode => "reserved_opcode",
            ProtocolError::UnmaskedFrame => "unmasked_frame",
            ProtocolError::MaskedFrame => "masked_frame",
            ProtocolError::NonMinimalLength => "non_minimal_length",
            ProtocolError::LengthTooLarge => "length_too_large",
            ProtocolError::ControlFragmented => "control_fragmented",
            ProtocolError::ControlTooLong => "control_too_long",
            ProtocolError::UnexpectedContinuation => "unexpected_continuation",
            ProtocolError::ExpectedContinuation => "expected_continuation",
            ProtocolError::InvalidUtf8 => "invalid_utf8",
            ProtocolError::CloseTooShort => "close_too_short",
            ProtocolError::InvalidCloseCode => "invalid_close_code",
            ProtocolError::InvalidDeflate => "invalid_deflate",
            ProtocolError::MessageTooBig => "message_too_big",
            ProtocolError::TooManyFragments => "too_many_fragments",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for ProtocolError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::CLOSE_REASON_BYTES_MAX;

    const ALL: [ProtocolError; 16] = [
        ProtocolError::ReservedBits,
        ProtocolError::ReservedOpcode,
        ProtocolError::UnmaskedFrame,
        ProtocolError::MaskedFrame,
        ProtocolError::NonMinimalLength,
        ProtocolError::LengthTooLarge,
        ProtocolError::ControlFragmented,
        ProtocolError::ControlTooLong,
        ProtocolError::UnexpectedContinuation,
        ProtocolError::ExpectedContinuation,
        ProtocolError::InvalidUtf8,
        ProtocolError::CloseTooShort,
        ProtocolError::InvalidCloseCode,
        ProtocolError::InvalidDeflate,
        ProtocolError::MessageTooBig,
        ProtocolError::TooManyFragments,
    ];

    #[test]
    fn every_error_can_be_told_to_the_peer() {
        for error in ALL {
            assert!(error.close_code().is_valid_on_wire(), "{error:?}");
            assert!(error.reason().is_ascii() && error.reason().len() <= CLOSE_REASON_BYTES_MAX);
        }
    }

    #[test]
    fn labels_are_snake_case_and_unique() {
        for (i, error) in ALL.iter().enumerate() {
            let label = error.label();
            assert!(
                label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
            assert!(ALL[..i].iter().all(|other| other.label() != label));
        }
    }
}
