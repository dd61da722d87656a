//! Connections that are followed, kept beside their slots.

use std::collections::VecDeque;

use log::Level;

use crate::logging::{REQUESTS_MAX, RequestWords, tells_requests};

/// A connection that is followed.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Level of its lines: info where it is in the sample.
    pub level: Level,
    /// The moment at which it was accepted, on the process's clock.
    pub accepted_us: u64,
    /// The other end of its socket.
    pub socket: Box<str>,
    /// Messages that came.
    pub messages: u64,
    /// Publications that came, by messages and requests.
    pub publications: u64,
    /// Subscriptions at its end.
    pub subscriptions: u64,
    /// Dialect that it was opened in. None: it was not, yet.
    pub dialect: Option<&'static str>,
    /// Its last request, where its lines tell of it.
    pub request: Option<Box<RequestWords>>,
    /// Requests without an answer, where the log tells of each. The first to come is first.
    pub unanswered: VecDeque<Unanswered>,
}

/// A request without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// Its method.
    pub method: Box<str>,
    /// Its target, without secrets.
    pub path: Box<str>,
    /// The moment at which it came, on the process's clock.
    pub began_us: u64,
}

impl Followed {
    /// One that was just accepted from this socket.
    pub fn new(level: Level, socket: String, accepted_us: u64) -> Followed {
        Followed {
            level,
            accepted_us,
            socket: socket.into(),
            messages: 0,
            publications: 0,
            subscriptions: 0,
            dialect: None,
            request: None,
            unanswered: VecDeque::new(),
        }
    }

    /// Requests have come.
    pub fn note_requests(&mut self, requests: Vec<RequestWords>, now_us: u64) {
        if tells_requests() {
            let room = REQUESTS_MAX.saturating_sub(self.unanswered.len());
            let unanswered = requests.iter().take(room).map(|words| Unanswered {
                method: words.method.clone(),
                path: words.path.clone(),
                began_us: now_us,
            });
            self.unanswered.extend(unanswered);
        }
        if let Some(newest) = requests.into_iter().next_back() {
            self.request = Some(Box::new(newest));
        }
    }

    /// Whether what its requests say is to be kept.
    pub fn wants_requests(&self) -> bool {
        self.dialect.is_none() && self.level <= log::max_level()
    }
}

/// Connections of a reactor that are followed, by slab index.
#[derive(Debug, Default)]
pub struct FollowedTable(Vec<Option<Box<Followed>>>);

impl FollowedTable {
    /// Whether none was followed since the table was cut.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is not empty from now on: whether a connection is followed is looked up.
    pub fn open(&mut self) {
        if self.0.is_empty() {
            self.0.push(None);
        }
    }

    /// Is empty again if no connection is followed.
    pub fn close(&mut self) {
        if self.0.iter().all(Option::is_none) {
            self.0 = Vec::new();
        }
    }

    /// The connection at an index, if it is followed.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Followed> {
        self.0.get_mut(index as usize)?.as_deref_mut()
    }

    /// Follows the connection at an index.
    pub fn put(&mut self, index: u32, followed: Followed) {
        let at = index as usize;
        if at >= self.0.len() {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at] = Some(Box::new(followed));
    }

    /// The connection at an index is gone.
    pub fn take(&mut self, index: u32) -> Option<Box<Followed>> {
        self.0.get_mut(index as usize)?.take()
    }

    /// No connection stands at this index or behind it.
    #[inline]
    pub fn truncate(&mut self, end: usize) {
        if self.0.len() > end {
            self.0.truncate(end);
            self.0.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followed_is_kept_until_its_end() {
        let mut table = FollowedTable::default();
        assert!(table.is_empty() && table.take(3).is_none() && table.get_mut(3).is_none());
        table.put(3, Followed::new(Level::Info, "127.0.0.1:1".to_owned(), 7));
        table.get_mut(3).expect("it is followed").messages += 1;
        let ended = table.take(3).expect("it was followed");
        assert_eq!((ended.messages, ended.accepted_us), (1, 7));
        assert!(table.take(3).is_none());
        table.truncate(2);
        assert!(table.0.len() == 2);
        table.close();
        assert!(table.is_empty());
        table.open();
        assert!(!table.is_empty() && table.get_mut(0).is_none());
    }
}
