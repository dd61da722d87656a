//! Sockets: listeners, transports and the ring of io_uring(7).

pub mod byte_stream;
pub mod listener;
pub mod ring;
pub mod socket;
