//! Negotiation of permessage-deflate: RFC 7692, sections 5 and 7.1, both sides of it.
//!
//! Names are compared as they are: where RFC 6455 wants letters of either case to match, it says so, and of extensions
//! it does not. The first offer that can be met is taken. An offer with a parameter that is unknown, repeated or has a
//! wrong value cannot be met and is passed over (section 7.1), and so are other extensions.
//!
//! A header that breaks the grammar of RFC 6455, section 9.1, is to fail the connection, says that section. The client's
//! side does so. The server's side takes such a header for no offer at all instead: with compression switched off it
//! would not read the header, and whoever sends it would be let in; that must not depend on a switch.

use super::extension::Malformed;
use super::parameters::{NAME, Parameters, Window, read_extensions};

/// Base-2 logarithm of the largest LZ77 window, which is also the default.
pub const WINDOW_BITS_MAX: u8 = 15;

/// The smallest window that anything here deflates with. RFC 7692 knows 8 too, but zlib, and all that follow it, deflate
/// with 9 when told 8, which the other side need not be able to inflate.
pub const WINDOW_BITS_MIN: u8 = 9;

/// Terms that a server accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether it agrees to anything.
    pub enabled: bool,
    /// Whether the server may keep its context, if the client allows it.
    pub server_takeover: bool,
    /// Whether a client may keep its context. It costs the server an inflater a connection.
    pub client_takeover: bool,
    /// The largest window the server deflates with: [`WINDOW_BITS_MIN`] to [`WINDOW_BITS_MAX`].
    pub server_window_bits_max: u8,
    /// Largest window that a client may deflate with, in the same range. A client that offers no choice may use 15.
    pub client_window_bits_max: u8,
}

impl Default for Policy {
    /// Agrees, keeps no context, and lets no client keep one; windows are as large as can be.
    fn default() -> Policy {
        Policy {
            enabled: true,
            server_takeover: false,
            client_takeover: false,
            server_window_bits_max: WINDOW_BITS_MAX,
            client_window_bits_max: WINDOW_BITS_MAX,
        }
    }
}

/// Terms that both sides keep for the life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Agreement {
    /// Whether the server may refer back to earlier messages.
    pub server_takeover: bool,
    /// Whether the client may.
    pub client_takeover: bool,
    /// The largest window the server may deflate with: 9 to 15; on the client's side 8 to 15.
    pub server_window_bits: u8,
    /// The largest window the client may deflate with: 8 to 15.
    pub client_window_bits: u8,
    /// Whether the answer names the server's window: it must if the offer does, and should not otherwise.
    names_server_window: bool,
}

// One exists for each connection.
const _: () = assert!(size_of::<Agreement>() <= 8);

impl Agreement {
    /// The value of the `Sec-WebSocket-Extensions` header that the server answers with.
    pub fn encode(&self) -> String {
        Parameters {
            server_no_takeover: !self.server_takeover,
            client_no_takeover: !self.client_takeover,
            server_window: self
                .names_server_window
                .then_some(Window::Bits(self.server_window_bits)),
            client_window: (self.client_window_bits < WINDOW_BITS_MAX)
                .then_some(Window::Bits(self.client_window_bits)),
            is_void: false,
        }
        .to_string()
    }
}

/// Takes the first offer that the policy lets the server meet. `values` are those of all lines of the header
/// `Sec-WebSocket-Extensions`, in their order.
///
/// `None`: there is no such offer, and the connection goes without compression.
///
/// # Errors
///
/// The header does not follow its grammar, and the handshake fails (RFC 6455, section 9.1). The grammar is checked by a
/// policy that agrees to nothing too.
pub fn choose<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
    policy: &Policy,
) -> Result<Option<Agreement>, Malformed> {
    let mut chosen = None;
    read_extensions(values, |name, parameters| {
        if policy.enabled && name == NAME && chosen.is_none() {
            chosen = meet(parameters, policy);
        }
    })?;
    Ok(chosen)
}

/// The answer to one offer, if there can be one.
fn meet(offer: &Parameters, policy: &Policy) -> Option<Agreement> {
    let server_bits_offered = match offer.server_window {
        None => WINDOW_BITS_MAX,
        Some(Window::Bits(bits)) => bits,
        Some(Window::Any) => return None,
    };
    let server_bits_max = clamp_window_bits(policy.server_window_bits_max);
    let server_window_bits = server_bits_offered.min(server_bits_max);
    if offer.is_void || server_window_bits < WINDOW_BITS_MIN {
        return None;
    }
    let client_bits_max = clamp_window_bits(policy.client_window_bits_max);
    Some(Agreement {
        server_takeover: policy.server_takeover && !offer.server_no_takeover,
        client_takeover: policy.client_takeover && !offer.client_no_takeover,
        server_window_bits,
        client_window_bits: match offer.client_window {
            // Section 7.1.2.2: what the client did not offer may not be asked of it.
            None => WINDOW_BITS_MAX,
            Some(Window::Any) => client_bits_max,
            Some(Window::Bits(bits)) => bits.min(client_bits_max),
        },
        names_server_window: offer.server_window.is_some() || server_window_bits < WINDOW_BITS_MAX,
    })
}

fn clamp_window_bits(bits: u8) -> u8 {
    bits.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX)
}

/// A client's offer. The default is what browsers send: any takeover, and the client's window is the server's to
/// choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Whether the server may keep its context.
    pub server_takeover: bool,
    /// Whether this client wants to keep its own.
    pub client_takeover: bool,
    /// The largest window that this client inflates with: 8 to 15.
    pub server_window_bits_max: u8,
    /// The largest window that this client deflates with, 8 to 15: a server may ask for less. `None`: it may not.
    pub client_window_bits_max: Option<u8>,
}

impl Default for Offer {
    fn default() -> Offer {
        Offer {
            server_takeover: true,
            client_takeover: true,
            server_window_bits_max: WINDOW_BITS_MAX,
            client_window_bits_max: Some(WINDOW_BITS_MAX),
        }
    }
}

/// A server's answer that does not fit what was offered. The connection fails (RFC 7692, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongAnswer;

impl Offer {
    /// The value of the `Sec-WebSocket-Extensions` header that the client asks with.
    pub fn encode(&self) -> String {
        let bits = self.server_window_bits_max;
        Parameters {
            server_no_takeover: !self.server_takeover,
            client_no_takeover: !self.client_takeover,
            server_window: (bits < WINDOW_BITS_MAX).then_some(Window::Bits(bits)),
            client_window: self.client_window_bits_max.map(|bits| match bits {
                WINDOW_BITS_MAX => Window::Any,
                bits => Window::Bits(bits),
            }),
            is_void: false,
        }
        .to_string()
    }

    /// Checks the server's answer: the values of all lines of its header `Sec-WebSocket-Extensions`. `None`: it goes
    /// without compression.
    ///
    /// # Errors
    ///
    /// A malformed header, another extension, one answered twice, a parameter that is unknown, repeated, wrong or was
    /// not offered, and a part of the offer that the answer does not keep.
    pub fn check_answer<'a>(
        &self,
        values: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Option<Agreement>, WrongAnswer> {
        let mut answer: Result<Option<Agreement>, WrongAnswer> = Ok(None);
        let read = read_extensions(values, |name, parameters| {
            answer = match (name, answer) {
                (NAME, Ok(None)) => self.check(parameters).map(Some).ok_or(WrongAnswer),
                _ => Err(WrongAnswer),
            };
        });
        read.map_err(|Malformed| WrongAnswer).and(answer)
    }

    fn check(&self, answer: &Parameters) -> Option<Agreement> {
        let server_window_bits = match answer.server_window {
            None => WINDOW_BITS_MAX,
            Some(Window::Bits(bits)) => bits,
            Some(Window::Any) => return None,
        };
        let client_window_bits = match (answer.client_window, self.client_window_bits_max) {
            (None, _) => WINDOW_BITS_MAX,
            (Some(Window::Bits(bits)), Some(bits_max)) if bits <= bits_max => bits,
            _ => return None,
        };
        let is_kept = !answer.is_void
            && (self.server_takeover || answer.server_no_takeover)
            && server_window_bits <= self.server_window_bits_max;
        is_kept.then_some(Agreement {
            server_takeover: !answer.server_no_takeover,
            client_takeover: !answer.client_no_takeover,
            server_window_bits,
            client_window_bits,
            names_server_window: answer.server_window.is_some(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TAKEOVER: Policy = Policy {
        enabled: true,
        server_takeover: true,
        client_takeover: true,
        server_window_bits_max: 15,
        client_window_bits_max: 15,
    };

    /// The answer to a header of these lines, or nothing.
    fn answer_lines(lines: &[&str], policy: &Policy) -> String {
        let values = lines.iter().map(|line| line.as_bytes());
        match choose(values, policy) {
            Ok(agreement) => agreement.map_or(String::new(), |agreement| agreement.encode()),
            Err(Malformed) => "malformed".to_owned(),
        }
    }

    fn answer(offer: &str) -> String {
        answer_lines(&[offer], &TAKEOVER)
    }

    /// The same for one offer, without the name of the extension.
    fn answer_parameters(parameters: &str) -> String {
        let answer = answer(&format!("permessage-deflate; {parameters}"));
        answer.replacen("permessage-deflate", "*", 1)
    }

    #[test]
    fn the_default_keeps_no_context() {
        let chrome = "permessage-deflate; client_max_window_bits";
        let policy = Policy::default();
        assert_eq!(
            answer_lines(&[chrome], &policy),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        );
        let disabled = Policy {
            enabled: false,
            ..policy
        };
        assert_eq!(answer_lines(&[chrome], &disabled), "");
    }

    #[test]
    fn takeover_needs_both_sides() {
        assert_eq!(answer("permessage-deflate"), "permessage-deflate");
        let server = "server_no_context_takeover";
        assert_eq!(answer_parameters(server), "*; server_no_context_takeover");
        let client = "client_no_context_takeover";
        assert_eq!(answer_parameters(client), "*; client_no_context_takeover");
        let chosen = choose([&b"permessage-deflate"[..]], &Policy::default());
        let chosen = chosen.unwrap().unwrap();
        assert!(!chosen.server_takeover && !chosen.client_takeover);
    }

    #[test]
    fn windows_are_the_smaller_of_both_sides() {
        let answer = answer_parameters;
        assert_eq!(
            answer("server_max_window_bits=9"),
            "*; server_max_window_bits=9"
        );
        assert_eq!(
            answer("server_max_window_bits=15"),
            "*; server_max_window_bits=15"
        );
        assert_eq!(
            answer("server_max_window_bits=\"1\\2\""),
            "*; server_max_window_bits=12"
        );
        assert_eq!(answer("client_max_window_bits"), "*");
        assert_eq!(answer("client_max_window_bits=15"), "*");
        assert_eq!(
            answer("client_max_window_bits=8"),
            "*; client_max_window_bits=8"
        );
        let policy = Policy {
            server_window_bits_max: 10,
            client_window_bits_max: 11,
            ..TAKEOVER
        };
        let answer = |offer| answer_lines(&[offer], &policy);
        assert_eq!(
            answer("permessage-deflate; server_max_window_bits=9; client_max_window_bits=10"),
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits=10"
        );
        assert_eq!(
            answer("permessage-deflate; client_max_window_bits; server_max_window_bits=12"),
            "permessage-deflate; server_max_window_bits=10; client_max_window_bits=11"
        );
        // The client's window is not the server's to choose, its own is.
        assert_eq!(
            answer("permessage-deflate"),
            "permessage-deflate; server_max_window_bits=10"
        );
        let bare = choose([&b"permessage-deflate"[..]], &policy);
        let bare = bare.unwrap().unwrap();
        assert_eq!((bare.server_window_bits, bare.client_window_bits), (10, 15));
    }

    #[test]
    fn a_window_that_cannot_be_deflated_with_is_declined() {
        assert_eq!(answer_parameters("server_max_window_bits=8"), "");
        let fallback = "permessage-deflate; server_max_window_bits=8, permessage-deflate";
        assert_eq!(answer(fallback), "permessage-deflate");
    }

    #[test]
    fn wrong_parameters_void_their_offer_alone() {
        for wrong in [
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=08",
            "server_max_window_bits=010",
            "server_max_window_bits=+9",
            "server_max_window_bits=1",
            "server_max_window_bits=100",
            "server_max_window_bits=150",
            "client_max_window_bits=7",
            "client_max_window_bits=16",
            "client_max_window_bits=0",
            "client_max_window_bits=true",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "server_no_context_takeover; server_no_context_takeover",
            "client_no_context_takeover; client_no_context_takeover",
            "server_max_window_bits=9; server_max_window_bits=9",
            "client_max_window_bits; client_max_window_bits",
            "client_max_window_bits; client_max_window_bits=9",
            "Server_No_Context_Takeover",
            "x",
            "x=y",
        ] {
            assert_eq!(answer_parameters(wrong), "", "{wrong}");
            let second = format!("permessage-deflate; {wrong}, other; {wrong}, permessage-deflate");
            assert_eq!(answer(&second), "permessage-deflate", "{wrong}");
        }
    }

    #[test]
    fn the_first_good_offer_of_all_lines_is_taken() {
        let lines = [
            "x-webkit-deflate-frame, permessage-bzip2; a=b",
            "permessage-deflate; y",
            "",
            "permessage-deflate; server_max_window_bits=10, permessage-deflate",
            "permessage-deflate; client_no_context_takeover",
        ];
        let first = "permessage-deflate; server_max_window_bits=10";
        assert_eq!(answer_lines(&lines, &TAKEOVER), first);
        assert_eq!(answer_lines(&[], &TAKEOVER), "");
        assert_eq!(
            answer("Permessage-Deflate, permessage-deflate2, deflate"),
            ""
        );
    }

    #[test]
    fn a_malformed_header_fails_the_handshake() {
        for malformed in [
            "permessage-deflate, @",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=\"\"",
            "permessage-deflate; client_max_window_bits=\"9",
            "permessage-deflate;",
        ] {
            assert_eq!(answer(malformed), "malformed", "{malformed}");
            for lines in [
                ["permessage-deflate", malformed],
                [malformed, "permessage-deflate"],
            ] {
                assert_eq!(answer_lines(&lines, &TAKEOVER), "malformed");
            }
            let disabled = Policy {
                enabled: false,
                ..TAKEOVER
            };
            assert_eq!(answer_lines(&[malformed], &disabled), "malformed");
        }
        assert_eq!(
            choose([&b"permessage-deflate"[..], b"\xff"], &TAKEOVER),
            Err(Malformed)
        );
    }

    #[test]
    fn long_headers_are_read_to_their_end() {
        let spaces = format!("permessage-deflate;{}x", " ".repeat(32 * 1024));
        assert_eq!(answer(&spaces), "");
        let spaces = format!(
            "permessage-deflate{},permessage-deflate",
            " ".repeat(32 * 1024)
        );
        assert_eq!(answer(&spaces), "permessage-deflate");
        let many = "permessage-deflate; x, ".repeat(2000) + "permessage-deflate";
        assert_eq!(answer(&many), "permessage-deflate");
        let parameters = format!("permessage-deflate{}", "; x=y".repeat(5000));
        assert_eq!(answer(&parameters), "");
    }

    #[test]
    fn offers_are_encoded() {
        let browser = "permessage-deflate; client_max_window_bits";
        assert_eq!(Offer::default().encode(), browser);
        let small = Offer {
            server_takeover: false,
            client_takeover: false,
            server_window_bits_max: 10,
            client_window_bits_max: Some(9),
        };
        assert_eq!(
            small.encode(),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
             server_max_window_bits=10; client_max_window_bits=9"
        );
        let fixed = Offer {
            client_window_bits_max: None,
            ..Offer::default()
        };
        assert_eq!(fixed.encode(), "permessage-deflate");
    }

    #[test]
    fn good_answers() {
        let check = |value: &str| Offer::default().check_answer([value.as_bytes()]);
        assert_eq!(check(""), Ok(None));
        assert_eq!(Offer::default().check_answer([]), Ok(None));
        let agreed = check("permessage-deflate").unwrap().unwrap();
        assert!(agreed.server_takeover && agreed.client_takeover);
        assert_eq!(
            (agreed.server_window_bits, agreed.client_window_bits),
            (15, 15)
        );
        let all = "permessage-deflate; client_max_window_bits=8; server_max_window_bits=8;\
                   client_no_context_takeover;server_no_context_takeover";
        let agreed = check(all).unwrap().unwrap();
        assert!(!agreed.server_takeover && !agreed.client_takeover);
        assert_eq!(
            (agreed.server_window_bits, agreed.client_window_bits),
            (8, 8)
        );
    }

    #[test]
    fn answers_that_do_not_fit_the_offer() {
        let check = |offer: Offer, value: &str| offer.check_answer([value.as_bytes()]);
        for wrong in [
            "other",
            "permessage-deflate, permessage-deflate",
            "other, permessage-deflate",
            "permessage-deflate, other",
            "permessage-deflate; x",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_max_window_bits=9; client_max_window_bits=9",
            "permessage-deflate;",
        ] {
            assert_eq!(check(Offer::default(), wrong), Err(WrongAnswer), "{wrong}");
        }
        let offer = Offer {
            server_takeover: false,
            client_takeover: true,
            server_window_bits_max: 10,
            client_window_bits_max: None,
        };
        let good = "permessage-deflate; server_no_context_takeover; server_max_window_bits=10";
        assert!(matches!(check(offer, good), Ok(Some(_))));
        for wrong in [
            "permessage-deflate; server_max_window_bits=10".to_owned(),
            good.replace("10", "11"),
            "permessage-deflate; server_no_context_takeover".to_owned(),
            format!("{good}; client_max_window_bits=15"),
        ] {
            assert_eq!(check(offer, &wrong), Err(WrongAnswer), "{wrong}");
        }
    }
}
