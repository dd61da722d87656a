//! Receipts: what became of a publication, for the publisher who asked.
//!
//! Each reactor that writes a publication adds its share; whichever is last sends the report to the reactor that owns the
//! publisher. As many reports wait there as receipts were handed out, at most.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::handler::ConnectionId;
use crate::hub::{ReactorId, Receipt, Report};
use crate::worker::Shards;

/// A report for one of this reactor's publishers.
pub struct Reported {
    /// The publisher.
    pub connection: ConnectionId,
    /// The number of its publication.
    pub sequence: u32,
    /// Outcome of the publication.
    pub report: Report,
}

/// The receipts that a reactor's publishers wait for.
pub struct Receipts {
    sender: Sender<Reported>,
    receiver: Receiver<Reported>,
    outstanding: usize,
    outstanding_max: usize,
}

impl Receipts {
    /// None yet, and at most `outstanding_max` at a time.
    pub fn new(outstanding_max: usize) -> Receipts {
        // No more reports come than receipts are outstanding, and of those the bound may change.
        let (sender, receiver) = unbounded();
        Receipts {
            sender,
            receiver,
            outstanding: 0,
            outstanding_max,
        }
    }

    /// Allows so many at a time from now on.
    pub fn set_outstanding_max(&mut self, outstanding_max: usize) {
        self.outstanding_max = outstanding_max;
    }

    /// Whether reports wait to be handed on.
    pub fn is_empty(&self) -> bool {
        self.outstanding == 0 || self.receiver.is_empty()
    }

    /// Gives back a receipt whose publication was not published.
    pub fn give_back(&mut self) {
        self.outstanding -= 1;
    }

    /// Takes a report that has come.
    pub fn take(&mut self) -> Option<Reported> {
        if self.outstanding == 0 {
            return None;
        }
        let reported = self.receiver.try_recv().ok()?;
        self.outstanding -= 1;
        Some(reported)
    }

    /// A receipt for a publication of this connection; None if too many are outstanding.
    pub fn hand_out(
        &mut self,
        (shards, reactor): (&Arc<Shards>, ReactorId),
        connection: ConnectionId,
        sequence: u32,
    ) -> Option<Arc<Receipt>> {
        if self.outstanding >= self.outstanding_max {
            return None;
        }
        self.outstanding += 1;
        let (sender, shards) = (self.sender.clone(), Arc::downgrade(shards));
        Some(Arc::new(Receipt::new(Box::new(move |report| {
            let reported = Reported {
                connection,
                sequence,
                report,
            };
            // It fails only if the reactor has ended, and its publishers with it.
            let _ = sender.send(reported);
            if let Some(shards) = shards.upgrade() {
                shards.wake(reactor);
            }
        }))))
    }
}
