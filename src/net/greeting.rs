//! The PROXY header of a connection, taken off its socket before anything else is read.
//!
//! It is looked at where it lies until it is whole, so half a header takes no memory, and what follows it stays in the socket
//! for TLS or HTTP.

use std::io::{self, Read};

use mio::net::TcpStream;

use crate::peers::Word;
use crate::protocol::proxy::{HEADER_BYTES_MAX, Header, parse};

/// Word of a load balancer about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The client.
    pub word: Word,
    /// Name of the connection in hexadecimal digits, where it has one and debug lines are logged.
    pub unique_id: Option<String>,
}

impl Greeting {
    fn of(header: &Header<'_>) -> Greeting {
        let unique_id = header
            .unique_id
            .filter(|_| log::log_enabled!(log::Level::Debug));
        let digits = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect();
        Greeting {
            word: Word {
                client: header.client,
                is_secure: header.is_secure,
            },
            unique_id: unique_id.map(digits),
        }
    }
}

/// Takes the header. None: it is not whole yet. `peek` and `read` are those of the socket.
///
/// # Errors
/// As of `recv(2)`; `InvalidData` where the first bytes are no header, and `UnexpectedEof` where the peer ended before them.
pub fn take<S>(
    socket: &mut S,
    peek: impl Fn(&mut S, &mut [u8]) -> io::Result<usize>,
    read: impl Fn(&mut S, &mut [u8]) -> io::Result<usize>,
) -> io::Result<Option<Greeting>> {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let seen = again(|| peek(socket, &mut bytes))?;
    if seen == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let header = parse(&bytes[..seen]);
    let header =
        header.map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))?;
    let Some(header) = header else {
        return Ok(None);
    };
    let greeting = Greeting::of(&header);
    let mut left = header.length;
    while left > 0 {
        // It was seen, so that it is there.
        match again(|| read(socket, &mut bytes[..left]))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => left -= count,
        }
    }
    Ok(Some(greeting))
}

/// Takes the header off a TCP stream. None: it is not whole yet.
///
/// # Errors
/// As of [`take`].
pub fn take_from_tcp(stream: &mut TcpStream) -> io::Result<Option<Greeting>> {
    take(
        stream,
        |it, buffer| it.peek(buffer),
        |it, buffer| it.read(buffer),
    )
}

fn again(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Looks at what a socket has received, and leaves it there.
///
/// # Errors
/// As of `recv(2)`.
#[cfg(unix)]
#[allow(
    unsafe_code,
    reason = "the standard library cannot peek at unix sockets yet"
)]
pub fn peek(socket: std::os::fd::BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    use std::os::fd::AsRawFd;

    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel writes at most as many bytes as the buffer has.
    let count = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_PEEK,
        )
    };
    // It is negative for an error alone.
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn take_from(socket: &mut UnixStream) -> io::Result<Option<Greeting>> {
        take(
            socket,
            |it, buffer| peek(it.as_fd(), buffer),
            |it, buffer| it.read(buffer),
        )
    }

    #[test]
    fn what_follows_the_header_stays_in_the_socket() {
        let (mut one, mut other) = UnixStream::pair().expect("a pair");
        one.set_nonblocking(true).expect("a socket");
        let nothing = take_from(&mut one).expect_err("nothing is there");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        for byte in b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r" {
            other.write_all(&[*byte]).expect("it is open");
            assert_eq!(take_from(&mut one).expect("the begin of one"), None);
        }
        other
            .write_all(b"\nGET / HTTP/1.1\r\n")
            .expect("it is open");
        let greeting = take_from(&mut one).expect("a header").expect("all of it");
        assert_eq!(greeting.word.client, "203.0.113.9:4711".parse().ok());
        let mut rest = [0; 64];
        let count = one.read(&mut rest).expect("bytes");
        assert_eq!(&rest[..count], b"GET / HTTP/1.1\r\n");
        drop(other);
        let ended = take_from(&mut one).expect_err("it is at its end");
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
    }
}
