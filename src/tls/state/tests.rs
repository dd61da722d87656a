//! The adapter against a rustls client.

use std::sync::atomic::Ordering;

use super::pair::{Numbers, Pair, both, is_own};
use super::*;
use crate::connection::CloseReason;
use crate::tls::records::HELD_BYTES_MAX;

fn message(length: usize, numbers: &mut Numbers) -> Vec<u8> {
    (0..length).map(|_| numbers.below(256) as u8).collect()
}

/// One run: both sides send, everything splits and blocks, and every byte comes.
fn exchange(seed: u64, version: &'static rustls::SupportedProtocolVersion) {
    let mut numbers = Numbers(seed);
    let mut pair = Pair::with(&[version], |_| {});
    pair.socket.numbers = Some(Numbers(seed ^ 0x5555));
    pair.out = vec![0; [1000, 4096, 20_000, 262_144][numbers.below(4)]];
    pair.turn.budget = [1024, 70_000, 262_144][numbers.below(3)];
    let (up, down) = (numbers.below(200_000), numbers.below(200_000));
    let (up, down) = (message(up, &mut numbers), message(down, &mut numbers));
    let (mut asked, mut written) = (0, 0);
    for round in 0.. {
        assert!(round < 20_000, "seed {seed}: it stands still");
        if asked < up.len() && numbers.below(3) == 0 {
            let end = up.len().min(asked + 1 + numbers.below(30_000));
            asked += pair.client.writer().write(&up[asked..end]).expect("memory");
        }
        let most = match numbers.below(3) {
            0 => 1 + numbers.below(40),
            1 => numbers.below(5000),
            _ => usize::MAX,
        };
        pair.arrive(most);
        pair.readable |= std::mem::take(&mut pair.socket.read_blocked);
        pair.read();
        if std::mem::take(&mut pair.socket.write_blocked) && pair.state.held_output() > 0 {
            pair.flush();
        }
        if !pair.client.is_handshaking() && written < down.len() {
            let end = down.len().min(written + 1 + numbers.below(90_000));
            match pair.write(&down[written..end]) {
                Ok(count) => written += count,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
            }
        }
        pair.take();
        assert!(pair.error.is_none(), "seed {seed}: {:?}", pair.error);
        if pair.at_server.len() == up.len() && pair.at_client.len() == down.len() {
            break;
        }
    }
    assert!(
        pair.at_server == up && pair.at_client == down,
        "seed {seed}"
    );
}

#[test]
fn every_byte_comes_over_a_socket_that_splits_and_blocks() {
    both(|| {
        for seed in 1..25 {
            exchange(seed * 7_919, &rustls::version::TLS13);
            exchange(seed * 104_729, &rustls::version::TLS12);
        }
    });
}

#[test]
fn a_hello_may_come_byte_by_byte() {
    both(|| {
        let mut pair = Pair::new();
        for _ in 0..6000 {
            pair.arrive(1);
            pair.read();
            pair.take();
        }
        assert!(!pair.client.is_handshaking());
        assert!(pair.handshakes().contains("pending: 0"));
    });
}

#[test]
fn what_does_not_fit_the_buffer_is_held() {
    both(|| {
        let mut pair = Pair::open();
        pair.out = vec![0; 100];
        pair.client
            .writer()
            .write_all(&[7; 50_000])
            .expect("memory");
        pair.arrive(usize::MAX);
        pair.read();
        assert_eq!(pair.at_server.len(), 50_000, "one event, and all is read");
        assert!(!pair.state.holds_input());
    });
}

#[test]
fn a_budget_counts_ciphertext() {
    both(|| {
        let mut pair = Pair::open();
        for _ in 0..4000 {
            // A record each, of 23 bytes.
            pair.client.writer().write_all(b"x").expect("memory");
        }
        pair.turn.budget = 10_000;
        pair.arrive(usize::MAX);
        pair.read();
        let first = pair.at_server.len();
        assert!((300..=460).contains(&first), "{first}");
        let mut ticks = 1;
        while pair.at_server.len() < 4000 {
            pair.read();
            ticks += 1;
            assert!(ticks < 20, "no event comes, and it goes on");
        }
    });
}

#[test]
fn key_updates_are_answered_and_bounded() {
    both(|| {
        let mut pair = Pair::open();
        for _ in 0..10 {
            pair.client.refresh_traffic_keys().expect("TLS 1.3");
            pair.client.writer().write_all(b"x").expect("memory");
            pair.run();
        }
        assert_eq!(pair.at_server.len(), 10);
        pair.write(b"hello").expect("open");
        pair.run();
        assert_eq!(pair.at_client, b"hello");
        for _ in 0..100 {
            pair.client.refresh_traffic_keys().expect("TLS 1.3");
            pair.arrive(usize::MAX);
        }
        pair.turn.budget = 500;
        pair.read();
        assert!(pair.error.is_some() || !pair.turn.take_again().is_empty());
    });
}

#[test]
fn close_notify_is_a_half_close() {
    both(|| {
        let mut pair = Pair::open();
        pair.client
            .writer()
            .write_all(b"last words")
            .expect("memory");
        pair.client.send_close_notify();
        pair.socket.room = 0;
        let _ = pair.write(b"an answer").expect("encrypted");
        pair.arrive(usize::MAX);
        pair.read();
        assert_eq!(pair.at_server, b"last words");
        assert!(!pair.server_saw_end, "there is something to be sent");
        pair.socket.room = usize::MAX;
        pair.flush();
        pair.read();
        assert!(pair.server_saw_end, "it is told without an event");
        pair.write(b" and more").expect("open");
        pair.run();
        assert_eq!(pair.at_client, b"an answer and more");
        assert!(pair.error.is_none());
    });
}

#[test]
fn tcp_that_ends_without_close_notify_is_an_end() {
    both(|| {
        let mut pair = Pair::open();
        pair.client.writer().write_all(b"x").expect("memory");
        pair.arrive(usize::MAX);
        pair.socket.is_closed = true;
        pair.read();
        assert_eq!(pair.at_server, b"x");
        // The end of a real socket is an event.
        pair.readable = true;
        pair.read();
        assert!(pair.server_saw_end && pair.error.is_none());
    });
}

#[test]
fn our_end_waits_for_what_is_held() {
    both(|| {
        let mut pair = Pair::open();
        pair.socket.room = 10;
        assert_eq!(pair.write(&[1; 1000]).expect("encrypted"), 1000);
        assert!(pair.state.held_output() > 900);
        let again = pair.write(b"more").expect_err("it is full");
        assert_eq!(again.kind(), io::ErrorKind::WouldBlock);
        let outcome = pair.state.shutdown_write(&mut pair.socket, &mut pair.turn);
        outcome.expect("it waits");
        assert!(!pair.socket.is_ended);
        pair.socket.room = usize::MAX;
        pair.flush();
        assert!(pair.socket.is_ended);
        pair.take();
        assert_eq!(pair.at_client, [1; 1000]);
        assert!(pair.client_saw_end, "by close_notify");
    });
}

#[test]
fn no_more_is_held_than_one_write() {
    both(|| {
        let mut pair = Pair::open();
        pair.socket.room = 0;
        let taken = pair.write(&vec![1; 1_000_000]).expect("encrypted");
        let most = match is_own() {
            true => HELD_BYTES_MAX,
            false => PLAINTEXT_BYTES_MAX + 200,
        };
        assert!((most - 300..most).contains(&taken), "{taken}");
        assert!(pair.state.held_output() <= most);
        assert!(pair.write(b"x").is_err());
    });
}

#[test]
fn pieces_share_a_record() {
    both(|| {
        let mut pair = Pair::open();
        let pieces = [
            IoSlice::new(b"one"),
            IoSlice::new(b"two"),
            IoSlice::new(b"three"),
        ];
        let outcome = pair.state.write(&mut pair.socket, &mut pair.turn, &pieces);
        assert_eq!(outcome.expect("open"), 11);
        assert_eq!(pair.socket.outbound.len(), 11 + 22);
    });
}

#[test]
fn an_error_is_told_behind_the_plaintext_and_by_an_alert() {
    both(|| {
        let mut pair = Pair::open();
        pair.client.writer().write_all(b"good").expect("memory");
        pair.arrive(usize::MAX);
        let mut forged = vec![0x17, 3, 3, 0, 40];
        forged.extend([9; 40]);
        pair.socket.inbound.extend(forged);
        pair.read();
        assert_eq!(pair.at_server, b"good");
        let error = pair.error.take().expect("told");
        assert_eq!(close(&error), CloseReason::Tls(20), "{error}");
        pair.take();
        let alert = pair.error.expect("the client hears of it").to_string();
        assert!(alert.contains("BadRecordMac"), "{alert}");
        let gone = pair
            .state
            .read(&mut pair.socket, &mut pair.turn, &mut pair.out);
        assert_eq!(gone.expect_err("over").kind(), io::ErrorKind::NotConnected);
    });
}

#[test]
fn what_is_no_tls_is_refused() {
    both(|| {
        for (bytes, alert) in [
            (&b"\x80\x2e\x01\x03\x01"[..], None),
            (b"\x16\x03\x01\x00\x05hello", None),
            (b"\x00\x00\x00\x00\x00\x00\x00\x00", None),
            (
                b"\x15\x03\x03\x00\x02\x02\x28",
                Some(if is_own() { 40 } else { 10 }),
            ),
            (b"\x17\x03\x03\x00\x01a", Some(10)),
            (b"\x16\x03\x03\xff\xffa", None),
            (b"\x16\x03\x03\x00\x00\x16\x03\x03\x00\x00", None),
        ] {
            let mut pair = Pair::new();
            pair.socket.inbound.extend(bytes);
            pair.socket.is_closed = true;
            pair.readable = true;
            pair.read();
            match (pair.error, alert) {
                (Some(error), Some(alert)) => assert_eq!(close(&error), CloseReason::Tls(alert)),
                (Some(error), None) => assert_eq!(error.kind(), io::ErrorKind::InvalidData),
                (None, _) => assert!(pair.server_saw_end, "{bytes:?}"),
            }
            assert!(pair.turn.context.counts.pending.load(Ordering::Relaxed) == 0);
        }
    });
}

#[test]
fn plain_http_is_answered_in_words() {
    both(|| {
        for request in ["GET / HTTP/1.1\r\n\r\n", "P"] {
            let mut pair = Pair::new();
            pair.socket.inbound.extend(request.as_bytes());
            pair.readable = true;
            pair.read();
            let answer = String::from_utf8(pair.socket.outbound.clone()).expect("text");
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(body.contains("this port speaks TLS: use https:// or wss://"));
            assert!(head.contains(&format!("Content-Length: {}", body.len())));
            assert!(pair.socket.is_ended && pair.error.is_none());
            pair.socket.inbound.extend(b"more");
            pair.socket.is_closed = true;
            pair.readable = true;
            pair.read();
            assert!(pair.error.is_some(), "and then it is over");
        }
    });
}

#[test]
fn no_protocol_that_we_speak_is_alert_120() {
    both(|| {
        let mut pair = Pair::with(rustls::ALL_VERSIONS, |config| {
            config.alpn_protocols = vec![b"h2".to_vec()];
        });
        pair.arrive(usize::MAX);
        pair.read();
        let error = pair.error.take().expect("refused");
        assert_eq!(close(&error), CloseReason::Tls(120), "{error}");
        pair.take();
        let alert = pair.error.expect("the client hears of it").to_string();
        assert!(alert.contains("NoApplicationProtocol"), "{alert}");
    });
}

#[test]
fn a_hello_waits_for_its_turn() {
    both(|| {
        let mut pair = Pair::new();
        pair.arrive(usize::MAX);
        pair.turn.hellos_left = 0;
        let outcome = pair
            .state
            .read(&mut pair.socket, &mut pair.turn, &mut pair.out);
        assert_eq!(
            outcome.expect_err("not yet").kind(),
            io::ErrorKind::WouldBlock
        );
        assert!(pair.socket.outbound.is_empty());
        pair.readable = false;
        pair.run();
        assert!(!pair.client.is_handshaking(), "without an event");
    });
}

#[test]
fn what_is_written_before_the_keys_waits_for_them() {
    both(|| {
        let mut pair = Pair::new();
        assert!(pair.write(b"x").is_err(), "nobody to talk to");
        pair.arrive(usize::MAX);
        pair.read();
        let words = [7; 40_000];
        if is_own() {
            // The reactor keeps it.
            assert!(pair.write(&words).is_err());
            pair.run();
            assert!(pair.write(&words).is_ok(), "called without an event");
            return;
        }
        assert_eq!(pair.write(&words).expect("kept"), 40_000);
        assert_eq!(pair.write(&words).expect("kept"), 65_536 - 40_000);
        assert!(pair.write(&words).is_err());
        let outcome = pair.state.shutdown_write(&mut pair.socket, &mut pair.turn);
        outcome.expect("it waits");
        assert!(!pair.socket.is_ended);
        pair.run();
        assert_eq!(pair.at_client.len(), 65_536);
        assert!(pair.socket.is_ended && pair.client_saw_end);
    });
}

#[test]
fn handshakes_are_counted_once() {
    both(|| {
        let mut pair = Pair::open();
        assert_eq!(pair.turn.context.counts.pending.load(Ordering::Relaxed), 0);
        let done = pair.handshakes();
        pair.socket.is_closed = true;
        pair.readable = true;
        pair.read();
        assert!(pair.server_saw_end);
        pair.state.finish(&mut pair.turn);
        assert_eq!(done, format!("{:?}", pair.turn.context.counts));
    });
}

fn close(error: &io::Error) -> CloseReason {
    crate::connection::close_reason(error)
}

#[test]
fn a_hello_has_a_bound() {
    both(|| {
        let mut pair = Pair::new();
        // A handshake message of 65,000 bytes, in records of 1,000.
        let mut record = vec![0x16, 3, 1, 3, 0xe8, 1, 0, 0xfd, 0xe8];
        record.resize(5 + 1000, 7);
        for number in 0..65 {
            pair.socket.inbound.extend(&record);
            pair.readable = true;
            pair.read();
            if pair.error.is_some() {
                assert!((16..=18).contains(&number), "{number}");
                return;
            }
            record.truncate(5);
            record.resize(5 + 1000, 7);
        }
        panic!("it took all of it");
    });
}
