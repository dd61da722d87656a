//! A watch over nonces, for tests: whoever seals twice by one key and nonce is stopped there.

use std::cell::RefCell;
use std::collections::HashSet;

thread_local! {
    static SEEN: RefCell<HashSet<([u8; 32], [u8; 12])>> = RefCell::default();
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
