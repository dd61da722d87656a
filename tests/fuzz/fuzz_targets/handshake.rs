//! The opening handshake: any bytes as request and as response, and both sides against each other.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use umbel::internals::http::request::{Head, RequestLimits, is_token};
use umbel::internals::protocol::{
    ClientError, ClientRequest, SUBPROTOCOLS_MAX, encode_switching_protocols, is_loopback_origin,
    parse_upgrade, same_origin,
};

const LIMITS: RequestLimits = RequestLimits {
    head_bytes_max: 16 * 1024,
    headers_max: 100,
    target_bytes_max: 8 * 1024,
    body_bytes_max: 1 << 20,
};

const REQUEST: &[u8] =
    b"GET /ws/a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// A request; header lines only, if `is_lines`.
    Request { is_lines: bool, bytes: &'a [u8] },
    /// The same for a response.
    Response { is_lines: bool, bytes: &'a [u8] },
    /// A handshake between our two sides.
    Both {
        nonce: [u8; 16],
        subprotocols: Vec<&'a str>,
        choice: u8,
        frames: &'a [u8],
    },
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Request {
        is_lines: false,
        bytes,
    } => request(bytes),
    Input::Request {
        is_lines: true,
        bytes,
    } => request(&[REQUEST, bytes, b"\r\n\r\n"].concat()),
    Input::Response {
        is_lines: false,
        bytes,
    } => response(bytes),
    Input::Response {
        is_lines: true,
        bytes,
    } => response(&[RESPONSE, bytes, b"\r\n\r\n"].concat()),
    Input::Both {
        nonce,
        subprotocols,
        choice,
        frames,
    } => {
        both(nonce, &subprotocols, choice, frames);
    }
});

fn request(bytes: &[u8]) {
    let Ok(head) = Head::parse(bytes, &LIMITS) else {
        return;
    };
    match parse_upgrade(&head) {
        Ok(upgrade) => {
            assert!(upgrade.offers().count() <= SUBPROTOCOLS_MAX);
            assert!(upgrade.offers().all(is_token));
            let origin = upgrade.origin.unwrap_or("null");
            let _ = (
                same_origin(origin, upgrade.host),
                is_loopback_origin(origin),
            );
        }
        Err(refusal) => assert!([400, 405, 413, 426].contains(&refusal.status)),
    }
}

fn response(bytes: &[u8]) {
    let request = ClientRequest::new(*b"the sample nonce");
    let whole = request.parse_response(bytes);
    match &whole {
        Ok(Some((response, len))) => {
            assert!(*len <= bytes.len() && response.subprotocol.is_none());
            // It does not matter what follows, and nothing less would have been enough.
            assert_eq!(request.parse_response(&bytes[..*len]), whole);
            assert_eq!(request.parse_response(&bytes[..len - 1]), Ok(None));
        }
        Err(ClientError::Refused { status, .. }) => assert_ne!(*status, 101),
        _ => {}
    }
}

fn both(nonce: [u8; 16], subprotocols: &[&str], choice: u8, frames: &[u8]) {
    let mut subprotocols: Vec<&str> = subprotocols.to_vec();
    subprotocols.retain(|name| is_token(name));
    subprotocols.truncate(SUBPROTOCOLS_MAX);
    let mut request = ClientRequest::new(nonce);
    let mut sent = Vec::new();
    request.encode(&mut sent, "a:1", "/ws", &subprotocols, &[]);
    let Ok(head) = Head::parse(&sent, &LIMITS) else {
        assert!(sent.len() > LIMITS.head_bytes_max);
        return;
    };
    let upgrade = parse_upgrade(&head).expect("the server takes what the client sends");
    assert!(upgrade.offers().eq(subprotocols.iter().copied()));
    let chosen = upgrade.offers().nth(usize::from(choice));
    let mut answer = Vec::new();
    encode_switching_protocols(&mut answer, &upgrade.accept, chosen, &[]);
    let len = answer.len();
    answer.extend_from_slice(frames);
    let parsed = request.parse_response(&answer);
    let (response, parsed_len) = parsed
        .expect("the client takes what the server sends")
        .expect("all is there");
    assert_eq!((response.subprotocol, parsed_len), (chosen, len));
}
