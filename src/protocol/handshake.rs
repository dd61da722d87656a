//! The opening handshake, the server's side: RFC 6455, section 4.2, over an HTTP/1.1 head.

use super::deflate::{Agreement, Malformed, Policy, choose, has_broken_deflate};
use crate::http::refusal::{ALLOW_GET, Refusal};
use crate::http::request::{BodyLength, Head, Method, Version, is_token};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// The most subprotocols that a request may offer.
pub const SUBPROTOCOLS_MAX: usize = 32;

/// Bytes of a `Sec-WebSocket-Key`: 16 random bytes in base64.
pub(super) const KEY_BYTES: usize = 24;

/// Bytes of a `Sec-WebSocket-Accept`: a SHA-1 in base64.
pub(super) const ACCEPT_BYTES: usize = 28;

/// The only version there is (section 4.1). 0 to 12 were drafts.
pub(super) const VERSION: &str = "13";

/// What section 1.3 has appended to the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Value of `Sec-WebSocket-Accept` for a key (section 4.2.2): base64 of the SHA-1 of the key, as it was sent, and the
/// GUID.
pub fn accept_key(key: &str) -> [u8; ACCEPT_BYTES] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; ACCEPT_BYTES];
    let len = STANDARD.encode_slice(digest, &mut accept);
    debug_assert_eq!(len, Ok(ACCEPT_BYTES));
    accept
}

/// A request for an upgrade that is well-formed. What it borrows is the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// The value of `Sec-WebSocket-Accept` to answer with.
    pub accept: [u8; ACCEPT_BYTES],
    /// The page that asks, as its browser says (section 10.2). Other programs send none.
    pub origin: Option<&'a str>,
    /// The value of `Host`.
    pub host: &'a str,
    subprotocols: Vec<&'a str>,
}

impl<'a> Upgrade<'a> {
    /// The subprotocols offered, most wanted first: at most [`SUBPROTOCOLS_MAX`] tokens.
    pub fn offers(&self) -> impl Iterator<Item = &'a str> + use<'a, '_> {
        self.subprotocols.iter().copied()
    }
}

/// The header that permessage-deflate is offered and answered in (section 11.3.2).
pub const EXTENSIONS: &str = "Sec-WebSocket-Extensions";

/// Agreement for the compression that a request offers. `None`: nothing. Answer with an extra header line, its value
/// from [`Agreement::encode`].
///
/// # Errors
///
/// 400 for a header that does not follow the grammar of section 9.1, which fails the handshake.
pub fn choose_deflate(head: &Head<'_>, policy: &Policy) -> Result<Option<Agreement>, Refusal> {
    let agreement = choose(head.values(EXTENSIONS), policy).map_err(|Malformed| {
        Refusal::bad_request(
            "the Sec-WebSocket-Extensions header is not a list of names with parameters",
        )
    })?;
    let is_broken = || head.headers("user-agent").any(has_broken_deflate);
    Ok(agreement.filter(|_| !is_broken()))
}

/// Whether a request asks for a WebSocket: `Upgrade` names it and `Connection` names `Upgrade`.
pub fn is_upgrade(head: &Head<'_>) -> bool {
    head.has_token("upgrade", "websocket") && head.has_token("connection", "upgrade")
}

/// Checks a request for an upgrade (section 4.2.1).
///
/// # Errors
///
/// In this order: 405 if it is not a GET; 400 for HTTP/1.0 and for a request with a body (the connection
/// closes: what follows could be taken for frames); 426 if it asks for no WebSocket, or for a version other than
/// 13; 400 for a key that is not one, and for anything repeated that may stand only once.
pub fn parse_upgrade<'a>(head: &Head<'a>) -> Result<Upgrade<'a>, Refusal> {
    if head.method != Method::Get {
        return Err(Refusal::method_not_allowed(
            "a WebSocket is opened with GET",
            ALLOW_GET,
        ));
    }
    if head.version != Version::Http11 {
        return Err(Refusal::bad_request("a WebSocket needs HTTP/1.1").closing());
    }
    if !matches!(head.body()?, BodyLength::None | BodyLength::Length(0)) {
        return Err(Refusal::bad_framing(
            "a request for a WebSocket has no body",
        ));
    }
    if !is_upgrade(head) {
        return Err(Refusal::upgrade_required(
            "this is a WebSocket: ask for it with `Connection: Upgrade` and `Upgrade: websocket`",
        ));
    }
    let version = single(
        head,
        "sec-websocket-version",
        "there is more than one Sec-WebSocket-Version header",
    )?;
    if version != Some(VERSION.as_bytes()) {
        return Err(Refusal::upgrade_required(
            "the only WebSocket version is 13",
        ));
    }
    Ok(Upgrade {
        accept: accept_key(parse_key(head)?),
        origin: parse_origin(head)?,
        host: parse_host(head)?,
        subprotocols: parse_subprotocols(head)?,
    })
}

/// The value of a header that may stand only once. `repeated` is the reason if it does not.
fn single<'a>(
    head: &Head<'a>,
    name: &str,
    repeated: &'static str,
) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = head.values(name);
    let first = values.next();
    if values.next().is_some() {
        return Err(Refusal::bad_request(repeated));
    }
    Ok(first)
}

/// The key, which has to be the base64 of 16 bytes. What the bytes are does not matter.
fn parse_key<'a>(head: &Head<'a>) -> Result<&'a str, Refusal> {
    let repeated = "there is more than one Sec-WebSocket-Key header";
    let Some(key) = single(head, "sec-websocket-key", repeated)? else {
        return Err(Refusal::bad_request(
            "the Sec-WebSocket-Key header is missing",
        ));
    };
    // Room for 18 bytes: what 24 characters can hold.
    let mut nonce = [0; KEY_BYTES / 4 * 3];
    let nonce_len = if key.len() == KEY_BYTES {
        STANDARD.decode_slice(key, &mut nonce).ok()
    } else {
        None
    };
    match (nonce_len, std::str::from_utf8(key)) {
        (Some(16), Ok(key)) => Ok(key),
        _ => Err(Refusal::bad_request(
            "the Sec-WebSocket-Key header is not 16 bytes in base64",
        )),
    }
}

fn parse_origin<'a>(head: &Head<'a>) -> Result<Option<&'a str>, Refusal> {
    let origin = single(head, "origin", "there is more than one Origin header")?;
    origin
        .map(std::str::from_utf8)
        .transpose()
        .map_err(|_| Refusal::bad_request("the Origin header is not text"))
}

fn parse_host<'a>(head: &Head<'a>) -> Result<&'a str, Refusal> {
    single(head, "host", "there is more than one Host header")?
        .and_then(|host| std::str::from_utf8(host).ok())
        .ok_or_else(|| Refusal::bad_request("the Host header is missing or is not text"))
}

/// The subprotocols of all lines as one list; empty members are passed over (RFC 9110, section 5.6.1).
fn parse_subprotocols<'a>(head: &Head<'a>) -> Result<Vec<&'a str>, Refusal> {
    let mut subprotocols = Vec::new();
    for value in head.values("sec-websocket-protocol") {
        for member in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if member.is_empty() {
                continue;
            }
            let Some(subprotocol) = std::str::from_utf8(member).ok().filter(|it| is_token(it))
            else {
                return Err(Refusal::bad_request(
                    "the Sec-WebSocket-Protocol header is not a list of tokens",
                ));
            };
            if subprotocols.len() == SUBPROTOCOLS_MAX {
                return Err(Refusal::bad_request(
                    "the Sec-WebSocket-Protocol header offers too many subprotocols",
                ));
            }
            subprotocols.push(subprotocol);
        }
    }
    Ok(subprotocols)
}

/// Appends the response that accepts an upgrade (section 4.2.2), with `extra` header lines. `subprotocol` has
/// to be one of the offers. A line of `extra` that would break the head is left out.
pub fn encode_switching_protocols(
    out: &mut Vec<u8>,
    accept: &[u8; ACCEPT_BYTES],
    subprotocol: Option<&str>,
    extra: &[(&str, &str)],
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\n\
          Upgrade: websocket\r\n\
          Connection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accept);
    out.extend_from_slice(b"\r\n");
    if let Some(subprotocol) = subprotocol {
        encode_line(out, "Sec-WebSocket-Protocol", subprotocol);
    }
    for (name, value) in extra {
        encode_line(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a header line, unless it would not be one line.
pub(super) fn encode_line(out: &mut Vec<u8>, name: &str, value: &str) {
    let is_line = is_token(name) && !value.contains(['\r', '\n', '\0']);
    debug_assert!(is_line, "{name}");
    if is_line {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::http::request::RequestLimits;

    const GOOD: &str = "Host: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

    const LIMITS: RequestLimits = RequestLimits {
        head_bytes_max: 65536,
        headers_max: 100,
        target_bytes_max: 8192,
        body_bytes_max: 1 << 20,
    };

    /// Runs `check` on what a request with these header lines gives.
    fn with<T>(
        start: &str,
        lines: &str,
        check: impl FnOnce(Result<Upgrade<'_>, Refusal>) -> T,
    ) -> T {
        let request = format!("{start}\r\n{lines}\r\n");
        let head = Head::parse(request.as_bytes(), &LIMITS).unwrap();
        check(parse_upgrade(&head))
    }

    fn status(lines: &str) -> u16 {
        with("GET /ws/a HTTP/1.1", lines, |upgrade| {
            upgrade.map_or_else(|refusal| refusal.status, |_| 101)
        })
    }

    fn without(name: &str) -> String {
        GOOD.split_inclusive("\r\n")
            .filter(|line| !line.starts_with(name))
            .collect()
    }

    #[test]
    fn accept_keys() {
        let pairs = [
            ("dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            ("x3JJHMbDL1EzLkh9GBhXDw==", b"HSmrc0sMlYUkAGmm5OPpG2HaGWk="),
            ("w4v7O6xFTi36lq3RNcgctw==", b"Oy4NRAQ13jhfONC7bP8dTKb4PTU="),
        ];
        for (key, accept) in pairs {
            assert_eq!(&accept_key(key), accept);
        }
    }

    #[test]
    fn a_good_request() {
        let lines = format!(
            "{GOOD}Origin: https://b.example\r\nsec-websocket-protocol: chat, umbel.v1 ,,\r\n\
             Sec-WebSocket-Protocol: last\r\n"
        );
        with("GET /ws/a HTTP/1.1", &lines, |upgrade| {
            let upgrade = upgrade.unwrap();
            assert_eq!(&upgrade.accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            assert_eq!(upgrade.origin, Some("https://b.example"));
            assert_eq!(upgrade.host, "a.example");
            let offers: Vec<&str> = upgrade.offers().collect();
            assert_eq!(offers, ["chat", "umbel.v1", "last"]);
        });
    }

    #[test]
    fn compression_is_agreed_to_over_several_lines() {
        let agreed = |lines: &str| {
            let request = format!("GET /ws/a HTTP/1.1\r\n{GOOD}{lines}\r\n");
            let head = Head::parse(request.as_bytes(), &LIMITS).unwrap();
            parse_upgrade(&head).unwrap();
            choose_deflate(&head, &Policy::default())
                .map(|agreement| agreement.is_some())
                .map_err(|refusal| refusal.status)
        };
        let offer =
            "Sec-WebSocket-Extensions: x\r\nsec-websocket-extensions: permessage-deflate\r\n";
        assert_eq!(agreed(offer), Ok(true));
        assert_eq!(agreed(""), Ok(false));
        for malformed in ["a b", "\u{e9}"] {
            let lines = format!("{offer}Sec-WebSocket-Extensions: {malformed}\r\n");
            assert_eq!(agreed(&lines), Err(400));
        }
        // From a browser that cannot: no reason to refuse the connection.
        let safari = "User-Agent: AppleWebKit/605.1.15 Version/15.1 Safari/605.1.15\r\n";
        assert_eq!(agreed(&format!("{offer}{safari}")), Ok(false));
    }

    #[test]
    fn tokens_stand_in_lists_over_several_lines_in_any_case() {
        let lines = without("Connection") + "connection: keep-alive,\tuPGRADE\r\n";
        assert_eq!(status(&lines), 101);
        let lines = without("Upgrade") + "Upgrade: h2c\r\nUpgrade: other, WebSocket\r\n";
        assert_eq!(status(&lines), 101);
        assert_eq!(
            status(&(without("Upgrade") + "Upgrade: websockets\r\n")),
            426
        );
        assert_eq!(status(&without("Connection")), 426);
    }

    #[test]
    fn what_may_stand_once_stands_once() {
        for line in [
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "Sec-WebSocket-Version: 13\r\n",
            "Origin: null\r\nOrigin: null\r\n",
            "Sec-WebSocket-Key: \u{80}\r\n",
        ] {
            assert_eq!(status(&format!("{GOOD}{line}")), 400, "{line}");
        }
    }

    #[test]
    fn keys_that_are_none() {
        assert_eq!(status(&without("Sec-WebSocket-Key")), 400);
        for key in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZSE=",
            "dGhlIHNhbXBsZSBub25jZSEh",
            "dGhlIHNhbXBsZSBub25jZR==",
            "dGhlIHNhbXBsZSBub25*ZQ==",
            "dGhlIHNhbXBsZSBub25jZQ==,",
            "dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==",
        ] {
            let lines = without("Sec-WebSocket-Key") + &format!("Sec-WebSocket-Key: {key}\r\n");
            assert_eq!(status(&lines), 400, "{key}");
        }
    }

    #[test]
    fn other_versions_are_told_the_right_one() {
        for version in ["", "8", "7, 8", "013", "14"] {
            let lines =
                without("Sec-WebSocket-Version") + &format!("Sec-WebSocket-Version: {version}\r\n");
            with("GET /ws/a HTTP/1.1", &lines, |upgrade| {
                let refusal = upgrade.unwrap_err();
                assert_eq!(refusal.status, 426);
                assert!(refusal.headers.contains(&("Sec-WebSocket-Version", "13")));
            });
        }
        assert_eq!(status(&without("Sec-WebSocket-Version")), 426);
    }

    #[test]
    fn other_methods_and_http_1_0() {
        with("PUT /ws/a HTTP/1.1", GOOD, |upgrade| {
            let refusal = upgrade.unwrap_err();
            assert_eq!(refusal.status, 405);
            assert_eq!(refusal.headers, [("Allow", "GET")]);
        });
        with("GET /ws/a HTTP/1.0", GOOD, |upgrade| {
            assert_eq!(upgrade.unwrap_err().status, 400);
        });
    }

    #[test]
    fn a_body_ends_the_connection() {
        for line in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
            with("GET /ws/a HTTP/1.1", &format!("{GOOD}{line}"), |upgrade| {
                let refusal = upgrade.unwrap_err();
                assert_eq!((refusal.status, refusal.close), (400, true));
            });
        }
        assert_eq!(status(&format!("{GOOD}Content-Length: 0\r\n")), 101);
    }

    #[test]
    fn offers_are_tokens_and_bounded() {
        let lines = |offers: &str| format!("{GOOD}Sec-WebSocket-Protocol: {offers}\r\n");
        assert_eq!(status(&lines("a b")), 400);
        assert_eq!(status(&lines("a,\u{e9}")), 400);
        assert_eq!(status(&lines(&format!("b{}x", " ".repeat(32_000)))), 400);
        assert_eq!(status(&lines("")), 101);
        assert_eq!(status(&lines(&vec!["x"; SUBPROTOCOLS_MAX].join(","))), 101);
        assert_eq!(
            status(&lines(&vec!["x"; SUBPROTOCOLS_MAX + 1].join(","))),
            400
        );
    }

    #[test]
    fn the_response_that_accepts() {
        let mut out = Vec::new();
        let accept = accept_key("dGhlIHNhbXBsZSBub25jZQ==");
        encode_switching_protocols(&mut out, &accept, Some("chat"), &[("Server", "umbel")]);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
             Server: umbel\r\n\r\n"
        );
    }
}
