//! A server inside the test's own process.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use umbel::{Builder, Config, Error, Handle, Listener, Server};

use super::wait_until;

/// A server on a thread of this process.
pub struct Embedded {
    pub handle: Handle,
    pub address: SocketAddr,
    thread: JoinHandle<Result<(), Error>>,
}

impl Embedded {
    pub fn start(builder: Builder) -> Embedded {
        let server = builder.bind().expect("a free port");
        let (handle, address) = (server.handle(), server.local_addr());
        let thread = thread::spawn(move || server.run());
        Embedded {
            handle,
            address,
            thread,
        }
    }

    /// Shuts it down, and waits for its end.
    pub fn end(self) {
        self.handle.shutdown();
        wait_until("the server ends", || self.thread.is_finished());
        let outcome = self.thread.join().expect("no panic");
        outcome.expect("nothing failed");
    }
}

/// Settings of two reactors on a port of the system's choosing.
pub fn config() -> Config {
    let mut config = Config::default();
    config.listeners = vec![Listener::new(SocketAddr::from(([127, 0, 0, 1], 0)))];
    config.reactors = 2;
    config
}

/// A builder with [`config`].
pub fn builder() -> Builder {
    Server::builder().config(config())
}
