//! The hub and the table of topics: a shard's work for a publication, and a reactor's for a subscription.
//!
//! It measures what a publish costs before the first subscriber is written to, on one reactor and on four, and what each
//! connection that comes and goes costs the tables, among ten thousand topics, so that caches miss as they do in a server.
//! The making of the publication and of the topic is in it where a server does it for each as well. Noise: a few per cent
//! on a quiet machine; the hashes are keyed anew in each run, which moves topics about.
//!
//! ```sh
//! cargo bench --bench hub
//! ```

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use umbel::internals::fanout::topics::Topics;
use umbel::internals::hub::{
    Command, Kind, LocalTopic, Origin, PatternPart, Publication, ReactorId, Shard, ShardSettings,
};
use umbel::internals::topic::Topic;

/// Topics besides those that are measured.
const TOPICS: u32 = 10_000;

fn topic(number: u32) -> Topic {
    Topic::from_text(&format!("user/{number}")).expect("a valid topic")
}

fn publication() -> Arc<Publication> {
    Arc::new(Publication::new(Kind::Text, black_box(&[b'x'; 20]), 0))
}

fn shard(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard");
    for reactors in [1, 4] {
        let mut shard = Shard::new(1, ShardSettings::default());
        let mut effects = Vec::new();
        for index in 0..TOPICS {
            for reactor in 0..reactors {
                let command = Command::Subscribe {
                    topic: topic(index),
                    reactor: ReactorId(reactor),
                    local: LocalTopic {
                        index,
                        generation: 0,
                    },
                };
                shard.handle_command(command, &PatternPart::default(), &mut effects);
            }
        }
        let topics: Vec<Topic> = (0..TOPICS).map(topic).collect();
        let mut topics = topics.iter().cycle();
        group.bench_function(format!("publish to {reactors} reactors"), |bencher| {
            bencher.iter(|| {
                let command = Command::Publish {
                    topic: topics.next().expect("it is a cycle").clone(),
                    publication: publication(),
                    origin: Origin::Detached,
                };
                shard.handle_command(command, &PatternPart::default(), &mut effects);
                effects.clear();
            });
        });
    }
    group.finish();
}

fn topic_table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topic table");
    let mut table = Topics::new(ReactorId(0), 2 * TOPICS as usize);
    let mut locals = Vec::new();
    for number in 0..TOPICS {
        let subscribed = table.subscribe(topic(number), number, |command| {
            if let Command::Subscribe { local, .. } = command {
                locals.push(local);
            }
            true
        });
        subscribed.expect("room");
    }

    let known: Vec<Topic> = (0..TOPICS).map(topic).collect();
    let mut topics = known.iter().cycle();
    group.bench_function(
        "subscribe to a topic that is there, unsubscribe",
        |bencher| {
            bencher.iter(|| {
                let topic = topics.next().expect("it is a cycle").clone();
                let subscription = table.subscribe(topic, 1, |_| true).expect("room");
                table.unsubscribe(black_box(subscription))
            });
        },
    );

    let new: Vec<Topic> = (TOPICS..2 * TOPICS).map(topic).collect();
    let mut topics = new.iter().cycle();
    group.bench_function("subscribe to a new topic, unsubscribe, retire", |bencher| {
        bencher.iter(|| {
            let topic = topics.next().expect("it is a cycle").clone();
            let subscription = table.subscribe(topic, 1, |_| true).expect("room");
            table.unsubscribe(black_box(subscription));
            table.retire(|_| true);
        });
    });

    let publication = publication();
    let mut locals = locals.iter().cycle();
    group.bench_function(
        "queue a publication, take and put back its delivery",
        |bencher| {
            bencher.iter(|| {
                let local = *locals.next().expect("it is a cycle");
                let queued = table.queue(local, Arc::clone(&publication));
                debug_assert!(queued.is_ok());
                let delivering = table.begin_delivery();
                for &topic in &delivering {
                    let (queued, subscribers) = black_box(table.take_delivery(topic));
                    table.put_back(queued, subscribers);
                }
                table.end_delivery(delivering);
            });
        },
    );
    group.finish();
}

criterion_group!(benches, shard, topic_table);
criterion_main!(benches);
