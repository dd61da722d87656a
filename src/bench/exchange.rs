//! Handling of a connection's bytes, from its handshake to its end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use umbel::internals::protocol::deflate::Offer;
use umbel::internals::protocol::{ClientRequest, Opcode, encode_frame};

use super::arguments::Mode;
use super::connection::{Connection, Handshake, Role, State};
use super::inbound::Arrival;
use super::load::Load;
use super::response;
use super::settings::{Pace, STORM_CONNECTS_MAX, Settings, topic_url};
use super::shared::Stage;
use super::stamp::Stamp;
use super::template::Template;
use super::writer::Entropy;
use crate::cli::url::Scheme;

/// The close code of a connection that ended without one (RFC 6455, section 7.1.5).
const ABNORMAL_CLOSURE: u16 = 1006;

impl Load {
    /// Sends the opening handshake.
    pub(super) fn begin_handshake(&mut self, place: usize) {
        let shared = Arc::clone(&self.shared);
        let settings = &shared.settings;
        let connection = &mut self.connections[place];
        let topic = match connection.role {
            Role::Subscriber { topic, .. } | Role::Idle { topic } => topic,
            Role::Publisher(index) | Role::Poster(index) => shared.publishers[index as usize].topic,
            Role::Echo(_) => 0,
        };
        let url = match topic_url(&settings.url, Scheme::WebSocket, topic) {
            Ok(url) => url,
            Err(error) => return self.fail(place, || error),
        };
        let mut request = ClientRequest::new(self.sender.entropy.take());
        if settings.offers_deflate {
            request.offer_deflate(Offer::default());
        }
        let subprotocols: Vec<&str> = settings.subprotocols.iter().map(String::as_str).collect();
        let headers = settings.headers.iter();
        let bearer = match settings.bearers.len() {
            0 => None,
            count => settings.bearers.get(connection.number % count),
        };
        let bearer = bearer.map(|bearer| ("Authorization", &**bearer));
        let headers = headers.map(|(name, value)| (&**name, &**value));
        let headers: Vec<(&str, &str)> = headers.chain(bearer).collect();
        let out = connection.writer.out();
        request.encode(out, &url.authority(), &url.target, &subprotocols, &headers);
        connection.state = State::Handshake(Box::new(Handshake {
            request,
            bytes: Vec::new(),
        }));
    }

    /// The connection was not made.
    pub(super) fn fail(&mut self, place: usize, reason: impl FnOnce() -> String) {
        self.handshakes -= 1;
        let number = self.connections[place].number;
        self.shared
            .fail(|| format!("connection {} was not made: {}", number + 1, reason()));
        self.shared.progress[self.thread]
            .failed
            .fetch_add(1, Ordering::Relaxed);
        self.vacate(place);
    }

    /// The connection is there.
    pub(super) fn open(&mut self, place: usize, now_ticks: u64) {
        let shared = Arc::clone(&self.shared);
        self.handshakes -= 1;
        shared.progress[self.thread]
            .opened
            .fetch_add(1, Ordering::Relaxed);
        let connection = &mut self.connections[place];
        connection.state = State::Open;
        append_first_messages(
            &shared.settings,
            connection,
            &mut self.sender.entropy,
            |index| shared.publishers[index].topic,
        );
        match connection.role.publisher().zip(connection.socket.clone()) {
            Some((index, socket)) => {
                let writer = std::mem::take(&mut connection.writer);
                shared.publishers[index].open(socket, writer);
                shared.publishers[index].pump(&shared, &mut self.sender);
            }
            None => self.flush(place),
        }
        if shared.settings.mode == Mode::Storm {
            self.handle_storm_open(place, now_ticks);
        }
    }

    /// Acts on what was read.
    pub(super) fn handle_bytes(&mut self, place: usize, bytes: &[u8], now_ticks: u64) {
        let connection = &mut self.connections[place];
        match (&mut connection.state, connection.role) {
            (State::Closed, _) => {}
            (State::Handshake(handshake), _) => {
                handshake.bytes.extend_from_slice(bytes);
                let (rest, failure) = match handshake.request.parse_response(&handshake.bytes) {
                    Ok(None) => return,
                    Ok(Some((response, end))) => {
                        if let Some(agreement) = response.deflate {
                            connection.inbound.accept_compressed(agreement);
                        }
                        (handshake.bytes.split_off(end), None)
                    }
                    Err(error) => (Vec::new(), Some(error)),
                };
                match failure {
                    Some(error) => self.fail(place, || error.to_string()),
                    None => {
                        self.open(place, now_ticks);
                        self.handle_frames(place, &rest, now_ticks);
                    }
                }
            }
            (_, Role::Poster(index)) => self.handle_response(place, index as usize, bytes),
            _ => self.handle_frames(place, bytes, now_ticks),
        }
    }

    fn handle_frames(&mut self, place: usize, mut bytes: &[u8], now_ticks: u64) {
        let search = self.search();
        if self.shared.is_measured(now_ticks) {
            self.record.measured_bytes += bytes.len() as u64;
        }
        loop {
            let connection = &mut self.connections[place];
            match connection.inbound.take_arrival(&mut bytes, search) {
                Ok(None) => return,
                Ok(Some(Arrival::Message(Some(stamp)))) => {
                    self.handle_message(place, stamp, now_ticks);
                }
                Ok(Some(Arrival::Message(None))) => self.record.unstamped += 1,
                Ok(Some(Arrival::Ping(payload))) => {
                    self.send_control(place, Opcode::Pong, payload.as_slice());
                }
                Ok(Some(Arrival::Close(code))) => {
                    self.handle_close(place, code);
                    return;
                }
                Err(error) => {
                    let reason = error.reason();
                    self.shared
                        .fail(|| format!("the server broke the protocol: {reason}"));
                    self.count_end(place, error.close_code().get());
                    self.vacate(place);
                    return;
                }
            }
        }
    }

    #[inline]
    fn handle_message(&mut self, place: usize, stamp: Stamp, now_ticks: u64) {
        let connection = &mut self.connections[place];
        self.record.count(&self.shared, now_ticks);
        if let Role::Publisher(_) = connection.role {
            self.record.copies += 1;
            return;
        }
        let first_publisher = connection.first_publisher;
        let is_first = self
            .record
            .audit(&mut connection.audits, first_publisher, stamp);
        if is_first && !connection.role.is_stalled() {
            self.record
                .record_latency(&self.shared, stamp.intended_ticks, now_ticks);
            self.touch(stamp.publisher);
        }
    }

    fn send_control(&mut self, place: usize, opcode: Opcode, payload: &[u8]) {
        let mask = Some(self.sender.entropy.take());
        let connection = &mut self.connections[place];
        let append = |out: &mut Vec<u8>| encode_frame(out, opcode, payload, mask);
        match connection.role.publisher() {
            Some(index) => self.shared.publishers[index].send(append),
            None => {
                append(connection.writer.out());
                self.flush(place);
            }
        }
    }

    /// Answers the server's close frame. The server then ends the TCP connection.
    fn handle_close(&mut self, place: usize, code: u16) {
        if let State::Open = self.connections[place].state {
            self.count_end(place, code);
            let payload = match code {
                1005 => &[][..],
                code => &code.to_be_bytes(),
            };
            self.send_control(place, Opcode::Close, payload);
        }
        if let Some(index) = self.connections[place].role.publisher() {
            self.shared.publishers[index].close();
        }
        self.connections[place].state = State::Closing;
    }

    /// The TCP connection has ended.
    pub(super) fn handle_end(&mut self, place: usize, error: Option<&io::Error>) {
        let connection = &self.connections[place];
        match (&connection.state, connection.role) {
            (State::Handshake(_), _) => {
                let reason = || match error {
                    Some(error) => error.to_string(),
                    None => "the server ended it inside the handshake".to_owned(),
                };
                return self.fail(place, reason);
            }
            (State::Open, Role::Poster(index)) => {
                return self.handle_poster_end(place, index as usize, error);
            }
            (State::Open, _) => self.count_end(place, ABNORMAL_CLOSURE),
            (State::Closing | State::Closed, _) => {}
        }
        self.vacate(place);
    }

    /// Counts a connection that the server has ended.
    fn count_end(&mut self, place: usize, code: u16) {
        if self.shared.stage() == Stage::Ended {
            return;
        }
        let closed = match self.connections[place].role.is_stalled() {
            true => &mut self.record.stalled_closed,
            false => &mut self.record.closed,
        };
        *closed.entry(code).or_default() += 1;
    }

    fn vacate(&mut self, place: usize) {
        let connection = &mut self.connections[place];
        if let Some(index) = connection.role.publisher() {
            self.shared.publishers[index].close();
        }
        let was_open = matches!(connection.state, State::Open);
        connection.reset();
        if self.shared.settings.mode == Mode::Storm {
            if was_open {
                self.ages.retain(|open| *open != place);
            }
            self.free.push(place);
        }
    }

    /// A server may end a kept connection between two requests; then there is a new one.
    fn handle_poster_end(&mut self, place: usize, index: usize, error: Option<&io::Error>) {
        let is_awaiting = self.shared.publishers[index].is_awaiting();
        self.vacate(place);
        if is_awaiting || error.is_some() {
            self.shared.fail(|| match error {
                Some(error) => format!("--publish: {error}"),
                None => "--publish: the server gave no answer and ended the connection".to_owned(),
            });
            let failed = &self.shared.progress[self.thread].failed;
            failed.fetch_add(1, Ordering::Relaxed);
        } else if self.shared.stage() < Stage::Draining {
            self.begin(place, self.shared.now_ticks());
        }
    }

    fn handle_response(&mut self, place: usize, index: usize, bytes: &[u8]) {
        let connection = &mut self.connections[place];
        connection.response.extend_from_slice(bytes);
        let publisher = &self.shared.publishers[index];
        let handled = response::parse(&connection.response).and_then(|response| {
            let Some((status, end)) = response else {
                return Ok(None);
            };
            connection.response.drain(..end);
            publisher.handle_response(&self.shared, status).map(Some)
        });
        match handled {
            Ok(None) => {}
            Ok(Some(true)) => self.retry_later(index),
            Ok(Some(false)) => publisher.pump(&self.shared, &mut self.sender),
            Err(error) => {
                self.shared.fail(|| error);
                self.shared.progress[self.thread]
                    .failed
                    .fetch_add(1, Ordering::Relaxed);
                self.vacate(place);
            }
        }
    }

    /// Storm: makes the connections that are due, as far as there are places for them.
    pub(super) fn storm_due(&mut self) {
        let shared = Arc::clone(&self.shared);
        let threads = shared.wakers.len();
        loop {
            let now_ticks = shared.now_ticks();
            let index = self.storm_index * threads as u64 + self.thread as u64;
            let intended_ticks = match (shared.intended_ticks(index), shared.settings.pace) {
                (None, Pace::InFlight(max))
                    if self.handshakes >= (max as usize).div_ceil(threads) =>
                {
                    return;
                }
                (intended, _) => intended.unwrap_or(now_ticks),
            };
            if intended_ticks > now_ticks || intended_ticks >= shared.measure_end_ticks() {
                return;
            }
            let Some(place) = self.free.pop() else { return };
            self.storm_index += 1;
            self.begin(place, intended_ticks);
        }
    }

    /// Storm: a connection more than there should be lets the oldest go.
    fn handle_storm_open(&mut self, place: usize, now_ticks: u64) {
        let shared = Arc::clone(&self.shared);
        if shared.stage() >= Stage::Loading {
            self.record.count(&shared, now_ticks);
            let intended_ticks = self.connections[place].intended_ticks;
            self.record
                .record_latency(&shared, intended_ticks, now_ticks);
        }
        self.ages.push_back(place);
        let threads = shared.wakers.len();
        if self.ages.len() > shared.settings.connections.div_ceil(threads)
            && let Some(oldest) = self.ages.pop_front()
        {
            self.send_control(oldest, Opcode::Close, &1000u16.to_be_bytes());
            if self.connections[oldest].socket.is_some() {
                self.connections[oldest].state = State::Closing;
            }
        }
    }
}

/// Places for connections beside those that are there at the beginning.
pub fn spare_places(settings: &Settings) -> usize {
    match settings.mode {
        Mode::Storm => STORM_CONNECTS_MAX.div_ceil(settings.threads),
        _ => 0,
    }
}

/// What the server has to be told before anything else.
fn append_first_messages(
    settings: &Settings,
    connection: &mut Connection,
    entropy: &mut Entropy,
    topic_of: impl Fn(usize) -> usize,
) {
    let opcode = match settings.is_binary {
        true => Opcode::Binary,
        false => Opcode::Text,
    };
    let (topic, subscribes) = match connection.role {
        Role::Subscriber { topic, .. } | Role::Idle { topic } => (topic, true),
        Role::Echo(_) => (0, true),
        Role::Publisher(index) => (topic_of(index as usize), false),
        Role::Poster(_) => return,
    };
    let templates = [
        settings.hello.as_ref(),
        settings.subscribe.as_ref().filter(|_| subscribes),
    ];
    let templates: [Option<&Template>; 2] = templates;
    for template in templates.into_iter().flatten() {
        let message = template.render(topic, 0);
        let out = connection.writer.out();
        encode_frame(out, opcode, &message.bytes, Some(entropy.take()));
    }
}
