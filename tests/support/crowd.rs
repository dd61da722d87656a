//! Very many subscribers of one topic on one thread: each checks that its publications are the numbers from where it
//! stands, without a gap and none twice, and comes back with its position whenever it is cut off.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::frames;
use super::umbel_v1::{self, offer};
use super::wire::upgrade_request;

/// Room for what one read brings.
const CHUNK_BYTES: usize = 256 << 10;

/// One subscriber. It outlives its connections.
struct Subscriber {
    stream: Option<TcpStream>,
    is_many: bool,
    has_asked: bool,
    /// The handshake is answered, and for one that may subscribe to many the command too.
    is_in: bool,
    inbound: Vec<u8>,
    /// The epoch that it has been told; empty before that.
    epoch: String,
    /// The number of the next publication.
    next: u64,
}

/// Answers to the subscribers when they came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Subscriptions that the server answered.
    pub answered: usize,
    /// Of these, with `recovered: true`.
    pub recovered: usize,
    /// With `recovered: false`.
    pub failed: usize,
    /// Connections that ended without being asked to.
    pub cut: usize,
}

/// All of them. Every second one speaks `umbel.v1.bin`, the others get bare payloads.
pub struct Crowd {
    address: SocketAddr,
    topic: String,
    poll: Poll,
    subscribers: Vec<Subscriber>,
    chunk: Vec<u8>,
    pub tally: Tally,
    /// Reaction of a subscriber that was cut off.
    pub comes_back: bool,
}

impl Crowd {
    /// As many, not connected yet.
    pub fn new(address: SocketAddr, topic: &str, count: usize) -> Crowd {
        let descriptors = rlimit::increase_nofile_limit(u64::MAX).expect("a limit");
        assert!(
            descriptors > count as u64 + 100,
            "{descriptors} descriptors"
        );
        let subscribers = (0..count).map(|number| Subscriber {
            stream: None,
            is_many: number % 2 == 1,
            has_asked: false,
            is_in: false,
            inbound: Vec::new(),
            epoch: String::new(),
            next: 1,
        });
        Crowd {
            address,
            topic: topic.to_owned(),
            poll: Poll::new().expect("a poll"),
            subscribers: subscribers.collect(),
            chunk: vec![0; CHUNK_BYTES],
            tally: Tally::default(),
            comes_back: true,
        }
    }

    /// Connects all at once.
    pub fn connect(&mut self) {
        self.tally = Tally::default();
        for number in 0..self.subscribers.len() {
            self.connect_one(number);
        }
    }

    fn connect_one(&mut self, number: usize) {
        let subscriber = &mut self.subscribers[number];
        let mut stream = TcpStream::connect(self.address).expect("a socket");
        let interests = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry
            .register(&mut stream, Token(number), interests)
            .expect("registered");
        subscriber.stream = Some(stream);
        subscriber.has_asked = false;
        subscriber.is_in = false;
        subscriber.inbound.clear();
    }

    /// Cuts all off at once, each by a reset.
    pub fn reset(&mut self) {
        for subscriber in &mut self.subscribers {
            if let Some(stream) = subscriber.stream.take() {
                let linger = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                linger.expect("settable");
            }
        }
    }

    /// Lets everything happen until a condition holds.
    pub fn run_until(
        &mut self,
        what: &str,
        within: Duration,
        done: impl Fn(&Crowd) -> bool,
    ) -> Duration {
        let started = Instant::now();
        let mut events = Events::with_capacity(4096);
        while !done(self) {
            assert!(
                started.elapsed() < within,
                "not within {within:?}: {what}; {:?}",
                self.tally
            );
            let pause = Some(Duration::from_millis(20));
            match self.poll.poll(&mut events, pause) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                outcome => outcome.expect("polled"),
            }
            for event in &events {
                let number = event.token().0;
                if event.is_writable() {
                    self.ask(number);
                }
                if event.is_readable() || event.is_error() {
                    self.read(number);
                }
            }
        }
        started.elapsed()
    }

    /// The number that every one has got, and all before it.
    pub fn got_by_all(&self) -> u64 {
        let next = self.subscribers.iter().map(|it| it.next).min();
        next.expect("there are subscribers") - 1
    }

    fn ask(&mut self, number: usize) {
        let subscriber = &mut self.subscribers[number];
        let Some(stream) = subscriber.stream.as_mut().filter(|_| !subscriber.has_asked) else {
            return;
        };
        let topic = &self.topic;
        let since = match &*subscriber.epoch {
            "" => None,
            epoch => Some(format!("{epoch}:{}", subscriber.next - 1)),
        };
        let request = match subscriber.is_many {
            false => {
                let query = since.map_or(String::new(), |since| format!("?since={since}"));
                upgrade_request(&format!("/ws/{topic}{query}"), "").into_bytes()
            }
            true => {
                let since = since.map_or(String::new(), |since| format!(",\"since\":\"{since}\""));
                let command =
                    format!("{{\"type\":\"subscribe\",\"id\":1,\"topic\":\"{topic}\"{since}}}");
                let request = upgrade_request("/ws", &offer(umbel_v1::BINARY));
                [request.into_bytes(), frames::text(&command)].concat()
            }
        };
        // A request is smaller than any send buffer.
        match stream.write(&request) {
            Ok(count) => {
                assert_eq!(count, request.len());
                subscriber.has_asked = true;
            }
            Err(error)
                if error.kind() == ErrorKind::WouldBlock
                    || error.kind() == ErrorKind::NotConnected => {}
            Err(_) => self.end(number),
        }
    }

    fn read(&mut self, number: usize) {
        loop {
            let subscriber = &mut self.subscribers[number];
            let Some(stream) = subscriber.stream.as_mut() else {
                return;
            };
            match stream.read(&mut self.chunk) {
                Ok(0) => return self.end(number),
                Ok(count) => {
                    subscriber.inbound.extend_from_slice(&self.chunk[..count]);
                    subscriber.take_messages(&mut self.tally);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::NotConnected => return,
                Err(_) => return self.end(number),
            }
        }
    }

    fn end(&mut self, number: usize) {
        self.subscribers[number].stream = None;
        self.tally.cut += 1;
        if self.comes_back {
            self.connect_one(number);
        }
    }
}

impl Subscriber {
    fn take_messages(&mut self, tally: &mut Tally) {
        let mut at = 0;
        if !self.is_in && !self.has_head(&mut at, tally) {
            return;
        }
        while let Some((payload, end)) = frame(&self.inbound, at) {
            let payload = &self.inbound[payload..end];
            let number = match (self.is_many, payload.first()) {
                (false, _) => payload,
                // A publication: two bytes, two numbers, the topic behind its length, and the payload.
                (true, Some(1)) => &payload[19 + usize::from(payload[18])..],
                (true, _) => panic!("{}", payload.escape_ascii()),
            };
            let number = std::str::from_utf8(number).expect("a number").parse();
            assert_eq!(
                number,
                Ok(self.next),
                "a gap, or a publication that came twice"
            );
            self.next += 1;
            at = end;
        }
        self.inbound.drain(..at);
    }

    /// Looks for the answer to the handshake, and to the command; false while it is not whole.
    fn has_head(&mut self, at: &mut usize, tally: &mut Tally) -> bool {
        let end = self.inbound.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end.map(|end| end + 4) else {
            return false;
        };
        let head = String::from_utf8_lossy(&self.inbound[..end]).into_owned();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let (position, recovered) = match self.is_many {
            false => {
                let value = |name: &str| {
                    let line = head.lines().find_map(|line| line.strip_prefix(name));
                    line.map(str::to_owned)
                };
                *at = end;
                (
                    value("Umbel-Position: "),
                    value("Umbel-Recovered: ").map(|it| it == "true"),
                )
            }
            true => {
                let Some((payload, frame_end)) = frame(&self.inbound, end) else {
                    return false;
                };
                let answer = &self.inbound[payload..frame_end];
                let answer: serde_json::Value = serde_json::from_slice(answer).expect("JSON");
                assert_eq!(answer["type"], "subscribed", "{answer}");
                *at = frame_end;
                (
                    Some(umbel_v1::text(&answer["position"])),
                    answer["recovered"].as_bool(),
                )
            }
        };
        let position = position.expect("a position");
        tally.answered += 1;
        match recovered {
            Some(true) => {
                tally.recovered += 1;
                assert_eq!(umbel_v1::epoch(&position), self.epoch);
                assert!(umbel_v1::offset(&position) + 1 >= self.next);
            }
            Some(false) => tally.failed += 1,
            None => {}
        }
        if recovered != Some(true) {
            self.epoch = umbel_v1::epoch(&position).to_owned();
            self.next = umbel_v1::offset(&position) + 1;
        }
        self.is_in = true;
        true
    }
}

/// Where the payload of the frame at `at` lies; None if it is not whole, or no message.
fn frame(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let (&first, &second) = (bytes.get(at)?, bytes.get(at + 1)?);
    let (length, payload) = match second {
        126 => {
            let length = bytes.get(at + 2..at + 4)?;
            (usize::from(length[0]) << 8 | usize::from(length[1]), at + 4)
        }
        127 => panic!("nothing here is so long"),
        short => (usize::from(short), at + 2),
    };
    // A Close is followed by the end of the stream, and nobody reads on after it.
    if first == frames::FIN | frames::CLOSE {
        return None;
    }
    bytes.get(payload..payload + length)?;
    Some((payload, payload + length))
}
