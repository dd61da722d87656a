//! Errors of starting and running a server, with remedies.

use std::{fmt, io};

use crate::config::{ConfigError, ListenAddress};

/// Reason that a server did not start, or ended by itself.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting is invalid.
    Config(ConfigError),
    /// The address cannot be listened on.
    Listen {
        /// The address.
        address: ListenAddress,
        /// What the system said.
        source: io::Error,
    },
    /// An event loop could not be set up.
    Setup(io::Error),
    /// A reactor's event loop failed again and again.
    Reactor {
        /// The reactor's number.
        reactor: usize,
        /// What the system said.
        source: io::Error,
    },
    /// A thread panicked. The server has ended, because half of one is worse than none.
    Panicked {
        /// The thread's name.
        thread: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(error) => error.fmt(f),
            Error::Listen { address, source } => {
                write!(
                    f,
                    "listen = {address}: {source}{}",
                    listen_advice(address, source)
                )
            }
            Error::Setup(source) => write!(f, "an event loop could not be set up: {source}"),
            Error::Reactor { reactor, source } => {
                write!(
                    f,
                    "reactor {reactor} cannot wait for events any more: {source}"
                )
            }
            Error::Panicked { thread } => {
                write!(
                    f,
                    "thread {thread} panicked, so the server has ended; the log says where"
                )
            }
        }
    }
}

fn listen_advice(address: &ListenAddress, error: &io::Error) -> &'static str {
    let is_tcp = matches!(address, ListenAddress::Tcp(_) | ListenAddress::Localhost(_));
    match error.kind() {
        io::ErrorKind::AddrInUse if is_tcp => {
            "; another program listens there: end it, or choose another port with --listen"
        }
        io::ErrorKind::AddrInUse => "; end it, or choose another path with --listen",
        io::ErrorKind::PermissionDenied if is_tcp => {
            "; ports below 1024 need a privilege: choose a higher one with --listen"
        }
        io::ErrorKind::PermissionDenied => {
            "; the server must be allowed to write to the folder, and to a socket that is there"
        }
        io::ErrorKind::NotFound if matches!(address, ListenAddress::Unix { .. }) => {
            "; there is no such folder: make it, or choose another path with --listen"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this machine has no such address: choose another with --listen"
        }
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Config(error) => Some(error),
            Error::Listen { source, .. } | Error::Setup(source) | Error::Reactor { source, .. } => {
                Some(source)
            }
            Error::Panicked { .. } => None,
        }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Error {
        Error::Config(error)
    }
}
