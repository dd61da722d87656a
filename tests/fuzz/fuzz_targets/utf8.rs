//! The incremental check of UTF-8 against the standard library's, byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbel::internals::protocol::{Utf8Validator, parse_text};

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (bytes, cuts) = input;
    let expected = std::str::from_utf8(&bytes).ok();
    assert_eq!(parse_text(&bytes).ok(), expected);

    let mut validator = Utf8Validator::new();
    let mut end = 0;
    let mut cuts = cuts.iter();
    while end < bytes.len() {
        let start = end;
        end = (start + cuts.next().map_or(1, |cut| usize::from(*cut))).min(bytes.len());
        let result = validator.push(&bytes[start..end]);
        let front = std::str::from_utf8(&bytes[..end]);
        let is_lost = front.is_err_and(|error| error.error_len().is_some());
        assert_eq!(result.is_err(), is_lost);
        if is_lost {
            return;
        }
        assert_eq!(validator.finish().is_ok(), front.is_ok());
    }
    assert_eq!(validator.finish().is_ok(), expected.is_some());
});
