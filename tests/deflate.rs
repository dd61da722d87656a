//! permessage-deflate from outside: RFC 7692, what is agreed on, messages in and out, and bombs.

#[path = "support/node.rs"]
mod node;
mod support;

use node::{Node, Sink, upgrade};
use support::canary::{MEMORY_SLACK_BYTES, beside};
use support::frames::{self, BINARY, CLOSE, CONTINUATION, FIN, Frame, TEXT, masked};
use support::process::rss_bytes;
use support::wire::{End, upgrade_request};
use support::{Pieces, Random, Server, Wire, wait_until};
use umbel::config::{Deflate, Limits};
use umbel::internals::connection::Settings;
use umbel::internals::protocol::deflate::{Compression, Deflater, Inflater, TakeoverDeflater};
use umbel::internals::protocol::{Opcode, Received};

/// RSV1: the message is compressed.
const RSV1: u8 = 0x40;
/// Section 7.2.3.1: `Hello`, and the same again by a reference to it (section 7.2.3.2).
const HELLO: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
const HELLO_AGAIN: &[u8] = &[0xf2, 0x00, 0x11, 0x00, 0x00];
const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// Opens a connection with this offer; gives the answer to it too.
fn open(server: &Server, target: &str, offer: &str) -> (Wire, Option<String>) {
    let mut wire = server.connect();
    let line = format!("Sec-WebSocket-Extensions: {offer}\r\n");
    wire.send(upgrade_request(target, &line).as_bytes());
    let response = wire.read_response();
    assert_eq!(response.status, 101, "{offer}");
    let answer = response.header("sec-websocket-extensions");
    (wire, answer.map(str::to_owned))
}

fn open_echo(server: &Server) -> Wire {
    open(server, "/echo", OFFER).0
}

fn deflate(message: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    TakeoverDeflater::new(Compression::default()).deflate(message, &mut payload);
    payload
}

fn inflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let inflated = Inflater::new(false).inflate(Opcode::Binary, payload, 1 << 30, &mut out);
    match inflated {
        Ok(Received::Binary(bytes)) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// The payload of a message of so many MiB of nothing, in a thousandth of that.
fn bomb(mebibytes: usize) -> Vec<u8> {
    let mut piece = Vec::new();
    Deflater::new(Compression::default())
        .deflate(&vec![0; 1 << 20], &mut piece)
        .expect("it shrinks");
    // Every piece but the last gets back what its sender has cut off.
    let pieces = vec![piece; mebibytes];
    pieces.join(&[0, 0, 0xff, 0xff][..])
}

#[test]
fn offers_and_agreements() {
    let server = Server::start(&[]);
    let no_client = "permessage-deflate; client_no_context_takeover";
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (offer, answer) in [
        (OFFER, Some(no_client)),
        ("permessage-deflate", Some(no_client)),
        ("permessage-deflate; server_no_context_takeover", Some(both)),
        (
            "x, permessage-deflate; unknown, permessage-deflate",
            Some(no_client),
        ),
        (
            "permessage-deflate; server_max_window_bits=\"10\"",
            Some("permessage-deflate; client_no_context_takeover; server_max_window_bits=10"),
        ),
        (
            "permessage-deflate; client_max_window_bits=9; server_max_window_bits=15",
            Some(
                "permessage-deflate; client_no_context_takeover; server_max_window_bits=15; \
                 client_max_window_bits=9",
            ),
        ),
        // Wrong, repeated and unknown parameters void their own offer, and no other (undici CVE-2026-2229).
        (
            "permessage-deflate; server_max_window_bits=7, \
             permessage-deflate; client_max_window_bits=16, \
             permessage-deflate; server_no_context_takeover; server_no_context_takeover, \
             permessage-deflate; client_no_context_takeover=1, \
             permessage-deflate; server_max_window_bits=9; server_max_window_bits=10, \
             permessage-deflate; server_no_context_takeover, permessage-deflate",
            Some(both),
        ),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("x-webkit-deflate-frame", None),
    ] {
        for target in ["/echo", "/ws/a"] {
            assert_eq!(open(&server, target, offer).1.as_deref(), answer, "{offer}");
        }
    }
    for (version, answer) in [
        ("14.1", Some(no_client)),
        ("15.0", None),
        ("15.1", None),
        ("15.2.1", None),
        ("15.3", None),
        ("15.4", Some(no_client)),
        ("15.10", Some(no_client)),
    ] {
        let safari = format!(
            "{OFFER}\r\nUser-Agent: Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 \
             Version/{version} Safari/605.1.15"
        );
        let agreed = open(&server, "/ws/a", &safari).1;
        assert_eq!(agreed.as_deref(), answer, "{version}");
    }
}

#[test]
fn bytes_min_and_bytes_max() {
    for (flags, lengths) in [
        (&[][..], [(255, false), (256, true)]),
        (&["--deflate-bytes-min", "40"], [(39, false), (40, true)]),
        (&["--deflate-bytes-max", "300"], [(300, true), (301, false)]),
    ] {
        let server = Server::start(flags);
        let (mut echo, mut subscriber) = (open_echo(&server), open(&server, "/ws/a", OFFER).0);
        for (len, is_compressed) in lengths {
            let text = "a".repeat(len);
            echo.send(&frames::text(&text));
            subscriber.send(&frames::text(&text));
            for frame in [echo.read_frame(), subscriber.read_frame()] {
                assert_eq!(frame.first & RSV1 != 0, is_compressed, "{len} {flags:?}");
            }
        }
    }
}

#[test]
fn deflate_off() {
    let server = Server::start(&["--deflate", "off"]);
    let (mut wire, answer) = open(&server, "/echo", OFFER);
    assert_eq!(answer, None);
    wire.send(&masked(FIN | RSV1 | TEXT, HELLO));
    assert_eq!(wire.read_frame().close_code(), Some(1002));
}

#[test]
fn echo_compressed_if_shorter() {
    let text = "one in, many out. ".repeat(100);
    let noise = Random::new(7).bytes(1000);
    for (what, binary_first) in [("text", FIN | BINARY), ("all", FIN | RSV1 | BINARY)] {
        let server = Server::start(&["--deflate", what]);
        let mut wire = open_echo(&server);
        let mut echo = |first: u8, message: &[u8], pieces: Pieces| {
            wire.offer(&masked(FIN | RSV1 | first, &deflate(message)), pieces);
            let frame = wire.read_frame();
            if frame.first & RSV1 != 0 {
                assert!(frame.payload.len() < message.len());
                return (frame.first, inflate(&frame.payload));
            }
            (frame.first, frame.payload)
        };
        for pieces in Pieces::ALL {
            let long = (FIN | RSV1 | TEXT, text.clone().into_bytes());
            assert_eq!(echo(TEXT, text.as_bytes(), pieces), long);
            let binary = (binary_first, text.clone().into_bytes());
            assert_eq!(echo(BINARY, text.as_bytes(), pieces), binary);
            let short = (FIN | TEXT, b"Hello".to_vec());
            assert_eq!(echo(TEXT, b"Hello", pieces), short);
            assert_eq!(echo(TEXT, b"", pieces), (FIN | TEXT, vec![]));
            let incompressible = (FIN | BINARY, noise.clone());
            assert_eq!(echo(BINARY, &noise, pieces), incompressible);
        }
        let deflated = if what == "all" { 6.0 } else { 3.0 };
        // What a tick has inflated shows at its end.
        wait_until("all are counted", || {
            server.metric("umbel_messages_inflated_total") == 15.0
                && server.metric("umbel_messages_deflated_total") == deflated
        });
    }
}

#[test]
fn compressed_publications_in_order() {
    let server = Server::start(&[]);
    let mut subscriber = server.connect();
    subscriber.upgrade("/ws/a");
    let (mut publisher, _) = open(&server, "/ws/a", OFFER);
    let mut bytes = masked(FIN | RSV1 | TEXT, HELLO);
    bytes.extend(frames::text("plain"));
    bytes.extend(masked(RSV1 | TEXT, &HELLO[..3]));
    bytes.extend(masked(CONTINUATION, &HELLO[3..5]));
    bytes.extend(masked(FIN | CONTINUATION, &HELLO[5..]));
    bytes.extend(frames::text("end"));
    publisher.offer(&bytes, Pieces::Random(5));
    for text in ["Hello", "plain", "Hello", "end"] {
        assert_eq!(subscriber.read_frame(), Frame::text(text));
    }
}

#[test]
fn malformed_deflate_closes() {
    let server = Server::start(&[]);
    for (first, payload, code) in [
        (FIN | RSV1 | TEXT, &b"\x07"[..], 1007),
        (FIN | RSV1 | TEXT, HELLO_AGAIN, 1007),
        (FIN | RSV1 | TEXT, &HELLO[..4], 1007),
        // Text that is not UTF-8, in a stored block.
        (FIN | RSV1 | TEXT, b"\x00\x01\x00\xfe\xff\xce\x00", 1007),
        (FIN | RSV1 | CONTINUATION, HELLO, 1002),
        (FIN | RSV1 | 0x9, HELLO, 1002),
        (FIN | 0x20 | TEXT, HELLO, 1002),
    ] {
        let mut wire = open_echo(&server);
        // What came before is answered first.
        wire.send(&[masked(FIN | RSV1 | TEXT, HELLO), masked(first, payload)].concat());
        assert_eq!(wire.read_frame(), Frame::text("Hello"));
        assert_eq!(wire.read_frame().close_code(), Some(code), "{payload:?}");
    }
}

/// 1 GiB out of a megabyte, as one frame and as many, into an own endpoint and into a topic.
#[test]
fn bombs_cut_at_inflated_size() {
    let server = Server::start(&["--message-bytes-max", "4194304"]);
    let (large, small) = (bomb(1024), bomb(900));
    beside(&server, (4 << 20) + (4 << 20), || {
        for (target, bomb) in [("/echo", &large), ("/ws/a", &small)] {
            let whole = masked(FIN | RSV1 | BINARY, bomb);
            let mut pieces = masked(RSV1 | BINARY, &[]);
            for piece in bomb.chunks(10_000) {
                pieces.extend(masked(CONTINUATION, piece));
            }
            pieces.extend(masked(FIN | CONTINUATION, &[]));
            for bytes in [whole, pieces] {
                let (mut wire, _) = open(&server, target, OFFER);
                wire.offer(&bytes, Pieces::Whole);
                wire.end();
                assert_eq!(wire.read_frame().close_code(), Some(1009), "{target}");
            }
        }
    });
    assert_eq!(server.metric("umbel_inflate_errors_total"), 4.0);
}

/// Many messages of a kilobyte, each of them inflated to a megabyte: the others have their turns between them.
#[test]
fn small_bombs_delay_nobody() {
    let server = Server::start(&["--reactors", "1"]);
    let mebibyte = masked(FIN | RSV1 | BINARY, &bomb(1));
    beside(&server, 16 << 20, || {
        let mut wire = open_echo(&server);
        wire.offer(&mebibyte.repeat(50), Pieces::Whole);
        for _ in 0..50 {
            assert_eq!(
                wire.read_frame(),
                Frame::new(FIN | BINARY, vec![0; 1 << 20])
            );
        }
    });
}

/// Blocks in blocks, and codes upon codes: what once overflowed a stack (zlib-rs RUSTSEC-2024-0401). Final blocks, behind
/// each of which inflating begins anew, must not cost more than other blocks do.
#[test]
fn structural_streams() {
    let server = Server::start(&[]);
    let mut random = Random::new(401);
    // The messages, whose memory the allocator keeps for a second.
    beside(&server, 4 << 20, || {
        // Empty stored blocks, empty fixed blocks, and headers of dynamic blocks by the hundred thousand.
        let stored = [0, 0, 0, 0xff, 0xff].repeat(100_000);
        let fixed = [0x02, 0x08, 0x20, 0x80, 0x00].repeat(100_000);
        let last = [0x03, 0x00].repeat(500_000);
        let dynamic: Vec<u8> = (0..300_000)
            .map(|index| {
                if index % 3 == 0 {
                    0x04
                } else {
                    random.next() as u8
                }
            })
            .collect();
        for payload in [stored, fixed, last, dynamic] {
            let mut wire = open_echo(&server);
            wire.offer(&masked(FIN | RSV1 | BINARY, &payload), Pieces::Whole);
            let frame = wire.read_frame();
            assert!(frame.first == FIN | BINARY || frame.close_code() == Some(1007));
        }
    });
}

#[test]
fn client_takeover() {
    let server = Server::start(&["--deflate-client-takeover", "true"]);
    let (mut wire, answer) = open(&server, "/echo", OFFER);
    assert_eq!(answer.as_deref(), Some("permessage-deflate"));
    for payload in [HELLO, HELLO_AGAIN, HELLO_AGAIN] {
        wire.send(&masked(FIN | RSV1 | TEXT, payload));
        assert_eq!(wire.read_frame(), Frame::text("Hello"));
    }
    // Another connection knows nothing of it.
    let (mut wire, _) = open(&server, "/echo", OFFER);
    wire.send(&masked(FIN | RSV1 | TEXT, HELLO_AGAIN));
    assert_eq!(wire.read_frame().close_code(), Some(1007));
}

/// Contexts take at most half of the budget for what comes in; further peers are asked to do without (Jetty #293).
#[test]
fn contexts_bounded() {
    const BUDGET: usize = 1 << 20;
    let flags = ["--deflate-client-takeover", "true", "--reactors", "1"];
    let budget = BUDGET.to_string();
    let server = Server::start(&[&flags[..], &["--inbound-bytes-total-max", &budget]].concat());
    beside(&server, BUDGET as u64, || {
        let (mut open_now, mut with_context) = (Vec::new(), 0);
        for _ in 0..200 {
            let (wire, answer) = open(&server, "/echo", OFFER);
            with_context += usize::from(answer.as_deref() == Some("permessage-deflate"));
            open_now.push(wire);
        }
        assert_eq!(with_context, BUDGET / 2 / Inflater::BYTES);
        for wire in &mut open_now {
            wire.send(&masked(FIN | RSV1 | TEXT, HELLO));
            assert_eq!(wire.read_frame(), Frame::text("Hello"));
        }
        assert!(server.metric("umbel_inbound_bytes") <= (BUDGET / 2) as f64);
        for mut wire in open_now.drain(..) {
            wire.send(&frames::close(1000, ""));
            assert_eq!(wire.read_frame().first, FIN | CLOSE);
            assert_eq!(wire.read_to_end(), (vec![], End::Eof));
        }
        let (_, answer) = open(&server, "/echo", OFFER);
        assert_eq!(answer.as_deref(), Some("permessage-deflate"));
    });
}

/// Peers whose answer waits for the hub have agreed too, and in one tick there may be many.
#[test]
fn contexts_bounded_during_handshake() {
    let mut limits = Limits::default();
    limits.inbound_bytes_total_max = 1 << 20;
    let settings = Settings::new(&limits).with_deflate(Deflate::Text, true);
    for target in ["/ws/a", "/ws/a?last=1"] {
        let mut node: Node<Sink> = Node::with_settings(settings.clone());
        let mut request = upgrade(target);
        request.truncate(request.len() - 2);
        request.extend(format!("Sec-WebSocket-Extensions: {OFFER}\r\n\r\n").bytes());
        let ids: Vec<_> = (0..200).map(|_| node.accept(request.clone())).collect();
        node.tick();
        let agreements = ids.iter().filter_map(|&id| {
            let connection = node.connections.connection(id);
            connection.expect("it is open").deflate()
        });
        let (keeping, others): (Vec<_>, Vec<_>) =
            agreements.partition(|agreement| agreement.client_takeover);
        let contexts = (1 << 20) / 2 / Inflater::BYTES;
        assert_eq!((keeping.len(), others.len()), (contexts, 200 - contexts));
    }
}

/// Jetty #13029: what ten thousand peers cost that keep a context and fall silent, and what is counted of it.
#[test]
fn idle_contexts_cost_what_is_counted() {
    const PEERS: usize = 10_000;
    const BUDGET: usize = 96 << 20;
    /// Cost of an open connection besides.
    const PEER_BYTES: usize = 1024;
    rlimit::increase_nofile_limit(PEERS as u64 + 1000).expect("descriptors for the peers");
    let flags = ["--deflate-client-takeover", "true", "--reactors", "1"];
    let budget = BUDGET.to_string();
    let server = Server::start(&[&flags[..], &["--inbound-bytes-total-max", &budget]].concat());
    // It fills the window.
    let text = Random::new(7).bytes(1000).repeat(33);
    let long = masked(FIN | RSV1 | BINARY, &deflate(&text));
    let before = rss_bytes(server.pid());
    let (mut open_now, mut contexts) = (Vec::new(), 0);
    for _ in 0..PEERS {
        let (mut wire, answer) = open(&server, "/echo", OFFER);
        if answer.as_deref() == Some("permessage-deflate") {
            contexts += 1;
            wire.send(&long);
            assert_eq!(wire.read_frame().payload.len(), text.len());
        }
        open_now.push(wire);
    }
    assert_eq!(contexts, BUDGET / 2 / Inflater::BYTES);
    let counted = server.metric("umbel_inbound_bytes");
    assert_eq!(counted, (contexts * Inflater::BYTES) as f64);
    let grown = rss_bytes(server.pid()).saturating_sub(before);
    let cost = grown.saturating_sub((PEERS * PEER_BYTES) as u64) as f64;
    println!("{grown} bytes more, of which {counted} are counted as contexts");
    assert!(
        cost <= counted + MEMORY_SLACK_BYTES as f64,
        "{cost} of {counted}"
    );
    assert!(
        grown as f64 >= counted / 2.0,
        "{grown}: the contexts are not there"
    );
    // Those that were asked to do without are served all the same.
    let last = open_now.last_mut().expect("the last of many");
    last.send(&masked(FIN | RSV1 | TEXT, HELLO));
    assert_eq!(last.read_frame(), Frame::text("Hello"));
    drop(open_now);
    wait_until("the contexts are freed", || {
        server.metric("umbel_inbound_bytes") == 0.0
    });
}
