//! `umbel trace`: what happens on a running server, while it happens.

use std::error::Error;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use serde_json::Value;
use umbel::internals::http::body::{BodyDecoder, BodyLength};
use umbel::internals::units::Unit;

use super::client::{TICK, connect_stream, is_tick, refusal};
use super::http_client::{HEADERS_MAX, get_head, parse_response, value};
use super::operate::{authorization_of, url_of};
use super::stream::{RESPONSE_TIMEOUT, Stream};
use super::url::Url;
use super::{peer_arguments, stop_signals};

/// Bytes of the head of an answer, and of a refusal.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The arguments.
pub fn command() -> Command {
    Command::new("trace")
        .about("Print what happens to a connection, on topics or to a subject, while it happens")
        .long_about(
            "Print what happens to a connection, on topics or to a subject, while it happens: a JSON object a line for each \
             request, message, command, frame, delivery and end, by size. At most 4 traces run at a time, each of 1000 events a \
             second; the line `dropped` says how many events are missing.",
        )
        .after_help(
            "It asks by GET /api/v1/trace, on a listener for operators. A topic needs a token that may observe, or manage the \
             topic; connections, subjects and payloads need one that may manage everything, or the topic.\n\n\
             Exit code: 0 after Ctrl-C, or when the trace has ended; 1 if it could not begin, or was cut off.\n\n\
             Examples:\n  \
             umbel trace --topic 'orders/**'\n  \
             umbel trace http://127.0.0.1:9090 --connection 0-12-3 --for 5m | jq -c 'select(.event == \"closed\")'",
        )
        .args([
            Arg::new("url")
                .value_name("URL")
                .help("http://HOST:PORT of a listener for operators; without it the default server"),
            Arg::new("connection")
                .long("connection")
                .value_name("ID")
                .help("Follow this connection, to its end"),
            Arg::new("topic")
                .long("topic")
                .value_name("PATTERN")
                .help("Follow what is published to these topics, and who subscribes: orders/eu, orders/* or orders/**"),
            Arg::new("subject")
                .long("subject")
                .value_name("SUBJECT")
                .help("Follow all connections of this subject, those that open later too"),
            Arg::new("payloads")
                .long("payloads")
                .action(ArgAction::SetTrue)
                .help("Show payloads too, the first 4096 bytes of each"),
            Arg::new("for")
                .long("for")
                .value_name("TIME")
                .default_value("60s")
                .value_parser(duration_ms)
                .help("End after this time, up to 10m"),
        ])
        .group(
            ArgGroup::new("followed")
                .args(["connection", "topic", "subject"])
                .required(true),
        )
        .args(peer_arguments())
}

fn duration_ms(text: &str) -> Result<u64, String> {
    let value = Unit::Millis.parse(text);
    let value = value.filter(|ms| (100..=600_000).contains(ms));
    value.ok_or_else(|| "it is a time from 100ms to 10m, as in 30s".to_owned())
}

/// A value in a query, percent-encoded.
fn encoded(value: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/*".contains(&byte);
    let shown = |byte| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    value.bytes().map(shown).collect()
}

/// Prints until the trace ends, or a signal comes.
pub fn run(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    let given = |name| matches.get_one::<String>(name);
    let mut target = format!(
        "/api/v1/trace?duration_ms={}",
        matches.get_one::<u64>("for").copied().unwrap_or(60_000)
    );
    for name in ["connection", "topic", "subject"] {
        if let Some(value) = given(name) {
            target += &format!("&{name}={}", encoded(value));
        }
    }
    if matches.get_flag("payloads") {
        target += "&payloads=true";
    }
    let url = url_of(matches, &target)?;
    let stop = stop_signals()?;
    let mut lines = Lines::open(&url, authorization_of(matches)?.as_deref())?;
    let mut out = io::stdout().lock();
    let mut last = Vec::new();
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(ExitCode::SUCCESS);
        }
        let Some(piece) = lines.read()? else { break };
        out.write_all(&piece)?;
        out.flush()?;
        last.extend_from_slice(&piece);
        let line = last.iter().rev().skip(1).position(|byte| *byte == b'\n');
        last.drain(..line.map_or(0, |at| last.len() - 1 - at));
    }
    let last: Value = serde_json::from_slice(&last).unwrap_or_default();
    match (last["event"].as_str(), last["reason"].as_str()) {
        (Some("ended"), Some("not_found")) => {
            Err(format!("{url}: there is no connection of this name").into())
        }
        (Some("ended"), _) => Ok(ExitCode::SUCCESS),
        _ => Err(format!("{url}: the trace was cut off").into()),
    }
}

/// An answer whose body goes on.
struct Lines {
    stream: Stream,
    /// Bytes of the body that came with its head.
    pending: Vec<u8>,
    /// Of a body in chunks, which a proxy may make of it.
    chunks: Option<BodyDecoder>,
}

impl Lines {
    fn open(url: &Url, authorization: Option<&str>) -> Result<Lines, Box<dyn Error>> {
        let request = get_head(url, authorization);
        let mut stream = connect_stream(url).map_err(|error| error.at(url))?;
        stream.set_read_timeout(TICK)?;
        stream.write_all(request.as_bytes())?;
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        let mut bytes = Vec::new();
        let mut piece = vec![0; 4096];
        loop {
            let is_end = match stream.read(&mut piece) {
                Ok(len) => {
                    bytes.extend_from_slice(&piece[..len]);
                    len == 0
                }
                Err(error) if is_tick(&error) => false,
                Err(error) => return Err(format!("{url}: {error}").into()),
            };
            let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut head = httparse::Response::new(&mut storage);
            let parsed = head.parse(&bytes)?;
            if let httparse::Status::Complete(head_len) = parsed
                && head.code == Some(200)
            {
                let is_chunked = value(&head, "transfer-encoding") == Some("chunked");
                let chunks = is_chunked.then(|| BodyDecoder::new(BodyLength::Chunked, u64::MAX));
                return Ok(Lines {
                    stream,
                    pending: bytes.split_off(head_len),
                    chunks,
                });
            }
            if let Some(answer) = parse_response(&bytes, is_end)? {
                let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                return Err(match body["error"]["reason"].as_str() {
                    Some(reason) => format!("{url}: {reason}").into(),
                    None => format!("{url}: {}", refusal(answer.status, &answer.body)).into(),
                });
            }
            if is_end || bytes.len() > HEAD_BYTES_MAX || Instant::now() > deadline {
                return Err(format!("{url}: there was no answer").into());
            }
        }
    }

    /// Waits a [`TICK`] for bytes of the body. None: it has ended.
    fn read(&mut self) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
        let mut bytes = std::mem::take(&mut self.pending);
        if bytes.is_empty() {
            bytes.resize(64 * 1024, 0);
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(len) => bytes.truncate(len),
                Err(error) if is_tick(&error) => return Ok(Some(Vec::new())),
                Err(error) => return Err(error.into()),
            }
        }
        let Some(chunks) = &mut self.chunks else {
            return Ok(Some(bytes));
        };
        let (mut input, mut body) = (&bytes[..], Vec::new());
        while let Some(piece) = chunks
            .decode(&mut input)
            .map_err(|refusal| refusal.reason.into_owned())?
        {
            body.extend_from_slice(piece);
        }
        match body.is_empty() && chunks.is_done() {
            true => Ok(None),
            false => Ok(Some(body)),
        }
    }
}
