//! Certificates of any bytes: their validity, names and keys.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbel::internals::x509::der::Elements;
use umbel::internals::x509::{Certificate, Key, Name};

fuzz_target!(|bytes: &[u8]| {
    // Elements one behind the other are those bytes, and end.
    let (mut elements, mut content_bytes) = (Elements::of(bytes), 0);
    while let Ok((_, content)) = elements.take() {
        content_bytes += content.len() + 2;
        assert!(content_bytes <= bytes.len());
    }
    let Ok(certificate) = Certificate::parse(bytes) else {
        return;
    };
    assert!(certificate.is_issued_by(&certificate) == certificate.is_self_issued());
    let _ = (certificate.not_before(), certificate.not_after());
    if let Key::Rsa(bits) | Key::Ec(bits) = certificate.key() {
        assert!(bits <= bytes.len() * 8);
    }
    for name in certificate.names() {
        let (Name::Dns(text) | Name::Uri(text) | Name::Email(text)) = name else {
            continue;
        };
        assert!(text.is_ascii() && text.len() < bytes.len());
    }
    let names = [certificate.subject_cn(), certificate.issuer_cn()];
    assert!(names.iter().flatten().all(|name| name.len() < bytes.len()));
});
