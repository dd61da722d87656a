//! The world outside of one reactor, simulated: the network in place of sockets, and the world's clock.
//!
//! A real driver ends each wait after a second, whatever happens. This one waits until an event, a wake or the moment that
//! the reactor asked for, so that a wake which is missing is found.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use umbel::handler::ConnectionId;
use umbel::internals::hub::Effect;
use umbel::internals::net::driver::{Driver, Readiness, Waited};
use umbel::internals::net::listener::Accepted;

use super::network::{Link, Socket};
use super::random::Random;
use super::records::Records;
use super::topics::{Place, placed};

/// The date at which a simulation begins, in milliseconds since 1970.
pub const BEGAN_MS: u64 = 1_700_000_000_000;

/// The least time from one stall to the next: longer than any deadline that a stall may not break.
const STALL_PAUSE_MS: u64 = 150;

/// How long accepting pauses after it failed.
const ACCEPT_PAUSE_MS: u64 = 7;

/// A connection's end at the node.
pub struct Open {
    /// The link's number.
    pub index: usize,
    pub link: Rc<RefCell<Link>>,
    pub id: ConnectionId,
}

pub struct SimulatedDriver {
    /// The moment of the last tick, and of the next.
    now_ms: u64,
    next_ms: u64,
    sleeps_until_ms: u64,
    woken: Arc<AtomicBool>,
    /// Links that wait to be accepted, with their numbers.
    backlog: VecDeque<(usize, Rc<RefCell<Link>>)>,
    /// There is an event of the listener's.
    is_acceptable: bool,
    /// Links may wait that no event announces.
    may_accept: bool,
    is_listening: bool,
    /// The next try to accept fails.
    accept_fails: bool,
    accept_from_ms: u64,
    /// The machine does not let the reactor run until then.
    stalls_until_ms: u64,
    /// Links with edges that were not reported yet.
    edges: VecDeque<usize>,
    /// How many of them the next wait reports.
    reported_max: usize,
    /// What the last wait reported.
    reported: Vec<Readiness>,
    pub open: Vec<Open>,
    /// What each reactor of the node holds, and which of them this one is.
    loads: Rc<[Cell<usize>]>,
    number: usize,
    connections_max: usize,
    /// Connections that were accepted over the cap.
    pub over_cap: u64,
    /// The publishes that the hub handed out, with their places.
    observed: Vec<(usize, Place, Option<u64>)>,
}

impl SimulatedDriver {
    pub fn new(
        woken: Arc<AtomicBool>,
        loads: Rc<[Cell<usize>]>,
        number: usize,
        connections_max: usize,
    ) -> SimulatedDriver {
        SimulatedDriver {
            now_ms: 0,
            next_ms: 0,
            sleeps_until_ms: 0,
            woken,
            backlog: VecDeque::new(),
            is_acceptable: false,
            may_accept: false,
            is_listening: true,
            accept_fails: false,
            accept_from_ms: 0,
            stalls_until_ms: 0,
            edges: VecDeque::new(),
            reported_max: 0,
            reported: Vec::new(),
            open: Vec::new(),
            loads,
            number,
            connections_max,
            over_cap: 0,
            observed: Vec::new(),
        }
    }

    /// A peer connects. False: nobody listens.
    pub fn connect(&mut self, index: usize, link: Rc<RefCell<Link>>) -> bool {
        if self.is_listening {
            self.backlog.push_back((index, link));
            self.is_acceptable = true;
        }
        self.is_listening
    }

    /// Something happened to a link that epoll would report.
    pub fn queue_event(&mut self, index: usize, link: &mut Link) {
        if !link.is_queued {
            link.is_queued = true;
            self.edges.push_back(index);
        }
    }

    /// Something has ended its wait.
    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst) || !self.edges.is_empty() || self.is_acceptable
    }

    /// Whether it can run.
    pub fn is_awake(&self, now_ms: u64) -> bool {
        now_ms >= self.wakes_ms()
    }

    /// When it runs, if nothing happens before.
    pub fn wakes_ms(&self) -> u64 {
        let wakes_ms = if self.is_woken() {
            0
        } else {
            self.sleeps_until_ms
        };
        wakes_ms.max(self.stalls_until_ms)
    }

    /// The machine has no time for it until then. False: not again so soon.
    pub fn stall(&mut self, now_ms: u64, until_ms: u64) -> bool {
        let may_stall = now_ms >= self.stalls_until_ms + STALL_PAUSE_MS;
        if may_stall {
            self.stalls_until_ms = until_ms;
        }
        may_stall
    }

    pub fn is_stalled(&self, now_ms: u64) -> bool {
        now_ms < self.stalls_until_ms
    }

    /// Links wait to be accepted, and neither an event nor the time will tell.
    pub fn forgets_links(&self, now_ms: u64) -> bool {
        !self.backlog.is_empty() && self.wakes_ms() > now_ms + ACCEPT_PAUSE_MS
    }

    /// The next try to accept fails.
    pub fn fail_accept(&mut self) {
        self.accept_fails = true;
    }

    /// The next tick runs at this moment, and sees some of the events.
    pub fn wake_up(&mut self, now_ms: u64, random: &mut Random) {
        self.next_ms = now_ms;
        self.reported_max = match random.chance(70) {
            true => self.edges.len(),
            false => random.below(self.edges.len() + 1),
        };
    }

    /// The tick is over, and the next one may wait for so long.
    pub fn sleep(&mut self, wait_ms: u64) {
        self.sleeps_until_ms = self.now_ms.saturating_add(wait_ms);
    }

    /// Writes down where the publishes stand that the last tick saw.
    pub fn note_places(&mut self, records: &mut Records) {
        for (number, place, expires_ms) in self.observed.drain(..) {
            records.place_at(number, place);
            records.publishes[number].expires_ms = expires_ms;
        }
    }
}

impl Driver for SimulatedDriver {
    type Transport = Socket;

    /// The wait is over by the time of the call. What it was said to take when the last tick ended is what it may take
    /// now, or less when mail has come.
    fn wait(&mut self, wait_ms: u64) -> io::Result<Waited> {
        assert!(
            self.now_ms.saturating_add(wait_ms) <= self.sleeps_until_ms,
            "it sleeps from {} until {} ms, and wants to sleep for {wait_ms} ms",
            self.now_ms,
            self.sleeps_until_ms
        );
        self.now_ms = self.next_ms;
        self.woken.store(false, Ordering::SeqCst);
        self.reported.clear();
        let count = std::mem::take(&mut self.reported_max);
        for index in self.edges.drain(..count) {
            let Some(open) = self.open.iter().find(|open| open.index == index) else {
                continue;
            };
            let mut link = open.link.borrow_mut();
            link.is_queued = false;
            self.reported.push(link.readiness(open.id));
        }
        Ok(Waited {
            now_ms: self.now_ms,
            now_us: self.now_us(),
            is_caught_up: self.edges.is_empty(),
        })
    }

    fn events(&mut self) -> impl Iterator<Item = Readiness> {
        self.may_accept |= std::mem::take(&mut self.is_acceptable);
        self.reported.drain(..)
    }

    fn accept(&mut self, _: usize, now_ms: u64) -> Accepted<Socket> {
        if !self.may_accept || now_ms < self.accept_from_ms {
            return Accepted::Nothing;
        }
        if std::mem::take(&mut self.accept_fails) {
            self.accept_from_ms = now_ms + ACCEPT_PAUSE_MS;
            return Accepted::Elsewhere;
        }
        match self.backlog.pop_front() {
            Some((index, link)) => Accepted::Connection(Socket { index, link }, 0),
            None => {
                self.may_accept = false;
                Accepted::Nothing
            }
        }
    }

    fn register(&mut self, socket: &mut Socket, id: ConnectionId) -> io::Result<()> {
        let (index, link) = (socket.index, Rc::clone(&socket.link));
        self.over_cap += u64::from(self.total() >= self.connections_max);
        // A fresh registration reports what is ready already.
        link.borrow_mut().is_queued = true;
        self.edges.push_back(index);
        self.open.push(Open { index, link, id });
        Ok(())
    }

    fn release(&mut self, socket: &mut Socket) {
        let at = self.open.iter().position(|open| open.index == socket.index);
        self.open.remove(at.expect("it is released once"));
    }

    fn next_accept_ms(&self) -> Option<u64> {
        self.may_accept.then_some(self.accept_from_ms)
    }

    fn stop_accepting(&mut self, _: &dyn Fn(u8) -> bool) {
        self.is_listening = false;
        self.is_acceptable = false;
        self.may_accept = false;
        for (_, link) in self.backlog.drain(..) {
            link.borrow_mut().break_off();
        }
    }

    fn set_load(&mut self, load: usize) {
        self.loads[self.number].set(load);
    }

    fn total(&self) -> usize {
        self.loads.iter().map(Cell::get).sum()
    }

    fn now_us(&self) -> u64 {
        self.now_ms * 1000
    }

    fn wall_ms(&self) -> u64 {
        BEGAN_MS + self.now_ms
    }

    /// What the hub hands out says where each publish stands.
    fn observe(&mut self, effect: &Effect) {
        match effect {
            Effect::Deliver { publication, .. } => self.observed.extend(placed(publication)),
            Effect::Joined { joined, .. } => {
                let publications = joined.publications.iter();
                self.observed
                    .extend(publications.filter_map(|it| placed(it)));
            }
            Effect::Read { page, .. } => {
                let publications = page.publications.iter();
                self.observed
                    .extend(publications.filter_map(|it| placed(it)));
            }
            _ => {}
        }
    }
}
