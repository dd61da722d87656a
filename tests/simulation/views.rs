//! What subscribers saw, and whether it is what they were promised.
//!
//! A view is one subscription from its answer to its end. Behind the place from which it counts, every offset of the
//! epoch stands in it once and in order; what a topic's rule lets go may be missing, and is named, or is replaced.

use std::collections::{BTreeMap, HashSet};

use umbel::internals::protocol::CloseCode;
use umbel::internals::topic::{HistoryLimits, SlowConsumer};

use super::cover::Cover;
use super::records::{Fate, Records};
use super::topics::{Place, Target};

/// Where a subscriber wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Now,
    Since(Place),
    Last(u64),
}

#[derive(Clone, Copy, Debug)]
pub enum Item {
    /// A publish, by its number.
    Seen(usize),
    /// What lies between, both included, does not come.
    Gap(usize, Place, Place),
}

#[derive(Debug)]
pub struct View {
    pub target: Target,
    pub subscriber: usize,
    pub subscribed_step: u64,
    pub start: Start,
    /// When it was asked for, or earlier, and when that was answered, or later.
    pub asked_ms: u64,
    pub began_ms: u64,
    /// Where the topic stood, if that was said.
    pub told: Option<Place>,
    pub recovered: Option<bool>,
    /// What may happen to a slow consumer here.
    pub policy: SlowConsumer,
    /// It is told nothing of what is over, as by raw payloads and event streams.
    pub leaps: bool,
    /// What its own connection publishes comes too.
    pub has_echo: bool,
    /// The newest of each key come first; and whether they are said to be whole.
    pub is_state: bool,
    pub snapshot: Option<bool>,
    /// Nothing else stood in the way of a recovery on this connection.
    pub is_alone: bool,
    pub items: Vec<Item>,
    pub ended: bool,
    /// What it was closed with, if that is what ended it.
    pub close_code: Option<u16>,
}

impl View {
    pub fn seen(&self) -> impl Iterator<Item = usize> {
        self.items.iter().filter_map(|item| match item {
            Item::Seen(number) => Some(*number),
            Item::Gap(..) => None,
        })
    }

    /// The place behind which it has to be complete, if it is known from the start.
    fn base(&self) -> Option<Place> {
        match (self.start, self.recovered) {
            (Start::Since(since), Some(true)) => Some(since),
            (Start::Last(_), _) => None,
            _ if self.is_state => None,
            _ => self.told,
        }
    }
}

impl Records {
    fn place(&self, number: usize) -> Place {
        let publish = &self.publishes[number];
        publish.place.expect("what is seen has its place")
    }

    fn span(&self, item: &Item) -> (usize, Place, Place) {
        match *item {
            Item::Seen(number) => {
                let place = self.place(number);
                (self.publishes[number].topic, place, place)
            }
            Item::Gap(topic, from, to) => (topic, from, to),
        }
    }

    pub fn newest_place(&self, topic: usize) -> Option<Place> {
        let newest = self.places[topic].last_key_value();
        newest.map(|(place, _)| *place)
    }

    /// The last place that a view of one topic has got to.
    pub fn reached(&self, view: &View) -> Option<Place> {
        let last = view.items.last().map(|item| self.span(item).2);
        if view.is_state {
            // What was kept of each key comes first, and may end before the position that is told with it.
            return last.max(view.told);
        }
        last.or(view.base()).or(view.told)
    }

    pub fn check_views(&self, cover: &mut Cover) {
        for view in &self.views {
            let mut once = HashSet::new();
            assert!(
                view.seen().all(|number| once.insert(number)),
                "repeated: {view:?}"
            );
            self.check_echo(view);
            match view.target {
                Target::Topic(topic) => {
                    self.check_recovery(view, topic, cover);
                    self.check_run(view, topic);
                    self.check_mortals(view, topic, cover);
                    self.check_state(view, topic, cover);
                }
                Target::Pattern(_) => self.check_by_pattern(view),
            }
        }
    }

    /// One topic: without holes, or with such as its rule allows.
    fn check_run(&self, view: &View, topic: usize) {
        let mut last = view.base();
        for item in &view.items {
            let (of, from, to) = self.span(item);
            assert_eq!(of, topic, "a foreign topic");
            assert!(from.0 == to.0 && from.1 <= to.1, "no gap: {item:?}");
            if let Some(last) = last {
                assert_eq!(last.0, from.0, "the epoch changed under {view:?}");
                self.check_step(view, topic, last, from);
            } else {
                self.check_first(view, topic, from);
            }
            last = Some(to);
        }
    }

    fn check_first(&self, view: &View, topic: usize, first: Place) {
        if view.told.is_none() && view.policy != SlowConsumer::Latest {
            self.check_before(view, topic, first);
        }
        if let (Start::Last(count), Some(told)) = (view.start, view.told) {
            assert_eq!(first.0, told.0, "another epoch than was said: {view:?}");
            let earliest = (told.1 + 1).saturating_sub(count);
            let is_near = (earliest..=told.1 + 1).contains(&first.1);
            let may_leap = view.policy != SlowConsumer::Close || !view.has_echo;
            let is_newer = may_leap && first.1 > told.1;
            assert!(
                is_near || is_newer,
                "{first:?} is not among the last: {view:?}"
            );
        }
    }

    /// What stands before the first that came was published before the answer, as far as anybody knows.
    fn check_before(&self, view: &View, topic: usize, first: Place) {
        let mut earlier = self.places[topic].range(..first);
        let missed = earlier.find(|(_, number)| {
            let is_later = self.publishes[**number].sent_step > view.subscribed_step;
            is_later && !self.may_be_own(view, **number)
        });
        assert_eq!(missed, None, "missed by {view:?}");
    }

    /// From one place in a topic to the one that came next.
    fn check_step(&self, view: &View, topic: usize, last: Place, next: Place) {
        assert!(next.1 > last.1, "{next:?} behind {last:?} in {view:?}");
        let may_leap = view.leaps || view.policy == SlowConsumer::Latest;
        for offset in last.1 + 1..next.1 {
            let missing = (next.0, offset);
            let number = self.places[topic].get(&missing);
            if number.is_some_and(|number| self.may_be_own(view, *number)) {
                continue;
            }
            let is_replaced =
                view.policy == SlowConsumer::Latest && self.is_replaced(topic, missing);
            assert!(
                is_replaced
                    || self.is_left_out(view, topic, missing)
                    || may_leap && self.may_be_over(view, topic, missing),
                "a silent gap behind {last:?}, or {missing:?} went and nothing newer came: {view:?}"
            );
        }
    }

    /// Whether there is a newer publication of the same key, or may be: one whose place nobody was told.
    fn is_replaced(&self, topic: usize, place: Place) -> bool {
        let Some(number) = self.places[topic].get(&place) else {
            return true;
        };
        let key = self.publishes[*number].key;
        let newer = self.places[topic].range((place.0, place.1 + 1)..=(place.0, u64::MAX));
        if newer
            .clone()
            .any(|(_, other)| self.publishes[*other].key == key)
        {
            return true;
        }
        let last = newer.clone().next_back();
        let is_all_known = last.is_none_or(|((_, last), _)| last - place.1 == newer.count() as u64);
        let mut unplaced = self.publishes.iter().filter(|it| it.place.is_none());
        !is_all_known && unplaced.any(|it| it.topic == topic && it.key == key)
    }

    /// Many topics: each without holes for as long as an epoch lasts, and then from the next one's beginning.
    fn check_by_pattern(&self, view: &View) {
        let mut lasts: BTreeMap<usize, Place> = BTreeMap::new();
        for item in &view.items {
            let (topic, from, to) = self.span(item);
            assert!(view.target.matches(topic), "no match: {item:?} in {view:?}");
            assert!(from.0 == to.0 && from.1 <= to.1, "no gap: {item:?}");
            let last = lasts.insert(topic, to);
            let Some(last) = last else {
                if self.policy_of(topic) != SlowConsumer::Latest {
                    self.check_before(view, topic, from);
                }
                continue;
            };
            assert!(from > last, "{from:?} behind {last:?} in {view:?}");
            if self.policy_of(topic) == SlowConsumer::Latest {
                continue;
            }
            let between = self.places[topic].range((last.0, last.1 + 1)..from);
            let (own, between): (Vec<_>, Vec<_>) =
                between.partition(|(_, number)| self.may_be_own(view, **number));
            assert!(between.is_empty(), "{between:?} left out of {view:?}");
            let own_before = own.iter().filter(|(place, _)| place.0 == from.0).count() as u64;
            let expected = if from.0 == last.0 { last.1 + 1 } else { 1 } + own_before;
            assert_eq!(from.1, expected, "a silent gap before {from:?} in {view:?}");
        }
    }

    /// Whether a publish may be missing because the view's connection made it, and has no echo. Of one that was sent again
    /// nobody knows by which connection it came.
    fn may_be_own(&self, view: &View, number: usize) -> bool {
        let publish = &self.publishes[number];
        !view.has_echo && (publish.publisher == view.subscriber || publish.sendings > 1)
    }

    /// A view without an echo has nothing that its connection published while it was subscribed.
    fn check_echo(&self, view: &View) {
        for number in view.seen().filter(|_| !view.has_echo) {
            let publish = &self.publishes[number];
            let is_own = publish.publisher == view.subscriber && publish.sendings == 1;
            // By a pattern, one may come that was on its way before.
            let is_live = match view.told {
                Some(told) => publish.place > Some(told),
                None => publish.sent_step > view.subscribed_step,
            };
            assert!(!is_own || !is_live, "an echo of {publish:?} in {view:?}");
        }
    }

    fn policy_of(&self, topic: usize) -> SlowConsumer {
        self.rules[topic].slow_consumer
    }

    /// A recovery that is said to be complete can be, and one that is said not to be has a reason.
    fn check_recovery(&self, view: &View, topic: usize, cover: &mut Cover) {
        let Start::Since(since) = view.start else {
            assert_eq!(view.recovered, None, "nobody asked: {view:?}");
            return;
        };
        let told = view.told.expect("a position is told with a recovery");
        let recovered = view.recovered.expect("who asked is told");
        cover.add(&format!("recovered {recovered}"), 1);
        let is_known = since.0 == told.0 && since.1 <= told.1;
        let (history, most) = self.history_bounds(topic, view.asked_ms, view.began_ms);
        let is_kept = history.age_max_ms > 10_000 && history.bytes_max > 1 << 20;
        let is_same_life = since.0 >> 48 == told.0 >> 48;
        if is_kept && history.publications_max > 0 && self.keeps_all_histories && is_same_life {
            // Whoever left the topic, even before its first publication, finds it where it stood.
            assert_eq!(since.0, told.0, "the topic was forgotten: {view:?}");
            cover.add(
                "recovery from before the first publication",
                u64::from(since.1 == 0),
            );
        }
        if since.0 != told.0 && since.0 != 0 {
            let path = match since.0 >> 48 == told.0 >> 48 {
                true => "recovered false: a new epoch",
                false => "recovered false: a restart",
            };
            cover.add(path, 1);
        }
        if !is_known {
            assert!(!recovered, "from another epoch: {view:?}");
            return;
        }
        let missed = told.1 - since.1;
        cover.add("recovered something", u64::from(recovered && missed > 0));
        let numbers =
            (since.1 + 1..=told.1).map(|offset| self.places[topic].get(&(told.0, offset)));
        let bytes: Option<usize> = numbers
            .map(|number| number.map(|number| self.publishes[*number].payload_bytes))
            .sum();
        let are_in_limits = |history: HistoryLimits, missed, bytes: Option<usize>| {
            missed <= u64::from(history.publications_max)
                && missed <= u64::from(self.recovery_publications_max)
                && bytes.is_none_or(|bytes| bytes <= self.recovery_bytes_max.min(history.bytes_max))
        };
        let is_in_limits = are_in_limits(history, missed, bytes);
        let (lasting, lasting_bytes) = self.lasting(topic, view, since.1 + 1..=told.1, told.0);
        assert!(
            !recovered
                || missed == 0
                || history.latest_only
                || are_in_limits(most, lasting, Some(lasting_bytes)),
            "{missed} missed are over a limit: {view:?}"
        );
        let fits = bytes.is_some_and(|bytes| {
            let framed = bytes + 200 * missed as usize;
            framed <= self.recovery_bytes_max.min(self.outbox_bytes_max)
        });
        let is_owed = missed == 0 || is_in_limits && fits && is_kept && self.keeps_all_histories;
        if is_owed && view.is_alone {
            cover.add("recovery that was owed", 1);
            assert!(recovered, "{missed} could have been recovered: {view:?}");
        }
    }

    /// Everything has come to rest: who is still subscribed has all that was confirmed since, all that came by a WebSocket
    /// connection that is still there, and all of the topic's epoch. Returns how many publishes that were.
    pub fn check_complete(&self, is_open: impl Fn(usize) -> bool) -> u64 {
        let mut checked = 0;
        for view in self.views.iter().filter(|view| !view.ended) {
            if !is_open(view.subscriber) {
                continue;
            }
            if let Target::Topic(topic) = view.target {
                self.check_end(view, topic);
                if let Some(told) = view.told {
                    self.check_snapshot(view, topic, told);
                }
            }
            let seen: HashSet<usize> = view.seen().collect();
            for (number, publish) in self.publishes.iter().enumerate() {
                let is_later = publish.sent_step > view.subscribed_step;
                let is_sure = match publish.fate {
                    Fate::Answered => true,
                    Fate::Sent => publish.by_websocket && is_open(publish.publisher),
                    Fate::Refused | Fate::Unsure => false,
                };
                if view.target.matches(publish.topic) && is_later && is_sure {
                    checked += 1;
                    assert!(
                        seen.contains(&number)
                            || self.is_excused(view, number)
                            || self.may_be_own(view, number),
                        "publish {number} is missing: {publish:?} in {view:?}"
                    );
                }
            }
        }
        checked
    }

    /// Whether a publish may be missing from a view of which nothing more will come.
    fn is_excused(&self, view: &View, number: usize) -> bool {
        let topic = self.publishes[number].topic;
        let Some(place) = self.publishes[number].place else {
            return false;
        };
        let is_named = view.items.iter().any(|item| match item {
            Item::Gap(of, from, to) => *of == topic && (*from..=*to).contains(&place),
            Item::Seen(_) => false,
        });
        let policy = match view.target {
            Target::Topic(_) => view.policy,
            Target::Pattern(_) => self.policy_of(topic),
        };
        let key = self.publishes[number].key;
        let is_same = |seen: usize| {
            let publish = &self.publishes[seen];
            publish.topic == topic && publish.key == key && self.place(seen) > place
        };
        let is_over = matches!(view.target, Target::Topic(_))
            && self.may_be_over(view, topic, place)
            || policy == SlowConsumer::Latest && self.may_have_gone(topic, place);
        is_named || is_over || policy == SlowConsumer::Latest && view.seen().any(is_same)
    }

    /// Whoever was subscribed when the server was told to end, and was not closed before, has seen what came last.
    pub fn check_parting(&self, cover: &mut Cover) {
        for view in self.subscribed_at_parting.iter().map(|it| &self.views[*it]) {
            if view.close_code != Some(CloseCode::GOING_AWAY.get()) {
                continue;
            }
            for &number in &self.farewells {
                let publish = &self.publishes[number];
                if publish.fate == Fate::Refused || !view.target.matches(publish.topic) {
                    continue;
                }
                cover.add("farewell that was owed", 1);
                let is_seen = view.seen().any(|seen| seen == number);
                assert!(
                    is_seen || self.is_excused(view, number),
                    "farewell {number} is missing: {publish:?} in {view:?}"
                );
            }
        }
    }

    /// A view that lasts has got to where its topic stands, and of each key has the newest.
    fn check_end(&self, view: &View, topic: usize) {
        let mut places = self.places[topic].iter().rev();
        let newest = places.find(|(_, number)| !self.may_be_own(view, **number));
        let (Some(reached), Some((newest, number))) = (self.reached(view), newest) else {
            return;
        };
        assert!(
            reached >= *newest || self.is_excused(view, *number),
            "{newest:?} is not in {view:?}"
        );
        let Some(base) = view.base() else { return };
        let seen: HashSet<usize> = view.seen().collect();
        for (place, number) in self.places[topic].range((base.0, base.1 + 1)..) {
            assert!(
                seen.contains(number)
                    || self.is_excused(view, *number)
                    || self.may_be_own(view, *number),
                "{place:?} is missing in {view:?}"
            );
        }
    }
}
