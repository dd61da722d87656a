//! `umbel sub`: prints what is published to a topic.

use std::error::Error;
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;
use umbel::internals::protocol::deflate::Offer;
use umbel::internals::protocol::{CloseCode, Opcode, Received};

use super::client::{self, Ending, Liveness, Reader, Writer};
use super::url::{Scheme, Url};
use super::{peer_arguments, stop_signals, timestamp, url_of};

/// Time for the server to answer a close frame of ours.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The arguments of `umbel sub`.
pub fn command() -> Command {
    Command::new("sub")
        .about("Subscribe: print what is published to a topic")
        .long_about(
            "Subscribe: print what is published to a topic, a line a message, until the server closes the \
             connection, --count is reached or Ctrl-C closes it.\n\n\
             A text is printed as it is, line breaks included; a binary message as base64 behind `base64:`. \
             For programs there is --json.",
        )
        .after_long_help(
            "Exit code: 0 after a normal close (1000), --count messages or Ctrl-C; 1 when the connection could not \
             be made, was lost, or was closed with another code, which standard error then names.\n\n\
             Examples:\n  \
             umbel sub news\n  \
             umbel sub 'news?last=10'\n  \
             umbel sub --json -n 10 'ws://127.0.0.1:8080/ws/tokens?chain_id=1' | jq",
        )
        .arg(
            Arg::new("url")
                .value_name("URL")
                .required(true)
                .help("ws://HOST:PORT/ws/TOPIC, or only TOPIC on the default server"),
        )
        .args([
            Arg::new("count")
                .long("count")
                .short('n')
                .value_name("COUNT")
                .value_parser(value_parser!(u64).range(1..))
                .help("End after so many messages"),
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print a JSON object a line: time, bytes, kind (text or binary), data (binary as base64)"),
            Arg::new("hex")
                .long("hex")
                .action(ArgAction::SetTrue)
                .help("Print binary messages in hexadecimal, behind `hex:`, not in base64"),
            Arg::new("no-deflate")
                .long("no-deflate")
                .action(ArgAction::SetTrue)
                .help("Offer no compression"),
        ])
        .args(peer_arguments())
}

/// Prints until the end.
pub fn run(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    let url = url_of(matches, Scheme::WebSocket)?;
    if url.scheme != Scheme::WebSocket {
        let url = Url {
            scheme: Scheme::WebSocket,
            ..url
        };
        return Err(format!("umbel sub speaks WebSocket: use {url}").into());
    }
    let stop = stop_signals()?;
    let token = matches.get_one::<String>("token").map(String::as_str);
    let offer = (!matches.get_flag("no-deflate")).then(Offer::default);
    let (reader, writer) = client::connect(&url, token, offer)?;
    if matches.get_flag("verbose") {
        eprintln!("umbel: subscribed to {url}; Ctrl-C ends");
    }
    let output = Output {
        out: BufWriter::new(io::stdout().lock()),
        is_json: matches.get_flag("json"),
        is_hex: matches.get_flag("hex"),
        remaining: matches.get_one::<u64>("count").copied(),
        failure: None,
    };
    print(reader, writer, output, &stop)
}

fn print(
    mut reader: Reader,
    mut writer: Writer,
    mut output: Output<'_>,
    stop: &Arc<AtomicBool>,
) -> Result<ExitCode, Box<dyn Error>> {
    let mut liveness = Liveness::default();
    let ending = loop {
        if stop.load(Ordering::Relaxed) || output.is_done() {
            close(&mut reader, &mut writer);
            output.check()?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut ponged = Ok(());
        let read = reader.read(|received| match received {
            Received::Text(text) => output.print("text", text.as_bytes()),
            Received::Binary(bytes) => output.print("binary", bytes),
            Received::Ping(payload) if ponged.is_ok() => {
                ponged = writer.send(Opcode::Pong, payload);
            }
            _ => {}
        });
        output.flush();
        let alive = read
            .and_then(|()| ponged.map_err(Ending::from))
            .and_then(|()| liveness.poll_ping(&reader))
            .and_then(|is_due| match is_due {
                true => writer.send(Opcode::Ping, b"").map_err(Ending::from),
                false => Ok(()),
            });
        if let Err(ending) = alive {
            break ending;
        }
    };
    writer.finish(&ending);
    output.check()?;
    match ending.is_normal() || output.is_done() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(ending.into()),
    }
}

/// The closing handshake, begun by this side. What still arrives is not printed.
fn close(reader: &mut Reader, writer: &mut Writer) {
    if writer.close(CloseCode::NORMAL, "").is_err() {
        return;
    }
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    while Instant::now() < deadline && reader.read(|_| {}).is_ok() {}
}

/// Where messages are printed, and how.
struct Output<'a> {
    out: BufWriter<StdoutLock<'a>>,
    is_json: bool,
    is_hex: bool,
    /// How many more are wanted; None: all.
    remaining: Option<u64>,
    failure: Option<io::Error>,
}

impl Output<'_> {
    fn print(&mut self, kind: &str, payload: &[u8]) {
        if self.is_done() {
            return;
        }
        let printed = self.print_line(kind, payload);
        self.note(printed);
        if let Some(remaining) = &mut self.remaining {
            *remaining -= 1;
        }
    }

    fn print_line(&mut self, kind: &str, payload: &[u8]) -> io::Result<()> {
        let encode_binary = || match self.is_hex {
            true => payload.iter().map(|byte| format!("{byte:02x}")).collect(),
            false => STANDARD.encode(payload),
        };
        if self.is_json {
            let data = match kind {
                "text" => String::from_utf8_lossy(payload).into_owned(),
                _ => encode_binary(),
            };
            let line = json!({
                "time": timestamp::now(), "bytes": payload.len(), "kind": kind, "data": data,
            });
            return writeln!(self.out, "{line}");
        }
        if kind == "binary" {
            let prefix = if self.is_hex { "hex" } else { "base64" };
            return writeln!(self.out, "{prefix}:{}", encode_binary());
        }
        self.out.write_all(payload)?;
        self.out.write_all(b"\n")
    }

    fn flush(&mut self) {
        let flushed = self.out.flush();
        self.note(flushed);
    }

    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.failure.get_or_insert(error);
        }
    }

    /// Whether nothing more is to be printed.
    fn is_done(&self) -> bool {
        self.remaining == Some(0) || self.failure.is_some()
    }

    /// Whoever reads what is printed may stop at any time, as `head` does. Other failures are errors.
    fn check(&mut self) -> Result<(), Box<dyn Error>> {
        match self.failure.take() {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => {
                self.remaining = Some(0);
                Err(format!("standard output: {error}").into())
            }
            Some(_) => {
                self.remaining = Some(0);
                Ok(())
            }
            None => Ok(()),
        }
    }
}
