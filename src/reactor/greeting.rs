//! Connections that begin with a PROXY header, until it is there.

use std::io;

use super::connections::Connections;
use super::slot::Flags;
use crate::connection::CloseReason;
use crate::handler::ConnectionId;
use crate::http::refusal::Refusal;
use crate::net::byte_stream::ByteStream;
use crate::net::greeting::Greeting;
use crate::peers::{Told, Word};
use crate::requests::count_refusal;

impl<T: ByteStream> Connections<T> {
    /// Lets a connection that was just accepted begin with a PROXY header, where its listener says so.
    pub(super) fn await_header(&mut self, id: ConnectionId, listener: u8, now_ms: u64) {
        if self.application.shared.has_proxy_headers(listener)
            && let Some(slot) = self.slot(id)
        {
            slot.flags.set(Flags::AWAITS_HEADER, true);
            let until_ms = now_ms + self.settings.limits.proxy_header_timeout_ms;
            let until_ms = until_ms.min(self.deadlines.get(id.index as usize));
            self.deadlines.set(id.index as usize, until_ms);
        }
    }

    /// Takes the PROXY header off a connection. False: it is not there yet, or never will be.
    pub(super) fn take_header(&mut self, id: ConnectionId) -> bool {
        let Some(slot) = self.slot(id) else {
            return false;
        };
        match slot.transport.take_proxy_header() {
            Ok(Some(greeting)) => {
                slot.flags.set(Flags::AWAITS_HEADER, false);
                self.note_greeting(id, greeting);
                return true;
            }
            Ok(None) if slot.flags.has(Flags::ENDED) => self.give_up(id, CloseReason::PeerGone),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => match error.kind() {
                io::ErrorKind::InvalidData => {
                    let reason =
                        format!("the PROXY header that this listener asks for is wrong: {error}");
                    let Connections {
                        slots, application, ..
                    } = self;
                    let peer = || {
                        slots
                            .get(id.index as usize)?
                            .transport
                            .peer_address()
                            .ok()?
                    };
                    let refusal = Refusal::bad_framing(reason);
                    count_refusal(application, (id, &|| Ok(peer())), &refusal);
                    self.give_up(id, CloseReason::HttpRefused);
                }
                io::ErrorKind::UnexpectedEof => self.give_up(id, CloseReason::PeerGone),
                _ => self.give_up(id, CloseReason::Transport),
            },
        }
        false
    }

    fn note_greeting(&mut self, id: ConnectionId, greeting: Greeting) {
        let Greeting { word, unique_id } = greeting;
        if word != Word::default() {
            self.peers.put(id.index, Some(Told::by_connection(word)));
        }
        if let Some(slot) = self.slot(id)
            && log::log_enabled!(log::Level::Debug)
        {
            let proxy = slot.transport.peer();
            let peer = word
                .client
                .map_or_else(|| proxy.clone(), |client| client.to_string());
            let unique_id = unique_id.unwrap_or_default();
            log::debug!(connection:% = id, peer:%, proxy:%, tls = word.is_secure, unique_id:%; "a PROXY header");
        }
    }

    /// The time for the header is over.
    pub(super) fn miss_header(&mut self, id: ConnectionId) {
        log::debug!(connection:% = id; "no PROXY header came in time, which the listener asks for");
        self.give_up(id, CloseReason::HandshakeTimeout);
    }

    /// Ends a connection without a word: who is at the other end is not known.
    fn give_up(&mut self, id: ConnectionId, reason: CloseReason) {
        if self.slot(id).is_some() {
            self.end(id.index, reason);
        }
    }
}
