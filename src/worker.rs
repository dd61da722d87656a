//! Runs the hub's shards: on worker threads, over crossbeam channels, or at once on the thread that brings a command.
//!
//! Every shard has a bounded queue of commands and a lock around its state. Whoever holds the lock empties the queue,
//! so commands are carried out in the order in which they entered it, whichever threads do the work. A thread that
//! finds the lock taken leaves: its command is in the queue, and the holder looks at the queue again after it has let
//! go of the lock.
//!
//! Effects go to [`Outlet`]s, the reactors' mailboxes. A full one stalls the shard: it keeps the effect, takes no
//! further command until the mailbox has room, and its filling queue then holds publishers back. Nobody blocks.

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState};
use std::sync::{Arc, TryLockError};

use crate::hub::{Command, CommandRoute, Effect, KeyBudget, ReactorId, Shard, ShardSettings};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::{Mutex, MutexGuard, Receiver, Sender, TrySendError, bounded};
use crate::topic::Topic;
use patterns::SharedPatterns;

mod patterns;

/// Visits after which the thread that runs a shard turns to its own work again; a worker goes on. They are what
/// publications cost by patterns, each another node of the table of patterns.
const VISITS_PER_RUN: usize = 256 * VISITS_PER_COMMAND;

/// Visits that a command counts as, besides those that it makes: it takes about as long.
const VISITS_PER_COMMAND: usize = 8;

/// Visits after which a reactor leaves its commands to the workers, until its next tick.
const VISITS_PER_TICK: usize = 64 * 1024;

/// Queue of the shards that a worker is to run.
pub type WorkQueue = Receiver<usize>;

/// Receiver of the effects for one reactor.
pub trait Outlet: Send + Sync {
    /// Hands over an effect, brought by reactor `from`.
    ///
    /// # Errors
    /// Gives the effect back when there is no room. [`Shards::resume`] must be called once there is.
    fn offer(&self, effect: Effect, from: Option<ReactorId>) -> Result<(), Effect>;

    /// Wakes the reactor so that it tries again what [`Shards::submit`] did not take.
    fn wake(&self);
}

/// Limits of a shard's queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Commands.
    pub commands_max: usize,
    /// Bytes of publications in them.
    pub bytes_max: usize,
}

/// All shards of the hub, shared by all threads.
pub struct Shards {
    cells: Box<[Cell]>,
    outlets: Box<[Box<dyn Outlet>]>,
    /// For subscriptions of the program itself.
    inside: Option<Box<dyn Outlet>>,
    shard_map: ShardMap,
    bytes_max: usize,
    /// Room for idempotency keys.
    keys: Arc<KeyBudget>,
    /// Bytes of members of topics, of all shards.
    presence_bytes: AtomicUsize,
    /// Of each reactor. Only its own thread writes.
    tick_visits: Box<[TickVisits]>,
    /// Patterns of all connections.
    pub patterns: SharedPatterns,
    /// Shards that a worker is to run; each stands in it at most once, so it never fills up.
    work: Sender<usize>,
    inline: bool,
}

/// Shards for each thread that may run one, so that two busy threads seldom want the same.
const SHARDS_PER_THREAD: usize = 4;

/// Number of shards of a server with so many reactors and workers.
pub fn shard_count(reactors: usize, workers: usize) -> usize {
    (reactors + workers) * SHARDS_PER_THREAD
}

/// Counts of the hub, added up over its shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubCounts {
    /// Publications that were given their place since the start.
    pub publications: u64,
    /// Commands that wait.
    pub queued: usize,
    /// Topics with subscribers, with somebody present, or with a history.
    pub topics: usize,
    /// Bytes that count towards what histories may hold.
    pub history_bytes: usize,
    /// Publications in histories.
    pub history_publications: usize,
    /// Bytes that the members of topics with presence count as.
    pub presence_bytes: usize,
    /// Bytes that count towards what idempotency keys may hold.
    pub idempotency_bytes: usize,
    /// Patterns with subscribers; equal ones of several reactors count once.
    pub patterns: usize,
    /// Bytes that count towards what patterns may hold.
    pub pattern_bytes: usize,
}

/// Visits of the commands that one reactor has carried out in its tick, in a cache line of its own.
#[repr(align(64))]
#[derive(Default)]
struct TickVisits(AtomicUsize);

/// How topics spread over the shards.
enum ShardMap {
    /// Differently in each run, so that nobody outside can choose topics of one shard.
    Random(RandomState),
    /// The same in each run.
    Fixed(BuildHasherDefault<DefaultHasher>),
}

impl ShardMap {
    fn hash(&self, topic: &Topic) -> u64 {
        match self {
            ShardMap::Random(state) => state.hash_one(topic),
            ShardMap::Fixed(state) => state.hash_one(topic),
        }
    }
}

struct Cell {
    state: Mutex<State>,
    enqueue: Sender<Command>,
    queue: Receiver<Command>,
    /// Counted in an order with `turned_away`: who made room sees the flag of him who found none.
    queued_bytes: AtomicUsize,
    // Flags are swapped, never stored: who takes one sees what all of those did who found it set or set it.
    /// It stands in `work`.
    scheduled: AtomicBool,
    /// An outlet was full.
    stalled: AtomicBool,
    /// Somebody was turned away from the full queue and wants to be woken.
    turned_away: AtomicBool,
    /// Written by whoever holds the lock, for scrapes, which do not take it.
    publications: AtomicU64,
    topics: AtomicUsize,
    history_bytes: AtomicUsize,
    history_publications: AtomicUsize,
    presence_bytes: AtomicUsize,
}

struct State {
    shard: Shard,
    effects: Vec<Effect>,
    /// Effects of the last command that found no room.
    unsent: VecDeque<Effect>,
}

enum Run {
    /// The queue was empty.
    Drained,
    /// An outlet is full.
    Stalled,
    /// There may be more to do.
    Paused,
}

impl Shards {
    /// Shards for the outlets of all reactors, in the reactors' order. `first_epochs` has one number for each shard, as
    /// [`Shard::new`] wants them. The bytes of histories in `settings` are those of all shards together; each gets an
    /// equal part. The receiver is the workers' common queue: give each a clone.
    pub fn new(
        first_epochs: &[u64],
        outlets: Vec<Box<dyn Outlet>>,
        limits: QueueLimits,
        settings: &ShardSettings,
        inline: bool,
    ) -> (Shards, WorkQueue) {
        let (work, worker) = bounded(first_epochs.len());
        let settings = ShardSettings {
            history_bytes_max: settings.history_bytes_max / first_epochs.len().max(1),
            ..settings.clone()
        };
        let cells = first_epochs.iter().map(|&first_epoch| {
            let (enqueue, queue) = bounded(limits.commands_max);
            Cell {
                state: Mutex::new(State {
                    shard: Shard::new(first_epoch, settings.clone()),
                    effects: Vec::new(),
                    unsent: VecDeque::new(),
                }),
                enqueue,
                queue,
                queued_bytes: AtomicUsize::new(0),
                scheduled: AtomicBool::new(false),
                stalled: AtomicBool::new(false),
                turned_away: AtomicBool::new(false),
                publications: AtomicU64::new(0),
                topics: AtomicUsize::new(0),
                history_bytes: AtomicUsize::new(0),
                history_publications: AtomicUsize::new(0),
                presence_bytes: AtomicUsize::new(0),
            }
        });
        let shards = Shards {
            cells: cells.collect(),
            tick_visits: outlets.iter().map(|_| TickVisits::default()).collect(),
            patterns: SharedPatterns::new(),
            outlets: outlets.into(),
            inside: None,
            shard_map: ShardMap::Random(RandomState::new()),
            keys: Arc::clone(&settings.keys.budget),
            presence_bytes: AtomicUsize::new(0),
            bytes_max: limits.bytes_max,
            work,
            inline,
        };
        (shards, worker)
    }

    /// These shards with a fixed spread of topics, for simulations that repeat.
    #[must_use]
    pub fn repeatable(mut self) -> Shards {
        self.shard_map = ShardMap::Fixed(BuildHasherDefault::default());
        self
    }

    /// These shards with an outlet for [`ReactorId::INSIDE`], the program's own subscriptions.
    #[must_use]
    pub fn with_inside(mut self, outlet: Box<dyn Outlet>) -> Shards {
        self.inside = Some(outlet);
        self
    }

    /// Number of shards. Their numbers begin at 0.
    pub fn shard_count(&self) -> u32 {
        self.cells.len() as u32
    }

    /// Hands a command to its shard. `from` is the reactor that brings it.
    ///
    /// # Errors
    /// Gives the command back when the shard's queue is full; all outlets are woken when it has room again.
    pub fn submit(&self, command: Command, from: Option<ReactorId>) -> Result<(), Command> {
        let number = match command.route() {
            CommandRoute::Topic(topic) => self.shard_map.hash(topic) as usize,
            CommandRoute::Shard(number) => number as usize,
        };
        let index = number % self.cells.len();
        let cell = &self.cells[index];
        let is_inline = self.inline && self.visits_left(from) > 0;
        let outcome = cell.push(command, self.bytes_max).or_else(|command| {
            cell.turned_away.swap(true, Ordering::SeqCst);
            if is_inline {
                self.run(index, from);
            }
            // Room may have been made before the flag was seen.
            cell.push(command, self.bytes_max)
        });
        if is_inline {
            fence(Ordering::SeqCst);
            self.run(index, from);
        } else {
            self.schedule(index);
        }
        outcome
    }

    /// Settings of one shard, of those of all together.
    pub fn share_of(&self, settings: &ShardSettings) -> ShardSettings {
        ShardSettings {
            history_bytes_max: settings.history_bytes_max / self.cells.len().max(1),
            ..settings.clone()
        }
    }

    /// A reactor begins a tick: again it carries out commands itself, as many as a tick is to last.
    pub fn begin_tick(&self, reactor: ReactorId) {
        if let Some(TickVisits(visits)) = self.tick_visits.get(usize::from(reactor.0)) {
            visits.store(0, Ordering::Relaxed);
        }
    }

    /// Visits that whoever brings commands may still make for them.
    fn visits_left(&self, from: Option<ReactorId>) -> usize {
        let visits = from.and_then(|reactor| self.tick_visits.get(usize::from(reactor.0)));
        visits.map_or(VISITS_PER_RUN, |TickVisits(visits)| {
            VISITS_PER_TICK.saturating_sub(visits.load(Ordering::Relaxed))
        })
    }

    fn count_visits(&self, from: Option<ReactorId>, count: usize) {
        if let Some(reactor) = from
            && let Some(TickVisits(visits)) = self.tick_visits.get(usize::from(reactor.0))
        {
            visits.store(visits.load(Ordering::Relaxed) + count, Ordering::Relaxed);
        }
    }

    /// Wakes a reactor, for what comes to it by another way.
    pub fn wake(&self, reactor: ReactorId) {
        if let Some(outlet) = self.outlets.get(usize::from(reactor.0)) {
            outlet.wake();
        }
    }

    /// Wakes all reactors, for what concerns each of them.
    pub fn wake_all(&self) {
        self.outlets.iter().for_each(|outlet| outlet.wake());
    }

    /// An outlet that was full has room again.
    pub fn resume(&self) {
        for (index, cell) in self.cells.iter().enumerate() {
            if cell.stalled.swap(false, Ordering::SeqCst) {
                self.schedule(index);
            }
        }
    }

    /// A worker thread: runs what is scheduled until all senders of `work` are gone or [`Shards::stop`] is called.
    pub fn work(&self, work: &WorkQueue) {
        while let Ok(index) = work.recv() {
            if !self.run_scheduled(index) {
                return;
            }
        }
    }

    /// Runs what was received from the workers' queue. False: it was an order to stop.
    pub fn run_scheduled(&self, index: usize) -> bool {
        let Some(cell) = self.cells.get(index) else {
            return false;
        };
        cell.scheduled.swap(false, Ordering::SeqCst);
        // Pairs with the fence in `run`: either this finds the lock free, or its holder sees what this has come for.
        fence(Ordering::SeqCst);
        self.run(index, None);
        true
    }

    /// Ends one worker thread when it is idle.
    ///
    /// # Errors
    /// False when the queue has no room for it at the moment.
    pub fn stop(&self) -> bool {
        self.work.try_send(usize::MAX).is_ok()
    }

    /// Whether idempotency keys are remembered.
    pub fn has_keys(&self) -> bool {
        self.keys.bytes() > 0
    }

    /// Commands that wait, over all shards.
    pub fn queued(&self) -> usize {
        self.cells.iter().map(|cell| cell.queue.len()).sum()
    }

    /// Drops all commands and effects that wait: the server has ended.
    pub fn forget_all(&self) {
        for cell in &self.cells {
            while let Ok(command) = cell.queue.try_recv() {
                cell.queued_bytes
                    .fetch_sub(command.bytes(), Ordering::AcqRel);
            }
            // Whoever holds the lock hands what is unsent to mailboxes that have ended, which forget it.
            if let Some(mut state) = cell.try_lock() {
                state.unsent.clear();
            }
        }
    }

    /// Whether all earlier commands are carried out and their effects handed over.
    pub fn is_idle(&self) -> bool {
        (0..self.cells.len()).all(|index| self.is_shard_idle(index))
    }

    fn is_shard_idle(&self, index: usize) -> bool {
        let cell = &self.cells[index];
        if !cell.queue.is_empty() {
            return false;
        }
        // What is no longer in the queue is done once nobody holds the lock.
        let is_done = cell.try_lock().map(|state| state.unsent.is_empty());
        // Who found the lock taken by this look has left the work to its holder.
        fence(Ordering::SeqCst);
        let has_room_again = is_done == Some(false) && !cell.stalled.load(Ordering::SeqCst);
        if !cell.queue.is_empty() || has_room_again {
            self.schedule(index);
        }
        is_done == Some(true)
    }

    /// Bytes that the members of all topics with presence count as.
    pub fn presence_bytes(&self) -> usize {
        self.presence_bytes.load(Ordering::Relaxed)
    }

    /// Counts of the hub.
    pub fn counts(&self) -> HubCounts {
        let load = |cell: &Cell| cell.publications.load(Ordering::Relaxed);
        let sum = |count: fn(&Cell) -> &AtomicUsize| {
            let counts = self.cells.iter().map(count);
            counts.map(|count| count.load(Ordering::Relaxed)).sum()
        };
        HubCounts {
            publications: self.cells.iter().map(load).sum(),
            queued: self.queued(),
            topics: sum(|cell| &cell.topics),
            history_bytes: sum(|cell| &cell.history_bytes),
            history_publications: sum(|cell| &cell.history_publications),
            presence_bytes: self.presence_bytes(),
            idempotency_bytes: self.keys.bytes(),
            patterns: self.patterns.len(),
            pattern_bytes: self.patterns.bytes(),
        }
    }

    fn schedule(&self, index: usize) {
        if !self.cells[index].scheduled.swap(true, Ordering::SeqCst)
            && let Err(TrySendError::Full(_)) = self.work.try_send(index)
        {
            // Only a stop order can stand in its place, and then nobody waits for the work.
            self.cells[index].scheduled.swap(false, Ordering::SeqCst);
        }
    }

    /// Empties the shard's queue unless another thread is at it.
    fn run(&self, index: usize, from: Option<ReactorId>) {
        let cell = &self.cells[index];
        loop {
            let Some(mut state) = cell.try_lock() else {
                return;
            };
            let (run, has_room) = self.drain(cell, &mut state, from);
            drop(state);
            if has_room && cell.turned_away.swap(false, Ordering::SeqCst) {
                let outlets = self.outlets.iter().chain(&self.inside);
                outlets.for_each(|outlet| outlet.wake());
            }
            // Pairs with the fences of those who come: either this sees what for, or they find the lock free.
            fence(Ordering::SeqCst);
            match run {
                Run::Drained if cell.queue.is_empty() => return,
                Run::Drained => {}
                // Once there is room again, whoever resumes the shard sees it scheduled. But a worker that came while
                // the lock was held here has left, so then it goes on here.
                Run::Stalled if cell.stalled.load(Ordering::SeqCst) => return,
                Run::Stalled => {}
                Run::Paused => return self.schedule(index),
            }
        }
    }

    /// Carries out commands until their visits are as many as a run may have; says too whether it took any, so that the
    /// queue has room.
    fn drain(&self, cell: &Cell, state: &mut State, from: Option<ReactorId>) -> (Run, bool) {
        let (mut visits, visits_max) = (0, self.visits_left(from).min(VISITS_PER_RUN));
        while visits < visits_max {
            if !self.send(cell, state, from) {
                return (Run::Stalled, visits > 0);
            }
            let Ok(command) = cell.queue.try_recv() else {
                return (Run::Drained, true);
            };
            cell.queued_bytes
                .fetch_sub(command.bytes(), Ordering::AcqRel);
            let made = state
                .shard
                .handle_command(command, &self.patterns, &mut state.effects);
            self.count_visits(from, VISITS_PER_COMMAND + made);
            visits += VISITS_PER_COMMAND + made;
            cell.show(&state.shard, &self.presence_bytes);
            state.unsent.extend(state.effects.drain(..));
        }
        let run = if self.send(cell, state, from) {
            Run::Paused
        } else {
            Run::Stalled
        };
        (run, true)
    }

    /// Hands effects over; false if an outlet is full.
    fn send(&self, cell: &Cell, state: &mut State, from: Option<ReactorId>) -> bool {
        while let Some(effect) = state.unsent.pop_front() {
            let outlet = self.outlets.get(usize::from(effect.reactor().0));
            let Some(outlet) = outlet.or(self.inside.as_ref()) else {
                continue;
            };
            let Err(effect) = outlet.offer(effect, from) else {
                continue;
            };
            cell.stalled.swap(true, Ordering::SeqCst);
            // Room may have been made, and `resume` called, before the flag was set.
            if let Err(effect) = outlet.offer(effect, from) {
                state.unsent.push_front(effect);
                return false;
            }
        }
        true
    }
}

impl Cell {
    fn push(&self, command: Command, bytes_max: usize) -> Result<(), Command> {
        let bytes = command.bytes();
        // One publication always fits, whatever its size.
        let before = self.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        if before > 0 && before + bytes > bytes_max {
            self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
            return Err(command);
        }
        self.enqueue.try_send(command).map_err(|error| {
            self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
            error.into_inner()
        })
    }

    /// Shows what the shard counts, for scrapes; `presence_bytes` is the sum of all shards.
    fn show(&self, shard: &Shard, presence_bytes: &AtomicUsize) {
        self.publications
            .store(shard.publications(), Ordering::Relaxed);
        for (cell, count) in [
            (&self.topics, shard.topic_count()),
            (&self.history_bytes, shard.history_bytes()),
            (&self.history_publications, shard.history_publications()),
        ] {
            cell.store(count, Ordering::Relaxed);
        }
        let (before, now) = (
            self.presence_bytes.load(Ordering::Relaxed),
            shard.presence_bytes(),
        );
        if now != before {
            self.presence_bytes.store(now, Ordering::Relaxed);
            presence_bytes.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// A panic while the lock was held ends the process, so whoever still comes here may go on.
    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[cfg(all(test, loom))]
mod interleavings;
#[cfg(all(test, not(loom)))]
mod tests;
