//! RFC 6455, both sides of it, without I/O.
