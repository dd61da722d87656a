//! Inherited listening sockets, as a socket unit of systemd hands them over.
//!
//! The protocol is that of
//! [`sd_listen_fds(3)`](https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html): `LISTEN_FDS` says how
//! many, `LISTEN_FDNAMES` their names with colons between, and `LISTEN_PID` for which process.

use std::env;
use std::error::Error;
use std::process;

use listenfd::ListenFd;
use umbel::InheritedSocket;

/// What a socket without a name is called.
const UNNAMED: &str = "unknown";

/// The sockets, with their names. None where they are for another process.
///
/// # Errors
/// When one of them is no stream socket of TCP or of unix.
pub fn sockets() -> Result<Vec<(String, InheritedSocket)>, Box<dyn Error>> {
    let is_for_us = env::var("LISTEN_PID").is_ok_and(|number| number.parse() == Ok(process::id()));
    if !is_for_us {
        return Ok(Vec::new());
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = ListenFd::from_env();
    let mut sockets = Vec::with_capacity(handed.len());
    for (index, name) in names_of(&names, handed.len()).enumerate() {
        // What is no TCP socket stays where it is, to be tried as the other kind.
        let socket = match handed.take_tcp_listener(index) {
            Ok(socket) => socket.map(InheritedSocket::from),
            Err(_) => handed
                .take_unix_listener(index)
                .map_err(|_| format!("the socket {name} that was handed over (LISTEN_FDS) is no stream socket of TCP or unix"))?
                .map(InheritedSocket::from),
        };
        sockets.extend(socket.map(|socket| (name.to_owned(), socket)));
    }
    Ok(sockets)
}

/// A name for each of so many sockets.
fn names_of(names: &str, count: usize) -> impl Iterator<Item = &str> {
    names
        .split(':')
        .map(|name| if name.is_empty() { UNNAMED } else { name })
        .chain(std::iter::repeat(UNNAMED))
        .take(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_without_names_are_unknown() {
        let names = |text, count| names_of(text, count).collect::<Vec<_>>();
        assert_eq!(names("web:admin", 2), ["web", "admin"]);
        assert_eq!(names("web", 3), ["web", UNNAMED, UNNAMED]);
        assert_eq!(names("", 1), [UNNAMED]);
        assert_eq!(names("a::b:c", 3), ["a", UNNAMED, "b"]);
    }
}
