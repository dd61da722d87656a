//! The body of a request, by length or in chunks (RFC 9112 sections 6 and 7).

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// So many bytes follow, as `Content-Length` says; it may say 0.
    Length(u64),
    /// Chunks follow, and the last one says so.
    Chunked,
}
