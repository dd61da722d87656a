//! Tests of the connection as a whole: raw bytes and time in, raw bytes and events out.

use std::borrow::Cow;

use super::*;
use crate::config::Limits;
use crate::dialect::Dialects;
use crate::http::request::Method;
use crate::protocol::deflate::{self, Policy};
use crate::topic::Topic;

const UPGRADE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\n";
const GET: &[u8] = b"GET /ok HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
const PUBLISH: &[u8] = b"POST /pub HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
const PUBLISHED: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n\
    {\"epoch\":\"0000000000000007\",\"offset\":9}\n";
const LINE: &str = r#"{"epoch":"0000000000000007","offset":9}"#;

/// A connection, its clock, and what came out of it.
struct Driver {
    connection: Connection,
    settings: Settings,
    inflation: Inflation,
    now_ms: u64,
    events: Vec<String>,
    out: Vec<u8>,
}

/// The dialect of the table that goes out on streams.
fn stream_encoding() -> Encoding {
    let dialects = Dialects::default();
    let mut rows = dialects.rows();
    let found = rows.find(|(encoding, _)| dialects.is_stream(*encoding));
    found.expect("there is one").0
}

/// That of a subscriber who may publish.
const TOPIC: Endpoint = Endpoint::Topic {
    may_publish: true,
    echo: true,
};

/// Answers to three lines, of which the second is refused.
fn refused_in_the_middle() -> Awaited {
    Awaited::Lines {
        answers: vec![None, Some(b"refused".to_vec()), None],
        refused: 1,
    }
}

/// What the tests' server does, by path and by message.
fn answer(event: Event<'_>, events: &mut Vec<String>, out: &mut Vec<u8>) -> Answer {
    match event {
        Event::Request(head, _) => {
            events.push(format!("{} {}", head.method.as_str(), head.target));
            let endpoint = match head.target {
                "/ws" | "/deflate" | "/takeover" => TOPIC,
                "/own" => Endpoint::Handler(3),
                "/sse" => return Answer::Stream(stream(None)),
                "/joining" => return Answer::Join(Admission::Stream(stream(None))),
                "/joining-page" => {
                    return Answer::Join(Admission::Stream(stream(Some(7000))));
                }
                "/pub" => {
                    return read_body(Purpose::Publish {
                        topic: topic(),
                        kind: None,
                        options: Default::default(),
                        wants_receipt: false,
                        idempotency_key: None,
                    });
                }
                "/lines" => {
                    return read_body(Purpose::PublishLines {
                        idempotency_key: None,
                    });
                }
                "/ok" => return respond(head.method),
                _ => return Answer::Refuse(Refusal::not_found("nothing here")),
            };
            Answer::Upgrade(Upgrade {
                accept: [b'a'; 28],
                subprotocol: None,
                endpoint,
                deflate: agreement(head.target),
                must_sign_in: false,
                greeting: None,
            })
        }
        Event::OverCap(..) => Answer::Refuse(Refusal::unavailable("too many").closing()),
        Event::Body(purpose, body) => {
            events.push(format!("body {}", String::from_utf8_lossy(body)));
            match purpose {
                Purpose::PublishLines { .. } => Answer::Await(refused_in_the_middle()),
                _ => Answer::Await(Awaited::One),
            }
        }
        Event::Opened(number, _) => {
            events.push(format!("opened {number}"));
            Answer::Proceed
        }
        Event::Message(_, message) => {
            events.push(String::from_utf8_lossy(message.payload()).into_owned());
            answer_message(message.payload(), out)
        }
        Event::Rest(_, message, place) => {
            let rest = String::from_utf8_lossy(&message.payload()[place..]);
            events.push(rest.into_owned());
            match place {
                5 => Answer::Keep(7, Hold::Work),
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

fn stream(retry_ms: Option<u32>) -> Stream {
    Stream {
        encoding: stream_encoding(),
        retry_ms,
    }
}

fn answer_message(payload: &[u8], out: &mut Vec<u8>) -> Answer {
    match payload {
        b"hold" => Answer::Hold(Hold::Hub),
        b"keep 1 2" => Answer::Keep(5, Hold::Work),
        b"close" => Answer::Close(CloseCode::POLICY_VIOLATION, Cow::Borrowed("no")),
        b"misuse" => Answer::Close(CloseCode::ABNORMAL, Cow::Borrowed("no")),
        b"much" => {
            out.extend([0; 1001]);
            Answer::Proceed
        }
        _ => Answer::Proceed,
    }
}

/// What is agreed to at a path, of what browsers offer.
fn agreement(target: &str) -> Option<Agreement> {
    let policy = Policy {
        enabled: matches!(target, "/deflate" | "/takeover"),
        server_takeover: true,
        client_takeover: target == "/takeover",
        ..Policy::default()
    };
    let offer = &b"permessage-deflate; client_max_window_bits"[..];
    deflate::choose([offer], &policy).expect("the offer is well-formed")
}

fn topic() -> Topic {
    Topic::from_text("t").expect("a valid topic")
}

fn read_body(purpose: Purpose) -> Answer {
    Answer::ReadBody(ReadBody {
        purpose,
        bytes_max: 10,
    })
}

fn respond(_: Method<'_>) -> Answer {
    Answer::Respond(Reply {
        status: 200,
        content_type: "text/plain",
        headers: Vec::new(),
        body: Cow::Borrowed(b"ok"),
    })
}

impl Driver {
    fn new() -> Driver {
        let limits = Limits {
            handshake_timeout_ms: 100,
            body_timeout_ms: 200,
            keep_alive_timeout_ms: 300,
            message_timeout_ms: 400,
            ping_interval_ms: 1000,
            pong_timeout_ms: 50,
            close_timeout_ms: 60,
            outbox_age_max_ms: 70,
            outbox_bytes_max: 1000,
            publication_bytes_max: 100,
            ..Limits::default()
        };
        let settings = Settings::new(&limits);
        Driver {
            connection: Connection::new(&settings, 0, 0),
            settings,
            inflation: Inflation::default(),
            now_ms: 0,
            events: Vec::new(),
            out: Vec::new(),
        }
    }

    /// One that has completed the opening handshake at `path`.
    fn open_at(path: &str) -> Driver {
        let mut driver = Driver::new();
        let request = String::from_utf8_lossy(UPGRADE).replace("/ws", path);
        driver.feed(request.as_bytes());
        assert!(driver.text().starts_with(SWITCHING));
        driver.events.clear();
        driver
    }

    fn open() -> Driver {
        Driver::open_at("/ws")
    }

    fn feed(&mut self, bytes: &[u8]) {
        let Driver {
            connection,
            settings,
            inflation,
            now_ms,
            events,
            out,
        } = self;
        connection.handle_bytes(
            settings,
            *now_ms,
            inflation,
            &mut bytes.to_vec(),
            out,
            &mut |event, out| answer(event, events, out),
        );
    }

    /// Deals with what was kept while reading was held.
    fn feed_unread(&mut self) {
        assert!(self.connection.has_unread(), "something was kept");
        let Driver {
            connection,
            settings,
            inflation,
            now_ms,
            events,
            out,
        } = self;
        connection.handle_unread(settings, *now_ms, inflation, out, &mut |event, out| {
            answer(event, events, out)
        });
    }

    fn publish(&mut self, sequence: u32) {
        let Driver {
            connection,
            settings,
            now_ms,
            out,
            ..
        } = self;
        let line = PublishAnswer::placed(LINE.as_bytes().to_vec());
        connection.handle_line(settings, *now_ms, sequence, line, out);
    }

    fn eof(&mut self) {
        self.connection.handle_eof(&self.settings, self.now_ms);
    }

    /// Lets time pass, and deadlines strike as they come.
    fn wait_until(&mut self, end_ms: u64) {
        loop {
            let deadline_ms = self.connection.deadline_ms(&self.settings);
            if self.connection.is_closed() || deadline_ms > end_ms {
                break;
            }
            self.now_ms = self.now_ms.max(deadline_ms);
            let Driver {
                connection,
                settings,
                now_ms,
                out,
                ..
            } = self;
            connection.handle_timeout(settings, *now_ms, *now_ms, out);
        }
        self.now_ms = end_ms;
    }

    fn close(&mut self, reason: CloseReason) {
        let Driver {
            connection,
            settings,
            now_ms,
            out,
            ..
        } = self;
        connection.close(settings, *now_ms, reason, out);
    }

    /// What was written, as text, taken.
    fn text(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.out)).into_owned()
    }

    fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// What waits in the outbox.
    fn outbox(&mut self) -> Vec<u8> {
        let mut storage = [std::io::IoSlice::new(&[]); outbox::SEGMENTS_PER_WRITE];
        let count = self.connection.outbox.slices(&mut storage);
        storage[..count]
            .iter()
            .flat_map(|piece| piece.to_vec())
            .collect()
    }

    /// The outbox and `out` are written: the peer took everything.
    fn flush(&mut self) {
        self.out.clear();
        let len = self.outbox().len();
        self.connection.outbox.handle_written(len);
        self.connection.handle_flushed();
    }

    fn queue(&mut self, bytes: &[u8], written: usize) {
        let segment = Segment::Own(bytes.into());
        self.connection
            .outbox
            .push(segment, written, self.now_ms, 1000)
            .expect("room");
    }

    #[track_caller]
    fn assert_ending(&self, label: Label, reason: CloseReason) {
        assert_eq!(self.connection.label(), label);
        assert_eq!(self.connection.ending(), Some(reason));
    }
}

/// A masked frame, by a key that changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

mod closing;
#[cfg(feature = "deflate")]
mod compressed;
mod http;
mod open;
mod time;

#[test]
fn a_connection_is_small() {
    // With all else that the server holds for it this must come to at most 320 bytes.
    assert_eq!(size_of::<Connection>(), 88);
}

#[test]
fn an_idle_connection_holds_nothing() {
    let mut driver = Driver::open();
    driver.feed(&text("a"));
    assert_eq!(driver.connection.inbound_bytes(), 0);
    assert_eq!(driver.connection.outbox.bytes(), 0);
    assert!(!driver.connection.has_unread());
}
