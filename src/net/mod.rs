//! Sockets: listeners, transports and the ring of io_uring(7).

pub mod acceptor;
pub mod balance;
pub mod binding;
pub mod byte_stream;
pub mod clock;
pub mod descriptors;
pub mod driver;
pub mod greeting;
pub mod listener;
pub mod memory;
pub mod mio_driver;
pub mod ring;
pub mod tcp;
mod tcp_info;
pub mod transport;
#[cfg(unix)]
pub mod unix;

pub use transport::Transport;
