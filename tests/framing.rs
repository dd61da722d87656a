//! Frames and messages from outside: RFC 6455 section 5, on `/echo`.

mod support;

use std::time::{Duration, Instant};

use support::frames::{
    self, BINARY, CLOSE, CONTINUATION, FIN, Frame, PING, PONG, TEXT, masked, unmasked,
};
use support::wire::End;
use support::{Pieces, Random, Server, Wire};

fn echo(server: &Server) -> Wire {
    let mut wire = server.connect();
    wire.upgrade("/echo");
    wire
}

/// Sends bytes that break the protocol behind a message: the message is echoed, a Close with this code follows, and
/// then the end of the stream.
fn assert_fails(server: &Server, bad: &[u8], code: u16) {
    for pieces in Pieces::ALL {
        let mut wire = echo(server);
        let mut bytes = frames::text("before");
        bytes.extend_from_slice(bad);
        wire.offer(&bytes, pieces);
        let context = bad[..bad.len().min(20)].escape_ascii().to_string();
        assert_eq!(wire.read_frame(), Frame::text("before"), "{context}");
        let close = wire.read_frame();
        assert_eq!(close.close_code(), Some(code), "{context} {pieces:?}");
        assert!(close.payload.len() > 10, "the reason is given: {close:?}");
        let (rest, end) = wire.read_to_end();
        assert_eq!((rest.len(), end), (0, End::Eof), "{context} {pieces:?}");
    }
}

/// The examples of section 5.7, byte by byte.
#[test]
fn rfc_examples() {
    let server = Server::start(&[]);
    let hello = [
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    let ping = [
        0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    assert_eq!(masked(FIN | TEXT, b"Hello"), hello);
    for pieces in Pieces::ALL {
        let mut wire = echo(&server);
        wire.offer(&hello, pieces);
        assert_eq!(wire.read_through(b"Hello"), b"\x81\x05Hello");
        wire.offer(&ping, pieces);
        assert_eq!(wire.read_through(b"Hello"), b"\x8a\x05Hello");
        wire.offer(&masked(TEXT, b"Hel"), pieces);
        wire.offer(&masked(FIN | CONTINUATION, b"lo"), pieces);
        assert_eq!(wire.read_through(b"Hello"), b"\x81\x05Hello");
    }
}

#[test]
fn length_forms() {
    let server = Server::start(&[]);
    let mut random = Random::new(1);
    for length in [
        0,
        1,
        125,
        126,
        127,
        128,
        255,
        256,
        65_535,
        65_536,
        65_537,
        1 << 20,
    ] {
        for opcode in [TEXT, BINARY] {
            let payload = match opcode {
                TEXT => vec![b'x'; length],
                _ => random.bytes(length),
            };
            let message = masked(FIN | opcode, &payload);
            for pieces in Pieces::ALL {
                // A million writes of a byte say no more than some thousands.
                if length > 1000 && pieces != Pieces::Whole {
                    continue;
                }
                let mut wire = echo(&server);
                wire.offer(&message, pieces);
                assert_eq!(wire.read_frame(), Frame::new(FIN | opcode, payload.clone()));
            }
        }
    }
}

#[test]
fn control_frames_between_fragments() {
    let server = Server::start(&[]);
    for pieces in Pieces::ALL {
        let mut bytes = Vec::new();
        bytes.extend(masked(TEXT, b"one "));
        bytes.extend(masked(FIN | PING, b"p"));
        bytes.extend(masked(CONTINUATION, b""));
        bytes.extend(masked(FIN | PONG, b"nobody asked"));
        bytes.extend(masked(FIN | CONTINUATION, b"two"));
        bytes.extend(masked(FIN | PING, &[0xff; 125]));
        let mut wire = echo(&server);
        wire.offer(&bytes, pieces);
        assert_eq!(wire.read_frame(), Frame::new(FIN | PONG, b"p"));
        assert_eq!(wire.read_frame(), Frame::text("one two"));
        assert_eq!(wire.read_frame(), Frame::new(FIN | PONG, [0xff; 125]));
    }
}

#[test]
fn protocol_violations() {
    let server = Server::start(&[]);
    let mut forbidden = vec![
        unmasked(FIN | TEXT, b"Hello"),
        unmasked(FIN | PING, b""),
        unmasked(FIN | CLOSE, b""),
        masked(CONTINUATION, b"x"),
        masked(FIN | CONTINUATION, b"x"),
        masked(FIN | CONTINUATION, b""),
        [masked(TEXT, b"x"), masked(FIN | TEXT, b"x")].concat(),
        [masked(BINARY, b""), masked(BINARY, b"")].concat(),
        masked(PING, b""),
        masked(PONG, b""),
        masked(CLOSE, b""),
        masked(FIN | PING, &[0; 126]),
        masked(FIN | PONG, &[0; 126]),
        masked(FIN | CLOSE, &[3; 126]),
        masked(FIN | PING, &[0; 70_000]),
        // Lengths that are not in their shortest form.
        b"\x81\xfe\x00\x7d\x00\x00\x00\x00".to_vec(),
        b"\x81\xfe\x00\x00\x00\x00\x00\x00".to_vec(),
        b"\x81\xff\x00\x00\x00\x00\x00\x00\x00\x7e\x00\x00\x00\x00".to_vec(),
        b"\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x00\x00".to_vec(),
        b"\x89\xfe\x00\x05\x00\x00\x00\x00Hello".to_vec(),
        // The top bit of a length.
        b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00".to_vec(),
        b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00".to_vec(),
        b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00Hello".to_vec(),
    ];
    for bits in [0x40, 0x20, 0x10, 0x70] {
        for opcode in [TEXT, BINARY, PING, CLOSE, CONTINUATION] {
            forbidden.push(masked(FIN | bits | opcode, b""));
        }
    }
    for opcode in (0x3..=0x7).chain(0xb..=0xf) {
        forbidden.push(masked(FIN | opcode, b""));
        forbidden.push(masked(opcode, b"x"));
    }
    for bad in &forbidden {
        assert_fails(&server, bad, 1002);
    }
}

/// The verdict falls on the header alone, before a byte of the payload has come (gorilla CVE-2020-27813 and its kin).
#[test]
fn length_over_limit_refused_by_header() {
    let server = Server::start(&["--message-bytes-max", "65536"]);
    let mut lengths = vec![65_537, 1 << 20, u64::from(u32::MAX), (1 << 63) - 1];
    for power in [17, 24, 31, 32, 33, 40, 47, 48, 52, 53, 62] {
        lengths.extend([(1 << power) - 1, 1 << power, (1 << power) + 1]);
    }
    for length in lengths {
        for first in [FIN | BINARY, TEXT] {
            let mut header = frames::head(first, 0x80, length);
            header.extend_from_slice(&frames::MASK);
            assert_fails(&server, &header, 1009);
        }
        // Behind a fragment, the sum counts.
        let mut bytes = masked(BINARY, b"x");
        bytes.extend(frames::head(CONTINUATION, 0x80, length - 1));
        bytes.extend_from_slice(&frames::MASK);
        assert_fails(&server, &bytes, 1009);
    }
    let mut wire = echo(&server);
    wire.send(&masked(FIN | BINARY, &[1; 65_536]));
    assert_eq!(wire.read_frame().payload.len(), 65_536);
}

#[test]
fn split_utf8() {
    let server = Server::start(&[]);
    let good =
        "\u{0}a\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{fffd}\u{ffff}\u{10000}\u{10ffff}";
    for at in 0..=good.len() {
        let (first, second) = good.as_bytes().split_at(at);
        let mut wire = echo(&server);
        wire.send(&masked(TEXT, first));
        wire.send(&masked(FIN | PING, b""));
        wire.send(&masked(FIN | CONTINUATION, second));
        assert_eq!(wire.read_frame(), Frame::new(FIN | PONG, b""));
        assert_eq!(wire.read_frame(), Frame::text(good), "split at {at}");
    }
    let bad: [&[u8]; 14] = [
        b"\x80",
        b"\xbf",
        b"\xfe",
        b"\xff",
        b"\xc0\xaf",
        b"\xc1\xbf",
        b"\xe0\x80\xaf",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xe2\x82",
    ];
    for sequence in bad {
        let payload = [b"ok ", sequence].concat();
        assert_fails(&server, &masked(FIN | TEXT, &payload), 1007);
        for at in 0..=payload.len() {
            let (first, second) = payload.split_at(at);
            let bytes = [masked(TEXT, first), masked(FIN | CONTINUATION, second)].concat();
            assert_fails_whole(&server, &bytes, 1007);
        }
    }
}

fn assert_fails_whole(server: &Server, bad: &[u8], code: u16) {
    let mut wire = echo(server);
    wire.offer(bad, Pieces::Whole);
    assert_eq!(
        wire.read_frame().close_code(),
        Some(code),
        "{}",
        bad.escape_ascii()
    );
}

/// Bad text is refused as soon as it has come, in a message whose end may never come.
#[test]
fn invalid_utf8_fails_early() {
    let server = Server::start(&[]);
    let mut wire = echo(&server);
    let mut bytes = frames::head(FIN | TEXT, 0x80, 1000);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(b"good so far \xc0");
    let started = Instant::now();
    wire.send(&bytes);
    assert_eq!(wire.read_frame().close_code(), Some(1007));
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Conversations by chance: messages, fragments, pings and pongs, cut up by chance, and what must come back.
#[test]
fn random_conversations_echoed() {
    let server = Server::start(&[]);
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..random.below(30) {
            let opcode = [TEXT, BINARY][random.below(2)];
            let length = [0, 1, 125, 126, 700, 66_000][random.below(6)];
            let payload: Vec<u8> = match opcode {
                TEXT => "a\u{e4}\u{20ac}\u{1f338}"
                    .bytes()
                    .cycle()
                    .take(length - length % 10)
                    .collect(),
                _ => random.bytes(length),
            };
            let mut rest = payload.as_slice();
            let mut first = opcode;
            loop {
                let (fragment, tail) = rest.split_at(random.below(rest.len() + 1));
                if random.below(3) == 0 {
                    bytes.extend(masked(FIN | first, rest));
                    break;
                }
                bytes.extend(masked(first, fragment));
                (first, rest) = (CONTINUATION, tail);
                if random.below(4) == 0 {
                    let length = random.below(126);
                    let ping = random.bytes(length);
                    bytes.extend(masked(FIN | PING, &ping));
                    expected.push(Frame::new(FIN | PONG, ping));
                }
            }
            expected.push(Frame::new(FIN | opcode, payload));
        }
        let mut wire = echo(&server);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(1 + random.below(rest.len().min(20_000)));
            wire.send(piece);
            rest = tail;
        }
        // A pong may answer several pings, and then answers the last (section 5.5.3); messages are all echoed.
        let messages = expected.iter().filter(|frame| frame.first != FIN | PONG);
        let mut pings = expected.iter().filter(|frame| frame.first == FIN | PONG);
        for message in messages {
            let mut frame = wire.read_frame();
            while frame.first == FIN | PONG {
                assert!(
                    pings.any(|ping| *ping == frame),
                    "seed {seed}: a pong to no ping"
                );
                frame = wire.read_frame();
            }
            assert!(frame == *message, "seed {seed}: another message");
        }
    }
}
