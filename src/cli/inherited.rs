//! Inherited listening sockets, as a socket unit of systemd hands them over.
//!
//! The protocol is that of
//! [`sd_listen_fds(3)`](https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html): `LISTEN_FDS` says how
//! many, `LISTEN_FDNAMES` their names with colons between, and `LISTEN_PID` for which process.

use std::env;
use std::error::Error;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process;

use socket2::{Domain, Socket, Type};
use umbel::InheritedSocket;

/// Name of a socket without one.
const UNNAMED: &str = "unknown";

/// The sockets, with their names. None where they are for another process.
///
/// # Errors
/// When there are not as many names as sockets, or one of the descriptors is no stream socket of TCP or of unix.
pub fn sockets() -> Result<Vec<(String, InheritedSocket)>, Box<dyn Error>> {
    match env::var("LISTEN_PID").map(|pid| pid.parse::<u32>()) {
        Ok(Ok(pid)) if pid == process::id() => {}
        // It names no process, which is an error below.
        Ok(Err(_)) => {}
        // Neither the sockets are ours nor their names, of which there may be any number.
        Ok(Ok(_)) | Err(_) => return Ok(Vec::new()),
    }
    let handed = sd_notify::listen_fds_with_names().map_err(|error| {
        format!("the sockets that were handed over (LISTEN_FDS, LISTEN_FDNAMES) cannot be taken: {error}")
    })?;
    handed
        .map(|(number, name)| {
            let name = if name.is_empty() { UNNAMED.to_owned() } else { name };
            #[allow(unsafe_code, reason = "a descriptor comes as a number, and nothing else says that it is ours")]
            // SAFETY: whoever started the process says by LISTEN_PID and LISTEN_FDS that this descriptor is open and for it; that
            // it is open was found out when it was closed on exec. It is taken here, once, and nowhere else.
            let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
            match typed(descriptor) {
                Some(socket) => Ok((name, socket)),
                None => Err(format!(
                    "the socket {name} that was handed over (LISTEN_FDS) is no stream socket of TCP or unix"
                )
                .into()),
            }
        })
        .collect()
}

/// A descriptor as what it is. None where it is no stream socket of TCP or unix.
fn typed(descriptor: OwnedFd) -> Option<InheritedSocket> {
    let socket = Socket::from(descriptor);
    if socket.r#type().ok()? != Type::STREAM {
        return None;
    }
    match socket.local_addr().ok()?.domain() {
        Domain::IPV4 | Domain::IPV6 => Some(TcpListener::from(socket).into()),
        Domain::UNIX => Some(UnixListener::from(OwnedFd::from(socket)).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn stream_sockets_are_told_from_others() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        assert!(matches!(typed(tcp.into()), Some(InheritedSocket::Tcp(_))));
        let folder = std::env::temp_dir().join(format!("umbel-inherited-{}", std::process::id()));
        let unix = UnixListener::bind(&folder).expect("a socket");
        assert!(matches!(typed(unix.into()), Some(InheritedSocket::Unix(_))));
        std::fs::remove_file(&folder).expect("it is there");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let (datagrams, _other) = UnixDatagram::pair().expect("a pair");
        let file = std::fs::File::open("/dev/null").expect("it is there");
        for other in [OwnedFd::from(udp), datagrams.into(), file.into()] {
            assert!(typed(other).is_none());
        }
    }
}
