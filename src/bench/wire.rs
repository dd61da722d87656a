//! A non-blocking socket of a connection, with TLS or without.

use std::fmt;
use std::io::{self, Read, Write};

use mio::net::TcpStream;

/// A socket. Threads may share it: one reads, another writes.
pub struct Wire {
    socket: TcpStream,
    #[cfg(feature = "tls")]
    tls: Option<std::sync::Mutex<rustls::ClientConnection>>,
}

/// Terms of handshakes with a server. None: it speaks no TLS.
#[cfg(feature = "tls")]
pub type Secured = Option<(
    std::sync::Arc<rustls::ClientConfig>,
    rustls::pki_types::ServerName<'static>,
)>;

/// Terms of handshakes with a server: this build speaks no TLS.
#[cfg(not(feature = "tls"))]
pub type Secured = ();

impl Wire {
    /// A socket that is connecting.
    ///
    /// # Errors
    /// The library's, about the terms.
    #[cfg(feature = "tls")]
    pub fn new(socket: TcpStream, secured: &Secured) -> io::Result<Wire> {
        let tls = secured.clone().map(|(config, name)| {
            let connection = rustls::ClientConnection::new(config, name);
            connection.map(std::sync::Mutex::new)
        });
        let tls = tls.transpose().map_err(io::Error::other)?;
        Ok(Wire { socket, tls })
    }

    /// A socket that is connecting.
    ///
    /// # Errors
    /// None.
    #[cfg(not(feature = "tls"))]
    pub fn new(socket: TcpStream, (): &Secured) -> io::Result<Wire> {
        Ok(Wire { socket })
    }

    /// Whether a short read says nothing about what the socket still has.
    pub fn has_records(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl Read for &Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls::read(&self.socket, &mut tls::lock(tls), buffer);
        }
        (&self.socket).read(buffer)
    }
}

impl Write for &Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls::write(&self.socket, &mut tls::lock(tls), bytes);
        }
        (&self.socket).write(bytes)
    }

    /// Sends records that the socket did not take before.
    fn flush(&mut self) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls::flush(&self.socket, &mut tls::lock(tls));
        }
        Ok(())
    }
}

#[cfg(feature = "tls")]
mod tls {
    use std::io::{self, ErrorKind, Read, Write};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use mio::net::TcpStream;
    use rustls::ClientConnection;

    use crate::cli::trust;

    pub fn lock(tls: &Mutex<ClientConnection>) -> MutexGuard<'_, ClientConnection> {
        tls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn read(
        mut socket: &TcpStream,
        tls: &mut ClientConnection,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        loop {
            match tls.reader().read(buffer) {
                // An end without close_notify: messages say themselves whether they are whole.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            if tls.read_tls(&mut socket)? == 0 && tls.is_handshaking() {
                return Ok(0);
            }
            if let Err(error) = tls.process_new_packets() {
                let _ = flush(socket, tls);
                return Err(io::Error::other(trust::told(&error, "this host")));
            }
            flush(socket, tls)?;
        }
    }

    pub fn write(
        socket: &TcpStream,
        tls: &mut ClientConnection,
        bytes: &[u8],
    ) -> io::Result<usize> {
        flush(socket, tls)?;
        if tls.is_handshaking() || tls.wants_write() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let taken = tls.writer().write(bytes)?;
        flush(socket, tls)?;
        match taken {
            0 => Err(ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        }
    }

    pub fn flush(mut socket: &TcpStream, tls: &mut ClientConnection) -> io::Result<()> {
        while tls.wants_write() {
            match tls.write_tls(&mut socket) {
                Ok(_) => {}
                // A socket that is still connecting is not connected.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::NotConnected
                    ) =>
                {
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
