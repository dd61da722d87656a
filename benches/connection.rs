//! Connections without sockets: the outbox, a publication to a thousand subscribers, a message that is sent back.
//!
//! It measures the server's share of a delivery and of an echo, from the transport's read to its write, over transports
//! in memory that take everything; and what a consumer costs whose socket is full. The kernel's share, in a server nearly
//! all, is not in it. Noise: a few per cent on a quiet machine; `scripts/icount` counts the same paths and repeats.
//!
//! ```sh
//! cargo bench --bench connection
//! ```

#[path = "../tests/support/node.rs"]
mod node;

use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use node::Node;
use umbel::config::Limits;
use umbel::internals::connection::outbox::SEGMENTS_PER_WRITE;
use umbel::internals::connection::{Outbox, Segment};
use umbel::internals::protocol::{Opcode, encode_frame};

const SUBSCRIBERS: u64 = 1000;

fn outbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("outbox");
    let frame: Arc<[u8]> = Arc::from([b'x'; 100]);
    for segments in [1, 16] {
        group.throughput(Throughput::Elements(segments));
        group.bench_function(format!("{segments} segments in and out"), |bencher| {
            bencher.iter(|| {
                let mut outbox = Outbox::default();
                for _ in 0..segments {
                    let segment = Segment::Shared(Arc::clone(&frame));
                    outbox.push(segment, 0, 0, usize::MAX).expect("room");
                }
                let mut storage = [IoSlice::new(&[]); SEGMENTS_PER_WRITE];
                let count = outbox.slices(&mut storage);
                let bytes = black_box(&storage[..count]).iter().map(|piece| piece.len());
                let written = bytes.sum();
                outbox.handle_written(written);
                assert!(outbox.is_empty());
            });
        });
    }
    group.finish();
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    let mut node: Node = Node::new(&Limits::default());
    for _ in 0..SUBSCRIBERS {
        node.connect("/ws/news");
    }
    node.tick();
    group.throughput(Throughput::Elements(SUBSCRIBERS));
    group.bench_function(format!("to {SUBSCRIBERS} subscribers"), |bencher| {
        bencher.iter(|| node.publish("news", black_box(&[b'x'; 24])));
    });
    group.finish();
}

fn echo(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("echo");
    for len in [20, 512, 64 * 1024] {
        let mut node: Node = Node::new(&Limits::default());
        let id = node.connect("/echo");
        let mut frame = Vec::new();
        encode_frame(
            &mut frame,
            Opcode::Binary,
            &vec![b'x'; len],
            Some([1, 2, 3, 4]),
        );
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len} bytes"), |bencher| {
            bencher.iter(|| node.send(id, black_box(&frame)));
        });
    }
    group.finish();
}

criterion_group!(benches, outbox, publish, echo);
criterion_main!(benches);
