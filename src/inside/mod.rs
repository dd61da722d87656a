//! Subscriptions inside the process: an outlet of the hub beside the reactors' mailboxes.
//!
//! The hub knows all of them as one more reactor, [`ReactorId::INSIDE`], which has a table of topics and patterns as the
//! reactors have. Its outlet never says that it is full, for that would stall the shard: each subscription has a bounded
//! [queue](queue) of its own, and what does not fit there is dealt with at once, as the subscription says.
//!
//! The lock of the table is held for as long as it takes to look something up, and never while the hub is called: a shard
//! may run in that call, and come back here.

pub mod queue;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use crate::hub::{
    Command, Effect, HistoryPage, Join, Listing, LocalTopic, Member, ReactorId, Read, Scope, Share,
    Start,
};
use crate::topic::{Pattern, Topic};
use crate::worker::{Outlet, Shards};
use queue::{Queue, SubscriptionEnd};
use table::{Name, Table};

/// Subscriptions of the program at a time.
pub const SUBSCRIPTIONS_MAX: usize = 65_536;

/// Questions of the program to the hub at a time.
const QUESTIONS_MAX: usize = 1024;

/// The subscriptions of the program, and its questions to the hub.
#[derive(Default)]
pub struct Inside {
    table: Mutex<Table>,
    /// Set once the hub is there.
    shards: OnceLock<Weak<Shards>>,
    /// Somebody tells the hub what it did not take before.
    is_retrying: AtomicBool,
    /// Somebody else wants it told.
    is_wanted: AtomicBool,
}

/// Answer of the hub to a question.
#[derive(Debug)]
pub enum Reply {
    /// What it knows of topics.
    Listing(Box<Listing>),
    /// A part of a history.
    Page(Box<HistoryPage>),
    /// Who is present, as far as others are told, and how many are in all.
    Present(Arc<[Member]>, u32),
}

/// Callback for an answer. It runs on the thread that knows it, and must not wait.
pub type OnReply = dyn FnOnce(Reply) + Send;

/// Reason that nothing was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are as many as there may be.
    TooMany,
    /// The hub takes no more commands now, or has ended.
    HubFull,
}

/// One subscription, for as long as it is held.
pub struct Membership {
    inside: Arc<Inside>,
    queue: Arc<Queue>,
    number: u32,
}

impl Membership {
    /// Its queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.inside.lock().remove(self.number);
        self.inside.retry();
    }
}

impl Inside {
    /// That of a hub, which gets it as its outlet.
    pub fn beside(shards: Shards) -> (Arc<Inside>, Arc<Shards>) {
        let inside = Arc::<Inside>::default();
        let shards = Arc::new(shards.with_inside(Box::new(Arc::clone(&inside))));
        // It was made for this hub just now.
        let _ = inside.shards.set(Arc::downgrade(&shards));
        (inside, shards)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shards(&self) -> Option<Arc<Shards>> {
        self.shards.get().and_then(Weak::upgrade)
    }

    /// Subscribes to a topic. The hub's answer comes into the queue first.
    ///
    /// # Errors
    /// When there are too many, or the hub takes no more commands.
    pub fn subscribe(
        self: &Arc<Inside>,
        topic: &Topic,
        start: Start,
        queue: Queue,
    ) -> Result<Membership, Refused> {
        let queue = Arc::new(queue);
        let (number, local) = self.lock().add(Name::Topic(topic.clone()), &queue)?;
        let membership = Membership {
            inside: Arc::clone(self),
            queue,
            number,
        };
        let join = Command::Join(Box::new(Join {
            topic: topic.clone(),
            reactor: ReactorId::INSIDE,
            local,
            connection: u64::from(number),
            request: 0,
            start,
            info: None,
            identity: None,
        }));
        let shards = self.shards().ok_or(Refused::HubFull)?;
        shards.submit(join, None).map_err(|_| Refused::HubFull)?;
        Ok(membership)
    }

    /// Subscribes by a pattern.
    ///
    /// # Errors
    /// When there are too many, or the hub has ended.
    pub fn subscribe_pattern(
        self: &Arc<Inside>,
        pattern: &Pattern,
        queue: Queue,
    ) -> Result<Membership, Refused> {
        let queue = Arc::new(queue);
        let shards = self.shards().ok_or(Refused::HubFull)?;
        let (number, local) = self.lock().add(Name::Pattern(pattern.clone()), &queue)?;
        let membership = Membership {
            inside: Arc::clone(self),
            queue,
            number,
        };
        // Before the first publication that is matched comes.
        membership.queue.begin();
        self.lock().make_live(number);
        shards.patterns.subscribe(pattern, ReactorId::INSIDE, local);
        Ok(membership)
    }

    /// Asks the hub. The command is made for the question's number.
    ///
    /// # Errors
    /// When too many wait for answers, or the hub takes no more commands.
    pub fn ask(
        self: &Arc<Inside>,
        command: impl FnOnce(u64) -> Command,
    ) -> Result<Question, Refused> {
        let (sender, receiver) = bounded(1);
        let on_reply = move |reply| {
            // It fails only if nobody waits any more.
            let _ = sender.try_send(reply);
        };
        let number = self.ask_for(command, Box::new(on_reply))?;
        Ok(Question {
            inside: Arc::clone(self),
            number,
            receiver,
        })
    }

    /// Asks the hub, which calls `on_reply`. Where there is no answer, that is dropped. Gives the question's number.
    ///
    /// # Errors
    /// As [`ask`](Inside::ask).
    pub fn ask_for(
        &self,
        command: impl FnOnce(u64) -> Command,
        on_reply: Box<OnReply>,
    ) -> Result<u64, Refused> {
        let shards = self.shards().ok_or(Refused::HubFull)?;
        let number = {
            let mut table = self.lock();
            if table.questions.len() >= QUESTIONS_MAX {
                return Err(Refused::TooMany);
            }
            table.next_question += 1;
            let number = table.next_question;
            table.questions.insert(number, on_reply);
            number
        };
        if shards.submit(command(number), None).is_err() {
            self.forget(number);
            return Err(Refused::HubFull);
        }
        Ok(number)
    }

    /// Lets go of whoever waits for an answer.
    fn forget(&self, question: u64) {
        let on_reply = self.lock().questions.remove(&question);
        drop(on_reply);
    }

    /// The hub has ended: so do all subscriptions, and all questions are without an answer.
    pub fn close(&self) {
        let (queues, questions) = self.lock().close();
        drop(questions);
        for queue in queues {
            queue.end(SubscriptionEnd::Closed);
        }
    }

    /// Tells the hub which topics and patterns nobody subscribes to any more. If another thread is at it, that one does it
    /// once more.
    fn retry(&self) {
        self.is_wanted.swap(true, Ordering::SeqCst);
        while self.is_wanted.load(Ordering::SeqCst)
            && !self.is_retrying.swap(true, Ordering::SeqCst)
        {
            self.is_wanted.swap(false, Ordering::SeqCst);
            self.tell_forsaken();
            self.is_retrying.swap(false, Ordering::SeqCst);
        }
    }

    fn tell_forsaken(&self) {
        let shards = self.shards();
        loop {
            let left = self.lock().forsaken.pop();
            let Some((name, local)) = left else { break };
            let Some(shards) = &shards else { continue };
            match name {
                Name::Pattern(pattern) => {
                    shards
                        .patterns
                        .unsubscribe(&pattern, ReactorId::INSIDE, local);
                }
                Name::Topic(topic) => {
                    let command = Command::Unsubscribe {
                        topic: topic.clone(),
                        reactor: ReactorId::INSIDE,
                        local,
                    };
                    if shards.submit(command, None).is_err() {
                        // The shard wakes its outlets when it has room again.
                        self.lock().forsaken.push((Name::Topic(topic), local));
                        break;
                    }
                }
            }
        }
    }

    fn answer(&self, question: u64, reply: Reply) {
        let on_reply = self.lock().questions.remove(&question);
        if let Some(on_reply) = on_reply {
            on_reply(reply);
        }
    }

    fn pass_on(&self, mut listing: Box<Listing>) {
        let is_done = {
            let table = self.lock();
            listing.add(|topic| table.subscribers(topic))
        };
        if is_done {
            return self.answer(listing.connection, Reply::Listing(listing));
        }
        let question = listing.connection;
        let passed = self
            .shards()
            .map(|shards| shards.submit(Command::PassOn { listing }, None));
        if !matches!(passed, Some(Ok(()))) {
            // What the hub does not take now is asked again by whoever misses the answer.
            self.forget(question);
        }
    }

    fn take(&self, effect: Effect) {
        match effect {
            Effect::Deliver {
                local, publication, ..
            } => {
                let mut share = Share::default();
                let queues = self.lock().live_queues(local);
                for queue in queues {
                    share.matched += 1;
                    match queue.push(Arc::clone(&publication)) {
                        true => share.written += 1,
                        false => share.dropped += 1,
                    }
                }
                publication.add_share(&share);
            }
            Effect::Joined {
                connection, joined, ..
            } => {
                let joining = self.lock().make_live(connection as u32);
                if let Some(queue) = joining {
                    queue.begin_with(*joined);
                }
            }
            Effect::Present {
                connection,
                members,
                total,
                ..
            } => self.answer(connection, Reply::Present(members, total)),
            Effect::Listed { listing } => self.pass_on(listing),
            Effect::Read {
                connection, page, ..
            } => self.answer(connection, Reply::Page(page)),
            // Nobody inside is told who comes and goes, publishes by a connection, or reloads.
            Effect::PresenceChanged { .. } | Effect::Published { .. } | Effect::Migrated { .. } => {
            }
        }
    }
}

impl Outlet for Arc<Inside> {
    fn offer(&self, effect: Effect, _: Option<ReactorId>) -> Result<(), Effect> {
        self.take(effect);
        Ok(())
    }

    fn wake(&self) {
        if !self.lock().forsaken.is_empty() {
            self.retry();
        }
    }
}

/// A question that waits for its answer.
pub struct Question {
    inside: Arc<Inside>,
    number: u64,
    receiver: Receiver<Reply>,
}

impl Question {
    /// Waits for the answer. None: it did not come in time, or never will.
    pub fn wait(&self, timeout: Duration) -> Option<Reply> {
        self.receiver.recv_timeout(timeout).ok()
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.inside.forget(self.number);
    }
}

/// Command to list topics at places of a shard.
pub fn list(shard: u32, first: u32, topics_max: u32, question: u64) -> Command {
    Command::List {
        scope: Scope::Places {
            shard,
            first,
            topics_max,
        },
        reactor: ReactorId::INSIDE,
        connection: question,
    }
}

/// Command to read a part of a history, of so many publications.
pub fn read(
    topic: Topic,
    (start, publications_max): (Start, u32),
    now_us: u64,
    question: u64,
) -> Command {
    Command::Read(Box::new(Read {
        now_us,
        topic,
        reactor: ReactorId::INSIDE,
        connection: question,
        request: 0,
        start,
        publications_max,
    }))
}

/// Command to empty a history.
pub fn empty(topic: Topic, question: u64) -> Command {
    Command::Empty {
        topic,
        reactor: ReactorId::INSIDE,
        connection: question,
    }
}

/// Command to tell who is present.
pub fn present(topic: Topic, question: u64) -> Command {
    Command::Present {
        topic,
        reactor: ReactorId::INSIDE,
        connection: question,
        request: 0,
    }
}

/// Name of a place in the table.
fn local_of(index: usize, generation: u32, is_pattern: bool) -> LocalTopic {
    let bit = if is_pattern {
        LocalTopic::PATTERN_BIT
    } else {
        0
    };
    LocalTopic {
        index: index as u32 | bit,
        generation,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::queue::{Delivery, QueueRules, WhenFull};
    use super::*;
    use crate::hub::{Kind, Origin, Publication, ShardSettings};
    use crate::worker::{QueueLimits, WorkQueue};

    /// One shard that runs when it is told to, with room for one command.
    fn hub() -> (Arc<Inside>, Arc<Shards>, WorkQueue) {
        let limits = QueueLimits {
            commands_max: 1,
            bytes_max: 1000,
        };
        let settings = ShardSettings::default();
        let (shards, work) = Shards::new(&[1], Vec::new(), limits, &settings, false);
        let (inside, shards) = Inside::beside(shards);
        (inside, shards, work)
    }

    fn run(shards: &Shards, work: &WorkQueue) {
        while let Ok(shard) = work.try_recv() {
            shards.run_scheduled(shard);
        }
    }

    fn queue() -> Queue {
        Queue::new(QueueRules {
            publications_max: 10,
            bytes_max: 1000,
            when_full: WhenFull::Gap,
        })
    }

    fn publish(topic: &Topic) -> Command {
        Command::Publish {
            topic: topic.clone(),
            publication: Arc::new(Publication::new(Kind::Text, b"x", 0)),
            origin: Origin::Detached,
        }
    }

    #[test]
    fn full_hub_is_told_later_that_nobody_subscribes() {
        let (inside, shards, work) = hub();
        let topic = Topic::from_text("a").expect("a topic");
        let subscription = inside.subscribe(&topic, Start::Now, queue());
        let subscription = subscription.expect("room for one");
        let refused = inside.subscribe(&topic, Start::Now, queue());
        assert_eq!(refused.err(), Some(Refused::HubFull));
        drop(subscription);
        assert_eq!(inside.lock().forsaken.len(), 1);
        run(&shards, &work);
        assert!(inside.lock().forsaken.is_empty());
        assert_eq!(shards.counts().topics, 0);
    }

    #[test]
    fn publications_before_the_answer_are_nobodys() {
        let (inside, shards, work) = hub();
        let topic = Topic::from_text("a").expect("a topic");
        let first = inside.subscribe(&topic, Start::Now, queue());
        let first = first.expect("room for one");
        run(&shards, &work);
        shards.submit(publish(&topic), None).expect("room");
        run(&shards, &work);
        // The hub knows the topic already, but not yet this subscription.
        let (number, local) = {
            let second = Arc::new(queue());
            let mut table = inside.lock();
            table
                .add(Name::Topic(topic.clone()), &second)
                .expect("room")
        };
        assert_eq!(inside.lock().live_queues(local).len(), 1);
        inside.lock().remove(number);
        let seen = std::iter::from_fn(|| first.queue().try_next());
        let seen: Vec<_> = seen.map(|next| next.expect("it goes on")).collect();
        assert!(matches!(
            &seen[..],
            [Delivery::Began { .. }, Delivery::Publication(_)]
        ));
    }

    #[test]
    fn end_of_the_hub_ends_all() {
        let (inside, shards, work) = hub();
        let topic = Topic::from_text("a").expect("a topic");
        let subscription = inside.subscribe(&topic, Start::Now, queue());
        let subscription = subscription.expect("room for one");
        run(&shards, &work);
        let question = inside.ask(|number| present(topic.clone(), number));
        let question = question.expect("room");
        inside.close();
        assert!(question.wait(Duration::from_secs(5)).is_none());
        assert!(matches!(subscription.queue().try_next(), Some(Ok(_))));
        let ended = subscription.queue().try_next();
        assert!(matches!(ended, Some(Err(SubscriptionEnd::Closed))));
        let refused = inside.subscribe(&topic, Start::Now, queue());
        assert_eq!(refused.err(), Some(Refused::HubFull));
    }
}
