//! Histories that peers read by pages: in order, without a hole, and with nothing in them that is over.

use serde_json::{Value, json};

use super::{Many, Pending};
use crate::peer::Surroundings;
use crate::records::Records;
use crate::topics::{Place, TOPICS, parse_place, place_text};
use crate::views::Start;

/// What a peer asked a topic's history for.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    pub(super) topic: usize,
    start: Start,
    limit: u64,
    asked_ms: u64,
}

impl Many {
    /// The command that asks for a page: the next one, if a page said that more follow.
    pub(super) fn ask_page(
        &mut self,
        topic: usize,
        start: Start,
        around: &mut Surroundings<'_>,
    ) -> Value {
        let (topic, start) = match self.next_pages.pop() {
            Some((topic, place)) => (topic, Start::Since(place)),
            None => (topic, start),
        };
        let limit = around.random.within(1, 12);
        let asked_ms = around.now_ms;
        let id = self.take_id(Pending::Page(PageRequest {
            topic,
            start,
            limit,
            asked_ms,
        }));
        let mut command =
            json!({"type": "history", "id": id, "topic": TOPICS[topic], "limit": limit});
        match start {
            Start::Now => {}
            Start::Since(place) => command["since"] = place_text(place).into(),
            Start::Last(count) => command["last"] = count.into(),
        }
        command
    }

    pub(super) fn take_page(
        &mut self,
        request: &PageRequest,
        answer: &Value,
        around: &mut Surroundings<'_>,
    ) {
        let page = Page::parse(request, answer, around.records);
        page.check(request, answer, around.now_ms, around.records);
        let is_recovered = answer["recovered"].as_bool();
        let cover = &mut *around.cover;
        cover.add("page of a history", u64::from(!page.places.is_empty()));
        cover.add(
            "page that begins elsewhere",
            u64::from(is_recovered == Some(false)),
        );
        if let Some(next) = page.next {
            cover.add("page with a next one", 1);
            self.next_pages.push((request.topic, next));
        }
        if matches!(request.start, Start::Since(_)) && is_recovered == Some(true) {
            cover.add("page behind a position", u64::from(!page.places.is_empty()));
        }
    }
}

/// A page, as it was told.
struct Page {
    /// Where the topic stood.
    position: Option<Place>,
    places: Vec<Place>,
    numbers: Vec<usize>,
    next: Option<Place>,
}

impl Page {
    fn parse(request: &PageRequest, answer: &Value, records: &mut Records) -> Page {
        assert_eq!(answer["topic"], TOPICS[request.topic], "{answer}");
        let place = |value: &Value| value.as_str().map(parse_place);
        let publications = answer["publications"].as_array().expect("a list");
        let mut page = Page {
            position: place(&answer["position"]),
            places: Vec::new(),
            numbers: Vec::new(),
            next: place(&answer["next"]),
        };
        for publication in publications {
            let payload = publication["data"].as_str().expect("text");
            let number = records.number_of(payload.as_bytes());
            let place = place(&publication["position"]).expect("a position");
            assert_eq!(records.publishes[number].topic, request.topic, "{answer}");
            assert_eq!(records.publishes[number].key, publication["key"].as_str());
            assert!(publication["time"].is_u64(), "{answer}");
            records.place_at(number, place);
            page.places.push(place);
            page.numbers.push(number);
        }
        page
    }

    fn check(&self, request: &PageRequest, answer: &Value, now_ms: u64, records: &Records) {
        let count = self.places.len() as u64;
        let count_max = request
            .limit
            .min(u64::from(records.recovery_publications_max));
        assert!(count <= count_max.max(1), "{request:?}: {answer}");
        assert!(self.places.is_sorted_by(|a, b| a < b), "{answer}");
        for number in &self.numbers {
            let publish = &records.publishes[*number];
            let is_over = publish
                .expires_ms
                .is_some_and(|end_ms| end_ms <= request.asked_ms);
            assert!(!is_over, "{publish:?} was over: {answer}");
        }
        let (Some(position), Some(last)) = (self.position, self.places.last().copied()) else {
            assert_eq!(self.next, None, "{answer}");
            return self.check_emptiness(request, answer, now_ms, records);
        };
        assert!(
            self.places.iter().all(|it| it.0 == position.0),
            "one epoch: {answer}"
        );
        assert!(last <= position, "{answer}");
        if let Some(next) = self.next {
            assert!((last..position).contains(&next), "{answer}");
        }
        let from = match (request.start, answer["recovered"].as_bool()) {
            (Start::Since(since), Some(true)) => {
                assert!(self.places[0] > since, "{answer}");
                since.1 + 1
            }
            (Start::Since(_), _) => panic!("publications behind no position: {answer}"),
            _ => self.places[0].1,
        };
        let to = self.next.map_or(position.1, |next| next.1);
        self.check_holes(request.topic, from..=to, now_ms, records, answer);
    }

    /// Nothing is there: it was not asked for what there is, or that is over.
    fn check_emptiness(
        &self,
        request: &PageRequest,
        answer: &Value,
        now_ms: u64,
        records: &Records,
    ) {
        let is_recovered = answer["recovered"].as_bool() == Some(true);
        if let (Start::Since(since), Some(position), true) =
            (request.start, self.position, is_recovered)
        {
            self.check_holes(
                request.topic,
                since.1 + 1..=position.1,
                now_ms,
                records,
                answer,
            );
        }
    }

    /// Only what may be over is missing, unless the topic keeps no more than the newest of each key.
    fn check_holes(
        &self,
        topic: usize,
        offsets: std::ops::RangeInclusive<u64>,
        now_ms: u64,
        records: &Records,
        answer: &Value,
    ) {
        let Some(position) = self
            .position
            .filter(|_| !records.rules[topic].history.latest_only)
        else {
            return;
        };
        for offset in offsets {
            let place = (position.0, offset);
            let is_there = self.places.binary_search(&place).is_ok();
            assert!(
                is_there || records.may_have_ended(topic, place, now_ms),
                "{place:?} is missing: {answer}"
            );
        }
    }
}
