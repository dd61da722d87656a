//! Sockets: listeners, transports and the ring of io_uring(7).

pub mod listener;
pub mod ring;
pub mod socket;
pub mod transport;
