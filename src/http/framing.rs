//! Framing of a request's body, by its header lines alone (RFC 9112 section 6).

use super::body::BodyLength;
use super::field::{FieldLines, list_members, values};
use super::refusal::Refusal;
use super::start_line::Version;

/// How the end of the body is known (RFC 9112 section 6.3). Whatever leaves room for two answers is refused.
pub(super) fn body_length(lines: FieldLines<'_>, version: Version) -> Result<BodyLength, Refusal> {
    let mut lengths = values(lines, "content-length");
    let mut codings = values(lines, "transfer-encoding").peekable();
    let length = lengths.next();
    if codings.peek().is_some() {
        if length.is_some() {
            return Err(Refusal::bad_framing(
                "there are both Content-Length and Transfer-Encoding",
            ));
        }
        if version == Version::Http10 {
            return Err(Refusal::bad_framing("HTTP/1.0 has no Transfer-Encoding"));
        }
        return chunked(codings.flat_map(list_members)).map(|()| BodyLength::Chunked);
    }
    if lengths.next().is_some() {
        return Err(Refusal::bad_framing(
            "there is more than one Content-Length",
        ));
    }
    match length {
        None => Ok(BodyLength::None),
        Some(digits) => parse_length(digits)
            .map(BodyLength::Length)
            .ok_or_else(|| Refusal::bad_framing("the Content-Length is not one decimal number")),
    }
}

/// RFC 9112 section 6.1: `chunked` has to come last, and once; a coding before it is one that we do not have.
fn chunked<'a>(codings: impl Iterator<Item = &'a [u8]>) -> Result<(), Refusal> {
    let (mut count, mut chunked_count, mut last_is_chunked) = (0u32, 0u32, false);
    for coding in codings {
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        count += 1;
        chunked_count += u32::from(last_is_chunked);
    }
    match (count, chunked_count) {
        (1, 1) => Ok(()),
        (_, 1) if last_is_chunked => Err(Refusal::not_implemented(
            "the only transfer coding that is known is chunked",
        )),
        _ => Err(Refusal::bad_framing(
            "the last transfer coding is not one single `chunked`",
        )),
    }
}

/// `1*DIGIT` that fits 64 bits, and nothing else: no sign, no blank, no list.
fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |length, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(lines: &str) -> Result<BodyLength, u16> {
        let lines = lines.replace('\n', "\r\n");
        body_length(FieldLines::new(lines.as_bytes()), Version::Http11).map_err(|refusal| {
            assert!(refusal.close, "{refusal}");
            refusal.status
        })
    }

    #[test]
    fn one_answer_each() {
        assert_eq!(length("Host: a\n"), Ok(BodyLength::None));
        assert_eq!(length("Content-Length: 0\n"), Ok(BodyLength::Length(0)));
        assert_eq!(length("content-length:\t5 \n"), Ok(BodyLength::Length(5)));
        assert_eq!(
            length("Content-Length: 18446744073709551615\n"),
            Ok(BodyLength::Length(u64::MAX))
        );
        assert_eq!(
            length("Transfer-Encoding: chunked\n"),
            Ok(BodyLength::Chunked)
        );
        assert_eq!(
            length("TRANSFER-ENCODING:  Chunked \n"),
            Ok(BodyLength::Chunked)
        );
    }

    /// hyper CVE-2021-21299, 32714 and 32715, Jetty CVE-2026-19203: whatever two parsers may read in two ways.
    #[test]
    fn two_answers_are_none() {
        for value in [
            "+5",
            "-5",
            "",
            "5,5",
            "5, 5",
            "0x5",
            "5 5",
            "5.0",
            "\u{665}",
            "18446744073709551616",
            "1e3",
            "5;",
        ] {
            assert_eq!(
                length(&format!("Content-Length: {value}\n")),
                Err(400),
                "{value}"
            );
        }
        for lines in [
            "Content-Length: 5\nContent-Length: 5\n",
            "Content-Length: 5\nContent-Length: 6\n",
            "Content-Length: 5\nTransfer-Encoding: chunked\n",
            "Transfer-Encoding: chunked\nContent-Length: 5\n",
            "Transfer-Encoding:\nContent-Length: 5\n",
        ] {
            assert_eq!(length(lines), Err(400), "{lines}");
        }
    }

    #[test]
    fn transfer_codings() {
        for value in [
            "",
            "identity",
            "xchunked",
            "chunkedx",
            "chunked, chunked",
            "chunked, gzip",
            "gzip",
            "\"chunked\"",
            "chunked;q=1",
        ] {
            assert_eq!(
                length(&format!("Transfer-Encoding: {value}\n")),
                Err(400),
                "{value}"
            );
        }
        assert_eq!(
            length("Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n"),
            Err(400)
        );
        assert_eq!(length("Transfer-Encoding: gzip, chunked\n"), Err(501));
        assert_eq!(
            length("Transfer-Encoding: gzip\nTransfer-Encoding: chunked\n"),
            Err(501)
        );
        let lines = FieldLines::new(b"Transfer-Encoding: chunked\r\n");
        assert_eq!(
            body_length(lines, Version::Http10).map_err(|refusal| refusal.status),
            Err(400)
        );
    }
}
