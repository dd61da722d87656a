//! The slab, as those see it who do something to its connections from outside.

use super::connections::Connections;
use super::slot::Flags;
use crate::application::{Application, ConnectionContext};
use crate::net::byte_stream::ByteStream;
use crate::peers;
use crate::upkeep::{Seen, Slots, Upkeep};

impl<T: ByteStream> Slots for Connections<T> {
    fn application(&self) -> &Application {
        &self.application
    }

    fn application_mut(&mut self) -> &mut Application {
        &mut self.application
    }

    fn upkeep(&mut self) -> &mut Upkeep {
        &mut self.upkeep
    }

    fn count(&self) -> usize {
        self.slots.len()
    }

    fn end(&self) -> u32 {
        self.slots.capacity() as u32
    }

    fn look<R>(&self, index: u32, look: impl FnOnce(&Application, &Seen<'_>) -> R) -> Option<R> {
        let slot = self.slots.get(index as usize)?;
        if slot.flags.has(Flags::IS_CLOSED) {
            return None;
        }
        let told = self.peers.get(index);
        let seen = Seen {
            id: slot.id(self.application.reactor, index),
            listener: slot.listener,
            connection: &slot.connection,
            identity: slot.identity,
            subscribed: slot.subscribed,
            peer_address: &|| peers::address_of(told, || slot.transport.peer_address()),
            traffic: &|| slot.transport.traffic(),
        };
        Some(look(&self.application, &seen))
    }

    fn visit<R>(
        &mut self,
        index: u32,
        now_ms: u64,
        work: impl FnOnce(&mut Application, &mut ConnectionContext<'_>) -> R,
    ) -> Option<R> {
        let slot = self.slots.get(index as usize)?;
        if slot.flags.has(Flags::IS_CLOSED) {
            return None;
        }
        let id = slot.id(self.application.reactor, index);
        let mut outcome = None;
        self.with_connection(id, now_ms, |application, context| {
            outcome = Some(work(application, context));
            true
        });
        outcome
    }
}
