//! What peers say of their own accord.

use serde_json::json;
use umbel::internals::protocol::deflate::payload_bytes_max;

use super::many::{KEYS, Tongue};
use super::peer::{Kind, Leaving, Peer, Request, Surroundings};
use super::records::{Fate, Publish};
use super::time_to_live::some_ttl_ms;
use super::topics::{TOPICS, place_text};
use super::views::Start;
use super::wire;

/// Requests that a publisher sends before it has the answers.
const PIPELINED_MAX: usize = 3;

impl Peer {
    pub(super) fn speak(&mut self, around: &mut Surroundings<'_>) {
        if let Kind::Rogue(rogue) = self.kind {
            return self.misbehave(rogue, around);
        }
        if !self.is_settled() {
            self.next_ms = u64::MAX;
            return;
        }
        if self.kind != Kind::Publisher && !self.has_asked {
            return self.ask(around);
        }
        if self.many.as_ref().is_some_and(|many| many.is_probe) {
            if self.is_open {
                self.next_ms = u64::MAX;
                self.probe(around);
            }
            return;
        }
        if self.left == 0 {
            self.next_ms = u64::MAX;
            return self.leave(around);
        }
        self.left -= 1;
        match self.kind {
            Kind::Publisher if self.requests.len() < PIPELINED_MAX => self.request(around),
            Kind::Subscriber if self.is_open => self.publish(around),
            Kind::Many if self.is_open => self.command(around),
            Kind::Echo if self.is_open => {
                let len = around.random.within(0, around.message_max as u64) as usize;
                // With few different bytes it gets shorter when it is compressed.
                let mask = *around.random.pick(&[0xff, 0x01]);
                let message: Vec<u8> = (0..len)
                    .map(|_| around.random.next() as u8 & mask)
                    .collect();
                self.send_message(0x82, &message, around);
                self.echoes.push_back(message);
            }
            _ => {}
        }
    }

    fn ask(&mut self, around: &mut Surroundings<'_>) {
        self.has_asked = true;
        self.asked_ms = around.now_ms;
        let token = self.token_line(around.records);
        let offer = self.offer.as_ref().map_or(token.clone(), |offer| {
            format!("{token}Sec-WebSocket-Extensions: {}\r\n", offer.encode())
        });
        let name = TOPICS[self.topic];
        let is_one = matches!(self.kind, Kind::Subscriber | Kind::EventReader);
        if is_one && self.start == Start::Now {
            self.start = self.some_start(self.topic, around);
        }
        let mut query = match self.start {
            Start::Now => String::new(),
            Start::Since(place) => format!("?since={}", place_text(place)),
            Start::Last(count) => format!("?last={count}"),
        };
        if self.is_silent {
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str("umbel_echo=false");
        }
        let request = match (self.kind, self.start) {
            (Kind::EventReader, Start::Since(place)) if around.random.chance(60) => {
                let id = place_text(place);
                let id = if place.0 == 0 {
                    "of another server"
                } else {
                    &id
                };
                format!(
                    "GET /sse/{name} HTTP/1.1\r\nHost: sim\r\nLast-Event-ID: {id}\r\n{token}\r\n"
                )
                .into_bytes()
            }
            (Kind::EventReader, _) => {
                format!("GET /sse/{name}{query} HTTP/1.1\r\nHost: sim\r\n{token}\r\n").into_bytes()
            }
            (Kind::Echo, _) => wire::upgrade_request("/echo", &offer),
            (Kind::Many, _) => {
                let tongue = self.many.as_ref().map_or(Tongue::Json, |many| many.tongue);
                let (path, line) = match tongue {
                    Tongue::Json => ("/ws", "Sec-WebSocket-Protocol: umbel.v1\r\n"),
                    Tongue::Binary => ("/ws", "Sec-WebSocket-Protocol: umbel.v1.bin\r\n"),
                    Tongue::Toy => ("/toy/app", ""),
                };
                let path = format!("{path}?info=%7B%22peer%22:{}%7D", self.id);
                let lines = format!("{line}{offer}");
                wire::upgrade_request(&path, &lines)
            }
            _ => wire::upgrade_request(&format!("/ws/{name}{query}"), &offer),
        };
        self.outgoing.extend(request);
        if self.kind == Kind::Echo && around.random.chance(30) {
            // Frames that do not wait for the handshake's answer come in one piece with its request.
            let message = b"early".to_vec();
            self.send_message(0x82, &message, around);
            self.echoes.push_back(message);
        }
    }

    pub(super) fn leave(&mut self, around: &mut Surroundings<'_>) {
        let speaks_frames =
            matches!(self.kind, Kind::Subscriber | Kind::Echo | Kind::Many) && self.is_open;
        match self.leaves {
            Leaving::Stays if !self.closes => {}
            Leaving::Closes if speaks_frames => {
                self.has_left = true;
                self.send(0x88, &[3, 232], around);
                around.cover.add("peer closes", 1);
            }
            _ => {
                // Behind a request this is a half-close: the answer is still awaited.
                self.has_left = true;
                self.has_vanished = self.kind != Kind::Publisher;
                self.wants_fin = true;
                around.cover.add("peer ends its side", 1);
            }
        }
    }

    /// Queues one frame.
    pub(super) fn send(&mut self, first: u8, payload: &[u8], around: &mut Surroundings<'_>) {
        let key = (around.random.next() as u32).to_be_bytes();
        wire::frame(&mut self.outgoing, first, payload, key);
    }

    /// Queues a message, compressed if that was agreed to, and sometimes in fragments with a ping between them.
    pub(super) fn send_message(
        &mut self,
        first: u8,
        message: &[u8],
        around: &mut Surroundings<'_>,
    ) {
        // The limit of a message holds for its compressed bytes too, and those of noise are more.
        let bytes_max = match self.kind {
            Kind::Echo | Kind::Many => around.message_max,
            _ => around.payload_max,
        };
        let is_wanted = around.random.chance(80) && payload_bytes_max(message.len()) <= bytes_max;
        let compression = self.compression.as_mut().filter(|_| is_wanted);
        let compressed = compression.and_then(|compression| compression.deflate(message));
        let (first, payload) = match &compressed {
            Some(payload) => (first | 0x40, &payload[..]),
            None => (first, message),
        };
        if compressed.is_some() {
            around.cover.add("compressed message to the node", 1);
        }
        if around.random.chance(70) {
            return self.send(first, payload, around);
        }
        let cut = around.random.below(payload.len() + 1);
        self.send(first & 0x7f, &payload[..cut], around);
        if around.random.chance(50) {
            self.send(0x89, b"between", around);
        }
        self.send(0x80, &payload[cut..], around);
        around.cover.add("fragmented message", 1);
    }

    pub(super) fn record(
        &self,
        topic: usize,
        by_websocket: bool,
        key: Option<&'static str>,
        around: &mut Surroundings<'_>,
    ) -> (usize, Vec<u8>) {
        let len = match around.random.chance(80) {
            true => around.random.within(1, 60) as usize,
            false => around.random.within(60, around.payload_max as u64) as usize,
        };
        let publish = Publish {
            topic,
            publisher: self.id,
            by_websocket,
            sent_step: around.step,
            key,
            fate: Fate::Sent,
            place: None,
            payload_bytes: 0,
            may_be_refused: !by_websocket,
            once: None,
            sent_ms: around.now_ms,
            sendings: 1,
            is_tombstone: false,
            ttl_ms: None,
            expires_ms: None,
        };
        around.records.publish(publish, len)
    }

    pub(super) fn publish(&mut self, around: &mut Surroundings<'_>) {
        if self.holds_its_tongue(around) {
            return;
        }
        for _ in 0..around.random.within(1, 4) {
            let (number, payload) = self.record(self.topic, true, None, around);
            self.note_publish(number, around);
            self.send_message(0x81, &payload, around);
        }
    }

    fn request(&mut self, around: &mut Surroundings<'_>) {
        if around.random.chance(20) {
            return self.request_lines(around);
        }
        let topic = around.random.below(around.topics);
        let key = *around.random.pick(KEYS);
        let (number, payload) = self.record(topic, false, key, around);
        let text = String::from_utf8(payload).expect("as it was made");
        let len = text.len();
        let token = self.token_line(around.records);
        let mut head = format!(
            "POST /pub/{} HTTP/1.1\r\nHost: sim\r\n{token}",
            TOPICS[topic]
        );
        if let Some(key) = key {
            head.push_str(&format!("Umbel-Key: {key}\r\n"));
        }
        if let Some(ttl_ms) = some_ttl_ms(number, around) {
            head.push_str(&format!("Umbel-Ttl-Ms: {ttl_ms}\r\n"));
        }
        if around.random.chance(30) {
            head.push_str("Umbel-Receipt: true\r\n");
        }
        // Twice at once, so that it has to be found out which is the first.
        let is_doubled = around.records.keeps_keys && around.random.chance(15);
        if is_doubled {
            let publish = &mut around.records.publishes[number];
            (publish.once, publish.sendings) = (Some(number), 2);
            head.push_str(&format!("Idempotency-Key: k{number}\r\n"));
            around.cover.add("request that is sent twice", 1);
        }
        let rest = match around.random.below(4) {
            0 => format!("Transfer-Encoding: chunked\r\n\r\n{len:x}\r\n{text}\r\n0\r\n\r\n"),
            1 => format!("Expect: 100-continue\r\nContent-Length: {len}\r\n\r\n{text}"),
            _ => format!("Content-Length: {len}\r\n\r\n{text}"),
        };
        for _ in 0..1 + u8::from(is_doubled) {
            self.outgoing.extend(format!("{head}{rest}").into_bytes());
            self.requests.push_back(Request {
                publishes: vec![number],
                many: false,
            });
        }
    }

    fn request_lines(&mut self, around: &mut Surroundings<'_>) {
        let (mut body, mut publishes) = (String::new(), Vec::new());
        for _ in 0..around.random.within(1, 3) {
            let topic = around.random.below(around.topics);
            let key = *around.random.pick(KEYS);
            let (number, payload) = self.record(topic, false, key, around);
            let text = String::from_utf8(payload).expect("as it was made");
            let mut line = json!({"topic": TOPICS[topic], "data": text});
            if let Some(key) = key {
                line["key"] = key.into();
            }
            if around.random.chance(30) {
                line["receipt"] = true.into();
            }
            body.push_str(&format!("{line}\n"));
            publishes.push(number);
        }
        let len = body.len();
        let token = self.token_line(around.records);
        let head =
            format!("POST /pub HTTP/1.1\r\nHost: sim\r\n{token}Content-Length: {len}\r\n\r\n");
        self.outgoing.extend(format!("{head}{body}").into_bytes());
        self.requests.push_back(Request {
            publishes,
            many: true,
        });
    }
}
