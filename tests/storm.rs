//! Very many subscribers that are cut off and come back all at once, while publications go on.
//!
//! `UMBEL_STORM_SUBSCRIBERS=10000 cargo nextest run --release --test storm --no-capture` runs it at the size that one
//! process of peers has descriptors for, and prints how long it took; without the variable it is 2,000.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::crowd::{Crowd, Tally};
use support::peers::Http;
use support::{Server, wait_until};

const SUBSCRIBERS: usize = 2000;
const PUBLICATIONS_EACH_SECOND: u32 = 1000;
/// Publications of one request.
const BATCH: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(60);

const FLAGS: [&str; 12] = [
    "--topic-rule",
    "storm history=1000000",
    "--recovery-publications-max",
    "1000000",
    "--recovery-bytes-max",
    "33554432",
    "--outbox-bytes-max",
    "33554432",
    "--ping-interval-ms",
    "3600000",
    "--log-level",
    "info",
];

fn subscribers() -> usize {
    let count = std::env::var("UMBEL_STORM_SUBSCRIBERS");
    count.map_or(SUBSCRIBERS, |count| count.parse().expect("a number"))
}

/// Publishes the numbers from 1 up, so many each second.
struct Publisher {
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Publisher {
    fn start(address: SocketAddr) -> Publisher {
        let (stop, published) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&published));
        let thread = thread::spawn(move || {
            let mut http = Http::connect(address);
            let started = Instant::now();
            let mut next = 1;
            while !stopped.load(Ordering::SeqCst) {
                let numbers = next..next + u64::from(BATCH);
                let lines = numbers.map(|it| format!("{{\"topic\":\"storm\",\"data\":{it}}}\n"));
                let answer = http.publish_lines(&lines.collect::<String>());
                assert!(
                    !answer.body.windows(9).any(|it| it == b"\"status\":"),
                    "a line was refused"
                );
                next += u64::from(BATCH);
                count.store(next - 1, Ordering::SeqCst);
                let due = Duration::from_secs(1) * next as u32 / PUBLICATIONS_EACH_SECOND;
                // The pace of the publisher.
                thread::sleep(due.saturating_sub(started.elapsed()));
            }
        });
        Publisher {
            stop,
            published,
            thread,
        }
    }

    fn published(&self) -> u64 {
        self.published.load(Ordering::SeqCst)
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("all were taken");
        self.published.load(Ordering::SeqCst)
    }
}

fn all_are_in(crowd: &Crowd, count: usize) -> bool {
    crowd.tally.answered >= count + crowd.tally.cut
}

#[test]
fn reconnect_storm_recovers_everything() {
    let count = subscribers();
    let server = Server::start(&FLAGS);
    let mut crowd = Crowd::new(server.address(), "storm", count);
    crowd.connect();
    let joining = crowd.run_until("all are in", PATIENCE, |crowd| all_are_in(crowd, count));
    let publisher = Publisher::start(server.address());
    crowd.run_until("they are served", PATIENCE, |crowd| {
        crowd.got_by_all() > 200
    });
    for round in 0..3 {
        let before = publisher.published();
        crowd.reset();
        // Some publications pass them by, as they do when a network is gone.
        wait_until("they have missed some", || {
            publisher.published() > before + u64::from(PUBLICATIONS_EACH_SECOND) * 3 / 10
        });
        crowd.connect();
        let answered = crowd.run_until("all are back", PATIENCE, |crowd| all_are_in(crowd, count));
        let newest = publisher.published();
        let more = crowd.run_until("all have caught up", PATIENCE, |crowd| {
            crowd.got_by_all() >= newest
        });
        let Tally {
            answered: answers,
            recovered,
            failed,
            cut,
        } = crowd.tally;
        eprintln!(
            "round {round}: {count} back in {answered:?}, all at publication {newest} {more:?} \
             later; {} published meanwhile; {cut} connections were cut on the way, {recovered} recoveries",
            publisher.published() - before
        );
        assert_eq!((recovered, failed), (answers, 0));
    }
    let published = publisher.finish();
    let last = crowd.run_until("everybody has everything", PATIENCE, |crowd| {
        crowd.got_by_all() == published
    });
    let replayed = server.metric("umbel_publications_replayed_total");
    eprintln!(
        "{count} joined in {joining:?}; {published} published, everything everywhere {last:?} after the last; \
         {replayed} of the deliveries were replayed"
    );
    assert_eq!(crowd.tally.failed, 0);
}

/// Its history is in memory, so nobody may believe to have missed nothing.
#[test]
fn reconnect_storm_after_kill_reports_gap() {
    let count = subscribers();
    let server = Server::start(&FLAGS);
    let address = server.address();
    let mut crowd = Crowd::new(address, "storm", count);
    crowd.connect();
    crowd.run_until("all are in", PATIENCE, |crowd| all_are_in(crowd, count));
    let publisher = Publisher::start(address);
    crowd.run_until("they are served", PATIENCE, |crowd| {
        crowd.got_by_all() >= 100
    });
    publisher.finish();
    crowd.comes_back = false;
    server.signal("KILL");
    crowd.run_until("all are cut off", PATIENCE, |crowd| {
        crowd.tally.cut == count
    });
    drop(server);
    let listen = address.to_string();
    let server = Server::start(&[&FLAGS[..], &["--listen", &listen]].concat());
    crowd.comes_back = true;
    crowd.connect();
    let took = crowd.run_until("all are back", PATIENCE, |crowd| all_are_in(crowd, count));
    eprintln!("{count} back after the restart in {took:?}");
    assert_eq!((crowd.tally.failed, crowd.tally.recovered), (count, 0));
    // From there on they are served again.
    let publisher = Publisher::start(address);
    crowd.run_until("they are served again", PATIENCE, |crowd| {
        crowd.got_by_all() >= 100
    });
    let published = publisher.finish();
    crowd.run_until("everybody has everything", PATIENCE, |crowd| {
        crowd.got_by_all() == published
    });
    drop(server);
}
