//! What is agreed on of permessage-deflate: any bytes in the header, and both sides against each other.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use umbel::internals::protocol::deflate::{Agreement, Offer, Policy, choose, has_broken_deflate};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    lines: Vec<&'a [u8]>,
    parameters: Vec<(u8, u8)>,
    user_agent: &'a str,
    policy: (bool, bool, u8, u8),
    offer: (bool, bool, u8, Option<u8>),
}

fuzz_target!(|input: Input<'_>| {
    let _ = has_broken_deflate(input.user_agent);
    let policy = Policy {
        enabled: true,
        server_takeover: input.policy.0,
        client_takeover: input.policy.1,
        server_window_bits_max: input.policy.2,
        client_window_bits_max: input.policy.3,
    };
    if let Ok(Some(agreement)) = choose(input.lines.iter().copied(), &policy) {
        check(&agreement, &policy);
    }
    let _ = Offer::default().check_answer(input.lines.iter().copied());

    let formed = formed(&input.parameters);
    if let Ok(Some(agreement)) = choose([formed.as_bytes()], &policy) {
        check(&agreement, &policy);
    }
    let _ = Offer::default().check_answer([formed.as_bytes()]);

    both(&input, &policy);
});

/// What the server agreed to holds, whatever was offered, and can be read from its answer.
fn check(agreement: &Agreement, policy: &Policy) {
    assert!(policy.server_takeover || !agreement.server_takeover);
    assert!(policy.client_takeover || !agreement.client_takeover);
    let server_bits_max = policy.server_window_bits_max.clamp(9, 15);
    assert!((9..=server_bits_max).contains(&agreement.server_window_bits));
    assert!((8..=15).contains(&agreement.client_window_bits));
    let answer = agreement.encode();
    let read = Offer::default().check_answer([answer.as_bytes()]);
    assert_eq!(read, Ok(Some(*agreement)), "{answer}");
}

/// Our server answers every offer that a client of ours can make, and that client takes the answer.
fn both(input: &Input<'_>, policy: &Policy) {
    let offer = Offer {
        server_takeover: input.offer.0,
        client_takeover: input.offer.1,
        server_window_bits_max: 9 + input.offer.2 % 7,
        client_window_bits_max: input.offer.3.map(|bits| 8 + bits % 8),
    };
    let asked = offer.encode();
    let agreement = choose([asked.as_bytes()], policy)
        .expect("a well-formed offer")
        .expect("an offer that can be met");
    let answer = agreement.encode();
    let read = offer.check_answer([answer.as_bytes()]);
    assert_eq!(read, Ok(Some(agreement)), "{asked} / {answer}");
    assert!(agreement.server_window_bits <= offer.server_window_bits_max);
    assert!(offer.server_takeover || !agreement.server_takeover);
}

/// A header of good and bad pieces.
fn formed(parameters: &[(u8, u8)]) -> String {
    let mut out = "permessage-deflate".to_owned();
    for (name, value) in parameters {
        out += [
            "; server_no_context_takeover",
            "; client_no_context_takeover",
            "; server_max_window_bits",
            ";client_max_window_bits",
            ", permessage-deflate",
            " , other; \t x",
        ][usize::from(name % 6)];
        match value % 8 {
            0..4 => {}
            4 => out += "=\"\\1\\0\"",
            _ => out += &format!("={}", value % 18),
        }
    }
    out
}
