//! Records of our own over a socket that splits, blocks and breaks: nothing is sealed twice, and all that is sealed comes.

use std::io::{self, Write};

use super::*;
use crate::connection::{CloseReason, close_reason};
use crate::tls::connection::TlsConnection;
use crate::tls::record::once;
use crate::tls::state::pair::{FakeSocket, Numbers, Pair, own};

fn records(pair: &Pair) -> &Records {
    match &pair.state {
        TlsConnection::Own(records) => records,
        TlsConnection::Begun(_) => panic!("the handshake is done"),
    }
}

/// What a ring might say of a send.
fn outcome_of_ring(socket: &mut FakeSocket, sealed: &[u8], numbers: &mut Numbers) -> Outcome {
    const CANCELED: i32 = 125;
    let count = match numbers.below(6) {
        0 => return None,
        1 => return Some(Err(io::ErrorKind::WouldBlock.into())),
        2 => return Some(Err(io::Error::from_raw_os_error(CANCELED))),
        3 => numbers.below(sealed.len()),
        _ => sealed.len(),
    };
    socket.outbound.extend_from_slice(&sealed[..count]);
    Some(Ok(count))
}

/// A connection whose client changes keys, whose socket does what it wants, and which ends in one of three ways.
fn run(seed: u64, version: &'static rustls::SupportedProtocolVersion) {
    let mut numbers = Numbers(seed);
    let mut pair = Pair::with(&[version], |_| {});
    pair.run();
    assert!(!pair.client.is_handshaking());
    pair.socket.numbers = Some(Numbers(seed ^ 0x5555));
    let (mut said, mut updates) = (Vec::new(), 0);
    for round in 0..300 {
        let length = [1, 50, 3000, 40_000][numbers.below(4)];
        let message = vec![round as u8; 1 + numbers.below(length)];
        match numbers.below(8) {
            // What is not taken is dropped, as an outbox may do.
            0 | 1 => match pair.write(&message) {
                Ok(count) => said.extend_from_slice(&message[..count]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            },
            2..=4 => {
                let mut sealed = Vec::new();
                if pair.state.seal(&mut pair.turn, &message, &mut sealed) {
                    said.extend_from_slice(&message);
                    // Nothing overtakes what is with the ring.
                    assert!(pair.write(b"x").is_err());
                    let again = pair.state.seal(&mut pair.turn, b"x", &mut Vec::new());
                    assert!(!again);
                    let outcome = outcome_of_ring(&mut pair.socket, &sealed, &mut numbers);
                    let finished = pair
                        .state
                        .finish_sealed(&mut pair.socket, &sealed, &outcome);
                    finished.expect("the socket does not fail");
                }
            }
            5 if updates < KEY_UPDATES_PER_MINUTE => {
                updates += u8::from(pair.client.refresh_traffic_keys().is_ok());
                pair.arrive(usize::MAX);
                pair.read();
            }
            6 => pair.take(),
            _ => pair.flush(),
        }
        assert!(pair.error.is_none(), "seed {seed}: {:?}", pair.error);
        assert!(pair.state.held_output() <= HELD_BYTES_MAX + 100);
    }
    match seed % 3 {
        // It is dropped with what it holds.
        0 => return,
        1 => {
            pair.socket.is_broken = true;
            while pair.write(b"x").is_ok() {}
            let before = once::count();
            assert!(pair.write(b"x").is_err());
            assert!(!pair.state.seal(&mut pair.turn, b"x", &mut Vec::new()));
            let _ = pair.state.shutdown_write(&mut pair.socket, &mut pair.turn);
            assert_eq!(once::count(), before, "nothing is sealed behind a loss");
            return;
        }
        _ => {}
    }
    let ended = pair.state.shutdown_write(&mut pair.socket, &mut pair.turn);
    ended.expect("the socket does not fail");
    while !pair.socket.is_ended {
        pair.flush();
    }
    pair.take();
    assert!(pair.at_client == said, "seed {seed}");
    assert!(pair.client_saw_end && pair.error.is_none());
}

#[test]
fn nonces_are_used_once_whatever_the_socket_does() {
    own(|| {
        for seed in 1..19 {
            run(seed * 7_919, &rustls::version::TLS13);
            run(seed * 104_729, &rustls::version::TLS12);
        }
        assert!(once::count() > 1000, "{}", once::count());
    });
}

#[test]
fn key_update_of_ours_is_followed() {
    own(|| {
        let mut pair = Pair::with(&[&rustls::version::TLS13], |_| {});
        pair.run();
        let TlsConnection::Own(records) = &mut pair.state else {
            panic!("the handshake is done");
        };
        records.owes_update = true;
        for _ in 0..40 {
            pair.write(b"x").expect("open");
        }
        pair.run();
        assert_eq!(pair.at_client, [b'x'; 40]);
        let records = self::records(&pair);
        assert_eq!(records.sealer.sequence(), 40, "they count anew");
        assert_ne!(records.key_place, NO_PLACE, "it is busy");
        pair.state.finish(&mut pair.turn);
    });
}

#[test]
fn nothing_is_said_behind_close_notify() {
    own(|| {
        for fails in [false, true] {
            let mut pair = Pair::open();
            let ended = pair.state.shutdown_write(&mut pair.socket, &mut pair.turn);
            ended.expect("by close_notify");
            pair.take();
            assert!(pair.client_saw_end && pair.socket.is_ended);
            // What asks for an answer has none, and what comes with it is read.
            pair.client.refresh_traffic_keys().expect("TLS 1.3");
            pair.client.writer().write_all(b"more").expect("memory");
            pair.arrive(usize::MAX);
            if fails {
                pair.socket.inbound.extend([23, 3, 3, 0, 17]);
                pair.socket.inbound.extend([0; 17]);
            }
            pair.read();
            assert_eq!(pair.at_server, b"more");
            let reason = pair.error.as_ref().map(close_reason);
            let alert = fails.then_some(CloseReason::Tls(Fatal::BAD_RECORD_MAC.0));
            assert_eq!(reason, alert);
        }
    });
}

#[test]
fn plaintext_is_read_though_an_answer_cannot_be_sent() {
    own(|| {
        let mut pair = Pair::open();
        pair.client.writer().write_all(b"last").expect("memory");
        pair.client.refresh_traffic_keys().expect("TLS 1.3");
        pair.arrive(usize::MAX);
        pair.socket.is_broken = true;
        pair.read();
        assert_eq!(pair.at_server, b"last");
        pair.read();
        assert!(pair.error.is_some(), "it is told then");
    });
}

#[test]
fn failure_is_told_though_its_alert_cannot_be_sent() {
    own(|| {
        let mut pair = Pair::open();
        pair.socket.inbound.extend(*b"GET / HTTP/1.1");
        pair.readable = true;
        pair.socket.is_broken = true;
        pair.read();
        let error = pair.error.take().expect("told");
        assert_eq!(close_reason(&error), CloseReason::Tls(10), "{error}");
    });
}

#[test]
fn key_of_tls12_that_is_worn_is_told_and_ends_in_order() {
    own(|| {
        let mut pair = Pair::with(&[&rustls::version::TLS12], |_| {});
        pair.run();
        once::set_records_max(100);
        let mut said = 0;
        while pair.error.is_none() {
            said += pair.write(b"x").expect("half of it is left");
            pair.client.writer().write_all(b"y").expect("memory");
            pair.run();
            assert!(said < 100, "it is told in time");
        }
        assert!((49..=51).contains(&said), "{said}");
        let error = pair.error.take().expect("told");
        assert_eq!(close_reason(&error), CloseReason::TlsKey, "{error}");
        // It goes on meanwhile, and is told once.
        let came = pair.at_server.len();
        pair.client.writer().write_all(b"last").expect("memory");
        said += pair.write(b"z").expect("the rest is for the end");
        pair.run();
        assert_eq!(pair.at_server.len(), came + 4);
        assert!(pair.error.is_none());
        let ended = pair.state.shutdown_write(&mut pair.socket, &mut pair.turn);
        ended.expect("by close_notify");
        pair.run();
        assert_eq!(pair.at_client.len(), said);
        assert!(pair.client_saw_end && pair.error.is_none());
    });
}

#[test]
fn long_message_begins_with_small_records() {
    own(|| {
        let mut pair = Pair::open();
        pair.write(&[7; 100_000]).expect("open");
        let (mut lengths, mut rest) = (Vec::new(), &pair.socket.outbound[..]);
        while let [_, 3, 3, high, low, behind @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            lengths.push(length);
            rest = &behind[length..];
        }
        assert!(
            lengths[..3].iter().all(|length| *length < 1400),
            "{lengths:?}"
        );
        assert!(lengths.len() < 11, "{lengths:?}");
        pair.take();
        assert_eq!(pair.at_client, [7; 100_000]);
    });
}

#[test]
fn idle_connection_is_small() {
    own(|| {
        let pair = Pair::open();
        assert!(records(&pair).waiting.is_none());
        assert!(size_of::<Records>() <= 320, "{}", size_of::<Records>());
    });
}
