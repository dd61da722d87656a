//! `umbel pub`: publishes a message, or every line of standard input.

use std::error::Error;
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use umbel::internals::http::escape::escape;
use umbel::internals::http::response::is_header;
use umbel::internals::protocol::{CloseCode, Opcode, Received};

use super::client::{self, Liveness, Opened, Reader, TICK, Wishes, Writer};
use super::ending::Ending;
use super::http_client::Poster;
use super::url::{Scheme, Url};
use super::{count, peer_arguments, stop_signals, url_of};

/// Bytes of one line of standard input, or of all of it.
const LINE_BYTES_MAX: u64 = 1 << 30;
/// Lines that are read ahead of what is sent.
const LINES_AHEAD_MAX: usize = 256;
/// Bytes of frames that go out in one write.
const BATCH_BYTES: usize = 64 * 1024;
/// Pings that wait for their pongs to be sent.
const PINGS_MAX: usize = 16;
/// Time for the server to read what is on its way, and to answer the close frame behind it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for the reason to arrive after the connection has failed.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// The arguments of `umbel pub`.
pub fn command() -> Command {
    Command::new("pub")
        .about("Publish a message, or every line of standard input")
        .long_about(
            "Publish a message, or every line of standard input, in order.\n\n\
             To a TOPIC or an http:// URL each message is a request of its own, answered when the topic has it. To a \
             ws:// URL they go over one connection, many times faster; at the end the closing handshake shows that the \
             server has read them all. That connection is a subscriber too, so it needs the right to subscribe.",
        )
        .after_long_help(
            "Exit code: 0 when the server has taken every message; 1 otherwise, and standard error says why.\n\n\
             What is UTF-8 is published as text, anything else as binary.\n\n\
             Examples:\n  \
             umbel pub news 'hello, everybody'\n  \
             umbel pub prices --key EURUSD 1.0842\n  \
             umbel pub news --receipt hello | jq .receipt\n  \
             umbel pub maps/berlin --whole - < berlin.png\n  \
             tail -f access.log | umbel pub ws://127.0.0.1:8080/ws/log -",
        )
        .args([
            Arg::new("url")
                .value_name("TOPIC|URL")
                .required(true)
                .help("A topic on the default server, http://HOST:PORT/pub/TOPIC or ws://HOST:PORT/ws/TOPIC"),
            Arg::new("text")
                .value_name("TEXT")
                .required(true)
                .allow_hyphen_values(true)
                .help("The message; `-` reads standard input, one message a line"),
            Arg::new("whole")
                .long("whole")
                .action(ArgAction::SetTrue)
                .help("With `-`: all of standard input is one message"),
            Arg::new("idempotency-key")
                .long("idempotency-key")
                .value_name("KEY")
                .help("Publish once, however often it is sent with this key: the server remembers it for a minute. With `-`, each line has KEY.N, N being its number"),
            Arg::new("ttl-ms")
                .long("ttl-ms")
                .value_name("MS")
                .help("How long the message is of use: after that it is in no history"),
            Arg::new("tombstone")
                .long("tombstone")
                .action(ArgAction::SetTrue)
                .help("Say that the key is deleted, on a topic that keeps the latest of each key"),
            Arg::new("receipt")
                .long("receipt")
                .action(ArgAction::SetTrue)
                .help("Wait until the message was handed to all subscribers, and print what became of it: JSON, a line a message"),
            Arg::new("retries")
                .long("retries")
                .value_name("COUNT")
                .default_value("10")
                .hide_default_value(true)
                .allow_negative_numbers(true)
                .value_parser(count(0..=u32::MAX.into(), ""))
                .help("How often a message that http:// answers with 503 is sent again, each time after its Retry-After; with an idempotency key also one that is not answered [default: 10]"),
        ])
        .args(field_arguments())
        .args(peer_arguments())
}

/// Arguments of the fields that a message has.
fn field_arguments() -> [Arg; 5] {
    [
        Arg::new("key")
            .long("key")
            .value_name("KEY")
            .help("What the message is about: for slow readers of a topic that keeps the latest, it replaces those of the same key that wait"),
        Arg::new("event")
            .long("event")
            .value_name("NAME")
            .help("A name of what the message tells: the type of the event on an event stream"),
        Arg::new("id")
            .long("id")
            .value_name("ID")
            .help("A name of your own for the message, for subscribers; it is no position"),
        Arg::new("content-type")
            .long("content-type")
            .value_name("TYPE")
            .help("What the message is, as in application/json"),
        Arg::new("tag")
            .long("tag")
            .value_name("NAME=TEXT")
            .action(ArgAction::Append)
            .help("A tag of the message; may be repeated"),
    ]
}

/// Publishes until there is nothing more.
pub fn run(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    let url = url_of(matches, Scheme::Http)?;
    check_place(&url)?;
    let is_whole = matches.get_flag("whole");
    let input = match matches.get_one::<String>("text").map_or("", String::as_str) {
        "-" if is_whole => Input::Whole,
        "-" => Input::Lines,
        _ if is_whole => {
            return Err("--whole is for standard input: write - in place of the text".into());
        }
        text => Input::Text(text.to_owned()),
    };
    match url.scheme {
        Scheme::Http => post(matches, &url, input)?,
        Scheme::WebSocket => send(matches, &url, input)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is published.
enum Input {
    Text(String),
    /// Each line of standard input.
    Lines,
    /// Standard input as one message.
    Whole,
}

/// Checks that a URL is one of those that take publications.
fn check_place(url: &Url) -> Result<(), String> {
    let (http, ws) = (url.origin(Scheme::Http), url.origin(Scheme::WebSocket));
    let both = |topic: &str| format!("{http}/pub/{topic} or {ws}/ws/{topic}");
    let path = url.target.split('?').next().unwrap_or_default();
    let (room, topic) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    match (room, topic, url.scheme) {
        ("" | "pub" | "ws" | "sse", "", _) => Err(format!(
            "{url}: which topic? Write {}, or umbel pub --server {} TOPIC",
            both("TOPIC"),
            url.server()
        )),
        ("pub", topic, Scheme::WebSocket) => {
            Err(format!("{url} takes requests: use {}", both(topic)))
        }
        ("ws", topic, Scheme::Http) => Err(format!("{url} is a WebSocket: use {}", both(topic))),
        ("sse", topic, _) => Err(format!("{url} is where to subscribe; use {}", both(topic))),
        _ => Ok(()),
    }
}

/// Flags of fields, and the header of each.
const FIELD_FLAGS: [(&str, &str); 5] = [
    ("key", "Umbel-Key"),
    ("event", "Umbel-Event"),
    ("id", "Umbel-Id"),
    ("content-type", "Content-Type"),
    ("ttl-ms", "Umbel-Ttl-Ms"),
];

/// The header of each tag, and its value.
fn tags_of(matches: &ArgMatches) -> Result<Vec<(String, &str)>, String> {
    let tags = matches.get_many::<String>("tag").into_iter().flatten();
    tags.map(|tag| {
        let (name, value) = tag.split_once('=').unwrap_or((tag, ""));
        let header = format!("Umbel-Tag-{name}");
        let is_name = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        match !name.is_empty() && is_name && tag.contains('=') && is_header(&header, value) {
            true => Ok((header, value)),
            false => Err(format!(
                "--tag {:?}: a tag is NAME=TEXT, its name of a-z, 0-9, _ and -, its text without control characters",
                escape(tag).to_string()
            )),
        }
    })
    .collect()
}

/// Each message as a request.
fn post(matches: &ArgMatches, url: &Url, input: Input) -> Result<(), Box<dyn Error>> {
    let given = |name| matches.get_one::<String>(name).map(String::as_str);
    let authorization = given("token").map(client::authorization).transpose()?;
    let wants_receipt = matches.get_flag("receipt");
    let tags = tags_of(matches)?;
    let mut headers: Vec<(&str, &str)> = authorization
        .as_deref()
        .map(|value| ("Authorization", value))
        .into_iter()
        .collect();
    for (flag, header) in FIELD_FLAGS {
        let Some(value) = given(flag) else { continue };
        if !is_header(header, value) {
            let value = escape(value);
            return Err(format!("--{flag} {value:?}: it holds no control characters").into());
        }
        headers.push((header, value));
    }
    headers.extend(tags.iter().map(|(name, value)| (&**name, *value)));
    if wants_receipt {
        headers.push(("Umbel-Receipt", "true"));
    }
    if matches.get_flag("tombstone") {
        headers.push(("Umbel-Tombstone", "true"));
    }
    let retries: u64 = *matches.get_one("retries").expect("it has a default");
    let mut poster = Poster::new(url, &headers, retries as u32);
    let once = given("idempotency-key");
    if once.is_some_and(|key| !is_header("Idempotency-Key", key)) {
        return Err("--idempotency-key: it holds no control characters".into());
    }
    let (is_numbered, mut number) = (matches!(input, Input::Lines), 0_u64);
    let is_printed = wants_receipt || matches.get_flag("verbose");
    let mut post = |message: &[u8]| {
        number += 1;
        let key = once.map(|key| match is_numbered {
            true => format!("{key}.{number}"),
            false => key.to_owned(),
        });
        let answer = poster.post(message, key.as_deref())?;
        if is_printed {
            println_bytes(answer.trim_ascii())?;
        }
        Ok(())
    };
    match input {
        Input::Text(text) => post(text.as_bytes()),
        Input::Lines => each_line(&mut io::stdin().lock(), post),
        Input::Whole => post(&whole(&mut io::stdin().lock())?),
    }
}

/// All messages over one connection.
fn send(matches: &ArgMatches, url: &Url, input: Input) -> Result<(), Box<dyn Error>> {
    let fields = FIELD_FLAGS.into_iter().map(|(flag, _)| flag);
    let mut flags = fields
        .chain(["tag", "idempotency-key"])
        .filter(|flag| matches.contains_id(flag));
    let mut switches = ["receipt", "tombstone"].into_iter();
    let switch = switches.find(|switch| matches.get_flag(switch));
    if let Some(flag) = switch.or_else(|| flags.next()) {
        let http = Url {
            scheme: Scheme::Http,
            target: url.target.replacen("/ws/", "/pub/", 1),
            ..url.clone()
        };
        return Err(format!("--{flag} is for requests: use {http}").into());
    }
    let stop = stop_signals()?;
    let wishes = Wishes {
        token: matches.get_one::<String>("token").cloned(),
        ..Wishes::default()
    };
    let publisher = Publisher::connect(url, &wishes)?;
    let is_verbose = matches.get_flag("verbose");
    if is_verbose {
        eprintln!("umbel: connected to {url}");
    }
    let sent = publisher.run(&lines(input), &stop)?;
    if is_verbose {
        eprintln!("umbel: messages read by {url}: {sent}");
    }
    Ok(())
}

fn println_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.write_all(b"\n")
}

/// Hands every line to `take`, without its line end.
fn each_line(
    input: &mut impl BufRead,
    mut take: impl FnMut(&[u8]) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let len = input
            .by_ref()
            .take(LINE_BYTES_MAX + 2)
            .read_until(b'\n', &mut line)
            .map_err(|error| format!("standard input: {error}"))?;
        if len == 0 {
            return Ok(());
        }
        let message = line.strip_suffix(b"\n").unwrap_or(&line);
        let message = message.strip_suffix(b"\r").unwrap_or(message);
        if message.len() as u64 > LINE_BYTES_MAX {
            return Err(format!("standard input: a line is over {LINE_BYTES_MAX} bytes").into());
        }
        take(message)?;
    }
}

/// Reads to the end.
fn whole(input: &mut impl Read) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut message = Vec::new();
    input
        .take(LINE_BYTES_MAX + 1)
        .read_to_end(&mut message)
        .map_err(|error| format!("standard input: {error}"))?;
    match message.len() as u64 > LINE_BYTES_MAX {
        true => Err(format!("standard input: it is over {LINE_BYTES_MAX} bytes").into()),
        false => Ok(message),
    }
}

/// One message, or the failure that ended standard input.
type Line = Result<Vec<u8>, String>;

/// The messages to send, read by a thread of their own: standard input cannot be waited for together with a socket.
fn lines(input: Input) -> Receiver<Line> {
    let (sender, receiver) = bounded(LINES_AHEAD_MAX);
    thread::spawn(move || {
        let send = |line: &[u8]| Ok(sender.send(Ok(line.to_vec()))?);
        let read = match input {
            Input::Text(text) => send(text.as_bytes()),
            Input::Lines => each_line(&mut io::stdin().lock(), send),
            Input::Whole => whole(&mut io::stdin().lock()).and_then(|all| send(&all)),
        };
        if let Err(error) = read {
            // Nobody is there to be told once the connection has ended.
            let _ = sender.send(Err(error.to_string()));
        }
    });
    receiver
}

/// What the reading thread reports.
enum Incoming {
    Ping(Vec<u8>),
    /// The server has been silent for a while.
    PingDue,
    Ended(Ending),
}

/// A connection that is written to by one thread and read by another, so that neither ever waits for the other.
struct Publisher {
    writer: Writer,
    incoming: Receiver<Incoming>,
    sent: u64,
    /// Why standard input could not be read to its end.
    input_failure: Option<String>,
}

impl Publisher {
    fn connect(url: &Url, wishes: &Wishes) -> Result<Publisher, Box<dyn Error>> {
        let Opened { reader, writer, .. } = client::connect(url, wishes)?;
        let (sender, incoming) = bounded(PINGS_MAX);
        thread::spawn(move || report(reader, &sender));
        Ok(Publisher {
            writer,
            incoming,
            sent: 0,
            input_failure: None,
        })
    }

    /// Sends all lines, or as many as there are before a signal, and waits until the server has read them.
    fn run(
        mut self,
        lines: &Receiver<Line>,
        stop: &Arc<AtomicBool>,
    ) -> Result<u64, Box<dyn Error>> {
        while !stop.load(Ordering::Relaxed) && self.input_failure.is_none() {
            let step = select! {
                recv(lines) -> line => match line {
                    Ok(line) => self.send_batch(line, lines),
                    Err(_) => break,
                },
                recv(self.incoming) -> incoming => self.answer(incoming.ok()),
                default(TICK) => Ok(()),
            };
            step.map_err(|ending| self.failed(ending))?;
        }
        self.close()?;
        match self.input_failure {
            Some(failure) => Err(failure.into()),
            None => Ok(self.sent),
        }
    }

    /// Sends a line, and as many of those behind it as are there and fit one write.
    fn send_batch(&mut self, line: Line, lines: &Receiver<Line>) -> Result<(), Ending> {
        let mut next = Some(line);
        while let Some(line) = next {
            let line = match line {
                Ok(line) => line,
                Err(failure) => {
                    self.input_failure = Some(failure);
                    break;
                }
            };
            let opcode = match std::str::from_utf8(&line) {
                Ok(_) => Opcode::Text,
                Err(_) => Opcode::Binary,
            };
            self.sent += 1;
            next = match self.writer.queue(opcode, &line)? < BATCH_BYTES {
                true => lines.try_recv().ok(),
                false => None,
            };
        }
        Ok(self.writer.flush()?)
    }

    fn answer(&mut self, incoming: Option<Incoming>) -> Result<(), Ending> {
        match incoming {
            Some(Incoming::Ping(payload)) => Ok(self.writer.send(Opcode::Pong, &payload)?),
            Some(Incoming::PingDue) => Ok(self.writer.send(Opcode::Ping, b"")?),
            Some(Incoming::Ended(ending)) => Err(ending),
            None => Err(Ending::Gone),
        }
    }

    /// The closing handshake: its answer comes when the server has read everything before it.
    fn close(&mut self) -> Result<(), Box<dyn Error>> {
        if let Err(error) = self.writer.close(CloseCode::NORMAL, "") {
            return Err(self.failed(error.into()).into());
        }
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        loop {
            match self.incoming.recv_deadline(deadline) {
                Ok(Incoming::Ended(ending)) if ending.is_normal() => return Ok(()),
                Ok(Incoming::Ended(ending)) => return Err(self.failed(ending).into()),
                Ok(Incoming::Ping(_) | Incoming::PingDue) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let seconds = CLOSE_TIMEOUT.as_secs();
                    return Err(format!("no answer to the close frame within {seconds} s").into());
                }
            }
        }
    }

    /// What to say of a connection that ended too early. The server's own words are better than the system's.
    fn failed(&mut self, ending: Ending) -> String {
        let deadline = Instant::now() + REASON_TIMEOUT;
        let mut ending = ending;
        while matches!(ending, Ending::Failed(_)) {
            match self.incoming.recv_deadline(deadline) {
                Ok(Incoming::Ended(Ending::Failed(_))) | Err(_) => break,
                Ok(Incoming::Ended(reported)) => ending = reported,
                Ok(Incoming::Ping(_) | Incoming::PingDue) => {}
            }
        }
        self.writer.finish(&ending);
        format!(
            "{ending} (messages sent: {}; the last of them may not have been read)",
            self.sent
        )
    }
}

/// Reads until the end. Publications are passed over: this connection gets its own, as every subscriber does.
fn report(mut reader: Reader, incoming: &Sender<Incoming>) {
    let mut liveness = Liveness::default();
    let ending = loop {
        let read = reader.read(|received| {
            if let Received::Ping(payload) = received {
                // Of pings that come faster than pongs can leave, some go unanswered (RFC 6455, section 5.5.3).
                let _ = incoming.try_send(Incoming::Ping(payload.to_vec()));
            }
        });
        match read.and_then(|()| liveness.poll_ping(&reader)) {
            Ok(true) => {
                // When the queue is full, something is being sent anyway.
                let _ = incoming.try_send(Incoming::PingDue);
            }
            Ok(false) => {}
            Err(ending) => break ending,
        }
    };
    // The other end is gone when the process ends for another reason.
    let _ = incoming.send(Incoming::Ended(ending));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_their_ends_and_nothing_else() {
        let mut all = Vec::new();
        let mut input: &[u8] = b"a\r\n\n b \r\r\n\xff\nlast";
        each_line(&mut input, |line| {
            all.push(line.to_vec());
            Ok(())
        })
        .unwrap();
        let expected: [&[u8]; 5] = [b"a", b"", b" b \r", b"\xff", b"last"];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_failure_ends_the_reading() {
        let mut count = 0;
        let result = each_line(&mut &b"a\nb\n"[..], |_| {
            count += 1;
            Err("no".into())
        });
        assert!(result.is_err());
        assert_eq!(count, 1);
    }
}
