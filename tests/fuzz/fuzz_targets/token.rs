//! Readers of JSON web tokens, without their signatures: no panic, no memory out of proportion, and what is taken is in bounds.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use umbel::internals::auth::jwt::claims::Claims;
use umbel::internals::auth::jwt::compact::Compact;
use umbel::internals::auth::jwt::rules::Rules;

/// The system's allocator, with the bytes that are in use and the most there have been.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes beyond four of each that came: what the at most 256 patterns of a token are compiled to.
const SLACK: usize = 96 << 10;

#[derive(Arbitrary, Debug)]
enum Input {
    /// Any bytes.
    Raw(Vec<u8>),
    /// A token of these parts.
    Parts { header: Part, payload: Part },
    /// A token with the right header, and with claims below `umbel`.
    Umbel(String),
}

#[derive(Arbitrary, Debug)]
enum Part {
    Good,
    Text(String),
    Bytes(Vec<u8>),
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const PAYLOAD: &str =
    r#"{"sub":"42","iat":1800000000,"exp":1800003600,"umbel":{"v":1,"subscribe":["news/**"]}}"#;

impl Part {
    fn encoded(&self, good: &str) -> String {
        URL_SAFE_NO_PAD.encode(match self {
            Part::Good => good.as_bytes(),
            Part::Text(text) => text.as_bytes(),
            Part::Bytes(bytes) => bytes,
        })
    }
}

impl Input {
    fn token(&self) -> Vec<u8> {
        match self {
            Input::Raw(bytes) => bytes.clone(),
            Input::Parts { header, payload } => {
                let (header, payload) = (header.encoded(HEADER), payload.encoded(PAYLOAD));
                format!("{header}.{payload}.AAAA").into_bytes()
            }
            Input::Umbel(members) => {
                let payload =
                    format!("{{\"sub\":\"42\",\"exp\":1800003600,\"umbel\":{{{members}}}}}");
                let (header, payload) = (
                    URL_SAFE_NO_PAD.encode(HEADER),
                    URL_SAFE_NO_PAD.encode(payload),
                );
                format!("{header}.{payload}.AAAA").into_bytes()
            }
        }
    }
}

fn read(token: &[u8], rules: &Rules) {
    let Ok(compact) = Compact::read(token, rules.token_bytes_max) else {
        return;
    };
    assert!(compact.header.algorithm.is_some());
    let dots = token.iter().filter(|byte| **byte == b'.').count();
    assert_eq!(dots, 2);
    let Ok(claims) = Claims::read(&compact.payload, rules) else {
        return;
    };
    let subject = claims.subject.as_deref();
    assert!(subject.is_none_or(|it| (1..=255).contains(&it.len())));
    for (json, bytes_max) in [(&claims.info, 1024), (&claims.meta, 4096)] {
        assert!(json.as_ref().is_none_or(|it| it.get().len() <= bytes_max));
    }
    // What holds now held since its first second, and holds no more a day behind its end.
    if let Some(expires_at) = claims.expires_at {
        let late = (expires_at + 86_400) * 1000;
        assert!(claims.check_time(rules, late).is_err());
    }
}

fuzz_target!(|input: Input| {
    let token = input.token();
    let rules = Rules {
        require: Vec::new(),
        may_manage: true,
        may_outlive: true,
        kept: vec!["groups".into()],
        ..Rules::default()
    };
    let before = USED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    read(&token, &rules);
    let grown = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    assert!(
        grown <= 4 * token.len() + SLACK,
        "{grown} bytes for {}",
        token.len()
    );
});
