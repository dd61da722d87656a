//! Peers behind proxies: what was told of a connection's client, kept beside the slots.
//!
//! A connection has its socket's address without a byte of memory. What a trusted proxy tells of another one stands here, so
//! a server that trusts nobody keeps nothing.

pub mod suspicion;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;

/// Word of a proxy about a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Its address; port 0 where that is not told. None: nothing else than that of the socket.
    pub client: Option<SocketAddr>,
    /// Whether it speaks TLS.
    pub is_secure: bool,
}

/// Words of trusted proxies about a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// By the PROXY header before all.
    pub by_connection: Word,
    /// By the newest request, or else as by the PROXY header.
    pub by_request: Word,
}

impl Told {
    /// As of a connection that has sent no request yet.
    pub fn by_connection(word: Word) -> Told {
        Told {
            by_connection: word,
            by_request: word,
        }
    }
}

/// Words about the connection that is being dealt with. None: there are none.
pub type ToldCell = Cell<Option<Told>>;

/// Address of a client: as told, or else that of the socket.
///
/// # Errors
/// The socket is gone, and nothing was told.
pub fn address_of(
    told: Option<Told>,
    socket: impl FnOnce() -> io::Result<Option<SocketAddr>>,
) -> io::Result<Option<SocketAddr>> {
    match told.and_then(|told| told.by_request.client) {
        Some(client) => Ok(Some(client)),
        None => socket(),
    }
}

/// Words about the connections of a reactor, by slab index.
#[derive(Debug, Default)]
pub struct Peers {
    told: Vec<Option<Box<Told>>>,
}

impl Peers {
    /// Whether nothing was told of any.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Words about the connection at an index.
    pub fn get(&self, index: u32) -> Option<Told> {
        self.told.get(index as usize)?.as_deref().copied()
    }

    /// Keeps what is told.
    pub fn put(&mut self, index: u32, told: Option<Told>) {
        let at = index as usize;
        match told {
            None => self.forget(index),
            Some(told) => {
                if at >= self.told.len() {
                    self.told.resize_with(at + 1, || None);
                }
                match &mut self.told[at] {
                    Some(kept) => **kept = told,
                    place => *place = Some(Box::new(told)),
                }
            }
        }
    }

    /// Another connection may come to the index.
    pub fn forget(&mut self, index: u32) {
        if let Some(place) = self.told.get_mut(index as usize) {
            *place = None;
        }
    }

    /// No connection stands at this index or behind it.
    #[inline]
    pub fn truncate(&mut self, end: usize) {
        if self.told.len() > end {
            self.told.truncate(end);
            self.told.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_lasts_as_long_as_its_connection() {
        let mut peers = Peers::default();
        peers.forget(7);
        peers.put(7, None);
        assert_eq!((peers.get(7), peers.told.capacity()), (None, 0));
        let client = Some("203.0.113.9:0".parse().expect("an address"));
        let word = Word {
            client,
            is_secure: true,
        };
        peers.put(7, Some(Told::by_connection(word)));
        let address =
            |peers: &Peers, index| address_of(peers.get(index), || Ok(None)).expect("an address");
        assert_eq!((address(&peers, 7), address(&peers, 3)), (client, None));
        peers.truncate(8);
        assert_eq!(address(&peers, 7), client);
        peers.forget(7);
        assert_eq!(peers.get(7), None);
        peers.truncate(3);
        assert_eq!(peers.told.len(), 3);
    }
}
