//! The shards' lock and queue under loom: whatever the order of the threads, no command is left with nobody.
//!
//! Each of the three fences in `worker.rs` is needed by one of these tests.

use std::sync::Arc;

use loom::thread;

use super::*;
use crate::hub::{Kind, LocalTopic, Origin, Publication};
use crate::topic::Pattern;

/// An outlet that has room for everything, and keeps the offsets of what it got.
#[derive(Default)]
struct Offsets(std::sync::Mutex<Vec<u64>>);

impl Outlet for Arc<Offsets> {
    fn offer(&self, effect: Effect, _from: Option<ReactorId>) -> Result<(), Effect> {
        if let Effect::Deliver { publication, .. } = effect {
            let offset = publication.position().offset;
            self.0.lock().expect("no panic").push(offset);
        }
        Ok(())
    }

    fn wake(&self) {}
}

fn topic() -> Topic {
    Topic::from_text("t").expect("a topic")
}

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).expect("a pattern")
}

fn by_pattern() -> LocalTopic {
    LocalTopic {
        index: LocalTopic::PATTERN_BIT,
        generation: 0,
    }
}

fn publish() -> Command {
    Command::Publish {
        topic: topic(),
        publication: Arc::new(Publication::new(Kind::Text, b"x", 0)),
        origin: Origin::Detached,
    }
}

/// One shard and a reactor that subscribes. The command to subscribe may still be queued.
fn start(commands_max: usize, inline: bool) -> (Arc<Shards>, Receiver<usize>, Arc<Offsets>) {
    let offsets = Arc::new(Offsets::default());
    let limits = QueueLimits {
        commands_max,
        bytes_max: 1 << 20,
    };
    let outlets: Vec<Box<dyn Outlet>> = vec![Box::new(Arc::clone(&offsets))];
    let (shards, work) = Shards::new(&[1], outlets, limits, &ShardSettings::default(), inline);
    let local = LocalTopic {
        index: 0,
        generation: 0,
    };
    let subscribe = Command::Subscribe {
        topic: topic(),
        reactor: ReactorId(0),
        local,
    };
    shards.submit(subscribe, None).expect("room");
    (Arc::new(shards), work, offsets)
}

fn in_thread(shards: &Arc<Shards>, run: impl FnOnce(&Shards) + 'static) -> thread::JoinHandle<()> {
    let shards = Arc::clone(shards);
    thread::spawn(move || run(&shards))
}

/// Does what the workers would, and compares what was delivered.
#[track_caller]
fn finish(shards: &Shards, work: &Receiver<usize>, offsets: &Offsets, expected: &[u64]) {
    while let Ok(index) = work.try_recv() {
        shards.run_scheduled(index);
    }
    assert_eq!(*offsets.0.lock().expect("no panic"), expected);
}

/// Needs the fences of `submit` and of `run`: the holder of the lock and who found it taken must not miss each other.
#[test]
fn what_two_submit_at_once_is_carried_out() {
    loom::model(|| {
        let (shards, work, offsets) = start(4, true);
        let other = in_thread(&shards, |shards| {
            shards.submit(publish(), None).expect("room");
        });
        shards.submit(publish(), None).expect("room");
        other.join().expect("no panic");
        assert!(work.is_empty(), "the submitters did it themselves");
        finish(&shards, &work, &offsets, &[1, 2]);
    });
}

/// Needs the fence of `is_shard_idle`, which takes the lock for a look.
#[test]
fn a_look_whether_a_shard_is_idle_leaves_no_command_behind() {
    loom::model(|| {
        let (shards, work, offsets) = start(4, true);
        let other = in_thread(&shards, |shards| {
            shards.submit(publish(), None).expect("room");
        });
        shards.is_idle();
        other.join().expect("no panic");
        finish(&shards, &work, &offsets, &[1]);
    });
}

#[test]
fn what_two_workers_come_for_is_carried_out() {
    loom::model(|| {
        let (shards, work, offsets) = start(4, false);
        let worker = |work: Receiver<usize>| {
            in_thread(&shards, move |shards| {
                if let Ok(index) = work.try_recv() {
                    shards.run_scheduled(index);
                }
            })
        };
        let workers = [worker(work.clone()), worker(work.clone())];
        for _ in 0..2 {
            shards.submit(publish(), None).expect("room");
        }
        for worker in workers {
            worker.join().expect("no panic");
        }
        finish(&shards, &work, &offsets, &[1, 2]);
    });
}

/// Whoever has heard that a subscription by a pattern stands, and publishes then, is delivered to it.
#[test]
fn publication_after_subscribe_is_matched() {
    loom::model(|| {
        let (shards, work, offsets) = start(4, true);
        let is_subscribed = Arc::new(AtomicBool::new(false));
        let other = in_thread(&shards, {
            let is_subscribed = Arc::clone(&is_subscribed);
            move |shards| {
                shards
                    .patterns
                    .subscribe(&pattern("*"), ReactorId(0), by_pattern());
                is_subscribed.store(true, Ordering::Release);
            }
        });
        let is_later = is_subscribed.load(Ordering::Acquire);
        shards.submit(publish(), None).expect("room");
        other.join().expect("no panic");
        let delivered = offsets.0.lock().expect("no panic").len();
        assert!(delivered == 2 || delivered == 1 && !is_later);
        shards.submit(publish(), None).expect("room");
        shards
            .patterns
            .unsubscribe(&pattern("*"), ReactorId(0), by_pattern());
        let expected = [1, 1, 2, 2];
        finish(&shards, &work, &offsets, &expected[2 - delivered..]);
    });
}

/// One that comes and one that goes at once leave the counts as they were, so that neither hides a pattern.
#[test]
fn patterns_that_come_and_go_at_once_are_counted() {
    loom::model(|| {
        let (shards, work, offsets) = start(4, true);
        shards
            .patterns
            .subscribe(&pattern("*"), ReactorId(0), by_pattern());
        let other = in_thread(&shards, |shards| {
            shards
                .patterns
                .subscribe(&pattern("t"), ReactorId(0), by_pattern());
        });
        shards
            .patterns
            .unsubscribe(&pattern("*"), ReactorId(0), by_pattern());
        other.join().expect("no panic");
        assert_eq!(shards.patterns.len(), 1);
        shards.submit(publish(), None).expect("room");
        finish(&shards, &work, &offsets, &[1, 1]);
    });
}
