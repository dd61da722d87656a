//! What peers did and were told, and whether it fits together.

use std::collections::{BTreeMap, HashMap};

use umbel::config::Limits;
use umbel::internals::topic::{Rule, SlowConsumer};

use super::cover::Cover;
use super::rights::Rights;
use super::rule_sets::RuleSet;
use super::topics::{Place, TOPICS, Target};
use super::views::{Item, View};

/// What became of a publish, as far as its publisher knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Sent, and nothing was heard of it.
    Sent,
    /// Answered with its place.
    Answered,
    /// Refused: it must not be seen.
    Refused,
    /// Refused when it was sent again: what became of it before is not known.
    Unsure,
}

#[derive(Debug)]
pub struct Publish {
    pub topic: usize,
    pub publisher: usize,
    pub by_websocket: bool,
    pub sent_step: u64,
    pub key: Option<&'static str>,
    pub fate: Fate,
    /// Its place, as all who speak of it must have it.
    pub place: Option<Place>,
    pub payload_bytes: usize,
    /// It may have been refused by an answer that did not come.
    pub may_be_refused: bool,
    /// It has an idempotency key: that of this publish.
    pub once: Option<usize>,
    /// When it was first sent.
    pub sent_ms: u64,
    /// How often it was sent, by its key.
    pub sendings: u32,
    /// Its time to live, and when that is over, once it is known when it was published.
    pub is_tombstone: bool,
    pub ttl_ms: Option<u64>,
    pub expires_ms: Option<u64>,
}

/// What a publisher was told of all subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub publish: usize,
    pub matched: u64,
    pub written: u64,
    pub queued: u64,
    pub dropped: u64,
}

impl Receipt {
    pub fn parse(publish: usize, json: &serde_json::Value) -> Receipt {
        let count = |name: &str| json[name].as_u64().unwrap_or_else(|| panic!("{json}"));
        Receipt {
            publish,
            matched: count("matched"),
            written: count("written"),
            queued: count("queued"),
            dropped: count("dropped"),
        }
    }
}

/// The length of what is published last.
const FAREWELL_BYTES: usize = 40;

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

/// The payload of a publish, padded to `len`.
fn payload(number: usize, len: usize) -> Vec<u8> {
    let mut payload = format!("{number}:").into_bytes();
    while payload.len() < len {
        payload.push(padding(number, payload.len()));
    }
    payload
}

#[derive(Default)]
pub struct Records {
    pub publishes: Vec<Publish>,
    pub views: Vec<View>,
    pub receipts: Vec<Receipt>,
    /// What was published last before the server was told to end, and the views that there were then.
    pub farewells: Vec<usize>,
    pub subscribed_at_parting: Vec<usize>,
    /// The publish at each place of each topic.
    pub places: Vec<BTreeMap<Place, usize>>,
    /// The newest rules, and those that were in force at any time.
    pub rules: Vec<Rule>,
    pub rule_sets: Vec<RuleSet>,
    pub recovery_publications_max: u32,
    pub recovery_bytes_max: usize,
    pub outbox_bytes_max: usize,
    /// The histories of all topics together are not bounded any further.
    pub keeps_all_histories: bool,
    /// Idempotency keys are remembered for longer than a run.
    pub keeps_keys: bool,
    /// Joins and leaves may be left out, and whoever asks for the list then is not told so.
    pub skips_presence: bool,
    /// Each join and leave is told at once.
    pub tells_presence: bool,
    /// Identities, if the run has them.
    pub rights: Option<Rights>,
}

impl Records {
    /// None yet, of a run under these limits.
    pub fn under(limits: &Limits, rules: Vec<Rule>) -> Records {
        Records {
            recovery_publications_max: limits.recovery_publications_max,
            recovery_bytes_max: limits.recovery_bytes_max,
            outbox_bytes_max: limits.outbox_bytes_max,
            keeps_all_histories: limits.history_bytes_total_max > 1 << 20,
            keeps_keys: limits.idempotency_age_ms > 10_000,
            tells_presence: limits.presence_writes_per_second_max > 1000
                && limits.presence_changes_bytes_max > 10_000,
            skips_presence: limits.presence_changes_bytes_max < 10_000,
            ..Records::new(rules)
        }
    }

    pub fn new(rules: Vec<Rule>) -> Records {
        Records {
            places: vec![BTreeMap::new(); TOPICS.len()],
            rule_sets: vec![RuleSet::first(rules.clone())],
            rules,
            ..Records::default()
        }
    }

    /// A new publish; its payload, padded to `len`.
    pub fn publish(&mut self, mut publish: Publish, len: usize) -> (usize, Vec<u8>) {
        let number = self.publishes.len();
        let payload = payload(number, len);
        publish.payload_bytes = payload.len();
        self.publishes.push(publish);
        (number, payload)
    }

    /// The text of a publish, to be sent again.
    pub fn text(&self, number: usize) -> String {
        let payload = payload(number, self.publishes[number].payload_bytes);
        String::from_utf8(payload).expect("as it was made")
    }

    /// The last publish to a topic before the server is told to end; its payload.
    pub fn say_farewell(&mut self, topic: usize, sent_step: u64) -> (usize, Vec<u8>) {
        let publish = Publish {
            topic,
            publisher: usize::MAX,
            by_websocket: false,
            sent_step,
            key: None,
            fate: Fate::Sent,
            place: None,
            payload_bytes: 0,
            may_be_refused: false,
            once: None,
            sent_ms: 0,
            sendings: 1,
            is_tombstone: false,
            ttl_ms: None,
            expires_ms: None,
        };
        let (number, payload) = self.publish(publish, FAREWELL_BYTES);
        self.farewells.push(number);
        let views = self.views.iter().enumerate();
        let open = views.filter(|(_, view)| !view.ended);
        self.subscribed_at_parting = open.map(|(index, _)| index).collect();
        (number, payload)
    }

    /// Somebody said where a publish stands: the node inside, or an answer, or a subscriber.
    pub fn place_at(&mut self, number: usize, place: Place) {
        let publish = &mut self.publishes[number];
        assert_ne!(publish.fate, Fate::Refused, "{number} was refused");
        if let Some(rights) = &self.rights {
            rights.check_placed(number);
        }
        let known = *publish.place.get_or_insert(place);
        assert_eq!(known, place, "two places of {publish:?}");
        let holder = *self.places[publish.topic].entry(place).or_insert(number);
        assert_eq!(holder, number, "two publishes at {place:?}");
    }

    /// A publisher was told where its publish stands.
    pub fn answer(&mut self, number: usize, place: Place) {
        self.publishes[number].fate = Fate::Answered;
        self.place_at(number, place);
    }

    /// A publisher was told that its publish is none.
    pub fn refuse(&mut self, number: usize) {
        let publish = &mut self.publishes[number];
        if publish.sendings > 1 {
            if publish.fate == Fate::Sent {
                publish.fate = Fate::Unsure;
            }
            return;
        }
        assert_eq!(
            publish.place, None,
            "{number} is refused, and was published"
        );
        publish.fate = Fate::Refused;
    }

    /// Whether another publish was sent with the idempotency key of a publish that was sent again.
    pub fn is_key_misused(&self, number: usize) -> bool {
        let own = &self.publishes[number];
        let mut others = self.publishes.iter().enumerate();
        own.sendings > 1
            && others.any(|(other, publish)| other != number && publish.once == Some(number))
    }

    /// The number of the publish whose payload this is.
    pub fn number_of(&self, payload: &[u8]) -> usize {
        let text = std::str::from_utf8(payload).expect("payloads here are text");
        let (number, rest) = text.split_once(':').expect("as it was made");
        let number: usize = number.parse().expect("a number");
        let start = text.len() - rest.len();
        let is_whole = rest
            .bytes()
            .zip(start..)
            .all(|(byte, place)| byte == padding(number, place));
        assert!(
            is_whole && text.len() == self.publishes[number].payload_bytes,
            "a payload was mixed up: {text:?}"
        );
        number
    }

    /// A subscriber received a payload; gives the number of the publish.
    pub fn see(&mut self, view: usize, payload: &[u8]) -> usize {
        let number = self.number_of(payload);
        let view = &mut self.views[view];
        assert!(
            view.target.matches(self.publishes[number].topic),
            "a foreign topic"
        );
        assert!(!view.ended);
        view.items.push(Item::Seen(number));
        number
    }

    /// A publisher's own order holds in every view; by WebSocket nothing of it is left out, but where slow consumers get
    /// less.
    pub fn check_publishers(&self) {
        let mut sent: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
        for (number, publish) in self.publishes.iter().enumerate() {
            if publish.fate != Fate::Refused {
                let key = (publish.publisher, publish.topic);
                sent.entry(key).or_default().push(number);
            }
        }
        for view in &self.views {
            let mut seen: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
            for number in view.seen() {
                let publish = &self.publishes[number];
                assert_ne!(
                    publish.fate,
                    Fate::Refused,
                    "{number} was refused, and seen"
                );
                let key = (publish.publisher, publish.topic);
                seen.entry(key).or_default().push(number);
            }
            for (key, mut seen) in seen {
                // One that was refused at first, by an answer that was lost, stands behind later ones when it is sent again.
                let mut greatest = 0;
                for &number in &seen {
                    let is_late = number < greatest && self.publishes[number].sendings > 1;
                    assert!(number >= greatest || is_late, "out of order: {seen:?}");
                    greatest = greatest.max(number);
                }
                seen.sort_unstable();
                // Who wants no echo is not told of what the same connection published.
                let is_whole =
                    self.rules[key.1].slow_consumer == SlowConsumer::Close && view.has_echo;
                if !self.publishes[seen[0]].by_websocket || !is_whole {
                    continue;
                }
                let is_owed = |number: &&usize| {
                    let publish = &self.publishes[**number];
                    let is_unsure = publish.may_be_refused && publish.fate == Fate::Sent
                        || publish.fate == Fate::Unsure
                        || publish.sendings > 1
                        || publish.ttl_ms.is_some();
                    !is_unsure || seen.contains(number)
                };
                let sent: Vec<usize> = sent[&key].iter().filter(is_owed).copied().collect();
                let first = sent.iter().position(|number| *number == seen[0]);
                let first = first.expect("what is seen was sent");
                assert_eq!(sent[first..first + seen.len()], seen, "left out");
            }
        }
    }

    /// The parts of a receipt add up, and whoever got the publication live stands in it.
    pub fn check_receipts(&self, cover: &mut Cover) {
        for receipt in &self.receipts {
            cover.add("receipt", 1);
            cover.add("receipt of some that wait", u64::from(receipt.queued > 0));
            cover.add(
                "receipt of some that are closed",
                u64::from(receipt.dropped > 0),
            );
            let sum = receipt.written + receipt.queued + receipt.dropped;
            assert_eq!(receipt.matched, sum, "{receipt:?}");
            let publish = &self.publishes[receipt.publish];
            let place = publish.place.expect("a receipt tells it");
            let is_live = |view: &View| match (view.target, view.told) {
                (Target::Topic(_), Some(told)) => place > told,
                _ => true,
            };
            let views = self.views.iter().filter(|view| {
                is_live(view) && view.seen().any(|number| number == receipt.publish)
            });
            let count = views.count() as u64;
            assert!(
                count <= receipt.matched,
                "{count} got {publish:?}, and {receipt:?}"
            );
        }
    }
}
