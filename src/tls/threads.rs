//! Threads for handshakes, so that no delivery waits for a signature.

use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustls::server::{Accepted, AcceptedAlert};
use rustls::{ServerConfig, ServerConnection};

use super::agreement::{Agreement, Progress};
use crate::handler::ConnectionId;
use crate::sync::Wake;

/// Hellos of all reactors that wait for a thread or are answered by one.
const JOBS_MAX: usize = 256;

/// A whole hello.
pub enum Hello {
    /// Of a connection that rustls carries.
    Rustls(Box<Accepted>),
    /// Of one that goes on with records of our own.
    Own(Box<Agreement>),
}

/// Outcome of a hello.
pub enum Answered {
    /// Of a connection that rustls carries.
    Rustls(Box<Result<ServerConnection, (rustls::Error, AcceptedAlert)>>),
    /// Of one that goes on with records of our own.
    Own(Box<Agreement>, Progress),
}

impl Hello {
    /// Answers it, which costs a signature.
    pub fn answer(self, terms: Arc<ServerConfig>) -> Answered {
        match self {
            Hello::Rustls(accepted) => Answered::Rustls(Box::new(accepted.into_connection(terms))),
            Hello::Own(mut agreement) => {
                let progress = agreement.begin(terms);
                Answered::Own(agreement, progress)
            }
        }
    }
}

/// A hello for a thread.
struct Job {
    id: ConnectionId,
    hello: Hello,
    terms: Arc<ServerConfig>,
    done: Sender<Done>,
    wake: Arc<Wake>,
}

/// A hello that was answered. None: the thread panicked over it.
pub(super) struct Done {
    pub id: ConnectionId,
    pub answered: Option<Answered>,
}

/// Threads that answer hellos. They end once nobody has this any more.
pub struct HandshakeThreads {
    jobs: Sender<Job>,
    per_reactor_max: usize,
}

impl fmt::Debug for HandshakeThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeThreads").finish_non_exhaustive()
    }
}

impl HandshakeThreads {
    /// Starts so many, for so many reactors.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(count: usize, reactors: usize) -> io::Result<HandshakeThreads> {
        let (jobs, waiting) = bounded(JOBS_MAX);
        for number in 0..count {
            let waiting = waiting.clone();
            thread::Builder::new()
                .name(format!("umbel-tls-{number}"))
                .spawn(move || work(&waiting))?;
        }
        Ok(HandshakeThreads {
            jobs,
            per_reactor_max: (JOBS_MAX / reactors.max(1)).max(1),
        })
    }
}

fn work(waiting: &Receiver<Job>) {
    for job in waiting {
        let Job {
            id,
            hello,
            terms,
            done,
            wake,
        } = job;
        let answer = move || hello.answer(terms);
        // Nothing of it is looked at again.
        let answered = panic::catch_unwind(AssertUnwindSafe(answer)).ok();
        // There is room for as many as a reactor gives away. One that is gone takes nothing more.
        if done.try_send(Done { id, answered }).is_ok() {
            wake();
        }
    }
}

/// The way of one reactor to the threads, and back.
pub(super) struct Desk {
    threads: Arc<HandshakeThreads>,
    done: (Sender<Done>, Receiver<Done>),
    wake: Arc<Wake>,
    /// Hellos that are at the threads.
    away: usize,
}

impl Desk {
    pub fn new(threads: Arc<HandshakeThreads>, wake: Arc<Wake>) -> Desk {
        Desk {
            done: bounded(threads.per_reactor_max),
            threads,
            wake,
            away: 0,
        }
    }

    /// Handshakes that fit yet, before some come back.
    pub fn room(&self) -> usize {
        self.threads.per_reactor_max.saturating_sub(self.away)
    }

    /// Gives a hello away. It comes back if there is no room after all.
    pub fn give(
        &mut self,
        id: ConnectionId,
        hello: Hello,
        terms: Arc<ServerConfig>,
    ) -> Result<(), Hello> {
        let job = Job {
            id,
            hello,
            terms,
            done: self.done.0.clone(),
            wake: Arc::clone(&self.wake),
        };
        let sent = self.threads.jobs.try_send(job);
        sent.map_err(|error| error.into_inner().hello)?;
        self.away += 1;
        Ok(())
    }

    /// Takes one that has come back.
    pub fn take(&mut self) -> Option<Done> {
        let done = self.done.1.try_recv().ok()?;
        self.away -= 1;
        Some(done)
    }
}
