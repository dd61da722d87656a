//! A server on a thread of its own.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::{BoundListener, Server, listening};
use crate::error::Error;
use crate::handle::Handle;

/// A server that runs beside the program, and ends with this guard.
///
/// Dropping it ends the server [at once](Handle::shutdown_now) and waits for that, which takes milliseconds.
/// [`shutdown`](RunningServer::shutdown) delivers what is queued first.
///
/// ```
/// use umbel::{Message, Server};
///
/// # fn main() -> Result<(), umbel::Error> {
/// let server = Server::builder().listen(([127, 0, 0, 1], 0).into()).bind()?.spawn()?;
/// println!("listening on http://{}", server.local_addr());
/// server.handle().publish("news", Message::Text("hello")).unwrap();
/// server.shutdown()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the server ends when this is dropped"]
pub struct RunningServer {
    handle: Handle,
    listeners: Arc<[BoundListener]>,
    /// None once it is joined.
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Server {
    /// Serves on a thread of its own. The port is taken already, so connections may come from here on.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn(self) -> Result<RunningServer, Error> {
        let (handle, listeners) = (self.handle.clone(), Arc::clone(&self.listeners));
        let thread = thread::Builder::new()
            .name("umbel".to_owned())
            .spawn(move || self.run())
            .map_err(Error::Setup)?;
        Ok(RunningServer {
            handle,
            listeners,
            thread: Some(thread),
        })
    }
}

impl RunningServer {
    /// A handle for other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Address of the first listener that has one, as [`Server::local_addr`].
    pub fn local_addr(&self) -> SocketAddr {
        listening::first_address(&self.listeners)
    }

    /// Listeners, in the order in which they were asked for.
    pub fn listeners(&self) -> &[BoundListener] {
        &self.listeners
    }

    /// Ends the server and waits for that. What is queued is delivered first, and everybody closed, within
    /// `drain_timeout_ms`.
    ///
    /// # Errors
    /// As [`Server::run`].
    pub fn shutdown(self) -> Result<(), Error> {
        self.handle.shutdown();
        self.join()
    }

    /// Waits until the server ends, by a [`Handle`] or by itself.
    ///
    /// # Errors
    /// As [`Server::run`].
    pub fn join(mut self) -> Result<(), Error> {
        self.wait()
    }

    fn wait(&mut self) -> Result<(), Error> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        thread.join().unwrap_or_else(|_| {
            Err(Error::Panicked {
                thread: "umbel".to_owned(),
            })
        })
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.handle.shutdown_now();
            // Nobody is left to take an error, and the log has it.
            let _ = self.wait();
        }
    }
}

impl fmt::Debug for RunningServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningServer")
            .field("listeners", &self.listeners)
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}
