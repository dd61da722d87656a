//! One publisher: what it sends next, and when. Its messages are numbered from 0.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use hdrhistogram::Histogram;
use umbel::internals::protocol::{Opcode, encode_frame};

use super::record::{latencies, record};
use super::settings::{Length, Pace, Publish, Settings, topic_url};
use super::shared::{Shared, Stage, ticks};
use super::stamp::Stamp;
use super::template::{Rendered, Template};
use super::wire::Wire;
use super::writer::{Entropy, Writer};
use crate::cli::url::Scheme;

/// Bytes that wait for the socket, beyond which nothing more is appended: a server that does not keep up.
const WAITING_BYTES_MAX: usize = 256 * 1024;
/// Pause before a publication is sent again that the server refused for now.
const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// A publisher, shared by its own thread and its pacing thread.
pub struct Publisher {
    index: u32,
    /// The topic that it publishes to.
    pub topic: usize,
    /// The thread that has its connection.
    pub thread: usize,
    /// The connections whose receipts make a publication complete.
    readers: u64,
    /// Their receipts.
    received: AtomicU64,
    opcode: Opcode,
    is_post: bool,
    /// How many messages it sends in the measured part, at most.
    count_max: u64,
    state: Mutex<State>,
}

struct State {
    socket: Option<Arc<Wire>>,
    writer: Writer,
    message: Rendered,
    /// The next number.
    sequence: u64,
    /// Messages that belong to the measured part.
    measured: u64,
    /// A request has no answer yet.
    is_awaiting: bool,
    /// When a refused request is sent again.
    retry_ticks: Option<u64>,
    refused: u64,
}

/// Means of sending of a thread.
pub struct Sender {
    pub entropy: Entropy,
    /// Delay from the intended time to the kernel, in ticks.
    pub lateness: Histogram<u64>,
}

impl Sender {
    /// With nothing sent.
    pub fn new() -> Sender {
        Sender {
            entropy: Entropy::new(),
            lateness: latencies(),
        }
    }
}

/// Counts of a publisher's sends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// All messages.
    pub messages: u64,
    /// Those of the measured part.
    pub measured: u64,
    /// Requests that the server refused for now, and that were sent again.
    pub refused: u64,
}

impl Publisher {
    /// Publisher number `index` of a run. `readers` connections are to get each of its messages.
    ///
    /// # Errors
    /// When the URL to publish to makes no sense.
    pub fn new(
        settings: &Settings,
        index: u32,
        topic: usize,
        thread: usize,
        readers: u64,
    ) -> Result<Publisher, String> {
        let is_echo = !settings.mode.has_publishers();
        let (message, is_post) = match &settings.publish {
            Publish::Message(template) => (template.render(topic, settings.size_bytes), false),
            Publish::Post(_) if is_echo => (Template::bare().render(0, settings.size_bytes), false),
            Publish::Post(url) => (render_request(settings, url, topic)?, true),
        };
        let publishers = settings.publisher_count() as u64;
        Ok(Publisher {
            index,
            topic,
            thread,
            readers,
            received: AtomicU64::new(0),
            opcode: match settings.is_binary {
                true => Opcode::Binary,
                false => Opcode::Text,
            },
            is_post,
            count_max: match settings.length {
                Length::Count(count) => {
                    count / publishers + u64::from(u64::from(index) < count % publishers)
                }
                Length::Time(_) => u64::MAX,
            },
            state: Mutex::new(State {
                socket: None,
                writer: Writer::default(),
                message,
                sequence: 0,
                measured: 0,
                is_awaiting: false,
                retry_ticks: None,
                refused: 0,
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    /// Its connection is there. `writer` may hold what belongs before the first message.
    pub fn open(&self, socket: Arc<Wire>, writer: Writer) {
        let mut state = self.state();
        state.socket = Some(socket);
        state.writer = writer;
    }

    /// Its connection is gone.
    pub fn close(&self) {
        self.state().socket = None;
    }

    /// Sends bytes between its messages, such as a pong.
    pub fn send(&self, append: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        append(state.writer.out());
        state.flush();
    }

    /// Counts receipts. Whether that makes another publication complete.
    pub fn handle_receipts(&self, count: u64) -> bool {
        let before = self.received.fetch_add(count, Ordering::SeqCst);
        before / self.readers.max(1) < (before + count) / self.readers.max(1)
    }

    /// Receipts so far, and the number expected.
    pub fn receipts(&self) -> (u64, u64) {
        let sent = self.sent().messages;
        (self.received.load(Ordering::SeqCst), sent * self.readers)
    }

    /// Sends whatever is due, all of it in one write.
    pub fn pump(&self, shared: &Shared, sender: &mut Sender) {
        let mut state = self.state();
        if state.socket.is_none() {
            return;
        }
        let now_ticks = shared.now_ticks();
        if state.retry_ticks.is_some_and(|ticks| ticks <= now_ticks) {
            state.retry_ticks = None;
            state.append_message(self, sender);
        }
        while let Some(intended_ticks) = self.next_intended(&state, shared, now_ticks) {
            state.stamp(self, shared, intended_ticks);
            state.append_message(self, sender);
            if shared.is_measured(intended_ticks) {
                record(&mut sender.lateness, now_ticks - intended_ticks);
            }
        }
        state.flush();
    }

    /// When the next message is meant to be sent, if it may be sent now.
    fn next_intended(&self, state: &State, shared: &Shared, now_ticks: u64) -> Option<u64> {
        if shared.stage() != Stage::Loading
            || state.is_awaiting
            || state.writer.waiting_bytes() >= WAITING_BYTES_MAX
            || state.measured >= self.count_max
        {
            return None;
        }
        let intended_ticks = match shared.settings.pace {
            Pace::Rate(_) => {
                let publishers = shared.publishers.len() as u64;
                shared.intended_ticks(state.sequence * publishers + u64::from(self.index))?
            }
            Pace::InFlight(in_flight_max) => {
                let received = self.received.load(Ordering::SeqCst);
                let complete = received.checked_div(self.readers).unwrap_or(state.sequence);
                if state.sequence.saturating_sub(complete) >= in_flight_max {
                    return None;
                }
                now_ticks
            }
        };
        let is_due = intended_ticks <= now_ticks && intended_ticks < shared.measure_end_ticks();
        is_due.then_some(intended_ticks)
    }

    /// Takes note of the answer to a request. Whether it is to be sent again later.
    ///
    /// # Errors
    /// For a status that no further attempt can change.
    pub fn handle_response(&self, shared: &Shared, status: u16) -> Result<bool, String> {
        let mut state = self.state();
        match status {
            200..=299 => {
                state.is_awaiting = false;
                Ok(false)
            }
            429 | 503 => {
                state.refused += 1;
                state.retry_ticks = Some(shared.now_ticks() + ticks(RETRY_PAUSE));
                Ok(true)
            }
            status => Err(format!("--publish: the server answered {status}")),
        }
    }

    /// Whether a request waits to be sent again.
    pub fn is_retrying(&self) -> bool {
        self.state().retry_ticks.is_some()
    }

    /// Whether a request has no answer yet.
    pub fn is_awaiting(&self) -> bool {
        self.state().is_awaiting
    }

    /// Whether it has sent all that it was to.
    pub fn is_done(&self) -> bool {
        let state = self.state();
        state.measured >= self.count_max && !state.is_awaiting
    }

    /// Counts so far. A message that the server refused last was not sent.
    pub fn sent(&self) -> Sent {
        let state = self.state();
        Sent {
            messages: state.sequence - u64::from(state.retry_ticks.is_some()),
            measured: state.measured,
            refused: state.refused,
        }
    }
}

impl State {
    fn stamp(&mut self, publisher: &Publisher, shared: &Shared, intended_ticks: u64) {
        let stamp = Stamp {
            publisher: publisher.index,
            sequence: self.sequence,
            intended_ticks,
        };
        stamp.encode(shared.run, self.message.stamp_mut());
        self.sequence += 1;
        self.measured += u64::from(shared.is_measured(intended_ticks));
    }

    fn append_message(&mut self, publisher: &Publisher, sender: &mut Sender) {
        let message = &self.message.bytes;
        if publisher.is_post {
            self.writer.out().extend_from_slice(message);
            self.is_awaiting = true;
        } else {
            let mask = Some(sender.entropy.take());
            encode_frame(self.writer.out(), publisher.opcode, message, mask);
        }
    }

    fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        // Whoever reads the connection finds out too, and says so.
        if self.writer.flush(&**socket).is_err() {
            self.socket = None;
        }
    }
}

/// A `POST` with the payload as its body.
fn render_request(settings: &Settings, url: &str, topic: usize) -> Result<Rendered, String> {
    let url = topic_url(url, Scheme::Http, topic)?;
    let mut head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\n",
        url.target,
        url.authority()
    );
    let has_type = settings.headers.iter();
    let has_type = has_type
        .clone()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if !has_type {
        head.push_str(match settings.is_binary {
            true => "Content-Type: application/octet-stream\r\n",
            false => "Content-Type: text/plain\r\n",
        });
    }
    for (name, value) in &settings.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", settings.size_bytes));
    let body = Template::bare().render(topic, settings.size_bytes);
    Ok(Rendered {
        payload_at: Some(head.len()),
        bytes: [head.as_bytes(), &body.bytes].concat(),
    })
}
