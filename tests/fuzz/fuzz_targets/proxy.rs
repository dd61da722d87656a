//! Who the client is: PROXY headers of any bytes, and forwarded headers around an entry of a trusted proxy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbel::internals::http::forwarded::ForwardedHeader;
use umbel::internals::http::request::{Head, RequestLimits};
use umbel::internals::protocol::proxy::{HEADER_BYTES_MAX, parse};

const LIMITS: RequestLimits = RequestLimits {
    head_bytes_max: 16 * 1024,
    headers_max: 256,
    target_bytes_max: 64,
    body_bytes_max: 0,
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(header)) = parse(bytes) {
        assert!(header.length <= HEADER_BYTES_MAX.min(bytes.len()));
        assert_eq!(parse(&bytes[..header.length]), Ok(Some(header)));
        for end in [header.length / 2, header.length - 1] {
            assert_eq!(parse(&bytes[..end]), Ok(None));
        }
    }
    // Whatever a client writes before it, and in which of its lines, the proxy's own entry counts.
    let written: Vec<u8> = bytes.iter().map(|&byte| byte.clamp(b' ', b'~')).collect();
    let own = "203.0.113.7".parse().expect("an address");
    for (header, name, entry) in [
        (ForwardedHeader::XForwardedFor, "X-Forwarded-For", "203.0.113.7"),
        (ForwardedHeader::Forwarded, "Forwarded", "for=\"203.0.113.7:80\";proto=https"),
    ] {
        for joint in [", ".to_owned(), format!("\r\n{name}: ")] {
            let head = [
                format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: ").as_bytes(),
                &written,
                joint.as_bytes(),
                entry.as_bytes(),
                b"\r\n\r\n",
            ]
            .concat();
            let Ok(head) = Head::parse(&head, &LIMITS) else {
                continue;
            };
            let told = head.forwarded(header, |_| false);
            assert_eq!(told.client.map(|client| client.ip()), Some(own));
        }
    }
});
