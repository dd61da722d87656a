//! A bounded queue that loom sees into. It has the part of crossbeam's interface that is used here.

use std::collections::VecDeque;
use std::sync::Arc;

pub use crossbeam_channel::TrySendError;
use crossbeam_channel::{RecvError, TryRecvError};
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicUsize, Ordering};

struct Queue<T> {
    items: Mutex<VecDeque<T>>,
    /// Stored with the lock held, and loaded without it.
    len: AtomicUsize,
    items_max: usize,
}

/// The sending side.
pub struct Sender<T>(Arc<Queue<T>>);

/// The receiving side.
pub struct Receiver<T>(Arc<Queue<T>>);

/// Makes both sides of a queue for so many items.
pub fn bounded<T>(items_max: usize) -> (Sender<T>, Receiver<T>) {
    let queue = Arc::new(Queue {
        items: Mutex::new(VecDeque::new()),
        len: AtomicUsize::new(0),
        items_max,
    });
    (Sender(Arc::clone(&queue)), Receiver(queue))
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        Receiver(Arc::clone(&self.0))
    }
}

impl<T> Sender<T> {
    /// Appends an item.
    ///
    /// # Errors
    /// Gives it back when there is no room.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let mut items = self.0.items.lock().expect("no panic");
        if items.len() == self.0.items_max {
            return Err(TrySendError::Full(item));
        }
        items.push_back(item);
        self.0.len.store(items.len(), Ordering::Relaxed);
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Takes the first item.
    ///
    /// # Errors
    /// There is none.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut items = self.0.items.lock().expect("no panic");
        let item = items.pop_front().ok_or(TryRecvError::Empty)?;
        self.0.len.store(items.len(), Ordering::Relaxed);
        Ok(item)
    }

    /// Waits for the first item. It waits for ever where no more come.
    ///
    /// # Errors
    /// None.
    pub fn recv(&self) -> Result<T, RecvError> {
        loop {
            if let Ok(item) = self.try_recv() {
                return Ok(item);
            }
            loom::thread::yield_now();
        }
    }

    /// Whether there is no item, by a relaxed load without the lock: taking it would order what the caller has to order.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of items, by a relaxed load as well.
    pub fn len(&self) -> usize {
        self.0.len.load(Ordering::Relaxed)
    }
}
