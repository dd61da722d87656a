//! RFC 6455 on bytes in memory: masking, decoding, and the headers of frames.
//!
//! It measures what every inbound message costs before anybody looks at it, and what every outbound one costs besides its
//! copy, for messages of the sizes that occur: 20 bytes of text, half a kilobyte of binary, 64 KiB. Frames are masked, so
//! decoding holds the unmasking, and each round begins with a copy of the frames, for they are unmasked in place. Noise: a
//! few per cent on a quiet machine, and any factor on a busy one; `scripts/icount` has figures that repeat.
//!
//! ```sh
//! cargo bench --bench protocol
//! ```

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use umbel::internals::protocol::{
    Decoder, MessageLimits, Opcode, Role, encode_frame, encode_server_header,
};
use umbel::internals::protocol::{Received, mask_in_place};

const KEY: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

const LIMITS: MessageLimits = MessageLimits {
    message_bytes_max: 1 << 20,
    fragments_max: 16,
};

fn masking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("masking");
    for len in [20, 512, 64 * 1024] {
        let mut payload = vec![b'x'; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len} bytes"), |bencher| {
            bencher.iter(|| mask_in_place(black_box(&mut payload), black_box(KEY), 0));
        });
    }
    group.finish();
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decoding");
    for (name, opcode, len, count) in [
        ("text of 20 bytes", Opcode::Text, 20, 1),
        ("binary of 512 bytes", Opcode::Binary, 512, 1),
        ("16 texts of 20 bytes", Opcode::Text, 20, 16),
        ("text of 64 KiB", Opcode::Text, 64 * 1024, 1),
    ] {
        let mut frame = Vec::new();
        encode_frame(&mut frame, opcode, &vec![b'x'; len], Some(KEY));
        let frames = frame.repeat(count);
        group.throughput(Throughput::Bytes(frames.len() as u64));
        group.bench_function(name, |bencher| {
            let mut decoder = Decoder::new(Role::Server);
            bencher.iter_batched_ref(
                || frames.clone(),
                |input| assert_eq!(decode_all(&mut decoder, input), count),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn decode_all(decoder: &mut Decoder, input: &mut [u8]) -> usize {
    let mut rest = input;
    let mut count = 0;
    while let Some(received) = decoder.decode(&LIMITS, &mut rest).expect("valid frames") {
        count += usize::from(matches!(
            black_box(received),
            Received::Text(_) | Received::Binary(_)
        ));
    }
    count
}

fn headers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encoding of a header");
    for len in [20, 512, 64 * 1024_u64] {
        group.bench_function(format!("for {len} bytes"), |bencher| {
            bencher.iter(|| encode_server_header(Opcode::Text, true, black_box(len)));
        });
    }
    group.finish();
}

criterion_group!(benches, masking, decoding, headers);
criterion_main!(benches);
