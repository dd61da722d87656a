//! A request as the embedding program's own code sees it.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use crate::http::kept::HeadView;
use crate::http::query::Query;
use crate::peers::Word;

/// A request to an endpoint of your own: the one that opens a WebSocket, or one that a [`Route`](super::Route) answers.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    method: &'a str,
    head: HeadView<'a>,
    origin: RequestOrigin<'a>,
    body: &'a [u8],
}

/// Origin of a request, and the endpoint that it is for.
#[derive(Clone, Copy, Debug)]
pub struct RequestOrigin<'a> {
    /// Name of the listener.
    pub listener: &'a str,
    /// The client.
    pub client: Word,
    /// The path of the endpoint, which may end with `*`.
    pub pattern: &'a str,
}

impl<'a> Request<'a> {
    pub(crate) fn new(
        method: &'a str,
        head: HeadView<'a>,
        origin: RequestOrigin<'a>,
        body: &'a [u8],
    ) -> Request<'a> {
        Request {
            method,
            head,
            origin,
            body,
        }
    }

    /// The method, in the letters of the request: `GET`.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The path, as it was sent: percent escapes are not decoded.
    pub fn path(&self) -> &'a str {
        self.split().0
    }

    /// The part of the path that the endpoint's `*` stands for. Empty where its path has none.
    pub fn rest(&self) -> &'a str {
        let prefix = self.origin.pattern.strip_suffix('*');
        prefix
            .and_then(|prefix| self.path().strip_prefix(prefix))
            .unwrap_or("")
    }

    /// The query behind the first `?`, as it was sent. Empty where there is none.
    pub fn query(&self) -> &'a str {
        self.split().1
    }

    fn split(&self) -> (&'a str, &'a str) {
        self.head
            .target
            .split_once('?')
            .unwrap_or((self.head.target, ""))
    }

    /// The first value of a parameter of the query, decoded. None also where it cannot be decoded.
    pub fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        Query(self.query()).get(name).ok().flatten()
    }

    /// The first value of a header, its name in any case. None also where the value is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.head.header(name)
    }

    /// The values of a header's lines, in order. Those that are not UTF-8 are left out.
    pub fn headers<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.head.headers(name)
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        self.head.cookie(name)
    }

    /// Address of the client: of the socket's peer, or as a proxy tells it that the listener trusts, with port 0 where that
    /// does not tell a port. None: it has none, as on a unix socket, or is gone.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.origin.client.client
    }

    /// Whether the client speaks TLS: with the server, or with a proxy that the listener trusts and that says so.
    pub fn is_secure(&self) -> bool {
        self.origin.client.is_secure
    }

    /// Name of the listener that it came by, as in the log: its [place](crate::Listener), or the name that it was given.
    pub fn listener(&self) -> &'a str {
        self.origin.listener
    }

    /// The body, of at most `body_bytes_max` bytes. Empty for one that opens a WebSocket.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }
}

impl fmt::Debug for Request<'_> {
    /// Without query, headers and body, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path())
            .field("peer_addr", &self.origin.client.client)
            .field("listener", &self.origin.listener)
            .finish_non_exhaustive()
    }
}
