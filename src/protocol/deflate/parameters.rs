//! The parameters of permessage-deflate, in offers and answers: RFC 7692, section 7.1.

use std::fmt;

use super::extension::{Element, Elements, Malformed, Value};

/// The name of the extension.
pub(super) const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// The parameters of one extension, in an offer or in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    pub(super) server_no_takeover: bool,
    pub(super) client_no_takeover: bool,
    pub(super) server_window: Option<Window>,
    pub(super) client_window: Option<Window>,
    /// One of them is unknown, repeated or wrong.
    pub(super) is_void: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    /// The parameter stands there without a value, as only an offer's `client_max_window_bits` may.
    Any,
    /// 8 to 15.
    Bits(u8),
}

impl Parameters {
    fn handle_parameter(&mut self, name: &str, value: Option<Value>) {
        let is_good = match (name, value) {
            (SERVER_NO_CONTEXT_TAKEOVER, None) => set(&mut self.server_no_takeover),
            (CLIENT_NO_CONTEXT_TAKEOVER, None) => set(&mut self.client_no_takeover),
            (SERVER_MAX_WINDOW_BITS, Some(_)) => set_window(&mut self.server_window, value),
            (CLIENT_MAX_WINDOW_BITS, _) => set_window(&mut self.client_window, value),
            _ => false,
        };
        self.is_void |= !is_good;
    }
}

/// False if it was set before.
fn set(parameter: &mut bool) -> bool {
    !std::mem::replace(parameter, true)
}

/// False if it was set before, or the value is none.
fn set_window(parameter: &mut Option<Window>, value: Option<Value>) -> bool {
    let window = match value {
        None => Some(Window::Any),
        Some(value) => parse_window_bits(value.as_bytes()).map(Window::Bits),
    };
    window.is_some() && std::mem::replace(parameter, window).is_none()
}

/// Section 7.1.2: a decimal number from 8 to 15 without leading zeros.
fn parse_window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// Hands over the extensions of all lines, in their order.
pub(super) fn read_extensions<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
    mut handle_extension: impl FnMut(&str, &Parameters),
) -> Result<(), Malformed> {
    for value in values {
        let mut open: Option<(&str, Parameters)> = None;
        for element in Elements::new(value) {
            match element? {
                Element::Extension(name) => {
                    if let Some((name, parameters)) = &open {
                        handle_extension(name, parameters);
                    }
                    open = Some((name, Parameters::default()));
                }
                Element::Parameter(name, value) => {
                    let (_, parameters) = open.as_mut().expect("an extension comes first");
                    parameters.handle_parameter(name, value);
                }
            }
        }
        if let Some((name, parameters)) = &open {
            handle_extension(name, parameters);
        }
    }
    Ok(())
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        let flags = [
            (SERVER_NO_CONTEXT_TAKEOVER, self.server_no_takeover),
            (CLIENT_NO_CONTEXT_TAKEOVER, self.client_no_takeover),
        ];
        for (name, _) in flags.iter().filter(|(_, is_set)| *is_set) {
            write!(f, "; {name}")?;
        }
        let windows = [
            (SERVER_MAX_WINDOW_BITS, self.server_window),
            (CLIENT_MAX_WINDOW_BITS, self.client_window),
        ];
        for (name, window) in windows {
            match window {
                None => {}
                Some(Window::Any) => write!(f, "; {name}")?,
                Some(Window::Bits(bits)) => write!(f, "; {name}={bits}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_bits_are_8_to_15_in_their_shortest_form() {
        for bits in 0u8..=200 {
            let expected = (8..=15).contains(&bits).then_some(bits);
            assert_eq!(parse_window_bits(bits.to_string().as_bytes()), expected);
            assert_eq!(parse_window_bits(format!("0{bits}").as_bytes()), None);
        }
        for wrong in ["", "-9", "+9", " 9", "9 ", "9.", "0x9", "1a"] {
            assert_eq!(parse_window_bits(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn extensions_do_not_go_on_in_the_next_line() {
        let lines = [&b"a; server_no_context_takeover"[..], b"; x"];
        let mut names = Vec::new();
        let read = read_extensions(lines, |name, _| names.push(name.to_owned()));
        assert_eq!((read, names), (Err(Malformed), vec!["a".to_owned()]));
    }

    #[test]
    fn parameters_are_encoded_as_they_are_parsed() {
        let line = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                    server_max_window_bits=8; client_max_window_bits";
        let mut encoded = String::new();
        let read = read_extensions([line.as_bytes()], |_, parameters| {
            assert!(!parameters.is_void);
            encoded = parameters.to_string();
        });
        assert_eq!((read, encoded.as_str()), (Ok(()), line));
    }
}
