//! Work on connections from outside of their own traffic: jobs, terms, rights judged anew, the drain.
//!
//! All of it reaches connections by [`Slots`], which the reactor's slab is.

mod denied;
pub mod drain;
pub mod ended;
pub mod jobs;
pub mod judging;
mod managed;
pub mod memory;
pub mod paces;
pub mod reload;
pub mod renewals;
pub mod terms;
pub mod tracing;

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::application::{Application, ConnectionContext, PeerAddress};
use crate::auth::identity::Identity;
use crate::auth::table::IdentityHandle;
use crate::connection::Connection;
use crate::fanout::subscribed::Subscribed;
use crate::handler::ConnectionId;
use crate::rate::pace::PaceRules;
use crate::shared::jobs::{Job, Traffic};
use crate::shared::paces::Paces;
use crate::shared::timers::Timers;
use crate::trace::Watch;
use drain::Drain;

/// Slots that all jobs, or a drain, look at in one tick.
const SLOTS_PER_TICK: usize = 16_384;

/// Work on many connections that is under way on a reactor.
#[derive(Debug, Default)]
pub struct Upkeep {
    /// Jobs.
    pub(crate) jobs: VecDeque<Box<Job>>,
    /// After a reload: the next slot whose rights are to be judged again.
    pub(crate) judge_from: Option<u32>,
    /// The look at connections that the deny list denies.
    denied: denied::Look,
    /// Rates of what connections send.
    pub(crate) paces: Paces,
    /// Moments at which connections are as old as they may get.
    pub(crate) ages: Timers,
    /// The drain.
    pub(crate) drain: Option<Drain>,
    /// Paced closing while the server is out of service.
    pub(crate) absence: Option<Drain>,
    /// Traces.
    pub(crate) tracing: Watch,
}

impl Upkeep {
    /// With these rates of what connections send.
    pub fn new(rules: &PaceRules) -> Upkeep {
        let mut upkeep = Upkeep::default();
        upkeep.paces.take_rules(rules);
        upkeep
    }

    /// The next moment at which a connection is to be looked at.
    pub fn next_ms(&self) -> u64 {
        let next_ms = self.paces.next_ms().min(self.ages.next_ms());
        next_ms.min(self.tracing.next_ms())
    }

    /// A connection is gone.
    pub fn forget(&mut self, index: u32) {
        self.paces.forget(index);
        if !self.ages.is_empty() {
            self.ages.remove(index);
        }
        self.tracing.forget(index);
    }

    /// Whether there is work that no event will announce.
    pub fn has_work(&self) -> bool {
        self.judge_from.is_some()
            || !self.jobs.is_empty()
            || self.tracing.scan_from.is_some()
            || self.denied.is_under_way()
    }
}

/// An open connection, to be looked at.
pub struct Seen<'a> {
    /// Its name.
    pub id: ConnectionId,
    /// The number of the listener that it came by.
    pub listener: u8,
    /// Its state machine.
    pub connection: &'a Connection,
    /// Identity of its opener, or of its request's sender.
    pub identity: IdentityHandle,
    /// Its subscriptions.
    pub subscribed: Subscribed,
    /// Address of its client.
    pub peer_address: PeerAddress<'a>,
    /// Its bytes, which are asked for only where it matters.
    pub traffic: &'a dyn Fn() -> Option<Traffic>,
}

impl Seen<'_> {
    /// Its identity, if it has one.
    fn identity_in<'a>(&self, application: &'a Application) -> Option<&'a Identity> {
        let caller = application.identities.get(self.identity);
        caller.identity().map(|identity| &**identity)
    }

    /// IP address of its client, if it is known.
    fn client_ip(&self) -> Option<IpAddr> {
        let address = (self.peer_address)().ok().flatten();
        address.map(|address| address.ip().to_canonical())
    }
}

/// The connections of a reactor, by the indexes of their slots.
pub trait Slots {
    /// Handler of their events.
    fn application(&self) -> &Application;

    /// The same, to change.
    fn application_mut(&mut self) -> &mut Application;

    /// What is under way.
    fn upkeep(&mut self) -> &mut Upkeep;

    /// Connections, those that are ending included.
    fn count(&self) -> usize;

    /// The index behind the last slot.
    fn end(&self) -> u32;

    /// Looks at the connection at an index. None: there is no open one.
    fn look<R>(&self, index: u32, look: impl FnOnce(&Application, &Seen<'_>) -> R) -> Option<R>;

    /// Works on the connection at an index, and writes what comes of it. None: there is no open one.
    fn visit<R>(
        &mut self,
        index: u32,
        now_ms: u64,
        work: impl FnOnce(&mut Application, &mut ConnectionContext<'_>) -> R,
    ) -> Option<R>;
}
