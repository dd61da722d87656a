//! Peers that keep to the protocols: subscribers and publishers by WebSocket, readers of event streams, publishers by
//! HTTP, and users of the echo. Some read slowly, some leave without a word.

use std::collections::VecDeque;

use umbel::internals::protocol::deflate::Offer;
use umbel::internals::topic::SlowConsumer;

use super::compression::{self, Compression};
use super::cover::Cover;
use super::many::{Many, Tongue};
use super::network::Link;
use super::random::Random;
use super::records::{Receipt, Records};
use super::rogue::Rogue;
use super::topics::{Place, Target, parse_place};
use super::toy_speech;
use super::views::{Start, View};
use super::wire;

/// What a peer needs of the world for one step.
pub struct Surroundings<'a> {
    pub now_ms: u64,
    pub step: u64,
    pub random: &'a mut Random,
    pub link: &'a mut Link,
    pub records: &'a mut Records,
    pub cover: &'a mut Cover,
    pub topics: usize,
    pub payload_max: usize,
    pub message_max: usize,
    /// The node is shutting down.
    pub is_draining: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Subscriber,
    EventReader,
    Many,
    Publisher,
    Echo,
    Rogue(Rogue),
}

/// A request that waits for its answer, with the publishes in it.
pub(super) struct Request {
    pub(super) publishes: Vec<usize>,
    pub(super) many: bool,
}

pub struct Peer {
    pub kind: Kind,
    pub id: usize,
    pub topic: usize,
    pub(super) is_open: bool,
    pub is_done: bool,
    pub(super) outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// When it wants to do something of its own accord.
    pub next_ms: u64,
    /// Things that it still wants to do.
    pub left: u64,
    reads_from_ms: u64,
    pub slowness_ms: u64,
    pub(super) view: Option<usize>,
    /// Where it wants to begin.
    pub(super) start: Start,
    /// What it keeps if it speaks `umbel.v1`.
    pub many: Option<Box<Many>>,
    /// A subscriber that gets nothing of what it publishes itself.
    pub(super) is_silent: bool,
    /// A rogue that subscribes to its topic.
    pub(super) subscribes: bool,
    /// The token of one with one topic, or of one that makes requests.
    pub badge: Option<usize>,
    /// Another one took over from it.
    pub is_succeeded: bool,
    pub(super) requests: VecDeque<Request>,
    pub(super) echoes: VecDeque<Vec<u8>>,
    /// Its request, where it makes one alone, was sent.
    pub(super) has_asked: bool,
    pub(super) asked_ms: u64,
    /// It sent a Close, or ended its side.
    pub(super) has_left: bool,
    /// It ended its side without a Close.
    pub(super) has_vanished: bool,
    /// It ends its side behind what is to be sent.
    pub(super) wants_fin: bool,
    was_slow: bool,
    /// The Close that came.
    pub(super) close_code: Option<u16>,
    /// The node said that the connection will close.
    pub(super) closes: bool,
    pub(super) leaves: Leaving,
    pub(super) offer: Option<Offer>,
    pub(super) compression: Option<Compression>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    Stays,
    Closes,
    Vanishes,
}

/// What peers with many subscriptions speak.
const TONGUES: &[Tongue] = &[Tongue::Json, Tongue::Binary, Tongue::Toy];

impl Peer {
    pub fn new(kind: Kind, id: usize, topic: usize, now_ms: u64, random: &mut Random) -> Peer {
        let slow = random.chance(15);
        Peer {
            kind,
            id,
            topic,
            is_open: false,
            is_done: false,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            next_ms: now_ms,
            left: random.within(1, 25),
            reads_from_ms: 0,
            slowness_ms: if slow { random.within(1, 120) } else { 0 },
            view: None,
            start: Start::Now,
            many: (kind == Kind::Many).then(|| {
                Box::new(
                    Many::new(*random.pick(TONGUES))
                        .keyed(random.chance(40))
                        .silent(random.chance(20)),
                )
            }),
            is_silent: kind == Kind::Subscriber && random.chance(30),
            subscribes: false,
            badge: None,
            is_succeeded: false,
            requests: VecDeque::new(),
            echoes: VecDeque::new(),
            has_asked: false,
            asked_ms: 0,
            has_left: false,
            has_vanished: false,
            wants_fin: false,
            was_slow: slow,
            close_code: None,
            closes: false,
            leaves: *random.pick(&[
                Leaving::Stays,
                Leaving::Stays,
                Leaving::Closes,
                Leaving::Vanishes,
            ]),
            offer: random.chance(60).then(|| compression::offer(random)),
            compression: None,
        }
    }

    /// Whether it is connected, keeps to the protocol and has not begun to leave.
    pub fn is_settled(&self) -> bool {
        !self.is_done && !self.has_left && !self.closes && self.close_code.is_none()
    }

    /// Whether it waits for nothing, and was not answered less than it asked for.
    pub fn check_rest(&self, now_ms: u64, records: &Records) {
        if self.is_settled() && !matches!(self.kind, Kind::Rogue(_)) {
            assert!(self.requests.is_empty(), "peer {} has no answer", self.id);
            assert!(self.echoes.is_empty(), "peer {} has no echo", self.id);
            assert!(self.outgoing.is_empty(), "peer {} is not read", self.id);
            let is_answered = self.many.as_ref().is_none_or(|many| many.is_answered());
            assert!(is_answered, "peer {} waits: {:?}", self.id, self.many);
            self.check_carried(now_ms, records);
            if let Some(many) = &self.many {
                many.check_presence(records);
                many.check_rights(now_ms, records);
            }
        }
    }

    pub fn is_runnable(&self, link: &Link, now_ms: u64) -> bool {
        if self.is_done {
            return false;
        }
        let has_news =
            !link.down.arrived.is_empty() || link.down.fin_arrived || link.node_reset || link.reset;
        now_ms >= self.next_ms
            || self.reads() && now_ms >= self.reads_from_ms && has_news
            || !self.outgoing.is_empty() && link.up.room() > 0 && !link.reset
    }

    /// When it wakes up by itself.
    pub fn wakes_ms(&self, link: &Link) -> u64 {
        let wants_to_read = self.reads() && !link.down.arrived.is_empty();
        let reads_ms = if wants_to_read {
            self.reads_from_ms
        } else {
            u64::MAX
        };
        self.next_ms.min(reads_ms)
    }

    fn reads(&self) -> bool {
        !matches!(self.kind, Kind::Rogue(rogue) if !rogue.reads())
    }

    pub fn act(&mut self, around: &mut Surroundings<'_>) {
        if let Some(many) = &mut self.many {
            many.now_ms = around.now_ms;
        }
        if self.reads() && around.now_ms >= self.reads_from_ms {
            self.read(around);
        }
        if !self.is_done && around.now_ms >= self.next_ms {
            self.next_ms = around.now_ms + around.random.within(1, 30);
            self.speak(around);
        }
        if !self.is_done && !self.outgoing.is_empty() {
            let sent = around.link.peer_send(&self.outgoing);
            self.outgoing.drain(..sent);
        }
        if self.wants_fin && self.outgoing.is_empty() {
            self.wants_fin = false;
            around.link.peer_fin();
        }
    }

    fn read(&mut self, around: &mut Surroundings<'_>) {
        let link = &mut *around.link;
        let count = match self.slowness_ms {
            0 => link.down.arrived.len(),
            _ => link.down.arrived.len().min(40),
        };
        self.incoming.extend(link.down.arrived.drain(..count));
        self.reads_from_ms = around.now_ms + self.slowness_ms;
        let at_end = link.down.arrived.is_empty();
        while self.take_one(around) {}
        let link = &mut *around.link;
        if at_end && (link.down.fin_arrived || link.node_reset || link.reset) {
            self.end(around);
        }
    }

    /// Takes one unit off what came in.
    fn take_one(&mut self, around: &mut Surroundings<'_>) -> bool {
        match self.kind {
            Kind::Publisher => self.take_answer(around),
            _ if !self.is_open => self.take_head(around),
            Kind::EventReader => self.take_event(around),
            _ => self.take_frame(around),
        }
    }

    fn take_head(&mut self, around: &mut Surroundings<'_>) -> bool {
        let Some(response) = wire::take_response(&mut self.incoming) else {
            return false;
        };
        around
            .cover
            .add(&format!("answered {}", response.status), 1);
        if let (Some(offer), 101) = (&self.offer, response.status) {
            self.compression = Compression::agree(offer, &response.head);
        }
        if let Some(many) = &self.many {
            many.check_entry(self.asked_ms, response.status, around);
        }
        let is_turned_away = self.is_turned_away(response.status, around);
        match (self.kind, response.status) {
            _ if is_turned_away => self.closes = true,
            (Kind::Subscriber, 101) | (Kind::EventReader, 200) => {
                self.is_open = true;
                self.begin_view(&response, around);
            }
            (_, 101) => {
                self.is_open = true;
                if let Some(many) = &mut self.many {
                    many.opened_ms = around.now_ms;
                }
            }
            (Kind::Rogue(_), _) => {}
            (_, 503) | (Kind::Many, 401) => self.closes = true,
            (_, 408) if self.is_excused(around.link) => self.closes = true,
            (kind, status) => panic!("{kind:?} was answered {status}: {}", response.body),
        }
        if self.closes && !response.closes() {
            self.leave(around);
        }
        true
    }

    /// It is subscribed to the one topic that it asked for.
    fn begin_view(&mut self, response: &wire::Response, around: &mut Surroundings<'_>) {
        let told = response.header("Umbel-Position").map(parse_place);
        let recovered = response.header("Umbel-Recovered").map(|it| it == "true");
        let (history, _) = around
            .records
            .history_bounds(self.topic, self.asked_ms, around.now_ms);
        let has_history = history.publications_max > 0;
        assert!(
            told.is_some() || self.start == Start::Now && !has_history,
            "no position in {response:?}"
        );
        let is_last = matches!(self.start, Start::Last(_));
        around
            .cover
            .add("last before what is new", u64::from(is_last));
        around.cover.add(
            "subscriber of one topic without an echo",
            u64::from(self.is_silent),
        );
        self.view = Some(around.records.views.len());
        around.records.views.push(View {
            target: Target::Topic(self.topic),
            subscriber: self.id,
            subscribed_step: around.step,
            asked_ms: self.asked_ms,
            began_ms: around.now_ms,
            leaps: true,
            has_echo: !self.is_silent,
            is_state: around
                .records
                .begins_with_state(self.topic, self.start, recovered),
            snapshot: None,
            start: self.start,
            told,
            recovered,
            policy: match around.records.rules[self.topic].slow_consumer {
                SlowConsumer::DropOldest => SlowConsumer::Close,
                policy => policy,
            },
            is_alone: true,
            items: Vec::new(),
            ended: false,
            close_code: None,
        });
    }

    fn take_event(&mut self, around: &mut Surroundings<'_>) -> bool {
        let Some(event) = wire::take_event(&mut self.incoming) else {
            return false;
        };
        let view = self.view.expect("it is subscribed");
        let records = &mut *around.records;
        let is_expired = event.name.as_deref() == Some("expired");
        around
            .cover
            .add("event stream that expired", u64::from(is_expired));
        match (event.id.as_deref().map(parse_place), event.data) {
            (None, _) => around.cover.add("comment in an event stream", 1),
            (place, None) => {
                assert_eq!(place, records.views[view].told);
                around.cover.add("id alone in an event stream", 1);
            }
            (place, Some(_)) if event.name.as_deref() == Some("gap") => {
                let view = &records.views[view];
                assert_eq!((place, view.recovered), (view.told, Some(false)));
                around.cover.add("gap in an event stream", 1);
            }
            (Some(place), Some(data)) => {
                let number = records.see(view, data.as_bytes());
                records.place_at(number, place);
                records.check_seen(self.badge, (view, number));
            }
        }
        true
    }

    fn take_frame(&mut self, around: &mut Surroundings<'_>) -> bool {
        let Some(mut frame) = wire::take_frame(&mut self.incoming) else {
            return false;
        };
        if frame.is_compressed {
            let compression = self.compression.as_mut().expect("it was agreed to");
            frame.payload = compression.inflate(&frame.payload);
            around.cover.add("compressed message from the node", 1);
            if self.view.is_some() && compression.keeps_context {
                around.cover.add("publication in a kept context", 1);
            }
        }
        // Pings are answered until the peer's own Close (RFC 6455 section 5.5.2).
        assert!(
            self.close_code.is_none() || frame.opcode == 10,
            "a frame behind a Close: {frame:?}"
        );
        match (frame.opcode, self.kind) {
            (8, _) => self.take_close(&frame.payload, around),
            (9, kind) => {
                around.cover.add("ping answered", 1);
                if !matches!(kind, Kind::Rogue(rogue) if !rogue.answers()) {
                    self.send(0x8a, &frame.payload, around);
                }
            }
            (10, _) => {}
            (_, Kind::Echo) => {
                let sent = self.echoes.pop_front().expect("an echo of something");
                assert!(sent == frame.payload, "an echo is what was sent");
            }
            (_, Kind::Subscriber) => {
                let view = self.view.expect("it is subscribed");
                let number = around.records.see(view, &frame.payload);
                around.records.check_seen(self.badge, (view, number));
            }
            (1, Kind::Many) => self.take_text(&frame.payload, around),
            (2, Kind::Many) => self.take_binary(&frame.payload, around),
            _ => {}
        }
        true
    }

    fn take_close(&mut self, payload: &[u8], around: &mut Surroundings<'_>) {
        let code = match payload {
            [high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => 1005,
        };
        around.cover.add(&format!("close {code}"), 1);
        let code = match &self.many {
            Some(many) if many.tongue == Tongue::Toy => {
                assert!(
                    !matches!(code, 1001 | 1008 | 1013),
                    "{code} is not the toy's"
                );
                toy_speech::close_code(code)
            }
            _ => code,
        };
        self.close_code = Some(code);
        for view in self.views() {
            around.records.views[view].close_code = Some(code);
        }
        let is_excused = self.is_excused(around.link) && code == 1008;
        let is_excused = is_excused || self.is_closed_by_right(code, around);
        let keeps_context = self.compression.as_ref().is_some_and(|it| it.keeps_context);
        if code == 1013 && self.view.is_some() && keeps_context {
            around.cover.add("slow consumer with a kept context", 1);
        }
        match self.kind {
            Kind::Rogue(rogue) => {
                if rogue.answers() && !self.has_left {
                    self.send(0x88, &payload[..payload.len().min(2)], around);
                }
                return;
            }
            _ if self.has_left => {
                assert!(is_excused || matches!(code, 1000 | 1001 | 1013), "{code}");
                assert!(code != 1000 || self.echoes.is_empty(), "echoes are owed");
            }
            _ => {
                assert!(is_excused || matches!(code, 1001 | 1013), "{code}");
                self.send(0x88, &payload[..2], around);
            }
        }
        self.has_left = true;
    }

    /// Whether timeouts may strike it.
    fn is_excused(&self, link: &Link) -> bool {
        link.disturbed || self.was_slow || self.has_vanished
    }

    fn take_answer(&mut self, around: &mut Surroundings<'_>) -> bool {
        let Some(response) = wire::take_response(&mut self.incoming) else {
            return false;
        };
        around
            .cover
            .add(&format!("answered {}", response.status), 1);
        if response.status == 100 {
            return true;
        }
        self.closes |= response.closes();
        let Some(request) = self.requests.pop_front() else {
            assert_eq!(response.status, 503, "an answer to nothing: {response:?}");
            return true;
        };
        let lines: Vec<&str> = match (response.status, request.many) {
            (200, true) => response.body.lines().collect(),
            (422, true) if self.badge.is_some() => response.body.lines().collect(),
            (200, false) => vec![response.body.trim_end()],
            (408, _) if self.is_excused(around.link) => return true,
            (status @ (401 | 403), _) if self.badge.is_some() => {
                for number in request.publishes {
                    self.check_answer(number, status.into(), around);
                }
                return true;
            }
            (503, _) if response.body.contains("is not known") => return true,
            (503, _) => vec!["{\"status\":503"; request.publishes.len()],
            (status, _) => panic!("answered {status}: {}", response.body),
        };
        assert_eq!(lines.len(), request.publishes.len(), "an answer a line");
        for (line, number) in lines.iter().zip(request.publishes) {
            let is_forbidden = line.starts_with("{\"status\":403");
            let is_refused = line.starts_with("{\"status\":");
            match is_forbidden && self.badge.is_some() {
                true => self.check_answer(number, 403, around),
                false => {
                    take_publish_answer(number, line, around);
                    let status = if is_refused { 503 } else { 200 };
                    self.check_answer(number, status, around);
                }
            }
        }
        true
    }

    /// What it is subscribed to.
    fn views(&self) -> impl Iterator<Item = usize> {
        let many = self.many.iter().flat_map(|many| many.subscriptions());
        self.view.into_iter().chain(many.map(|(_, view)| view))
    }

    /// The connection is over: was that in order?
    fn end(&mut self, around: &mut Surroundings<'_>) {
        self.is_done = true;
        let link = &mut *around.link;
        if !matches!(self.kind, Kind::Rogue(rogue) if !rogue.answers()) {
            link.peer_fin();
        }
        for view in self.views() {
            around.records.views[view].ended = true;
        }
        around
            .cover
            .add("reset by the node", u64::from(link.node_reset));
        let is_excused = self.is_excused(link) || self.may_be_cut_off(around);
        let link = &mut *around.link;
        if is_excused || matches!(self.kind, Kind::Rogue(_)) {
            return;
        }
        assert!(!link.node_reset, "peer {} was reset by the node", self.id);
        match self.kind {
            Kind::Subscriber | Kind::Echo | Kind::Many if self.is_open => {
                assert!(self.close_code.is_some(), "no code for peer {}", self.id);
            }
            Kind::Publisher => assert!(
                self.requests.is_empty() || self.closes || around.is_draining,
                "peer {} was not answered",
                self.id
            ),
            _ => assert!(
                self.is_open || self.closes || !self.has_asked || around.is_draining,
                "peer {} was not answered",
                self.id
            ),
        }
    }
}

/// One line of the answer to a publish.
fn take_publish_answer(number: usize, line: &str, around: &mut Surroundings<'_>) {
    if line.starts_with("{\"status\":503") {
        return around.records.refuse(number);
    }
    let answer: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let epoch = answer["epoch"].as_str().expect("an epoch");
    let epoch = u64::from_str_radix(epoch, 16).expect("hexadecimal digits");
    let place: Place = (epoch, answer["offset"].as_u64().expect("an offset"));
    around.records.answer(number, place);
    if let Some(receipt) = answer.get("receipt") {
        let receipt = Receipt::parse(number, receipt);
        around.records.receipts.push(receipt);
    }
}
