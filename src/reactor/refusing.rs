//! Connections over a limit: who is turned away, and who is read from more slowly.

use super::connections::Connections;
use crate::application::CommandContext;
use crate::handler::ConnectionId;
use crate::net::byte_stream::ByteStream;
use crate::peers::ToldCell;
use crate::rate::Limit;
use crate::requests::handle_event;
use crate::requests::limits::{self, refusal_of};
use crate::upkeep::paces;

impl<T: ByteStream> Connections<T> {
    /// Turns away a connection that is over a limit, by what it asks for.
    pub fn turn_away(&mut self, id: ConnectionId, limit: Limit, now_ms: u64) {
        if let Some(slot) = self.slots.get_mut(id.index as usize) {
            slot.connection.turn_away(limit, now_ms);
            let deadline_ms = slot.connection.deadline_ms(&self.settings);
            self.deadlines.set(id.index as usize, deadline_ms);
        }
    }

    /// Refuses a connection that is over a limit and has not asked for anything.
    pub(super) fn refuse_admission(&mut self, id: ConnectionId, limit: Limit, now_ms: u64) {
        let Connections {
            slots,
            application,
            settings,
            out,
            ..
        } = self;
        let Some(slot) = slots.get_mut(id.index as usize) else {
            return;
        };
        let address = limits::ip_of(&|| slot.transport.peer_address());
        let refusal = refusal_of(application, limit, id, address);
        let mut current = CommandContext {
            id,
            peer_address: &|| Ok(None),
            told: &ToldCell::default(),
            certificate: &|| None,
            identity: &mut slot.identity,
            listener: slot.listener,
            subscribed: &mut slot.subscribed,
            deflate: None,
            may_keep_context: false,
        };
        slot.connection
            .refuse_admission(settings, now_ms, &refusal, out, &mut |event, out| {
                handle_event(application, &mut current, event, out)
            });
        self.settle(id.index, now_ms);
    }

    /// Holds a connection to its rates, if there are any: so many bytes were read, and those were all if the read came short.
    #[inline]
    pub(super) fn keep_pace(&mut self, index: u32, (bytes, is_short): (usize, bool), now_ms: u64) {
        if self.upkeep.paces.are_active() {
            let slot = self.slots.get(index as usize);
            let is_whole = is_short && slot.is_some_and(|slot| !slot.connection.has_unread());
            paces::settle(self, index, (bytes, is_whole), now_ms);
        }
    }
}
