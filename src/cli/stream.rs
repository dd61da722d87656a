//! A blocking connection of a client, with TLS or without.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::ending::Refusal;
use super::url::Url;

/// Time for the answer to a request, absolute.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection. Clones are ends of the same one: one of them reads, one writes.
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS.
    #[cfg(feature = "tls")]
    Tls(tls::TlsStream),
}

impl Stream {
    /// Goes on over a socket as the URL says.
    ///
    /// # Errors
    /// The server and this end do not agree, or it is not trusted.
    pub fn over(socket: TcpStream, url: &Url) -> Result<Stream, Refusal> {
        #[cfg(feature = "tls")]
        if url.is_secure {
            return tls::TlsStream::handshake(socket, &url.host).map(Stream::Tls);
        }
        debug_assert!(
            !url.is_secure,
            "a URL with TLS is refused without the feature"
        );
        Ok(Stream::Plain(socket))
    }

    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.socket(),
        }
    }

    /// Another end of the same connection.
    ///
    /// # Errors
    /// As of `dup(2)`.
    pub fn try_clone(&self) -> io::Result<Stream> {
        match self {
            Stream::Plain(socket) => socket.try_clone().map(Stream::Plain),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.try_clone().map(Stream::Tls),
        }
    }

    /// Longest wait of a read.
    ///
    /// # Errors
    /// As of `setsockopt(2)`.
    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.socket().set_read_timeout(Some(timeout))
    }

    /// Whether a server has kept it while it was idle: there is nothing to read on one, not even its end.
    pub fn is_alive(&self) -> bool {
        let socket = self.socket();
        let peeked = socket
            .set_nonblocking(true)
            .and_then(|()| socket.peek(&mut [0]));
        socket.set_nonblocking(false).is_ok()
            && peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Ends the way out.
    pub fn shutdown_write(&mut self) {
        #[cfg(feature = "tls")]
        if let Stream::Tls(stream) = self {
            stream.close();
        }
        let _ = self.socket().shutdown(Shutdown::Write);
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(feature = "tls")]
mod tls {
    use std::io::{self, ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
    use std::time::Instant;

    use rustls::ClientConnection;
    use rustls::pki_types::ServerName;

    use super::RESPONSE_TIMEOUT;
    use crate::cli::ending::Refusal;
    use crate::cli::trust;

    /// Bytes of the read buffer for records.
    const SCRATCH_BYTES: usize = 32 * 1024;

    /// A connection with TLS. Nobody holds its state while waiting for the socket, so that one end may read while another
    /// writes.
    pub struct TlsStream {
        socket: TcpStream,
        shared: Arc<Shared>,
        scratch: Vec<u8>,
    }

    struct Shared {
        connection: Mutex<ClientConnection>,
        /// Held by whoever sends records, which have an order.
        sending: Mutex<()>,
    }

    impl Shared {
        fn connection(&self) -> MutexGuard<'_, ClientConnection> {
            self.connection
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        }

        /// Sends the records that wait.
        fn send(&self, socket: &mut TcpStream, _sending: &MutexGuard<'_, ()>) -> io::Result<()> {
            let mut records = Vec::new();
            {
                let mut connection = self.connection();
                while connection.wants_write() {
                    connection.write_tls(&mut records)?;
                }
            }
            socket.write_all(&records)
        }
    }

    impl TlsStream {
        /// Makes the handshake.
        pub fn handshake(mut socket: TcpStream, host: &str) -> Result<TlsStream, Refusal> {
            let config = trust::client_config().map_err(Refusal::for_good)?;
            let name = ServerName::try_from(host.to_owned());
            let name =
                name.map_err(|_| Refusal::for_good("this host has no name that TLS knows"))?;
            let connection = ClientConnection::new(config, name);
            let mut connection =
                connection.map_err(|error| Refusal::for_good(trust::told(&error, host)))?;
            socket.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
            let deadline = Instant::now() + RESPONSE_TIMEOUT;
            while connection.is_handshaking() {
                if let Err(error) = connection.complete_io(&mut socket) {
                    return Err(trust::explain(&error, host));
                }
                if Instant::now() > deadline {
                    return Err(trust::explain(&ErrorKind::TimedOut.into(), host));
                }
            }
            let shared = Arc::new(Shared {
                connection: Mutex::new(connection),
                sending: Mutex::new(()),
            });
            Ok(TlsStream {
                socket,
                shared,
                scratch: Vec::new(),
            })
        }

        pub fn socket(&self) -> &TcpStream {
            &self.socket
        }

        pub fn try_clone(&self) -> io::Result<TlsStream> {
            Ok(TlsStream {
                socket: self.socket.try_clone()?,
                shared: Arc::clone(&self.shared),
                scratch: Vec::new(),
            })
        }

        pub fn close(&mut self) {
            self.shared.connection().send_close_notify();
            let sending = self.shared.sending.lock();
            let sending = sending.unwrap_or_else(PoisonError::into_inner);
            let _ = self.shared.send(&mut self.socket, &sending);
        }

        pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.scratch.resize(SCRATCH_BYTES, 0);
            loop {
                match self.shared.connection().reader().read(buffer) {
                    // An end without close_notify: messages say themselves whether they are whole.
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    read => return read,
                }
                let filled = self.socket.read(&mut self.scratch)?;
                let mut records = &self.scratch[..filled];
                let wants_write = {
                    let mut connection = self.shared.connection();
                    // At its end it is told of nothing, once.
                    loop {
                        connection.read_tls(&mut records)?;
                        connection.process_new_packets().map_err(io::Error::other)?;
                        if records.is_empty() {
                            break connection.wants_write();
                        }
                    }
                };
                if wants_write {
                    match self.shared.sending.try_lock() {
                        Ok(sending) => self.shared.send(&mut self.socket, &sending)?,
                        // Whoever sends now, or next, takes it along.
                        Err(TryLockError::WouldBlock) => {}
                        Err(TryLockError::Poisoned(_)) => return Err(ErrorKind::BrokenPipe.into()),
                    }
                }
            }
        }

        pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let sending = self.shared.sending.lock();
            let sending = sending.unwrap_or_else(PoisonError::into_inner);
            let taken = self.shared.connection().writer().write(bytes)?;
            self.shared.send(&mut self.socket, &sending)?;
            Ok(taken)
        }
    }
}
