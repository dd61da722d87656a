//! The way out: bytes that a socket has yet to take, and the masking keys of frames.

use std::io::{self, ErrorKind, Write};

/// Keys that are fetched at a time.
const KEYS: usize = 1024;

/// Bytes that wait for a non-blocking socket.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// How many of them are gone.
    written: usize,
}

impl Writer {
    /// Buffer to append output to.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Bytes that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes as much as the socket takes.
    ///
    /// # Errors
    /// When the connection is gone, or could not be made.
    pub fn flush(&mut self, mut socket: impl Write) -> io::Result<()> {
        while self.waiting_bytes() > 0 {
            match socket.write(&self.bytes[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    // A socket that is still connecting is not connected.
                    ErrorKind::WouldBlock | ErrorKind::NotConnected => break,
                    _ => return Err(error),
                },
            }
        }
        socket.flush()?;
        if self.written * 2 >= self.bytes.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }
}

/// Random bytes from the system, for masking keys (RFC 6455, section 5.3) and nonces.
pub struct Entropy {
    bytes: Box<[u8; 4 * KEYS]>,
    used: usize,
}

impl Entropy {
    /// Without any yet.
    pub fn new() -> Entropy {
        Entropy {
            bytes: Box::new([0; 4 * KEYS]),
            used: 4 * KEYS,
        }
    }

    /// Four or sixteen of them.
    pub fn take<const N: usize>(&mut self) -> [u8; N] {
        if self.bytes.len() - self.used < N {
            getrandom::fill(&mut self.bytes[..]).expect("the system has entropy");
            self.used = 0;
        }
        let taken = self.bytes[self.used..].first_chunk();
        self.used += N;
        *taken.expect("there are as many, it was just checked")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_the_socket_does_not_take_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut writer = Writer::default();
        let sent: Vec<u8> = (0..16 << 20).map(|index: u32| (index >> 8) as u8).collect();
        writer.out().extend_from_slice(&sent);
        writer.flush(&socket).unwrap();
        assert!(writer.waiting_bytes() > 0);
        let mut received = Vec::new();
        let mut piece = vec![0; 1 << 20];
        while received.len() < sent.len() {
            let len = peer.read(&mut piece).unwrap();
            received.extend_from_slice(&piece[..len]);
            writer.flush(&socket).unwrap();
        }
        assert!(received == sent && writer.waiting_bytes() == 0);
    }

    #[test]
    fn keys_do_not_repeat() {
        let mut entropy = Entropy::new();
        let mut nonces: Vec<[u8; 16]> = (0..2 * KEYS).map(|_| entropy.take()).collect();
        nonces.sort_unstable();
        nonces.dedup();
        assert_eq!(nonces.len(), 2 * KEYS);
    }
}
