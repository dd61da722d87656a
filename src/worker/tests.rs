//! The shards' queues, stalls and order, with mailboxes that the tests empty.

use std::sync::{Arc, OnceLock, Weak};
use std::thread;

use super::*;
use crate::hub::{Kind, LocalTopic, Origin, PatternPart, Publication, Receipt, Share};
use crate::topic::Pattern;

/// A mailbox that a test empties.
struct Box0 {
    sender: Sender<Effect>,
}

impl Outlet for Box0 {
    fn offer(&self, effect: Effect, _from: Option<ReactorId>) -> Result<(), Effect> {
        self.sender
            .try_send(effect)
            .map_err(TrySendError::into_inner)
    }
    fn wake(&self) {}
}

fn topic() -> Topic {
    Topic::from_text("t").expect("a valid topic")
}

fn publish(text: &str) -> Command {
    let publication = Arc::new(Publication::new(Kind::Text, text.as_bytes(), 0));
    Command::Publish {
        topic: topic(),
        publication,
        origin: Origin::Detached,
    }
}

fn start(
    room: usize,
    commands_max: usize,
    inline: bool,
) -> (Shards, Receiver<usize>, Receiver<Effect>) {
    let (sender, mailbox) = bounded(room);
    let limits = QueueLimits {
        commands_max,
        bytes_max: 1 << 20,
    };
    let (shards, work) = Shards::new(
        &[1],
        vec![Box::new(Box0 { sender })],
        limits,
        &ShardSettings::default(),
        inline,
    );
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
    (shards, work, mailbox)
}

fn offset(effect: Effect) -> (u64, Vec<u8>) {
    match effect {
        Effect::Deliver { publication, .. } => (
            publication.position().offset,
            publication.payload().to_vec(),
        ),
        _ => panic!("nobody asked"),
    }
}

#[test]
fn a_full_mailbox_stalls_the_shard_and_holds_publishers_back() {
    let (shards, work, mailbox) = start(2, 2, true);
    for text in ["1", "2", "3", "4", "5"] {
        shards
            .submit(publish(text), None)
            .expect("two in the mailbox, one unsent, two queued");
    }
    assert!(shards.submit(publish("6"), None).is_err());
    assert_eq!(shards.queued(), 2);
    let mut seen = Vec::new();
    while let Ok(effect) = mailbox.try_recv() {
        seen.push(offset(effect).0);
        shards.resume();
        while let Ok(index) = work.try_recv() {
            shards.run_scheduled(index);
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
}

#[test]
fn many_threads_make_one_order_and_lose_nothing() {
    for inline in [true, false] {
        let (shards, work, mailbox) = start(100_000, 16, inline);
        let shards = Arc::new(shards);
        let worker = thread::spawn({
            let shards = Arc::clone(&shards);
            move || shards.work(&work)
        });
        let publishers: Vec<_> = (0..4)
            .map(|publisher| {
                let shards = Arc::clone(&shards);
                thread::spawn(move || {
                    for number in 0..2_000 {
                        let mut command = publish(&format!("{publisher}:{number}"));
                        while let Err(back) = shards.submit(command, None) {
                            command = back;
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        publishers
            .into_iter()
            .for_each(|thread| thread.join().expect("no panic"));
        while shards.queued() > 0 {
            thread::yield_now();
        }
        while !shards.stop() {
            thread::yield_now();
        }
        worker.join().expect("no panic");
        let mut next = [0; 4];
        for (place, effect) in mailbox.try_iter().enumerate() {
            let (offset, payload) = offset(effect);
            assert_eq!(offset, place as u64 + 1);
            let text = String::from_utf8(payload).expect("text");
            let (publisher, number) = text.split_once(':').expect("two numbers");
            let publisher: usize = publisher.parse().expect("a number");
            assert_eq!(
                number.parse(),
                Ok(next[publisher]),
                "a publisher's own order holds"
            );
            next[publisher] += 1;
        }
        assert_eq!(next, [2_000; 4]);
    }
}

/// A mailbox of one place. At its second refusal in a row its reactor takes the mail and resumes the shard, and a
/// worker comes, all while the thread that was refused still holds the shard.
struct Racing {
    sender: Sender<Effect>,
    mailbox: Receiver<Effect>,
    shards: OnceLock<(Weak<Shards>, Receiver<usize>)>,
    refusals: AtomicUsize,
    races_at: usize,
    wakes: AtomicUsize,
}

impl Outlet for Arc<Racing> {
    fn offer(&self, effect: Effect, _from: Option<ReactorId>) -> Result<(), Effect> {
        let outcome = self
            .sender
            .try_send(effect)
            .map_err(TrySendError::into_inner);
        if outcome.is_err() && self.refusals.fetch_add(1, Ordering::SeqCst) + 1 == self.races_at {
            self.mailbox.try_iter().for_each(drop);
            let (shards, work) = self.shards.get().expect("set");
            let shards = shards.upgrade().expect("alive");
            shards.resume();
            let index = work.try_recv().expect("scheduled");
            let worker = thread::spawn(move || shards.run_scheduled(index));
            worker.join().expect("no panic");
        }
        outcome
    }

    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
    }
}

fn racing(races_at: usize, commands_max: usize) -> (Arc<Shards>, Receiver<usize>, Arc<Racing>) {
    let (sender, mailbox) = bounded(1);
    let (shards, refusals, wakes) = (OnceLock::new(), AtomicUsize::new(0), AtomicUsize::new(0));
    let outlet = Arc::new(Racing {
        sender,
        mailbox,
        shards,
        refusals,
        races_at,
        wakes,
    });
    let limits = QueueLimits {
        commands_max,
        bytes_max: 1 << 20,
    };
    let (shards, work) = Shards::new(
        &[1],
        vec![Box::new(Arc::clone(&outlet))],
        limits,
        &ShardSettings::default(),
        true,
    );
    let shards = Arc::new(shards);
    assert!(
        outlet
            .shards
            .set((Arc::downgrade(&shards), work.clone()))
            .is_ok()
    );
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
    (shards, work, outlet)
}

#[test]
fn a_shard_that_is_resumed_while_it_stalls_goes_on() {
    let (shards, work, outlet) = racing(2, 16);
    shards.submit(publish("1"), None).expect("room");
    shards
        .submit(publish("2"), None)
        .expect("room in the queue");
    let is_stuck = outlet.mailbox.is_empty() && work.is_empty();
    assert!(!is_stuck, "the second publication is with nobody");
}

#[test]
fn who_is_turned_away_by_a_stalled_shard_wakes_nobody() {
    let (shards, _work, outlet) = racing(usize::MAX, 1);
    for text in ["in the mailbox", "unsent", "queued"] {
        shards.submit(publish(text), None).expect("room");
    }
    for _ in 0..100 {
        assert!(shards.submit(publish("turned away"), None).is_err());
    }
    assert_eq!(outlet.wakes.load(Ordering::SeqCst), 0);
}

#[test]
fn reactors_that_add_their_shares_at_once_report_once_and_lose_nothing() {
    let mut shard = Shard::new(1, ShardSettings::default());
    for reactor in 0..4 {
        let subscribe = Command::Subscribe {
            topic: topic(),
            reactor: ReactorId(reactor),
            local: LocalTopic {
                index: 0,
                generation: 0,
            },
        };
        shard.handle_command(subscribe, &PatternPart::default(), &mut Vec::new());
    }
    for _ in 0..100 {
        let (done, reports) = bounded(2);
        let done = move |report| done.try_send(report).expect("one report");
        let receipt = Arc::new(Receipt::new(Box::new(done)));
        let publication = Publication::new(Kind::Text, b"x", 10).with_receipt(receipt);
        let publish = Command::Publish {
            topic: topic(),
            publication: Arc::new(publication),
            origin: Origin::Detached,
        };
        let mut effects = Vec::new();
        shard.handle_command(publish, &PatternPart::default(), &mut effects);
        thread::scope(|scope| {
            for (number, effect) in (1..).zip(effects) {
                let Effect::Deliver { publication, .. } = effect else {
                    panic!("{effect:?}");
                };
                scope.spawn(move || {
                    publication.receipt().expect("it has one").add(&Share {
                        matched: number,
                        written: number,
                        first_us: Some(10 + number),
                        last_us: Some(10 + number),
                        ..Share::default()
                    });
                });
            }
        });
        let reports: Vec<_> = reports.try_iter().collect();
        assert_eq!(reports.len(), 1);
        assert_eq!((reports[0].matched, reports[0].written), (10, 10));
        let (first_us, last_us) = (reports[0].first_write_us, reports[0].last_write_us);
        assert_eq!((first_us, last_us), (Some(1), Some(4)));
    }
}

/// A pattern is known to all shards at once, and its publications come whichever shard has their topic.
#[test]
fn pattern_known_to_every_shard() {
    let (sender, mailbox) = bounded(8);
    let limits = QueueLimits {
        commands_max: 8,
        bytes_max: 1 << 20,
    };
    let settings = ShardSettings::default();
    let outlets: Vec<Box<dyn Outlet>> = vec![Box::new(Box0 { sender })];
    let (shards, _work) = Shards::new(&[1, 1 << 32], outlets, limits, &settings, true);
    let (reactor, index) = (ReactorId(0), LocalTopic::PATTERN_BIT);
    let (generation, texts) = (0, ["**", "*", "t", "u/**", "u/v"]);
    let patterns = texts.map(|text| Pattern::parse(text).expect("a pattern"));
    for pattern in &patterns {
        let local = LocalTopic { index, generation };
        shards.patterns.subscribe(pattern, reactor, local);
    }
    assert_eq!(shards.counts().patterns, patterns.len());
    for (text, matches) in [("t", 3), ("u/v", 3), ("u/w", 2), ("v", 2), ("v/u", 1)] {
        let command = Command::Publish {
            topic: Topic::from_text(text).expect("a topic"),
            publication: Arc::new(Publication::new(Kind::Text, b"x", 0)),
            origin: Origin::Detached,
        };
        shards.submit(command, None).expect("room");
        assert_eq!(mailbox.try_iter().count(), matches, "{text}");
    }
    for pattern in &patterns {
        let local = LocalTopic { index, generation };
        shards.patterns.unsubscribe(pattern, reactor, local);
    }
    assert!(shards.patterns.is_empty());
    shards.submit(publish("x"), None).expect("room");
    assert!(mailbox.is_empty());
}

/// What publications cost by patterns counts, not how many they are: here each takes as long as 30 others.
#[test]
fn costly_publications_of_one_tick_go_to_the_workers() {
    const PUBLICATIONS: usize = 4000;
    let (shards, work, _mailbox) = start(PUBLICATIONS, PUBLICATIONS, true);
    let mut patterns = vec![String::new()];
    for depth in 0..7 {
        let separator = if depth == 0 { "" } else { "/" };
        patterns = patterns
            .iter()
            .flat_map(|text| ["a", "*"].map(|next| format!("{text}{separator}{next}")))
            .collect();
    }
    for text in patterns {
        let Ok(pattern) = Pattern::parse(&format!("{text}/x")) else {
            continue;
        };
        let (reactor, index) = (ReactorId(0), LocalTopic::PATTERN_BIT);
        let local = LocalTopic {
            index,
            generation: 0,
        };
        shards.patterns.subscribe(&pattern, reactor, local);
    }
    let publish = || Command::Publish {
        topic: Topic::from_text("a/a/a/a/a/a/a/a").expect("a topic"),
        publication: Arc::new(Publication::new(Kind::Text, b"x", 0)),
        origin: Origin::Detached,
    };
    let reactor = Some(ReactorId(0));
    let mut left = Vec::new();
    for _ in 0..2 {
        shards.begin_tick(ReactorId(0));
        for _ in 0..PUBLICATIONS / 2 {
            shards.submit(publish(), reactor).expect("room");
        }
        left.push(PUBLICATIONS / 2 * (left.len() + 1) - shards.queued());
    }
    let in_a_tick = VISITS_PER_TICK / (VISITS_PER_COMMAND + 218);
    assert!((1..in_a_tick * 2).contains(&left[0]), "{left:?}");
    assert!(left[1] > left[0] && left[1] <= left[0] * 2, "{left:?}");
    while let Ok(index) = work.try_recv() {
        shards.run_scheduled(index);
    }
    assert_eq!(shards.queued(), 0);
}
