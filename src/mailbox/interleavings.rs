//! The mailbox under loom: whatever the order of the threads, nobody waits for what has happened already.
//!
//! A reactor's wait for events ends by nothing but a wake here, so a lost one is a deadlock, which loom reports.

use std::sync::atomic::AtomicUsize as PlainUsize;

use loom::sync::Notify;
use loom::thread;

use super::*;
use crate::hub::{Command, Kind, LocalTopic, Origin, Publication, Receipt, ShardSettings};
use crate::topic::Topic;
use crate::worker::{QueueLimits, Shards};

const LOCAL: LocalTopic = LocalTopic {
    index: 0,
    generation: 0,
};

fn topic() -> Topic {
    Topic::from_text("t").expect("a topic")
}

fn deliver() -> Effect {
    Effect::Deliver {
        reactor: ReactorId(0),
        local: LOCAL,
        publication: Arc::new(publication()),
    }
}

fn publication() -> Publication {
    Publication::new(Kind::Text, b"x", 0)
}

/// A mailbox, and what its reactor waits for.
fn waking(reactor: u16, messages_max: usize) -> (Arc<Mailbox>, Inbox, Arc<Notify>) {
    let events = Arc::new(Notify::new());
    let waker = Arc::clone(&events);
    let wake = Box::new(move || {
        waker.notify();
        true
    });
    let (mailbox, inbox) = mailbox(ReactorId(reactor), messages_max, 1 << 20, wake);
    (mailbox, inbox, events)
}

/// One shard without workers over these mailboxes, to which reactor 0 has subscribed.
fn shards(mailboxes: &[&Arc<Mailbox>], commands_max: usize) -> (Arc<Shards>, Receiver<usize>) {
    let outlets = mailboxes
        .iter()
        .map(|&mailbox| Box::new(Arc::clone(mailbox)) as Box<dyn Outlet>);
    let limits = QueueLimits {
        commands_max,
        bytes_max: 1 << 20,
    };
    let settings = ShardSettings::default();
    let (shards, work) = Shards::new(&[1], outlets.collect(), limits, &settings, true);
    let subscribe = Command::Subscribe {
        topic: topic(),
        reactor: ReactorId(0),
        local: LOCAL,
    };
    shards.submit(subscribe, None).expect("room");
    (Arc::new(shards), work)
}

fn publish(publication: Publication) -> Command {
    Command::Publish {
        topic: topic(),
        publication: Arc::new(publication),
        origin: Origin::Detached,
    }
}

#[test]
fn a_reactor_is_woken_for_all_that_comes() {
    loom::model(|| {
        let (mailbox, inbox, events) = waking(0, 4);
        for _ in 0..2 {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                mailbox.offer(deliver(), None).expect("room");
            });
        }
        let mut taken = 0;
        loop {
            inbox.begin();
            while inbox.take().is_some() {
                taken += 1;
            }
            if taken == 2 {
                break;
            }
            if inbox.is_empty() {
                events.wait();
            }
        }
    });
}

#[test]
fn a_shard_that_found_the_mailbox_full_is_resumed() {
    loom::model(|| {
        let (mailbox, inbox, events) = waking(0, 1);
        let (shards, work) = shards(&[&mailbox], 4);
        thread::spawn({
            let shards = Arc::clone(&shards);
            move || {
                for _ in 0..2 {
                    shards.submit(publish(publication()), None).expect("room");
                }
            }
        });
        let mut taken = 0;
        loop {
            inbox.begin();
            while inbox.take().is_some() {
                taken += 1;
            }
            if inbox.take_starved() {
                shards.resume();
            }
            // This thread is the worker too.
            while let Ok(index) = work.try_recv() {
                shards.run_scheduled(index);
            }
            if taken == 2 {
                break;
            }
            if inbox.is_empty() {
                events.wait();
            }
        }
    });
}

/// Two reactors publish through a queue of one command. Who is turned away tries again when it is woken.
#[test]
fn who_was_turned_away_is_woken() {
    loom::model(|| {
        let (first, inbox, first_events) = waking(0, 4);
        let (second, _second_inbox, second_events) = waking(1, 4);
        let (shards, _work) = shards(&[&first, &second], 1);
        let publish_until_taken = |reactor, shards: Arc<Shards>, events: Arc<Notify>| {
            let mut command = publish(publication());
            while let Err(back) = shards.submit(command, Some(ReactorId(reactor))) {
                command = back;
                events.wait();
            }
        };
        let other = thread::spawn({
            let shards = Arc::clone(&shards);
            move || publish_until_taken(1, shards, second_events)
        });
        publish_until_taken(0, shards, first_events);
        other.join().expect("no panic");
        assert_eq!(inbox.len(), 2);
    });
}

/// The mailbox of a reactor that ends answers for what is in it, and for what comes later.
#[test]
fn a_reactor_that_ends_owes_no_share() {
    loom::model(|| {
        let (mailbox, inbox, _events) = waking(0, 4);
        let (shards, _work) = shards(&[&mailbox], 4);
        let reports = Arc::new(PlainUsize::new(0));
        let counted = Arc::clone(&reports);
        let receipt = Receipt::new(Box::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        let publication = publication().with_receipt(Arc::new(receipt));
        let publisher = thread::spawn(move || {
            shards.submit(publish(publication), None).expect("room");
        });
        drop(inbox);
        publisher.join().expect("no panic");
        assert_eq!(reports.load(Ordering::SeqCst), 1);
    });
}
