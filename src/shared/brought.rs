//! Commands for a connection that somebody else than its peer brings: a request that acts for it, on whatever reactor or
//! thread.
//!
//! They are carried out on the reactor that owns the connection, as if its peer had sent them, and their replies go to the
//! connection. Each reactor has a bounded queue of them. Whoever finds it full gets the command back; whoever brings one
//! for a connection that is gone, or that takes no commands, is told.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Shared;
use super::jobs::{Cursor, Job};
use crate::config::Limits;
use crate::connection::Reply;
use crate::dialect::Command;
use crate::handler::{CloseCode, ConnectionId, Done, PeerCommand, PeerError, PeerMail};
use crate::hub::ReactorId;
use crate::worker::Shards;

/// Outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was carried out, or its connection was told why not.
    CarriedOut,
    /// Its connection is gone, or takes no commands.
    Gone,
}

/// Callback for its fate. It runs on the reactor that owns the connection.
pub type OnFate = dyn FnOnce(Fate) + Send;

/// Work for a connection.
#[derive(Debug)]
pub enum Work {
    /// A command of its dialect.
    Command(Command<'static>),
    /// Of the program's handle of it.
    Peer(PeerCommand),
    /// The program ends it, whatever it is.
    Disconnect(CloseCode, Cow<'static, str>),
    /// The answer to the request that it waits with.
    Respond(Reply),
    /// Work on connections of its reactor, whether there is one of its name or not.
    Job(Box<Job>),
    /// Connections of its reactor with the largest outboxes end, until so many bytes are gone.
    Shed(u64),
}

/// A command for a connection.
pub struct BroughtCommand {
    connection: ConnectionId,
    command: Option<Work>,
    bytes: usize,
    on_fate: Option<Box<OnFate>>,
}

impl BroughtCommand {
    /// One for this connection. `on_fate` is called once, unless the command is given back: it must not wait.
    pub fn new(
        connection: ConnectionId,
        command: Command<'static>,
        on_fate: impl FnOnce(Fate) + Send + 'static,
    ) -> BroughtCommand {
        BroughtCommand {
            connection,
            bytes: command.bytes(),
            command: Some(Work::Command(command)),
            on_fate: Some(Box::new(on_fate)),
        }
    }

    /// One that ends the connection, for the program.
    pub(crate) fn disconnect(
        connection: ConnectionId,
        code: CloseCode,
        reason: Cow<'static, str>,
    ) -> BroughtCommand {
        BroughtCommand {
            connection,
            bytes: reason.len(),
            command: Some(Work::Disconnect(code, reason)),
            on_fate: None,
        }
    }

    /// One that answers a request of the connection's.
    pub(crate) fn respond(connection: ConnectionId, reply: Reply) -> BroughtCommand {
        BroughtCommand {
            connection,
            bytes: reply.body.len(),
            command: Some(Work::Respond(reply)),
            on_fate: None,
        }
    }

    /// A job for a reactor, which holds so many bytes.
    pub(super) fn job(reactor: u16, job: Box<Job>, bytes: usize) -> BroughtCommand {
        BroughtCommand {
            connection: ConnectionId::from_bits(reactor, 0),
            bytes,
            command: Some(Work::Job(job)),
            on_fate: None,
        }
    }

    /// An order to a reactor to shed so many bytes of its outboxes.
    fn shed(reactor: u16, bytes: u64) -> BroughtCommand {
        BroughtCommand {
            connection: ConnectionId::from_bits(reactor, 0),
            bytes: 0,
            command: Some(Work::Shed(bytes)),
            on_fate: None,
        }
    }

    /// One of a handle's. `done` is called once it is carried out, or never will be.
    fn of_handle(connection: ConnectionId, command: PeerCommand, done: Done) -> BroughtCommand {
        BroughtCommand {
            connection,
            bytes: command.bytes(),
            command: Some(Work::Peer(command)),
            on_fate: Some(Box::new(|_| done())),
        }
    }

    /// The connection.
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// Carries it out by `work`, and tells the fate.
    pub fn carry_out(mut self, work: impl FnOnce(Work) -> Fate) {
        let fate = self.command.take().map_or(Fate::Gone, work);
        self.tell(fate);
    }

    fn tell(&mut self, fate: Fate) {
        if let Some(on_fate) = self.on_fate.take() {
            on_fate(fate);
        }
    }
}

impl Drop for BroughtCommand {
    /// Nobody is left to carry it out.
    fn drop(&mut self) {
        self.tell(Fate::Gone);
    }
}

impl fmt::Debug for BroughtCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroughtCommand")
            .field("connection", &self.connection)
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

/// The queues of all reactors.
#[derive(Debug)]
pub struct CommandQueues {
    queues: Box<[CommandQueue]>,
    bytes_max: usize,
}

#[derive(Debug)]
struct CommandQueue {
    sender: Sender<BroughtCommand>,
    receiver: Receiver<BroughtCommand>,
    bytes: AtomicUsize,
    /// The reactor has ended.
    ended: AtomicBool,
}

impl CommandQueues {
    /// One for each reactor, as long as a mailbox may be.
    pub fn new(reactors: usize, limits: &Limits) -> CommandQueues {
        let queue = || {
            let (sender, receiver) = bounded(limits.mailbox_messages_max);
            CommandQueue {
                sender,
                receiver,
                bytes: AtomicUsize::new(0),
                ended: AtomicBool::new(false),
            }
        };
        CommandQueues {
            queues: (0..reactors).map(|_| queue()).collect(),
            bytes_max: limits.mailbox_bytes_max,
        }
    }

    fn push(&self, command: BroughtCommand) -> Result<(), BroughtCommand> {
        let Some(queue) = self.queues.get(usize::from(command.connection.reactor)) else {
            // There is no such reactor, and so no such connection.
            return Ok(());
        };
        if queue.ended.load(Ordering::SeqCst) {
            return Ok(());
        }
        let bytes = command.bytes;
        // One command always fits, whatever its size.
        let before = queue.bytes.fetch_add(bytes, Ordering::Relaxed);
        let outcome = match before > 0 && before + bytes > self.bytes_max {
            true => Err(command),
            false => queue.sender.try_send(command).map_err(|it| it.into_inner()),
        };
        if outcome.is_err() {
            queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        // If the reactor ended meanwhile it may not have seen this one any more.
        if queue.ended.load(Ordering::SeqCst) {
            queue.forget_all();
        }
        outcome
    }
}

impl CommandQueue {
    fn take(&self) -> Option<BroughtCommand> {
        let command = self.receiver.try_recv().ok()?;
        self.bytes.fetch_sub(command.bytes, Ordering::Relaxed);
        Some(command)
    }

    fn forget_all(&self) {
        while self.take().is_some() {}
    }
}

/// Commands that are brought to one reactor.
#[derive(Debug)]
pub struct CommandInbox {
    queues: Arc<CommandQueues>,
    reactor: usize,
}

impl CommandInbox {
    /// That of a reactor.
    pub fn new(queues: &Arc<CommandQueues>, reactor: ReactorId) -> CommandInbox {
        CommandInbox {
            queues: Arc::clone(queues),
            reactor: usize::from(reactor.0),
        }
    }

    fn queue(&self) -> &CommandQueue {
        &self.queues.queues[self.reactor]
    }

    /// The next command.
    pub fn take(&self) -> Option<BroughtCommand> {
        self.queue().take()
    }

    /// Commands that wait.
    pub fn len(&self) -> usize {
        self.queue().receiver.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queue().receiver.is_empty()
    }
}

impl Drop for CommandInbox {
    fn drop(&mut self) {
        self.queue().ended.store(true, Ordering::SeqCst);
        self.queue().forget_all();
    }
}

/// The way of handles' commands.
struct Courier {
    commands: Arc<CommandQueues>,
    shards: Arc<Shards>,
}

impl PeerMail for Courier {
    fn bring(&self, to: ConnectionId, command: PeerCommand, done: Done) -> Result<(), PeerError> {
        let command = BroughtCommand::of_handle(to, command, done);
        let outcome = self.commands.push(command);
        outcome.map_err(|_| PeerError::Busy)?;
        self.shards.wake(ReactorId(to.reactor));
        Ok(())
    }
}

impl Shared {
    /// Has a reactor shed so many bytes of its outboxes. One that is too busy is told again.
    pub fn shed_outboxes(&self, reactor: u16, bytes: u64) {
        let _ = self.bring(BroughtCommand::shed(reactor, bytes));
    }

    /// The way to the reactors for handles of connections.
    pub(crate) fn peer_mail(&self) -> Arc<dyn PeerMail> {
        Arc::new(Courier {
            commands: Arc::clone(&self.commands),
            shards: Arc::clone(&self.shards),
        })
    }

    /// Brings a command to the reactor that owns its connection.
    ///
    /// # Errors
    /// Gives it back, its fate untold, if too many wait there.
    pub fn bring(&self, command: BroughtCommand) -> Result<(), BroughtCommand> {
        let reactor = ReactorId(command.connection.reactor);
        self.commands.push(command)?;
        self.shards.wake(reactor);
        Ok(())
    }
}

impl Shared {
    /// Sends a job to the reactor that its cursor names. One behind the last reactor is finished; one that finds no room
    /// is dropped, which tells whoever waits for it.
    ///
    /// False: it found none.
    pub fn send_job(&self, job: Box<Job>) -> bool {
        let reactor = job.cursor.reactor;
        if usize::from(reactor) >= self.metrics.reactor_count() {
            job.finish();
            return true;
        }
        let bytes = job.task.bytes();
        self.bring(BroughtCommand::job(reactor, job, bytes)).is_ok()
    }

    /// Hands a job on from a reactor that is done with it.
    pub fn pass_job_on(&self, mut job: Box<Job>) {
        if job.connection().is_some() {
            return job.finish();
        }
        job.cursor = Cursor {
            reactor: job.cursor.reactor + 1,
            slot: 0,
        };
        self.send_job(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(messages_max: usize) -> Arc<CommandQueues> {
        let limits = Limits {
            mailbox_messages_max: messages_max,
            ..Limits::default()
        };
        Arc::new(CommandQueues::new(1, &limits))
    }

    fn ping(reactor: u16, told: &Sender<Fate>) -> BroughtCommand {
        let (id, told) = (ConnectionId::from_bits(reactor, 0), told.clone());
        BroughtCommand::new(id, Command::Ping { id: Some(1) }, move |fate| {
            told.send(fate).expect("somebody waits");
        })
    }

    #[test]
    fn a_full_queue_gives_the_command_back() {
        let (queues, (told, fates)) = (queues(1), bounded(10));
        let inbox = CommandInbox::new(&queues, ReactorId(0));
        queues.push(ping(0, &told)).expect("room");
        let back = queues.push(ping(0, &told)).expect_err("no room");
        assert!(fates.is_empty());
        inbox
            .take()
            .expect("the first")
            .carry_out(|_| Fate::CarriedOut);
        assert_eq!(fates.try_recv(), Ok(Fate::CarriedOut));
        queues.push(back).expect("room again");
        assert_eq!(inbox.len(), 1);
    }

    #[test]
    fn whoever_brings_to_nobody_is_told() {
        let (queues, (told, fates)) = (queues(10), bounded(10));
        queues.push(ping(9, &told)).expect("no such reactor");
        let inbox = CommandInbox::new(&queues, ReactorId(0));
        queues.push(ping(0, &told)).expect("room");
        drop(inbox);
        queues.push(ping(0, &told)).expect("it has ended");
        assert_eq!(fates.try_iter().collect::<Vec<_>>(), [Fate::Gone; 3]);
    }
}
