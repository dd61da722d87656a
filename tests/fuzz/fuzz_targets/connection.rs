//! A connection as a whole: bytes that arrive cut anywhere, with time between the pieces, lead to the same events and
//! the same bytes out as when they arrive at once; and what is held for it stays within its limits.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use umbel::config::Limits;
use umbel::internals::connection::Stream as EndlessAnswer;
use umbel::internals::connection::event::ExtraHeaders;
use umbel::internals::connection::{
    Admission, Answer, Awaited, CloseReason, Connection, Endpoint, Event, Hold, Inflation,
    PublishAnswer, Purpose, ReadBody, Reply, Settings, Upgrade,
};
use umbel::internals::dialect::{Dialects, Encoding, Entrance, JoinedAt};
use umbel::internals::http::refusal::Refusal;
use umbel::internals::http::request::Head;
use umbel::internals::hub::{Position, PublishOptions};
use umbel::internals::protocol::choose_deflate;
use umbel::internals::protocol::deflate::Policy;
use umbel::internals::topic::Topic;
use umbel_fuzz::Stream;

const PUBLICATION_BYTES_MAX: usize = 300;
const BODY_BYTES_MAX: usize = 200;
const HEAD_BYTES_MAX: usize = 512;
const OUTBOX_BYTES_MAX: usize = 4096;
const PLACE: Position = Position {
    epoch: 7,
    offset: 9,
};

/// Whatever is offered is agreed to.
const TAKEOVER: Policy = Policy {
    enabled: true,
    server_takeover: true,
    client_takeover: true,
    server_window_bits_max: 15,
    client_window_bits_max: 15,
};

/// What a peer sends.
#[derive(Arbitrary, Debug)]
enum Sent {
    Request(Request),
    /// Frames behind an upgrade, or where none belong.
    Frames(Stream),
    Raw(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Request {
    Plain,
    Missing,
    LastOne,
    Upgrade,
    UpgradeOwn,
    /// With an offer of compression, which lets the peer keep its context or not.
    UpgradeDeflate {
        keeps_context: bool,
    },
    /// To many topics.
    UpgradeMany,
    EventStream,
    /// One that begins with what was published before, so that the hub is asked.
    Recovery {
        is_stream: bool,
    },
    Publish {
        body: Vec<u8>,
        is_chunked: bool,
    },
    PublishLines {
        body: Vec<u8>,
    },
    /// It announces a body of another length than the one that follows.
    Smuggled {
        announced: u16,
        body: Vec<u8>,
    },
}

impl Request {
    fn bytes(&self) -> Vec<u8> {
        let upgrade_with = |path: &str, line: &str| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{line}\r\n"
            )
        };
        let upgrade = |path: &str| upgrade_with(path, "");
        let post = |path: &str, len: usize, body: &[u8]| {
            let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len}\r\n\r\n");
            [head.as_bytes(), body].concat()
        };
        let text = match self {
            Request::Plain => "GET /plain HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            Request::Missing => "GET /missing HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            Request::LastOne => {
                "GET /plain HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned()
            }
            Request::Upgrade => upgrade("/ws"),
            Request::UpgradeOwn => upgrade("/own"),
            Request::UpgradeDeflate { keeps_context } => {
                let offer = "Sec-WebSocket-Extensions: permessage-deflate";
                match keeps_context {
                    true => upgrade_with("/own", &format!("{offer}\r\n")),
                    false => {
                        upgrade_with("/ws", &format!("{offer};client_no_context_takeover\r\n"))
                    }
                }
            }
            Request::UpgradeMany => upgrade("/many"),
            Request::Recovery { is_stream: true } => {
                "GET /sse?last=1 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()
            }
            Request::Recovery { is_stream: false } => upgrade("/ws?last=1"),
            Request::EventStream => "GET /sse HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            Request::PublishLines { body } => return post("/lines", body.len(), body),
            Request::Smuggled { announced, body } => {
                return post("/plain", usize::from(*announced), body);
            }
            Request::Publish { body, is_chunked } if *is_chunked && !body.is_empty() => {
                let head = "POST /pub HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
                let size = format!("{:x}\r\n", body.len());
                let parts = [head.as_bytes(), size.as_bytes(), body, b"\r\n0\r\n\r\n"];
                return parts.concat();
            }
            Request::Publish { body, .. } => return post("/pub", body.len(), body),
        };
        text.into_bytes()
    }
}

/// All that is to be seen of a connection from outside.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    events: Vec<String>,
    out: Vec<u8>,
    ending: Option<CloseReason>,
    is_closed: bool,
}

struct Driver {
    connection: Connection,
    settings: Settings,
    inflation: Inflation,
    now_ms: u64,
    outcome: Outcome,
}

impl Driver {
    fn new() -> Driver {
        let mut limits = Limits::default();
        limits.head_bytes_max = HEAD_BYTES_MAX;
        limits.publication_bytes_max = PUBLICATION_BYTES_MAX;
        limits.message_bytes_max = 2 * PUBLICATION_BYTES_MAX;
        limits.body_bytes_max = BODY_BYTES_MAX;
        limits.fragments_max = 5;
        limits.outbox_bytes_max = OUTBOX_BYTES_MAX;
        let settings = Settings::new(&limits);
        Driver {
            connection: Connection::new(&settings, 0, 0),
            settings,
            inflation: Inflation::default(),
            now_ms: 0,
            outcome: Outcome::default(),
        }
    }

    /// Bytes arrive; then all holds are lifted, one after the other, as the hub and a peer that reads would.
    fn feed(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let mut is_new = true;
        loop {
            let Outcome { events, out, .. } = &mut self.outcome;
            // A peer that takes everything at once: nothing waits in `out` between calls.
            let mut written = Vec::new();
            let (settings, now_ms, inflation) = (&self.settings, self.now_ms, &mut self.inflation);
            let mut on_event = |event: Event<'_>, out: &mut Vec<u8>| answer(event, events, out);
            let (bytes, written_to) = (&mut bytes, &mut written);
            match std::mem::take(&mut is_new) {
                true => self.connection.handle_bytes(
                    settings,
                    now_ms,
                    inflation,
                    bytes,
                    written_to,
                    &mut on_event,
                ),
                false => self.connection.handle_unread(
                    settings,
                    now_ms,
                    inflation,
                    written_to,
                    &mut on_event,
                ),
            }
            // What one call writes is bounded, but for one answer, and for control frames in proportion to the input.
            let largest = OUTBOX_BYTES_MAX + 2 * PUBLICATION_BYTES_MAX + 1024;
            assert!(written.len() <= largest + bytes.len());
            out.extend(written);
            self.check(bytes.len());
            if self.connection.has_hold(Hold::Answer) {
                for sequence in [1, 0, 0] {
                    let (settings, out) = (&self.settings, &mut self.outcome.out);
                    let line = b"{}".to_vec();
                    self.connection
                        .handle_line(settings, self.now_ms, sequence, PublishAnswer::placed(line), out);
                }
                let (settings, out) = (&self.settings, &mut self.outcome.out);
                if self.connection.joining_encoding().is_some() {
                    let joined = JoinedAt {
                        position: PLACE,
                        recovered: Some(false),
                        has_replay: false,
                    };
                    let connection = &mut self.connection;
                    let is_open = connection.handle_joined(settings, self.now_ms, joined, out);
                    assert_eq!(is_open, self.connection.takes_deliveries());
                }
                assert!(!self.connection.has_hold(Hold::Answer));
            }
            for hold in [Hold::Hub, Hold::Outbox, Hold::Work] {
                self.connection.lift(hold);
            }
            self.connection.handle_flushed();
            if !self.connection.has_unread() {
                break;
            }
        }
    }

    fn check(&self, input_bytes: usize) {
        let largest = HEAD_BYTES_MAX + BODY_BYTES_MAX + 2 * PUBLICATION_BYTES_MAX;
        let context = Inflation::CONTEXT_BYTES;
        assert!(self.connection.inbound_bytes() <= 2 * largest + 512 + input_bytes + context);
        if self.connection.is_closing() {
            assert!(self.connection.ending().is_some());
            assert!(!self.connection.takes_deliveries());
        }
    }

    /// A moment passes in which nothing is due.
    fn wait(&mut self) {
        let deadline_ms = self.connection.deadline_ms(&self.settings);
        let moment_ms = (self.now_ms + 1).min(deadline_ms.saturating_sub(1));
        self.now_ms = self.now_ms.max(moment_ms);
        let mut out = Vec::new();
        self.connection
            .handle_timeout(&self.settings, self.now_ms, self.now_ms, &mut out);
        assert!(out.is_empty(), "nothing was due");
    }

    /// The peer is silent, and everything ends by itself.
    fn end(mut self) -> Outcome {
        self.outcome.ending = self.connection.ending();
        self.outcome.is_closed = self.connection.is_closed();
        for _ in 0..10 {
            if self.connection.is_closed() {
                return self.outcome;
            }
            let deadline_ms = self.connection.deadline_ms(&self.settings);
            self.now_ms = self.now_ms.max(deadline_ms);
            let mut out = Vec::new();
            self.connection
                .handle_timeout(&self.settings, self.now_ms, self.now_ms, &mut out);
            if self.connection.takes_deliveries() && !out.starts_with(&[0x89]) {
                // An event stream lives as long as its reader takes what it is sent.
                self.connection.handle_eof(&self.settings, self.now_ms);
            }
        }
        assert!(self.connection.is_closed(), "it does not end");
        self.outcome
    }
}

fn answer(event: Event<'_>, events: &mut Vec<String>, out: &mut Vec<u8>) -> Answer {
    match event {
        Event::Request(head, _) => {
            assert!(head.view().bytes() <= HEAD_BYTES_MAX);
            events.push(format!("{} {}", head.method.as_str(), head.target));
            answer_request(&head)
        }
        Event::OverCap(..) => Answer::Refuse(Refusal::unavailable("too many")),
        Event::Body(purpose, body) => {
            assert!(body.len() <= BODY_BYTES_MAX);
            events.push(format!("body {body:?}"));
            Answer::Await(match purpose {
                Purpose::Publish { .. } | Purpose::Route(_) | Purpose::Call { .. } => Awaited::One,
                Purpose::PublishLines { .. } => {
                    Awaited::Lines {
                        answers: vec![None, None, Some(b"refused".to_vec())],
                        refused: 1,
                    }
                }
            })
        }
        Event::Opened(number, _) => {
            events.push(format!("opened {number}"));
            Answer::Proceed
        }
        Event::Message(Endpoint::Handler(_), message) => {
            events.push(format!("{message:?}"));
            out.extend_from_slice(message.payload());
            match message.payload().first() {
                Some(0) => Answer::Close(umbel::CloseCode::NORMAL, Cow::Borrowed("enough")),
                _ => Answer::Proceed,
            }
        }
        Event::Message(Endpoint::Commands(_), message) => {
            events.push(format!("{message:?}"));
            match message.payload().first() {
                Some(2) => Answer::Keep(1, Hold::Work),
                _ => Answer::Proceed,
            }
        }
        Event::Rest(_, message, place) => {
            events.push(format!("{message:?} from {place}"));
            match place < message.payload().len() {
                true => Answer::Keep(place + 1, Hold::Work),
                false => Answer::Proceed,
            }
        }
        Event::Message(Endpoint::Topic { .. }, message) => {
            assert!(message.payload().len() <= PUBLICATION_BYTES_MAX);
            events.push(format!("{message:?}"));
            match message.payload().first() {
                Some(1) => Answer::Hold(Hold::Hub),
                _ => Answer::Proceed,
            }
        }
        Event::Control(..) => Answer::Proceed,
        Event::Refused(refusal, _) => {
            events.push(format!("refused {}", refusal.status));
            Answer::Proceed
        }
    }
}

/// The number of the first dialect with such a way in.
fn encoding(leads: impl Fn(&Entrance) -> bool) -> Encoding {
    let dialects = Dialects::default();
    let mut rows = dialects.rows();
    let found = rows.find(|(_, row)| leads(&row.entrance));
    found.expect("a dialect").0
}

fn stream() -> EndlessAnswer {
    EndlessAnswer {
        encoding: encoding(|it| matches!(it, Entrance::Stream(_))),
        retry_ms: None,
    }
}

fn answer_request(head: &Head<'_>) -> Answer {
    let read_body = |purpose| {
        Answer::ReadBody(ReadBody {
            purpose,
            bytes_max: BODY_BYTES_MAX,
        })
    };
    let endpoint = match head.target {
        "/ws" | "/ws?last=1" => Endpoint::Topic {
            may_publish: true,
            echo: true,
        },
        "/own" => Endpoint::Handler(0),
        "/many" => Endpoint::Commands(encoding(|it| matches!(it, Entrance::Commands { .. }))),
        "/sse" => return Answer::Stream(stream()),
        "/sse?last=1" => return Answer::Join(Admission::Stream(stream())),
        "/pub" => {
            let topic = Topic::from_text("t").expect("a valid topic");
            let (kind, options) = (None, PublishOptions::default());
            return read_body(Purpose::Publish {
                topic,
                kind,
                options,
                wants_receipt: false,
                idempotency_key: None,
            });
        }
        "/lines" => {
            return read_body(Purpose::PublishLines {
                idempotency_key: None,
            });
        }
        "/plain" => {
            return Answer::Respond(Reply {
                status: 200,
                content_type: "text/plain",
                headers: ExtraHeaders::new(),
                body: Cow::Borrowed(b"ok"),
            });
        }
        _ => return Answer::Refuse(Refusal::not_found("nothing here")),
    };
    let upgrade = Upgrade {
        accept: [b'a'; 28],
        subprotocol: None,
        endpoint,
        deflate: match choose_deflate(head, &TAKEOVER) {
            Ok(agreement) => agreement,
            Err(refusal) => return Answer::Refuse(refusal),
        },
        must_sign_in: false,
        greeting: None,
    };
    match head.target.ends_with("?last=1") {
        true => Answer::Join(Admission::Upgrade(upgrade)),
        false => Answer::Upgrade(upgrade),
    }
}

fuzz_target!(|input: (Vec<Sent>, Vec<u8>)| {
    let (sent, cuts) = input;
    let mut bytes = Vec::new();
    for sent in &sent {
        match sent {
            Sent::Request(request) => bytes.extend(request.bytes()),
            Sent::Frames(stream) => bytes.extend(stream.bytes()),
            Sent::Raw(raw) => bytes.extend(raw),
        }
    }
    // Whether the body is asked for depends on whether it came together with the head, and may do so.
    let asks_first = |window: &[u8]| window.eq_ignore_ascii_case(b"100-continue");
    if bytes.windows(12).any(asks_first) {
        return;
    }
    let mut whole = Driver::new();
    whole.feed(&bytes);
    let whole = whole.end();

    let mut split = Driver::new();
    let mut rest = &bytes[..];
    let last_len = if bytes.len() < 4096 { 1 } else { 1000 };
    let mut cuts = cuts.iter();
    while !rest.is_empty() {
        let len = cuts.next().map_or(last_len, |cut| usize::from(*cut));
        let (piece, tail) = rest.split_at(len.min(rest.len()));
        split.feed(piece);
        split.wait();
        rest = tail;
    }
    assert_eq!(split.end(), whole);
});
