//! Subscribing with a position in each dialect, and what comes before a publication that ends the test's patience.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::frames::{self, FIN};
use super::peers::Http;
use super::umbel_v1::{self, Peer, offset};
use super::wire::upgrade_request;
use super::{Server, Wire};

/// The ways of subscribing.
pub const WAYS: [Way; 4] = [Way::Raw, Way::Sse, Way::V1, Way::V1Binary];

/// A way of subscribing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Raw,
    Sse,
    V1,
    V1Binary,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug)]
pub enum From<'a> {
    Now,
    Since(&'a str),
    Last(u32),
}

/// Position and publications that a subscriber got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaughtUp {
    pub recovered: Option<bool>,
    pub position: String,
    /// Publications before [`LAST`].
    pub data: Vec<String>,
}

/// Publication that ends the wait for earlier ones.
pub const LAST: &str = "the last";

/// Publishes the numbers from `first` to `last` in one request; gives the position of the last.
pub fn publish_numbers(address: SocketAddr, topic: &str, first: u64, last: u64) -> String {
    let lines =
        (first..=last).map(|it| json!({"topic": topic, "data": it.to_string()}).to_string());
    let body = lines.collect::<Vec<_>>().join("\n");
    let answer = Http::connect(address).publish_lines(&body);
    assert_eq!(answer.status, 200);
    let body = String::from_utf8(answer.body).expect("answers are text");
    let line: Value = serde_json::from_str(body.lines().last().expect("a line")).expect("JSON");
    format!("{}:{}", umbel_v1::text(&line["epoch"]), line["offset"])
}

/// The numbers as [`publish_numbers`] publishes them.
pub fn numbers(first: u64, last: u64) -> Vec<String> {
    (first..=last).map(|it| it.to_string()).collect()
}

/// Subscribes, publishes [`LAST`], and reads up to it.
pub fn catch_up(server: &Server, way: Way, topic: &str, from: From<'_>) -> CaughtUp {
    let end = || {
        Http::connect(server.address()).publish(topic, LAST.as_bytes());
    };
    match way {
        Way::Raw | Way::Sse => {
            let query = match from {
                From::Now => String::new(),
                From::Since(since) => format!("?since={since}"),
                From::Last(last) => format!("?last={last}"),
            };
            let mut wire = server.connect();
            let request = match way {
                Way::Raw => upgrade_request(&format!("/ws/{topic}{query}"), ""),
                _ => format!("GET /sse/{topic}{query} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            };
            wire.send(request.as_bytes());
            let response = wire.read_response();
            assert!(matches!(response.status, 101 | 200), "{response:?}");
            let recovered = response.header("umbel-recovered");
            let position = response.header("umbel-position").map(str::to_owned);
            end();
            let data = match way {
                Way::Raw => raw_data(&mut wire),
                _ => stream_data(&mut wire),
            };
            CaughtUp {
                recovered: recovered.map(|it| it.parse().expect("true or false")),
                position: position.unwrap_or_default(),
                data,
            }
        }
        Way::V1 | Way::V1Binary => {
            let subprotocol = if way == Way::V1 {
                umbel_v1::JSON
            } else {
                umbel_v1::BINARY
            };
            let mut peer = Peer::open_at(server.address(), "/ws", subprotocol);
            catch_up_on(&mut peer, topic, from, end)
        }
    }
}

fn catch_up_on(peer: &mut Peer, topic: &str, from: From<'_>, end: impl FnOnce()) -> CaughtUp {
    let mut command = json!({"type": "subscribe", "id": 1, "topic": topic});
    match from {
        From::Now => {}
        From::Since(since) => command["since"] = since.into(),
        From::Last(last) => command["last"] = last.into(),
    }
    let answer = peer.ask(&command);
    assert_eq!(answer["type"], "subscribed", "{answer}");
    end();
    let position = umbel_v1::text(&answer["position"]);
    let mut publications = Vec::new();
    loop {
        let publication = peer.publication();
        if publication.1 == LAST {
            assert_eq!(offset(&publication.0), offset(&position) + 1);
            break;
        }
        publications.push(publication);
    }
    for (index, (found, _)) in publications.iter().rev().enumerate() {
        assert_eq!(umbel_v1::epoch(found), umbel_v1::epoch(&position));
        assert_eq!(offset(found), offset(&position) - index as u64);
    }
    CaughtUp {
        recovered: answer
            .get("recovered")
            .map(|it| it.as_bool().expect("a bool")),
        position,
        data: publications.into_iter().map(|(_, data)| data).collect(),
    }
}

fn raw_data(wire: &mut Wire) -> Vec<String> {
    let mut data = Vec::new();
    loop {
        let frame = wire.read_frame();
        assert_eq!(frame.first, FIN | frames::TEXT);
        match String::from_utf8(frame.payload).expect("text") {
            last if last == LAST => return data,
            text => data.push(text),
        }
    }
}

fn stream_data(wire: &mut Wire) -> Vec<String> {
    let mut data = Vec::new();
    loop {
        let block = next_block(wire);
        match block.data {
            Some(last) if last == LAST => return data,
            Some(text) if block.event.is_none() => data.push(text),
            _ => {}
        }
    }
}

/// One block of an event stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: Option<String>,
}

/// The next block of a stream; comments are passed over.
pub fn next_block(wire: &mut Wire) -> Block {
    loop {
        let text = String::from_utf8(wire.read_through(b"\n\n")).expect("a stream is text");
        let mut block = Block::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').expect("name: value");
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match name {
                "id" => block.id = Some(value),
                "event" => block.event = Some(value),
                "data" => {
                    let before = block.data.take().map(|data| data + "\n");
                    block.data = Some(before.unwrap_or_default() + &value);
                }
                "" => {}
                _ => panic!("{line}"),
            }
        }
        if block != Block::default() {
            return block;
        }
    }
}
