//! Handshakes of rustls, for connections with records of our own.

use std::io;
use std::sync::Arc;

use rustls::server::{Acceptor, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, Error, ExtractedSecrets, ServerConfig, SupportedCipherSuite};

use super::failure::{ACCESS_DENIED, UNRECOGNIZED_NAME, plain_alert};
use super::next_keys::{self, NextKeys, Secrets};
use super::record::HEAD_BYTES;
use super::state::Socket;

/// Ciphertext of one record, at most: TLS 1.2 has the most.
const CIPHERTEXT_BYTES_MAX: usize = (1 << 14) + 2048;

/// Stand of a handshake.
#[derive(Debug)]
pub enum Progress {
    /// More bytes of the peer are needed.
    Blocked,
    /// The keys are agreed on.
    Done,
    /// The peer has said close_notify.
    Closed,
    /// It has failed.
    Failed(Error),
}

/// Remains of a handshake that is done.
pub struct Agreed {
    /// The keys.
    pub secrets: ExtractedSecrets,
    /// Maker of the next keys. None in TLS 1.2, which has none.
    pub next_keys: Option<NextKeys>,
    /// Whether a protocol was agreed to.
    pub has_alpn: bool,
    /// Bytes that are not sent yet.
    pub unsent: Vec<u8>,
    /// Bytes that came behind the handshake.
    pub incoming: Vec<u8>,
}

/// A handshake, from its first byte on.
#[derive(Default)]
pub struct Agreement {
    /// None until its hello is whole.
    connection: Option<UnbufferedServerConnection>,
    /// What the next keys are made of, once they are agreed on.
    secrets: Option<Secrets>,
    /// Bytes of the peer that were not used yet.
    incoming: Vec<u8>,
    /// How many of them the connection has been shown: whole records.
    fed: usize,
    /// What we say.
    flight: Vec<u8>,
    /// How much of it has been sent.
    sent: usize,
    /// Host that the peer has named, where the log shows it.
    name: Option<String>,
    /// The alert that we have said, where it could be read.
    alert: Option<u8>,
}

impl Agreement {
    /// Takes in bytes of the peer.
    pub fn push(&mut self, bytes: &[u8]) {
        self.incoming.extend_from_slice(bytes);
    }

    /// Bytes that wait in it.
    pub fn incoming_len(&self) -> usize {
        self.incoming.len()
    }

    /// Whether the hello is whole. What cannot be one is, for rustls to say so.
    pub fn has_hello(&self) -> bool {
        const HANDSHAKE: u8 = 22;
        const CLIENT_HELLO: u8 = 1;
        let (mut rest, mut message) = (&self.incoming[..], Vec::new());
        loop {
            if rest.first().is_some_and(|&content| content != HANDSHAKE) {
                return true;
            }
            let Some((head, body)) = rest.split_first_chunk::<HEAD_BYTES>() else {
                return false;
            };
            let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
            if head[1] != 3 || length == 0 || length > CIPHERTEXT_BYTES_MAX {
                return true;
            }
            message.extend_from_slice(&body[..length.min(body.len())]);
            if let [kind, high, middle, low, body @ ..] = &message[..] {
                let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
                if *kind != CLIENT_HELLO || body.len() >= length {
                    return true;
                }
            }
            let Some(next) = body.get(length..) else {
                return false;
            };
            rest = next;
        }
    }

    /// Answers the hello, which costs a signature.
    pub fn begin(&mut self, terms: Arc<ServerConfig>) -> Progress {
        if log::log_enabled!(log::Level::Debug) {
            self.name = name_of(&self.incoming);
        }
        match UnbufferedServerConnection::new(terms) {
            Ok(connection) => self.connection = Some(connection),
            Err(error) => return Progress::Failed(error),
        }
        let progress = self.drive();
        if let Progress::Failed(_) = progress {
            if let [.., 0x15, 3, _, 0, 2, _, alert] = &mut self.flight[..]
                && *alert == ACCESS_DENIED
            {
                *alert = UNRECOGNIZED_NAME;
            }
            self.alert = plain_alert(&self.flight);
        }
        progress
    }

    /// Goes on with what has come.
    pub fn drive(&mut self) -> Progress {
        next_keys::begin();
        let progress = self.advance();
        self.secrets = next_keys::take().or(self.secrets.take());
        progress
    }

    fn advance(&mut self) -> Progress {
        let Some(connection) = &mut self.connection else {
            return Progress::Failed(Error::HandshakeNotComplete);
        };
        loop {
            // One record at a time: what stands behind the last of the handshake is not for rustls.
            let UnbufferedStatus { discard, state } =
                connection.process_tls_records(&mut self.incoming[..self.fed]);
            let mut is_blocked = false;
            let mut outcome = None;
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let from = self.flight.len();
                    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
                        self.flight.resize(from + size.required_size, 0);
                    }
                    if data.encode(&mut self.flight[from..]).is_err() {
                        outcome = Some(Progress::Failed(Error::EncryptError));
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::BlockedHandshake) => is_blocked = true,
                Ok(ConnectionState::WriteTraffic(_)) => outcome = Some(Progress::Done),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    outcome = Some(Progress::Closed);
                }
                Ok(_) => outcome = Some(Progress::Failed(Error::HandshakeNotComplete)),
                Err(error) => outcome = Some(Progress::Failed(error)),
            }
            if let Some(failed @ Progress::Failed(_)) = outcome {
                take_last_words(connection, &mut self.flight);
                self.incoming = Vec::new();
                self.fed = 0;
                return failed;
            }
            self.incoming.drain(..discard);
            self.fed -= discard;
            if let Some(Progress::Done) = outcome
                && connection.is_handshaking()
            {
                (outcome, is_blocked) = (None, true);
            }
            if let Some(outcome) = outcome {
                return outcome;
            }
            if is_blocked {
                match next_record(&self.incoming[self.fed..]) {
                    Some(length) => self.fed += length,
                    None => return Progress::Blocked,
                }
            }
        }
    }

    /// Bytes that are to be sent.
    pub fn unsent(&self) -> &[u8] {
        &self.flight[self.sent..]
    }

    /// Sends them, as many as are taken.
    ///
    /// # Errors
    /// As of `write(2)`, but for `WouldBlock`.
    pub(super) fn send(&mut self, socket: &mut impl Socket) -> io::Result<()> {
        while self.sent < self.flight.len() {
            match socket.write(&self.flight[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.flight = Vec::new();
        self.sent = 0;
        Ok(())
    }

    /// State of what is agreed on so far.
    pub fn stand(&self) -> Option<&CommonState> {
        self.connection.as_ref().map(|connection| &***connection)
    }

    /// Host that the peer has named, where the log shows it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The alert that it has failed by. None: it could not be read on the wire.
    pub fn alert(&self) -> Option<u8> {
        self.alert
    }

    /// Leaves rustls behind.
    ///
    /// # Errors
    /// The keys are not agreed on, or may not be taken out, or the secrets of the next ones were not given out.
    pub fn finish(self) -> Result<Agreed, Error> {
        let Agreement {
            connection,
            secrets,
            incoming,
            flight,
            sent,
            ..
        } = self;
        let connection = connection.ok_or(Error::HandshakeNotComplete)?;
        let has_alpn = connection.alpn_protocol().is_some();
        let next_keys = match connection.negotiated_cipher_suite() {
            Some(SupportedCipherSuite::Tls13(suite)) => {
                let secrets = secrets.ok_or(Error::HandshakeNotComplete)?;
                Some(NextKeys::new(suite, secrets))
            }
            _ => None,
        };
        let (secrets, _) = connection.dangerous_into_kernel_connection()?;
        Ok(Agreed {
            secrets,
            next_keys,
            has_alpn,
            unsent: flight[sent..].to_vec(),
            incoming,
        })
    }
}

/// Length of the record that these bytes begin with. None: it is not whole. One that cannot be a record is taken as far as it
/// goes, for rustls to refuse.
fn next_record(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<HEAD_BYTES>()?;
    let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
    if length > CIPHERTEXT_BYTES_MAX || head[1] != 3 || !(20..=23).contains(&head[0]) {
        return Some(bytes.len());
    }
    let length = HEAD_BYTES + length;
    (bytes.len() >= length).then_some(length)
}

/// The alert that an error has left behind.
fn take_last_words(connection: &mut UnbufferedServerConnection, flight: &mut Vec<u8>) {
    // It must not look at the peer's bytes again, and does not while it has something to say.
    while connection.wants_write()
        && let Ok(ConnectionState::EncodeTlsData(mut data)) =
            connection.process_tls_records(&mut []).state
    {
        let from = flight.len();
        if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
            flight.resize(from + size.required_size, 0);
        }
        if data.encode(&mut flight[from..]).is_err() {
            return flight.truncate(from);
        }
    }
}

/// Host that a hello names.
fn name_of(mut hello: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    while !hello.is_empty() {
        if acceptor.read_tls(&mut hello).ok()? == 0 {
            return None;
        }
        if let Some(accepted) = acceptor.accept().ok()? {
            return accepted.client_hello().server_name().map(str::to_owned);
        }
    }
    None
}
