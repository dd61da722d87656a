//! Limits of a request.

/// The most header lines that any limit can allow.
pub const HEADERS_MAX: usize = 256;

/// Limits of a request, checked before anything is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of the request line and header lines, with all line ends.
    pub head_bytes_max: usize,
    /// Header lines; more than [`HEADERS_MAX`] counts as that.
    pub headers_max: usize,
    /// Bytes of the target in the request line.
    pub target_bytes_max: usize,
    /// Bytes of a body, chunk framing not counted.
    pub body_bytes_max: u64,
}

impl RequestLimits {
    /// The header lines that are let through.
    pub(super) const fn headers_allowed(&self) -> usize {
        if self.headers_max < HEADERS_MAX {
            self.headers_max
        } else {
            HEADERS_MAX
        }
    }
}
