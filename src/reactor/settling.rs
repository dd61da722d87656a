//! The end of a turn of a connection: what it has to say is written, and what is known of it brought up to date.

use std::io;

use super::connections::Connections;
use super::slot::Flags;
use crate::connection::{CloseReason, Hold, close_reason};
use crate::net::byte_stream::ByteStream;

impl<T: ByteStream> Connections<T> {
    /// To be called after anything happened to a connection: writes, and brings what the reactor knows of it up to
    /// date.
    pub(crate) fn settle(&mut self, index: u32, now_ms: u64) {
        if !self.followed.is_empty() {
            self.note_written(index);
        }
        self.flush(index, now_ms);
        if self.count(index)
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.connection
                .fail(&self.settings, now_ms, CloseReason::OverBudget);
            // The socket may have room, which no further edge will announce.
            self.flush(index, now_ms);
            self.count(index);
        }
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        if slot.connection.wants_shutdown()
            && let Err(error) = slot.transport.shutdown_write()
            && error.kind() != io::ErrorKind::NotConnected
        {
            slot.connection.finish(CloseReason::Transport);
        }
        if slot.connection.is_closed() {
            if !slot.flags.has(Flags::IS_CLOSED) {
                slot.flags.set(Flags::IS_CLOSED, true);
                self.closed.push(index);
            }
            return;
        }
        let deadline_ms = slot.connection.deadline_ms(&self.settings);
        if deadline_ms < self.deadlines.get(index as usize) {
            self.deadlines.set(index as usize, deadline_ms);
        }
        if slot.flags.has(Flags::WAS_HELD) {
            let id = slot.id(self.application.reactor, index);
            self.resume(id);
        }
    }

    /// Writes the outbox and then `out`; what the kernel does not take is queued.
    pub(super) fn flush(&mut self, index: u32, now_ms: u64) {
        let Connections {
            slots,
            settings,
            out,
            metrics,
            ..
        } = self;
        let slot = slots.get_mut(index as usize);
        // One that has ended is kept for its memberships only.
        let Some(slot) = slot.filter(|slot| !slot.flags.has(Flags::IS_CLOSED)) else {
            return out.clear();
        };
        let outcome = slot
            .write_outbox(metrics, out, now_ms)
            .and_then(|()| slot.write_out(metrics, out, settings, now_ms));
        out.clear();
        if let Err(error) = outcome {
            return self.fail_transport(index, &error);
        }
        if slot.connection.outbox.is_empty() {
            slot.connection.handle_flushed();
            slot.connection.lift(Hold::Outbox);
        } else if !slot.connection.takes_deliveries() && !slot.connection.is_closing() {
            // Whoever asks for more than it takes is not read until it has taken it.
            slot.connection.hold(Hold::Outbox);
        }
    }

    pub(super) fn fail_transport(&mut self, index: u32, error: &io::Error) {
        let Some(slot) = self.slots.get(index as usize) else {
            return;
        };
        let id = slot.id(self.application.reactor, index);
        log::debug!(connection:% = id; "the transport failed: {error}");
        self.end(index, close_reason(error));
    }

    /// Ends a connection at once.
    pub(super) fn end(&mut self, index: u32, reason: CloseReason) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.connection.finish(reason);
        }
        self.count(index);
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        if !slot.flags.has(Flags::IS_CLOSED) {
            slot.flags.set(Flags::IS_CLOSED, true);
            self.closed.push(index);
        }
    }
}
