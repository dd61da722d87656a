//! Panics of the embedding program's own code, caught at one call.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};

/// Panics that were caught, of all servers of this process.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Calls code of the embedding program. None if it panicked, which is logged with `what`, and counted.
///
/// What the code had under its hands is the program's to put right. What of the server's it could change must be whole at
/// every moment of the call.
pub fn call<T>(what: &str, code: impl FnOnce() -> T) -> Option<T> {
    match panic::catch_unwind(AssertUnwindSafe(code)) {
        Ok(value) => Some(value),
        Err(payload) => {
            PANICS.fetch_add(1, Ordering::Relaxed);
            let words = words(&*payload).escape_debug();
            log::error!("{what} of the embedding program panicked: {words}");
            // The payload is the program's too, and may panic once more when it is dropped.
            std::mem::forget(payload);
            None
        }
    }
}

/// Panics that were caught.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

fn words(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no words)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_caught_and_counted() {
        let before = panics();
        assert_eq!(call("a test", || 1), Some(1));
        assert_eq!(
            call("a test", || -> u8 { panic!("with {}", "words") }),
            None
        );
        assert_eq!(call("a test", || -> u8 { panic::panic_any(7_u8) }), None);
        assert!(panics() >= before + 2);
    }
}
