//! Requests, fed whole and fed in pieces: the same head, the same body, the same refusal, and no panic.
//!
//! The first byte seeds the splits; the rest is what a peer sends.

#![no_main]

use libfuzzer_sys::fuzz_target;
use umbel::internals::route::{Route, query_of};
use umbel::internals::dialect::Dialects;
use umbel::internals::http::body::BodyDecoder;
use umbel::internals::http::escape::escape;
use umbel::internals::http::refusal::Refusal;
use umbel::internals::http::request::{Head, HeadScanner, RequestLimits};
use umbel::internals::http::response::encode_refusal;

const LIMITS: RequestLimits = RequestLimits {
    head_bytes_max: 512,
    headers_max: 8,
    target_bytes_max: 128,
    body_bytes_max: 64,
};

/// How a PROXY header of version 2 begins.
const PROXY_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What the bytes of one request come to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    head_bytes: usize,
    body: Vec<u8>,
    is_done: bool,
    /// Bytes left for the next request.
    left: usize,
    refusal: Option<Refusal>,
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&seed, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = feed(bytes, |_| bytes.len());
    let one_by_one = feed(bytes, |_| 1);
    let split = feed(bytes, |index| 1 + (usize::from(seed) * 31 + index * 7) % 13);
    assert_eq!(whole, one_by_one);
    assert_eq!(whole, split);
});

/// Feeds the bytes of one request in pieces as long as `piece_bytes` says.
fn feed(bytes: &[u8], piece_bytes: impl Fn(usize) -> usize) -> Outcome {
    let mut outcome = Outcome {
        head_bytes: 0,
        body: Vec::new(),
        is_done: false,
        left: 0,
        refusal: None,
    };
    outcome.refusal = read(bytes, piece_bytes, &mut outcome).err();
    if let Some(refusal) = &mut outcome.refusal {
        // Its third byte is refused, with a hint only where the others have come too.
        if bytes.starts_with(PROXY_SIGNATURE) {
            refusal.reason = "".into();
        }
        assert!(Refusal::LABELS.contains(&refusal.label));
        assert!((400..600).contains(&refusal.status));
        encode_refusal(&mut Vec::new(), refusal, true, false);
    }
    outcome
}

fn read(
    bytes: &[u8],
    piece_bytes: impl Fn(usize) -> usize,
    outcome: &mut Outcome,
) -> Result<(), Refusal> {
    let mut scanner = HeadScanner::new();
    let (mut end, mut index) = (0, 0);
    outcome.head_bytes = loop {
        if let Some(length) = scanner.scan(&bytes[..end], &LIMITS)? {
            break length;
        }
        if end == bytes.len() {
            return Ok(());
        }
        end = bytes.len().min(end + piece_bytes(index).max(1));
        index += 1;
    };
    let head = Head::parse(&bytes[..outcome.head_bytes], &LIMITS)?;
    look_at(&head);
    let mut decoder = BodyDecoder::new(head.body()?, LIMITS.body_bytes_max);
    let mut rest = &bytes[outcome.head_bytes..];
    while !rest.is_empty() && !decoder.is_done() {
        let (mut piece, tail) = rest.split_at(rest.len().min(piece_bytes(index).max(1)));
        index += 1;
        while let Some(part) = decoder.decode(&mut piece)? {
            assert!(!part.is_empty());
            outcome.body.extend_from_slice(part);
            assert!(outcome.body.len() as u64 <= LIMITS.body_bytes_max);
        }
        assert!(piece.is_empty() || decoder.is_done());
        rest = &rest[rest.len() - tail.len() - piece.len()..];
    }
    outcome.is_done = decoder.is_done();
    outcome.left = rest.len();
    Ok(())
}

/// Asks a head all that can be asked of it.
fn look_at(head: &Head<'_>) {
    let lines: Vec<_> = head.all().collect();
    assert!(lines.len() <= LIMITS.headers_max);
    for (name, value) in lines {
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        let lines_of_name = head.all().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        assert!(lines_of_name.count() >= head.headers(name).count());
        let _ = (head.header(name), head.has_token(name, "close"));
    }
    let _ = (head.keep_alive(), head.expects_continue());
    assert!(!escape(head.target).to_string().contains(char::is_control));
    let _ = query_of(head.target).get("token");
    if let Ok(route) = Route::parse(head.target, &Dialects::default()) {
        let _ = route.check_method(head.method);
    }
}
