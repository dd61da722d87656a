//! What peers saw and did, and whether it is what the server promises.

use std::collections::{HashMap, HashSet};

/// What became of a publish, as far as its publisher knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Sent, and nothing was heard of it: as all publishes by WebSocket.
    Sent,
    /// Answered with its place.
    Answered { epoch: String, offset: u64 },
    /// Refused: it must not be seen.
    Refused,
}

#[derive(Debug)]
pub struct Publish {
    pub topic: usize,
    pub publisher: usize,
    pub by_websocket: bool,
    pub sent_step: u64,
    pub fate: Fate,
}

/// One subscription, from its answer to its end.
#[derive(Debug)]
pub struct Stream {
    pub topic: usize,
    pub subscriber: usize,
    pub subscribed_step: u64,
    /// The publishes in the order in which they came.
    pub seen: Vec<usize>,
    /// Their places, where the dialect tells them.
    pub positions: Vec<(String, u64)>,
    pub ended: bool,
}

/// The byte at this place of a publish: of every fourth one without a pattern, so that it hardly compresses.
fn padding(number: usize, place: usize) -> u8 {
    if number % 4 != 3 {
        return b'a' + (place % 26) as u8;
    }
    let mixed = (((number << 12) + place) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    // From behind the quotation mark to before the backslash, for some go into JSON.
    b'#' + ((mixed >> 32) % 57) as u8
}

#[derive(Default)]
pub struct Records {
    pub publishes: Vec<Publish>,
    pub streams: Vec<Stream>,
}

impl Records {
    /// A new publish; its payload, padded to `len`.
    pub fn publish(&mut self, publish: Publish, len: usize) -> (usize, Vec<u8>) {
        let number = self.publishes.len();
        self.publishes.push(publish);
        let mut payload = format!("{number}:").into_bytes();
        while payload.len() < len {
            payload.push(padding(number, payload.len()));
        }
        (number, payload)
    }

    /// A subscriber received a payload.
    pub fn see(&mut self, stream: usize, payload: &[u8]) {
        let text = std::str::from_utf8(payload).expect("payloads here are text");
        let (number, rest) = text.split_once(':').expect("as it was made");
        let number: usize = number.parse().expect("a number");
        let start = text.len() - rest.len();
        let is_whole = rest
            .bytes()
            .zip(start..)
            .all(|(byte, place)| byte == padding(number, place));
        assert!(is_whole, "a payload was mixed up: {text:?}");
        let stream = &mut self.streams[stream];
        assert_eq!(
            self.publishes[number].topic, stream.topic,
            "a foreign topic"
        );
        assert!(!stream.ended);
        stream.seen.push(number);
    }

    /// One order per topic, no gap and no repetition: whoever saw one publish saw the same next one.
    pub fn check_order(&self) {
        let (mut next, mut previous) = (HashMap::new(), HashMap::new());
        for stream in &self.streams {
            let mut once = HashSet::new();
            assert!(
                stream.seen.iter().all(|number| once.insert(*number)),
                "repeated: {stream:?}"
            );
            for pair in stream.seen.windows(2) {
                let follower = *next.entry(pair[0]).or_insert(pair[1]);
                let leader = *previous.entry(pair[1]).or_insert(pair[0]);
                assert!(
                    follower == pair[1] && leader == pair[0],
                    "{pair:?} in {stream:?}, but {follower} behind {} and {leader} before {}",
                    pair[0],
                    pair[1]
                );
            }
            for pair in stream.positions.windows(2) {
                assert_eq!(pair[0].0, pair[1].0, "the epoch changed under a subscriber");
                assert_eq!(pair[0].1 + 1, pair[1].1, "a gap in the offsets");
            }
        }
    }

    /// A publisher's own order holds in every stream; by WebSocket nothing of it is left out.
    pub fn check_publishers(&self) {
        let mut sent: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
        for (number, publish) in self.publishes.iter().enumerate() {
            let key = (publish.publisher, publish.topic);
            sent.entry(key).or_default().push(number);
        }
        for stream in &self.streams {
            let mut seen: HashMap<usize, Vec<usize>> = HashMap::new();
            for &number in &stream.seen {
                let publish = &self.publishes[number];
                assert_ne!(
                    publish.fate,
                    Fate::Refused,
                    "{number} was refused, and seen"
                );
                seen.entry(publish.publisher).or_default().push(number);
            }
            for (publisher, seen) in seen {
                assert!(seen.is_sorted(), "out of order: {seen:?}");
                if !self.publishes[seen[0]].by_websocket {
                    continue;
                }
                let sent = &sent[&(publisher, stream.topic)];
                let first = sent.iter().position(|number| *number == seen[0]);
                let first = first.expect("what is seen was sent");
                assert_eq!(sent[first..first + seen.len()], seen, "left out");
            }
        }
    }

    /// A place that was told to a publisher is the place that subscribers were told.
    pub fn check_positions(&self) {
        for stream in &self.streams {
            for (number, (epoch, offset)) in stream.seen.iter().zip(&stream.positions) {
                if let Fate::Answered {
                    epoch: told_epoch,
                    offset: told_offset,
                } = &self.publishes[*number].fate
                {
                    assert_eq!((told_epoch, told_offset), (epoch, offset));
                }
            }
        }
    }

    /// Everything has come to rest: who is still subscribed has all that was confirmed since, and all that came by a
    /// WebSocket connection that is still there. Returns how many publishes that were.
    pub fn check_complete(&self, is_open: impl Fn(usize) -> bool) -> u64 {
        let mut checked = 0;
        for stream in self.streams.iter().filter(|stream| !stream.ended) {
            if !is_open(stream.subscriber) {
                continue;
            }
            let seen: HashSet<usize> = stream.seen.iter().copied().collect();
            for (number, publish) in self.publishes.iter().enumerate() {
                let is_later = publish.sent_step > stream.subscribed_step;
                let is_sure = match publish.fate {
                    Fate::Answered { .. } => true,
                    Fate::Sent => publish.by_websocket && is_open(publish.publisher),
                    Fate::Refused => false,
                };
                if publish.topic == stream.topic && is_later && is_sure {
                    checked += 1;
                    assert!(
                        seen.contains(&number),
                        "publish {number} is missing: {publish:?} in {stream:?}"
                    );
                }
            }
        }
        checked
    }
}
