//! Lock that loom sees into: one flag, as the standard library's lock on Linux is.
//!
//! loom's own lets no other thread come between what is done under it and its release, so a thread would find it taken
//! only where the holder waits for something.

use std::ops::{Deref, DerefMut};
use std::sync::{TryLockError, TryLockResult};

use loom::sync::atomic::{AtomicBool, Ordering};

/// The lock and what it guards.
pub struct Mutex<T> {
    is_locked: AtomicBool,
    /// Never waited for: who has set the flag is alone.
    data: std::sync::Mutex<T>,
}

/// Holds the lock.
pub struct MutexGuard<'a, T> {
    is_locked: &'a AtomicBool,
    /// None only while this is dropped.
    data: Option<std::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// A free lock.
    pub fn new(data: T) -> Mutex<T> {
        Mutex {
            is_locked: AtomicBool::new(false),
            data: std::sync::Mutex::new(data),
        }
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// It is not free.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        let taken =
            self.is_locked
                .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        if taken.is_err() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(MutexGuard {
            is_locked: &self.is_locked,
            data: Some(self.data.lock().expect("no panic")),
        })
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.data.as_ref().expect("held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.data.as_mut().expect("held")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.data = None;
        self.is_locked.store(false, Ordering::Release);
    }
}
