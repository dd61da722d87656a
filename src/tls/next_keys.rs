//! The next keys of a connection over TLS 1.3.
//!
//! One side may change its key at any time (RFC 8446 section 7.2).
//! A connection keeps two secrets for that, of 48 bytes each. What rustls would keep takes 784, most of it for other protocols.
//! rustls gives the secrets out as it does for a log of keys, to the thread that runs the handshake.

use std::cell::RefCell;

use rustls::crypto::tls13::OkmBlock;
use rustls::{KeyLog, Tls13CipherSuite};
use zeroize::Zeroize;

use super::record::{Fatal, Keys};

/// Bytes of a secret, at most: those of SHA-384.
const SECRET_BYTES_MAX: usize = 48;

thread_local! {
    static SEEN: RefCell<Secrets> = const { RefCell::new(Secrets::NONE) };
}

/// Direction of a connection, as the server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What the peer sends.
    Incoming,
    /// What is sent to it.
    Outgoing,
}

impl Direction {
    /// Direction of a secret by its name in a log of keys.
    fn of(label: &str) -> Option<Direction> {
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => Some(Direction::Incoming),
            "SERVER_TRAFFIC_SECRET_0" => Some(Direction::Outgoing),
            _ => None,
        }
    }
}

/// Secrets of both directions. They are wiped when they are dropped, and never shown.
pub struct Secrets {
    each: [[u8; SECRET_BYTES_MAX]; 2],
    /// Length of each.
    length: u8,
    /// Directions that are known.
    count: u8,
}

impl Secrets {
    const NONE: Secrets = Secrets {
        each: [[0; SECRET_BYTES_MAX]; 2],
        length: 0,
        count: 0,
    };
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.each.zeroize();
    }
}

/// Begins a part of a handshake: of what came before nothing is left.
pub fn begin() {
    SEEN.set(Secrets::NONE);
}

/// Secrets that the handshake of this thread came to. None: they are not agreed on yet, or were before.
pub fn take() -> Option<Secrets> {
    let seen = SEEN.replace(Secrets::NONE);
    (seen.count == 2).then_some(seen)
}

/// Taker of the secrets that rustls gives out.
#[derive(Debug)]
pub struct SecretsLog;

impl KeyLog for SecretsLog {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let Some(direction) = Direction::of(label) else {
            return;
        };
        SEEN.with_borrow_mut(|seen| {
            if let Some(place) = seen.each[direction as usize].get_mut(..secret.len()) {
                place.copy_from_slice(secret);
                seen.length = secret.len() as u8;
                seen.count += 1;
            }
        });
    }

    fn will_log(&self, label: &str) -> bool {
        Direction::of(label).is_some()
    }
}

/// Maker of the next keys of a connection.
pub struct NextKeys {
    suite: &'static Tls13CipherSuite,
    secrets: Secrets,
}

impl NextKeys {
    /// That of a suite, and of the secrets of a handshake.
    pub fn new(suite: &'static Tls13CipherSuite, secrets: Secrets) -> NextKeys {
        NextKeys { suite, secrets }
    }

    /// The keys behind these of a direction, from their first record on.
    ///
    /// # Errors
    /// The suite has no keys of these lengths.
    pub fn next(&mut self, direction: Direction, keys: &Keys) -> Result<Keys, Fatal> {
        let hkdf = self.suite.hkdf_provider;
        let length = usize::from(self.secrets.length);
        let secret = &mut self.secrets.each[direction as usize];
        let known = secret.get(..length).ok_or(Fatal::INTERNAL_ERROR)?;
        let next = hkdf.expander_for_okm(&OkmBlock::new(known));
        let next = next.expand_block(&info("traffic upd", length).pieces());
        secret[..length].copy_from_slice(next.as_ref());
        let made = hkdf.expander_for_okm(&next);
        keys.renewed(|key, iv| {
            for (label, out) in [("key", key), ("iv", iv)] {
                let info = info(label, out.len());
                let expanded = made.expand_slice(&info.pieces(), out);
                expanded.map_err(|_| Fatal::INTERNAL_ERROR)?;
            }
            Ok(())
        })
    }
}

/// What HKDF-Expand-Label expands by (RFC 8446 section 7.1), without a context.
struct Info {
    length: [u8; 2],
    label: &'static str,
    label_len: [u8; 1],
}

const PREFIX: &[u8] = b"tls13 ";

fn info(label: &'static str, length: usize) -> Info {
    Info {
        length: (length as u16).to_be_bytes(),
        label,
        label_len: [(PREFIX.len() + label.len()) as u8],
    }
}

impl Info {
    fn pieces(&self) -> [&[u8]; 5] {
        [
            &self.length,
            &self.label_len,
            PREFIX,
            self.label.as_bytes(),
            &[0],
        ]
    }
}

// One for each connection.
const _: () = assert!(size_of::<NextKeys>() <= 112);
