//! State of one TLS connection: plaintext on one side, a socket on the other.
//!
//! Nothing is read into rustls that plaintext of earlier bytes keeps from being taken, so what waits is bounded: a part of one
//! record, and the plaintext of one slice. Whatever waits of which no event tells is shown by
//! [`holds_input`](TlsState::holds_input) or calls for another [look](Turn::call_again).

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::server::{Accepted, Acceptor};
use rustls::{CommonState, ProtocolVersion, ServerConnection};

use super::agreement::Agreement;
use super::context::Pending;
use super::failure::failure;
use super::records::Records;
use super::table::Turn;
use super::threads::Answered;
use crate::auth::identity::Identity;
use crate::connection::ProtocolFailure;
use crate::handler::ConnectionId;
use crate::metrics::tls::{HandshakeKind, HandshakeResult, HandshakeVersion};

/// Plaintext of a record, and of what stands before it.
const RECORD_BYTES_MAX: usize = 16_640;

/// What rustls takes at once.
const SLICE_BYTES: usize = 4096;

/// Plaintext that is encrypted and not yet sent, at most.
const PLAINTEXT_BYTES_MAX: usize = 65_536;

/// Answer to plain HTTP.
const PLAIN_HTTP_ANSWER: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 45\r\nConnection: close\r\n\r\nthis port speaks TLS: use https:// or wss://\n";

/// A socket that never blocks.
pub(super) trait Socket: Read + Write {
    /// Ends our side.
    fn end(&mut self) -> io::Result<()>;
}

#[expect(
    clippy::large_enum_variant,
    reason = "most connections are open, and it stands in a box"
)]
enum Stage {
    /// Nothing has come.
    Fresh,
    /// A part of the hello has come.
    Hello(Box<Acceptor>),
    /// The hello is whole, and waits for its turn.
    Accepted(Box<Accepted>),
    /// It is with a thread that answers it.
    Away,
    /// It was answered. None: in vain.
    Answered(Option<Answered>),
    /// Its keys are being agreed on, or have been.
    Open(ServerConnection),
    /// For records of our own: a part of the hello has come.
    Gathering(Box<Agreement>),
    /// The hello is whole, and waits for its turn.
    Whole(Box<Agreement>),
    /// Its keys are being agreed on.
    Agreeing(Box<Agreement>),
    /// They are agreed on.
    Agreed(Box<Records>),
    /// It spoke plain HTTP, and was told. The rest is read and thrown away.
    PlainHttp,
    /// It is over.
    Ended,
}

/// One TLS connection.
pub(super) struct TlsState {
    stage: Stage,
    id: ConnectionId,
    listener: u8,
    /// Until the handshake has ended.
    pending: Option<Pending>,
    /// Bytes of its hello so far.
    hello_bytes: usize,
    /// Ciphertext that was received and not taken.
    kept: Vec<u8>,
    /// Plaintext that waits to be read.
    plaintext: usize,
    /// Ciphertext that the socket did not take.
    held: usize,
    /// Bytes that were received in the tick of this number.
    received: (u32, usize),
    /// The last read filled what it was given, so more may wait in the socket.
    may_have_more: bool,
    /// The peer's side has ended.
    input_ended: bool,
    /// That was told above.
    end_told: bool,
    /// It stands among those that are looked at again.
    is_called: bool,
    /// Our side is to end behind what is held.
    must_end: bool,
    close_notify_sent: bool,
    /// TCP ended without the peer's close_notify.
    is_truncated: bool,
    /// More was to be written than is taken before the keys are agreed on.
    waits_for_keys: bool,
    /// It has failed, which was not told yet.
    failure: Option<ProtocolFailure>,
}

impl TlsState {
    pub fn new(id: ConnectionId, listener: u8, pending: Pending) -> TlsState {
        TlsState {
            stage: Stage::Fresh,
            id,
            listener,
            pending: Some(pending),
            hello_bytes: 0,
            kept: Vec::new(),
            plaintext: 0,
            held: 0,
            received: (0, 0),
            may_have_more: false,
            input_ended: false,
            end_told: false,
            is_called: false,
            must_end: false,
            close_notify_sent: false,
            is_truncated: false,
            waits_for_keys: false,
            failure: None,
        }
    }

    /// Whether reading again is worth a call, though no event tells.
    pub fn holds_input(&self) -> bool {
        self.plaintext > 0
            || !self.kept.is_empty()
            || self.may_have_more
            || self.failure.is_some()
            || (self.input_ended && !self.end_told)
    }

    /// Identity of the peer by its certificate, which was verified.
    pub fn identity(&self, turn: &Turn) -> Option<Arc<Identity>> {
        let leaf = self.stand()?.peer_certificates()?.first()?;
        turn.context.identify(self.listener, leaf)
    }

    /// Bytes that were written and that the socket did not take.
    pub fn held_output(&self) -> usize {
        self.held
    }

    /// Reads plaintext. 0: the peer's side has ended, and all that was written has been sent.
    pub fn read(
        &mut self,
        socket: &mut impl Socket,
        turn: &mut Turn,
        out: &mut [u8],
    ) -> io::Result<usize> {
        self.is_called = false;
        loop {
            if matches!(
                self.stage,
                Stage::Accepted(_) | Stage::Whole(_) | Stage::Answered(_)
            ) {
                self.open_accepted(socket, turn);
                self.flush(socket, turn)?;
            }
            if let Stage::Agreed(_) = self.stage {
                // The rest is for the records.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = self.take_plaintext(out);
            if count > 0 {
                return Ok(count);
            }
            if let Some(failure) = self.failure.take() {
                self.stage = Stage::Ended;
                return Err(failure.into());
            }
            match self.stage {
                Stage::Accepted(_) | Stage::Whole(_) => {
                    self.wait_for_turn(turn);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Stage::Away => return Err(io::ErrorKind::WouldBlock.into()),
                Stage::Ended => return Err(io::ErrorKind::NotConnected.into()),
                _ => {}
            }
            let count = if self.kept.is_empty() {
                if self.input_ended {
                    return self.tell_end();
                }
                self.receive(socket, turn, out)?
            } else {
                let kept = std::mem::take(&mut self.kept);
                self.feed(socket, turn, &kept, out)
            };
            self.flush(socket, turn)?;
            if count > 0 {
                return Ok(count);
            }
        }
    }

    /// Receives once, and gives the plaintext of it.
    fn receive(
        &mut self,
        socket: &mut impl Socket,
        turn: &mut Turn,
        out: &mut [u8],
    ) -> io::Result<usize> {
        if self.received.0 != turn.tick {
            self.received = (turn.tick, 0);
        }
        let budget = turn.budget.saturating_sub(self.received.1);
        if budget == 0 {
            self.call_again(turn);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // So much that its plaintext, and that of a record that has begun, finds room. Before the keys are agreed on a slice is
        // enough: what stands behind a hello waits with it.
        let room = match &self.stage {
            Stage::Open(_) => out.len().saturating_sub(RECORD_BYTES_MAX).max(SLICE_BYTES),
            _ => SLICE_BYTES,
        };
        let mut scratch = std::mem::take(&mut turn.scratch);
        let room = room.min(scratch.len()).min(budget);
        let outcome = socket.read(&mut scratch[..room]);
        let outcome = match outcome {
            Ok(0) => {
                self.handle_eof(turn);
                Ok(0)
            }
            Ok(count) => {
                self.received.1 += count;
                self.may_have_more = count == room;
                Ok(self.feed(socket, turn, &scratch[..count], out))
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::WouldBlock {
                    self.may_have_more = false;
                }
                Err(error)
            }
        };
        turn.scratch = scratch;
        outcome
    }

    fn handle_eof(&mut self, turn: &Turn) {
        self.may_have_more = false;
        self.input_ended = true;
        if let Stage::PlainHttp = self.stage {
            self.failure = Some(ProtocolFailure {
                alert: 10,
                words: "plain HTTP on a port that speaks TLS".to_owned(),
            });
            return;
        }
        self.end_handshake(turn, HandshakeResult::Gone);
        if !self.close_notify_sent {
            self.is_truncated = true;
            log::debug!(connection:% = self.id, truncated = true; "TCP ended without close_notify");
        }
    }

    /// Takes ciphertext in, and gives the plaintext that it made; what does not fit waits.
    fn feed(
        &mut self,
        socket: &mut impl Socket,
        turn: &mut Turn,
        bytes: &[u8],
        out: &mut [u8],
    ) -> usize {
        let (mut rest, mut filled) = (bytes, 0);
        while !rest.is_empty() && self.failure.is_none() {
            match &mut self.stage {
                Stage::Fresh if rest[0].is_ascii_uppercase() => {
                    self.refuse_plain_http(socket, turn);
                    break;
                }
                Stage::Fresh => {
                    self.stage = match turn.context.terms(self.listener).enable_secret_extraction {
                        true => Stage::Gathering(Box::default()),
                        false => Stage::Hello(Box::default()),
                    };
                }
                Stage::Hello(_) => self.feed_hello(socket, turn, &mut rest),
                Stage::Gathering(_) => {
                    self.gather_hello(socket, turn, rest);
                    break;
                }
                Stage::Agreeing(agreement) => {
                    agreement.push(rest);
                    let progress = agreement.drive();
                    self.handle_progress(progress, turn);
                    break;
                }
                Stage::Accepted(_)
                | Stage::Whole(_)
                | Stage::Away
                | Stage::Answered(_)
                | Stage::Agreed(_) => {
                    self.kept.extend_from_slice(rest);
                    break;
                }
                Stage::Open(connection) => {
                    match connection.read_tls(&mut rest) {
                        // Nothing counts behind close_notify.
                        Ok(0) => break,
                        Ok(_) => {}
                        Err(error) => {
                            let error = rustls::Error::General(error.to_string());
                            self.fail(&error, turn);
                            break;
                        }
                    }
                    self.process(turn);
                    filled += self.take_plaintext(&mut out[filled..]);
                    if self.plaintext > 0 && self.failure.is_none() {
                        self.kept.extend_from_slice(rest);
                        break;
                    }
                }
                Stage::PlainHttp | Stage::Ended => break,
            }
        }
        filled
    }

    /// Decrypts what rustls has been given.
    fn process(&mut self, turn: &mut Turn) {
        let Stage::Open(connection) = &mut self.stage else {
            return;
        };
        match connection.process_new_packets() {
            Ok(state) => {
                self.plaintext = state.plaintext_bytes_to_read();
                self.input_ended |= state.peer_has_closed();
                if self.pending.is_some() && !connection.is_handshaking() {
                    self.log_handshake();
                    self.end_handshake(turn, HandshakeResult::Done);
                    if std::mem::take(&mut self.waits_for_keys) {
                        self.call_again(turn);
                    }
                }
                if self.input_ended {
                    self.end_handshake(turn, HandshakeResult::Gone);
                }
            }
            Err(error) => {
                // What came before it is good, and how much it was is not told.
                self.plaintext = usize::MAX;
                self.fail(&error, turn);
            }
        }
    }

    fn take_plaintext(&mut self, out: &mut [u8]) -> usize {
        let mut filled = 0;
        let Stage::Open(connection) = &mut self.stage else {
            return 0;
        };
        while self.plaintext > 0 && filled < out.len() {
            match connection.reader().read(&mut out[filled..]) {
                Ok(count) if count > 0 => {
                    filled += count;
                    self.plaintext -= count;
                }
                // There is no more, whatever the reason is: that shows where ciphertext is taken in.
                _ => self.plaintext = 0,
            }
        }
        filled
    }

    /// Sends what is held. If it is to end, our side ends behind it.
    pub fn flush(&mut self, socket: &mut impl Socket, turn: &mut Turn) -> io::Result<()> {
        let was_held = self.held > 0;
        self.send_held(socket)?;
        if self.held > 0 {
            return Ok(());
        }
        if let Stage::Agreeing(_) = self.stage
            && self.failure.is_some()
            && std::mem::take(&mut self.must_end)
        {
            end(socket)?;
        }
        if self.must_end
            && let Stage::Open(connection) = &mut self.stage
            && (!connection.is_handshaking() || self.failure.is_some())
        {
            if !std::mem::replace(&mut self.close_notify_sent, true) {
                connection.send_close_notify();
                self.send_held(socket)?;
            }
            if self.held == 0 {
                self.must_end = false;
                end(socket)?;
            }
        }
        if was_held && self.held == 0 && self.input_ended {
            // It was not told while there was something to be sent.
            self.call_again(turn);
        }
        Ok(())
    }

    fn send_held(&mut self, socket: &mut impl Socket) -> io::Result<()> {
        let connection = match &mut self.stage {
            Stage::Open(connection) => connection,
            Stage::Agreeing(agreement) => {
                agreement.send(socket)?;
                self.held = agreement.unsent().len();
                return Ok(());
            }
            _ => return Ok(()),
        };
        let mut blocked = false;
        while connection.wants_write() && !blocked {
            match connection.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => blocked = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.held = match blocked {
            // It counts what waits; there is nothing new to be processed.
            true => match connection.process_new_packets() {
                Ok(state) => state.tls_bytes_to_write(),
                Err(_) => 1,
            },
            false => 0,
        };
        Ok(())
    }

    /// Writes plaintext; all pieces share records. What was encrypted counts as written.
    pub fn write(
        &mut self,
        socket: &mut impl Socket,
        turn: &mut Turn,
        pieces: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        if let Some(failure) = self.failure.take() {
            self.stage = Stage::Ended;
            return Err(failure.into());
        }
        self.flush(socket, turn)?;
        if self.held > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if let Stage::Agreeing(_) = self.stage {
            self.waits_for_keys = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Stage::Open(connection) = &mut self.stage else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let count = connection.writer().write_vectored(pieces)?;
        if count == 0 && pieces.iter().any(|piece| !piece.is_empty()) {
            // Before the keys are agreed on no more waits than this, and no event tells when they are.
            self.waits_for_keys = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.send_held(socket)?;
        Ok(count)
    }

    /// Ends our side behind what was written.
    pub fn shutdown_write(&mut self, socket: &mut impl Socket, turn: &mut Turn) -> io::Result<()> {
        match &self.stage {
            Stage::Open(_) | Stage::Agreeing(_) => {
                self.must_end = true;
                self.flush(socket, turn)
            }
            _ => end(socket),
        }
    }

    /// The connection is freed.
    pub fn finish(mut self: Box<Self>, turn: &Turn) {
        self.end_handshake(turn, HandshakeResult::Gone);
    }

    /// 0 once all that was written has been sent: whoever is told of the end closes.
    fn tell_end(&mut self) -> io::Result<usize> {
        if self.held > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.end_told = true;
        Ok(0)
    }

    fn fail(&mut self, error: &rustls::Error, turn: &Turn) {
        self.fail_with(error, None, turn);
    }

    fn fail_with(&mut self, error: &rustls::Error, sent: Option<u8>, turn: &Turn) {
        self.failure = Some(failure(error, sent, &turn.context.counts));
        self.kept = Vec::new();
        self.may_have_more = false;
        self.end_handshake(turn, HandshakeResult::Failed);
    }

    /// Counts the end of the handshake, if it has not ended before.
    fn end_handshake(&mut self, turn: &Turn, result: HandshakeResult) {
        if self.pending.take().is_none() {
            return;
        }
        let (mut version, mut kind) = (HandshakeVersion::Unknown, HandshakeKind::Unknown);
        if let Some(connection) = self.stand() {
            version = match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => HandshakeVersion::Tls12,
                Some(ProtocolVersion::TLSv1_3) => HandshakeVersion::Tls13,
                _ => HandshakeVersion::Unknown,
            };
            kind = match connection.handshake_kind() {
                Some(rustls::HandshakeKind::Resumed) => HandshakeKind::Resumed,
                Some(_) => HandshakeKind::Full,
                None => HandshakeKind::Unknown,
            };
        }
        turn.context.counts.add_handshake(version, kind, result);
    }

    fn log_handshake(&self) {
        if let Some(connection) = self.stand()
            && log::log_enabled!(log::Level::Debug)
        {
            let version = connection.protocol_version();
            let suite = connection.negotiated_cipher_suite().map(|it| it.suite());
            let name = match &self.stage {
                Stage::Open(connection) => connection.server_name(),
                Stage::Agreeing(agreement) => agreement.name(),
                _ => None,
            };
            log::debug!(connection:% = self.id, version:?, suite:?, name:?; "TLS handshake done");
        }
    }

    /// What has been agreed on so far.
    fn stand(&self) -> Option<&CommonState> {
        match &self.stage {
            Stage::Open(connection) => Some(connection),
            Stage::Agreeing(agreement) => agreement.stand(),
            _ => None,
        }
    }

    fn call_again(&mut self, turn: &mut Turn) {
        if !std::mem::replace(&mut self.is_called, true) {
            turn.call_again(self.id);
        }
    }
}

/// Ends our side. A peer that is gone does not need to be told.
pub(super) fn end(socket: &mut impl Socket) -> io::Result<()> {
    match socket.end() {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        outcome => outcome,
    }
}

mod agreeing;
mod hello;
#[cfg(test)]
pub(super) mod pair;
mod secured;
#[cfg(test)]
mod tests;
