//! Output of `umbel sub`.

use std::error::Error;
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use umbel::internals::http::escape::escape;

use super::source::{Gap, Payload, Publication};

/// Format of publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// An object a line, for programs.
    pub is_json: bool,
    /// Binary messages in hexadecimal, not in base64.
    pub is_hex: bool,
    /// The topic stands before each message, with a tab behind it.
    pub has_topics: bool,
}

/// Printer of publications.
pub struct Output<'a> {
    out: BufWriter<StdoutLock<'a>>,
    form: Form,
    /// How many more are wanted; None: all.
    remaining: Option<u64>,
    failure: Option<io::Error>,
}

impl Output<'_> {
    /// On standard output, at most so many.
    pub fn new(form: Form, count: Option<u64>) -> Self {
        Output {
            out: BufWriter::new(io::stdout().lock()),
            form,
            remaining: count,
            failure: None,
        }
    }

    /// Prints a publication, unless there are enough.
    pub fn print(&mut self, publication: &Publication<'_>) {
        if self.is_done() {
            return;
        }
        let printed = match self.form.is_json {
            true => self.print_json(publication),
            false => self.print_text(publication),
        };
        self.note(printed);
        if let Some(remaining) = &mut self.remaining {
            *remaining -= 1;
        }
    }

    fn print_json(&mut self, publication: &Publication<'_>) -> io::Result<()> {
        let (kind, len) = match publication.payload {
            Payload::Text(text) => ("text", text.len()),
            Payload::Binary(bytes) => ("binary", bytes.len()),
        };
        let mut line = json!({ "time": now(), "bytes": len, "kind": kind });
        line["data"] = match publication.payload {
            Payload::Text(text) => text.into(),
            Payload::Binary(bytes) => self.encode(bytes).into(),
        };
        for (name, value) in [
            ("topic", publication.topic),
            ("pattern", publication.pattern),
            ("position", publication.position),
            ("key", publication.key),
            ("event", publication.event),
            ("message_id", publication.message_id),
            ("content_type", publication.content_type),
            ("publisher", publication.publisher),
        ] {
            if let Some(value) = value {
                line[name] = value.into();
            }
        }
        if let Some(tags) = publication.tags {
            line["tags"] = tags.clone();
        }
        if publication.is_tombstone {
            line["tombstone"] = true.into();
        }
        if let Some(published_ms) = publication.published_ms {
            line["published"] = moment(published_ms).into();
        }
        writeln!(self.out, "{line}")
    }

    fn print_text(&mut self, publication: &Publication<'_>) -> io::Result<()> {
        if let Some(topic) = publication.topic.filter(|_| self.form.has_topics) {
            write!(self.out, "{topic}\t")?;
        }
        match publication.payload {
            Payload::Text(text) => self.out.write_all(text.as_bytes())?,
            Payload::Binary(bytes) => {
                let prefix = if self.form.is_hex { "hex" } else { "base64" };
                let encoded = self.encode(bytes);
                write!(self.out, "{prefix}:{encoded}")?;
            }
        }
        self.out.write_all(b"\n")
    }

    fn encode(&self, bytes: &[u8]) -> String {
        match self.form.is_hex {
            true => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            false => STANDARD.encode(bytes),
        }
    }

    /// Tells of publications that do not come: in a line of its own for programs, and on standard error for people.
    pub fn tell_gap(&mut self, gap: &Gap<'_>) {
        if self.is_done() {
            return;
        }
        let name = escape(gap.name);
        match gap.ends {
            Some((from, to)) => eprintln!(
                "umbel: {name}: the publications from {} to {} were left out, for they were not read fast enough",
                escape(from),
                escape(to)
            ),
            None => eprintln!(
                "umbel: {name}: what was published meanwhile is not known, and does not come"
            ),
        }
        if self.form.is_json {
            let (from, to) = gap.ends.unzip();
            let line = json!({
                "time": now(), "kind": "gap", "name": gap.name,
                "from": from.map(Value::from), "to": to.map(Value::from),
            });
            let printed = writeln!(self.out, "{line}");
            self.note(printed);
        }
    }

    /// Hands what was printed to whoever reads it.
    pub fn flush(&mut self) {
        let flushed = self.out.flush();
        self.note(flushed);
    }

    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.failure.get_or_insert(error);
        }
    }

    /// Whether nothing more is to be printed.
    pub fn is_done(&self) -> bool {
        self.remaining == Some(0) || self.failure.is_some()
    }

    /// Error of printing, but for a closed pipe, as `head` leaves it. Other failures are errors.
    ///
    /// # Errors
    /// When standard output could not be written.
    pub fn check(&mut self) -> Result<(), Box<dyn Error>> {
        let Some(error) = self.failure.take() else {
            return Ok(());
        };
        self.remaining = Some(0);
        match error.kind() {
            ErrorKind::BrokenPipe => Ok(()),
            _ => Err(format!("standard output: {error}").into()),
        }
    }
}

/// A moment in UTC, as [`now`] writes it. One that no calendar has is written as the number that it is.
fn moment(ms_since_1970: u64) -> String {
    let ms = i64::try_from(ms_since_1970).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(moment) => format!("{moment:.3}"),
        Err(_) => ms_since_1970.to_string(),
    }
}

/// The time of day in UTC, with milliseconds, as RFC 3339 writes it.
fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}
