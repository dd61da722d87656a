//! Receipts that are outstanding, for the end of the server.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::hub::Receipt;

/// Receipts of publications from inside the process, until their reports.
#[derive(Debug)]
pub(crate) struct OpenReceipts {
    receipts: Mutex<Vec<Weak<Receipt>>>,
    /// Most of them at a time.
    receipts_max: usize,
}

impl OpenReceipts {
    /// None yet.
    pub(crate) fn new(receipts_max: usize) -> OpenReceipts {
        OpenReceipts {
            receipts: Mutex::default(),
            receipts_max,
        }
    }

    /// Notes one. False: there are as many as there may be.
    pub(crate) fn note(&self, receipt: &Arc<Receipt>) -> bool {
        let mut receipts = self.receipts.lock().unwrap_or_else(PoisonError::into_inner);
        if receipts.len() == receipts.capacity() || receipts.len() >= self.receipts_max {
            receipts.retain(|open| open.upgrade().is_some_and(|open| open.is_open()));
        }
        let has_room = receipts.len() < self.receipts_max;
        if has_room {
            receipts.push(Arc::downgrade(receipt));
        }
        has_room
    }

    /// Lets whoever waits for one know that there will be no report.
    pub(crate) fn close_all(&self) {
        let receipts =
            std::mem::take(&mut *self.receipts.lock().unwrap_or_else(PoisonError::into_inner));
        for receipt in receipts.iter().filter_map(Weak::upgrade) {
            receipt.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_open_are_bounded() {
        let open = OpenReceipts::new(2);
        let receipt = || Arc::new(Receipt::new(Box::new(|_| {})));
        let (first, second, third) = (receipt(), receipt(), receipt());
        assert!(open.note(&first) && open.note(&second) && !open.note(&third));
        first.close();
        assert!(open.note(&third));
        drop(second);
        assert!(open.note(&receipt()));
        open.close_all();
        assert!(!third.is_open());
    }
}
