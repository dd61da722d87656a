//! Answers to `POST` requests on a kept connection: RFC 9112, as far as status and end.

use umbel::internals::http::body::{BodyDecoder, BodyLength};

/// Bytes of a response, head and body.
const RESPONSE_BYTES_MAX: usize = 256 * 1024;
/// Header lines of a response.
const HEADERS_MAX: usize = 100;

/// Reads a response off the front of `bytes`: its status and its length. None: more is needed.
///
/// # Errors
/// When it is not HTTP/1.1, too long, or has no length.
pub fn parse(bytes: &[u8]) -> Result<Option<(u16, usize)>, String> {
    let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut storage);
    let parsed = head.parse(bytes);
    let parsed = parsed.map_err(|error| format!("the answer is not HTTP/1.1: {error}"))?;
    if bytes.len() > RESPONSE_BYTES_MAX {
        return Err(format!(
            "the answer is longer than {RESPONSE_BYTES_MAX} bytes"
        ));
    }
    let httparse::Status::Complete(head_bytes) = parsed else {
        return Ok(None);
    };
    let status = head.code.unwrap_or(0);
    let value = |name: &str| {
        let mut lines = head.headers.iter();
        let line = lines.find(|line| line.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(line.value).ok().map(str::trim)
    };
    let length = match (value("transfer-encoding"), value("content-length")) {
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => BodyLength::Chunked,
        (None, Some(length)) => BodyLength::Length(
            length
                .parse()
                .map_err(|_| "the answer's length is malformed")?,
        ),
        (None, None) if matches!(status, 100..=199 | 204 | 304) => BodyLength::None,
        _ => return Err("the answer has no length, so the connection cannot be kept".to_owned()),
    };
    let mut decoder = BodyDecoder::new(length, RESPONSE_BYTES_MAX as u64);
    let mut rest = &bytes[head_bytes..];
    loop {
        match decoder.decode(&mut rest) {
            Ok(Some(_)) => {}
            Ok(None) if decoder.is_done() => return Ok(Some((status, bytes.len() - rest.len()))),
            Ok(None) => return Ok(None),
            Err(refusal) => return Err(format!("the answer is malformed: {}", refusal.reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_length_in_chunks_and_without_a_body() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n\r\n",
            "HTTP/1.1 204 x\r\n\r\n",
        ] {
            let (status, bytes) = parse(text.as_bytes())
                .expect("it is valid")
                .expect("it is whole");
            assert_eq!(bytes, text.len());
            assert!([200, 503, 204].contains(&status));
            for end in 0..text.len() {
                assert_eq!(parse(&text.as_bytes()[..end]), Ok(None), "{text:?}");
            }
            let two = format!("{text}HTTP");
            assert_eq!(parse(two.as_bytes()), Ok(Some((status, bytes))));
        }
    }

    #[test]
    fn what_is_no_response() {
        for text in [
            "\0",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        let long = vec![b'x'; RESPONSE_BYTES_MAX + 1];
        assert!(parse(&long).is_err());
    }
}
