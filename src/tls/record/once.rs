//! A watch over nonces, for tests: whoever seals twice by one key and nonce is stopped there. And keys that wear out sooner.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

thread_local! {
    static SEEN: RefCell<HashSet<([u8; 32], [u8; 12])>> = RefCell::default();
    static RECORDS_MAX: Cell<Option<u64>> = const { Cell::new(None) };
}

/// A record is sealed by this key and nonce.
pub fn note(key: &[u8; 32], nonce: &[u8; 12]) {
    let is_new = SEEN.with_borrow_mut(|seen| seen.insert((*key, *nonce)));
    assert!(is_new, "two records under one key and nonce");
}

/// Records that were sealed by this thread.
pub fn count() -> usize {
    SEEN.with_borrow(HashSet::len)
}

/// Records that a key may seal, if no test has said otherwise.
pub fn records_max(usual: u64) -> u64 {
    RECORDS_MAX.get().unwrap_or(usual)
}

/// Keys of this thread may seal so many records.
pub fn set_records_max(max: u64) {
    RECORDS_MAX.set(Some(max));
}
