//! What the slab keeps for a connection.

use crate::auth::table::IdentityHandle;
use crate::connection::{Connection, Label};
use crate::dialect::Form;
use crate::fanout::subscribed::Subscribed;
use crate::handler::ConnectionId;
use crate::hub::ReactorId;
#[cfg(not(debug_assertions))]
use crate::net::transport::Transport;

/// One connection with all that the reactor knows of it, but for where it is in a cohort, and its deadline.
pub(crate) struct Slot<T> {
    pub connection: Connection,
    pub transport: T,
    /// Tells it from those that stood at its index before.
    generation: u32,
    /// Who sent its request, or opened it.
    pub(crate) identity: IdentityHandle,
    pub subscribed: Subscribed,
    /// What of it is in `inbound_bytes`.
    pub(crate) inbound_bytes: u32,
    /// What of it is in `outbox_bytes`.
    pub(crate) outbox_bytes: u32,
    /// The form of its dialect, without compression.
    pub(crate) plain_form: Form,
    /// The form in which it takes publications best. A compressed one counts in its topic's audience.
    pub(crate) best_form: Form,
    /// What it counts as in `counts`.
    pub(crate) label: Label,
    /// The number of the listener that it came by.
    pub(crate) listener: u8,
    pub(crate) flags: Flags,
}

// There may be a million, and each is looked at with every delivery. mio's types are larger where it looks after mistakes.
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Slot<Transport>>() <= 128);

impl<T> Slot<T> {
    /// That of a connection that was just accepted.
    pub fn new(connection: Connection, transport: T, generation: u32, listener: u8) -> Slot<T> {
        let label = connection.label();
        Slot {
            connection,
            transport,
            generation,
            identity: IdentityHandle::ANONYMOUS,
            subscribed: Subscribed::NONE,
            inbound_bytes: 0,
            outbox_bytes: 0,
            plain_form: Form::PAYLOAD,
            best_form: Form::PAYLOAD,
            label,
            listener,
            flags: Flags::default(),
        }
    }

    /// Whether it is that of this connection. Its index must have led here.
    pub fn is(&self, id: ConnectionId) -> bool {
        self.generation == id.generation
    }

    /// Gives it another generation: whoever knows its name finds it no more.
    pub fn rename(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// The name of its connection, of this reactor and at this index.
    pub fn id(&self, reactor: ReactorId, index: u32) -> ConnectionId {
        ConnectionId {
            reactor: reactor.0,
            index,
            generation: self.generation,
        }
    }
}

/// What is true of a slot, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u8);

impl Flags {
    /// The end of the peer's side was announced.
    pub const ENDED: u8 = 1;
    /// It stands in `ready`.
    pub const IS_READY: u8 = 1 << 1;
    /// Reading stopped at a hold, and the edges that told of what is left are gone.
    pub const WAS_HELD: u8 = 1 << 2;
    /// It stands in `closed`.
    pub const IS_CLOSED: u8 = 1 << 3;
    /// The kernel took no more, and has yet to announce that there is room.
    pub const IS_BLOCKED: u8 = 1 << 4;
    /// It stands in `working`.
    pub const IS_WORKING: u8 = 1 << 5;
    /// A PROXY header has yet to come.
    pub const AWAITS_HEADER: u8 = 1 << 6;

    /// Whether this is true.
    pub fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    /// Makes this true, or false.
    pub fn set(&mut self, flag: u8, holds: bool) {
        match holds {
            true => self.0 |= flag,
            false => self.0 &= !flag,
        }
    }
}
