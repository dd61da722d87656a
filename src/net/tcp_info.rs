//! Figures of the kernel about a connection.

use crate::shared::jobs::Traffic;
use mio::net::TcpStream;

/// Bytes of `struct tcp_info` of linux/tcp.h, as far as it is read.
#[cfg(target_os = "linux")]
const INFO_BYTES: usize = 216;

/// Bytes that came in and went out so far, without those that were sent again. None: the kernel does not tell.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the standard library has no TCP_INFO")]
pub fn traffic(stream: &TcpStream) -> Option<Traffic> {
    use std::os::fd::AsRawFd;

    let mut info = [0u8; INFO_BYTES];
    let mut length = INFO_BYTES as libc::socklen_t;
    // SAFETY: the descriptor is open as long as the stream is borrowed, and the kernel writes at most `length` bytes,
    // which is the size of the array.
    let outcome = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    // A kernel before 4.19 knows less.
    if outcome != 0 || length as usize != INFO_BYTES {
        return None;
    }
    let field = |at: usize| {
        let bytes = info.get(at..at + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    };
    // tcpi_bytes_received, tcpi_bytes_sent and tcpi_bytes_retrans.
    Some(Traffic {
        received_bytes: field(128)?,
        sent_bytes: field(200)?.saturating_sub(field(208)?),
    })
}

/// The same elsewhere, where nobody tells.
#[cfg(not(target_os = "linux"))]
pub fn traffic(_: &TcpStream) -> Option<Traffic> {
    None
}
