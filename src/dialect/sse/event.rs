//! The event stream format (WHATWG HTML section 9.2): what `EventSource` reads.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::http::response::{encode_header, encode_status_line};
use crate::hub::own_event::OwnEvent;

/// Field of an event of another type whose data is base64. Readers pass over fields that they do not know.
const BASE64_FIELD: &[u8] = b"umbel-base64: 1\n";

/// Writes the head of a stream, without a length or chunks. `headers` come in addition.
pub fn encode_stream_head(out: &mut Vec<u8>, headers: &[(&str, &str)]) {
    encode_status_line(out, 200);
    encode_header(out, "Content-Type", "text/event-stream");
    encode_header(out, "Cache-Control", "no-store");
    // nginx would otherwise gather events before it passes them on.
    encode_header(out, "X-Accel-Buffering", "no");
    for (name, value) in headers {
        encode_header(out, name, value);
    }
    encode_header(out, "Connection", "close");
    out.extend_from_slice(b"\r\n");
}

/// Writes one event. `id` is what comes back as `Last-Event-ID`; an `event` other than None changes the type from
/// `message`.
///
/// Data may hold anything; the reader sees each of its line ends (CR, LF, CRLF) as LF. Line ends and NUL in `id` and
/// `event` have no form in this format, and are left out.
pub fn encode_event(out: &mut Vec<u8>, id: Option<&str>, event: Option<&str>, data: &str) {
    encode_fields(out, id, event);
    encode_lines(out, b"data:", data);
    out.push(b'\n');
}

/// Writes one event of the server's own.
pub fn encode_own_event(out: &mut Vec<u8>, id: Option<&str>, event: OwnEvent, data: &str) {
    encode_event(out, id, Some(event.name()), data);
}

/// Writes an id alone: it is no event, and yet what comes back as `Last-Event-ID`.
pub fn encode_id(out: &mut Vec<u8>, id: &str) {
    encode_fields(out, Some(id), None);
    out.push(b'\n');
}

/// Writes one event with the payload in base64: of type `binary`, or of another, and then with a field that says
/// so.
pub fn encode_binary_event(
    out: &mut Vec<u8>,
    id: Option<&str>,
    event: Option<&str>,
    payload: &[u8],
) {
    encode_fields(out, id, Some(event.unwrap_or(OwnEvent::Binary.name())));
    if event.is_some() {
        out.extend_from_slice(BASE64_FIELD);
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(STANDARD.encode(payload).as_bytes());
    out.extend_from_slice(b"\n\n");
}

/// Writes a comment, which readers pass over: a sign of life.
pub fn encode_comment(out: &mut Vec<u8>, text: &str) {
    encode_lines(out, b":", text);
    out.push(b'\n');
}

/// Writes the reader's wait before a reconnect, in milliseconds.
pub fn encode_retry(out: &mut Vec<u8>, retry_ms: u32) {
    out.extend_from_slice(format!("retry: {retry_ms}\n\n").as_bytes());
}

fn encode_fields(out: &mut Vec<u8>, id: Option<&str>, event: Option<&str>) {
    for (name, value) in [(&b"id:"[..], id), (b"event:", event)] {
        if let Some(value) = value {
            out.extend_from_slice(name);
            out.push(b' ');
            out.extend(
                value
                    .bytes()
                    .filter(|byte| !matches!(byte, b'\r' | b'\n' | b'\0')),
            );
            out.push(b'\n');
        }
    }
}

/// Writes each line of a text behind a prefix. One blank after the colon belongs to the format, so that a blank of the
/// text's own survives.
fn encode_lines(out: &mut Vec<u8>, prefix: &[u8], text: &str) {
    let mut rest = text;
    loop {
        let end = rest.find(['\r', '\n']).unwrap_or(rest.len());
        out.extend_from_slice(prefix);
        if end > 0 {
            out.push(b' ');
            out.extend_from_slice(&rest.as_bytes()[..end]);
        }
        out.push(b'\n');
        let tail = &rest[end..];
        match tail.strip_prefix("\r\n").or_else(|| tail.get(1..)) {
            Some(next) => rest = next,
            None => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: Option<&str>, event: Option<&str>, data: &str) -> String {
        let mut out = Vec::new();
        encode_event(&mut out, id, event, data);
        String::from_utf8(out).expect("events are text")
    }

    /// The data of the one event in a stream, read as the standard says.
    fn read_data(stream: &str) -> Option<String> {
        let mut data = String::new();
        for line in stream.strip_suffix("\n\n")?.split('\n') {
            let (name, value) = line.split_once(':')?;
            assert!(matches!(name, "id" | "event" | "data"));
            if name == "data" {
                data.push_str(value.strip_prefix(' ').unwrap_or(value));
                data.push('\n');
            }
        }
        data.pop().map(|_| data)
    }

    #[test]
    fn events() {
        assert_eq!(event(None, None, "a"), "data: a\n\n");
        assert_eq!(
            event(Some("7"), Some("x"), "a"),
            "id: 7\nevent: x\ndata: a\n\n"
        );
        assert_eq!(event(None, None, ""), "data:\n\n");
        assert_eq!(
            event(None, None, " a\r\nb\rc\nd"),
            "data:  a\ndata: b\ndata: c\ndata: d\n\n"
        );
        assert_eq!(event(None, None, "a\n"), "data: a\ndata:\n\n");
        assert_eq!(event(None, None, "\n\r"), "data:\ndata:\ndata:\n\n");
    }

    #[test]
    fn no_field_can_be_injected() {
        let stream = event(
            Some("1\ndata: x"),
            Some("e\r\nid: 2\0"),
            "a\nid: 3\r\n\r\nevent: y",
        );
        let expected =
            "id: 1data: x\nevent: eid: 2\ndata: a\ndata: id: 3\ndata:\ndata: event: y\n\n";
        assert_eq!(stream, expected);
        let mut out = Vec::new();
        encode_comment(&mut out, "a\ndata: x");
        assert_eq!(out, b": a\n: data: x\n\n");
    }

    #[test]
    fn binary_payloads_comments_and_retries() {
        let mut out = Vec::new();
        encode_binary_event(&mut out, Some("1"), None, b"\0\xff");
        encode_comment(&mut out, "");
        encode_retry(&mut out, 2500);
        assert_eq!(
            out,
            b"id: 1\nevent: binary\ndata: AP8=\n\n:\n\nretry: 2500\n\n"
        );
    }

    #[test]
    fn a_stream_ends_with_its_connection() {
        let mut out = Vec::new();
        encode_stream_head(&mut out, &[("Vary", "Origin")]);
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
            X-Accel-Buffering: no\r\nVary: Origin\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    proptest::proptest! {
        #[test]
        fn readers_get_the_data_back(data in "[a :\r\n\u{e9}]{0,20}") {
            let lines = data.replace("\r\n", "\n").replace('\r', "\n");
            proptest::prop_assert_eq!(read_data(&event(Some("1"), None, &data)), Some(lines));
        }
    }
}
