//! A connection over records of our own, once its handshake is done: a few hundred bytes while nothing happens.
//!
//! What is sealed counts as written. What the socket does not take of it is held, byte for byte, and goes before anything else
//! is sealed: a sequence number is used once, so nothing is ever sealed again.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::agreement::Agreed;
use super::failure::{peer_failure, record_failure};
use super::kept_keys::{KeyPlace, NO_PLACE};
use super::next_keys::{Direction, NextKeys};
use super::pieces::Pieces;
use super::record::{Content, FRAGMENT_BYTES_MAX, Fatal, Incoming, Keys, RecordVersion};
use super::state::{Socket, end};
use super::table::Turn;
use crate::auth::identity::Identity;
use crate::connection::{ProtocolFailure, Secured};
use crate::handler::ConnectionId;

/// Ciphertext that is held, at most: that of one record, or of small ones that together are no longer, but for what TLS
/// itself has to say.
pub const HELD_BYTES_MAX: usize = 16_640;

/// Bytes of a message that is sent in small records at first, so that a slow link shows its beginning early.
const EARLY_BYTES: usize = 4096;

/// Plaintext of a small record: with its head and tag it fits a segment.
const SMALL_RECORD_BYTES: usize = 1366;

/// Plaintext of a record behind small ones.
const RECORD_BEHIND_BYTES: usize = 12_288;

/// Plaintext of one record that is sealed for a ring.
pub const RING_BYTES_MAX: usize = 4096;

/// Bytes that a record has beside its plaintext, at most.
const SEAL_BYTES: usize = 29;

const _: () = {
    // One that changes the key may stand before them.
    let key_update = KEY_UPDATE.len() + SEAL_BYTES;
    let early = 3 * (SMALL_RECORD_BYTES + SEAL_BYTES) + RECORD_BEHIND_BYTES + SEAL_BYTES;
    assert!(key_update + early <= HELD_BYTES_MAX);
    assert!(key_update + FRAGMENT_BYTES_MAX + SEAL_BYTES <= HELD_BYTES_MAX);
};

/// Changes of the peer's key in a minute, at most.
const KEY_UPDATES_PER_MINUTE: u8 = 16;

const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const NO_RENEGOTIATION: u8 = 100;

/// A message that changes our key, and asks for nothing.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// Outcome of a send by a ring. None: it was not tried.
pub type Outcome = Option<io::Result<usize>>;

/// What waits in a connection. Most have nothing.
#[derive(Default)]
struct Waiting {
    /// Bytes that were received and not given: so much plaintext, and records behind it.
    kept: Vec<u8>,
    plaintext: usize,
    /// Sealed bytes that the socket did not take, from this one on.
    held: Vec<u8>,
    sent: usize,
    /// It has failed, which was not told yet.
    failure: Option<ProtocolFailure>,
}

/// A connection.
pub struct Records {
    /// What makes the next keys. None in TLS 1.2, which has none.
    next_keys: Option<NextKeys>,
    sealer: Keys,
    opener: Incoming,
    waiting: Option<Box<Waiting>>,
    identity: Option<Arc<Identity>>,
    id: ConnectionId,
    /// Bytes that were received in the tick of this number.
    received: (u32, u32),
    /// The minute of the last change of the peer's key, and how many there were in it.
    key_updates: (u32, u8),
    key_place: KeyPlace,
    /// What is kept may hold whole records.
    is_unopened: bool,
    /// The last read filled what it was given, so more may wait in the socket.
    may_have_more: bool,
    /// The peer's side has ended.
    input_ended: bool,
    /// TCP ended without the peer's close_notify.
    is_truncated: bool,
    /// A protocol was agreed to.
    has_alpn: bool,
    /// That was told above.
    end_told: bool,
    /// It stands among those that are looked at again.
    is_called: bool,
    /// Our side is to end behind what is held.
    must_end: bool,
    close_notify_sent: bool,
    /// The peer has asked for our next key.
    owes_update: bool,
    /// The peer of 1.2 was told that there is no renegotiation.
    has_refused: bool,
    /// A sealed record of it is with a ring, and nothing else is sealed until that is back.
    is_away: bool,
    /// Nothing is sealed any more.
    is_over: bool,
    /// That its key is to be changed and cannot be was told above.
    wear_told: bool,
}

impl Records {
    /// That of a handshake that is done.
    ///
    /// # Errors
    /// Its keys are of a kind that is not known here.
    pub fn new(
        id: ConnectionId,
        agreed: Agreed,
        identity: Option<Arc<Identity>>,
        must_end: bool,
    ) -> Result<Records, Fatal> {
        let version = match agreed.next_keys {
            None => RecordVersion::Tls12,
            Some(_) => RecordVersion::Tls13,
        };
        let mut records = Records {
            sealer: Keys::new(version, agreed.secrets.tx)?,
            opener: Incoming::new(Keys::new(version, agreed.secrets.rx)?),
            next_keys: agreed.next_keys,
            waiting: None,
            identity,
            id,
            received: (0, 0),
            key_updates: (0, 0),
            key_place: NO_PLACE,
            is_unopened: !agreed.incoming.is_empty(),
            may_have_more: false,
            input_ended: false,
            is_truncated: false,
            has_alpn: agreed.has_alpn,
            end_told: false,
            is_called: false,
            must_end,
            close_notify_sent: false,
            owes_update: false,
            has_refused: false,
            is_away: false,
            is_over: false,
            wear_told: false,
        };
        if !agreed.incoming.is_empty() || !agreed.unsent.is_empty() {
            let waiting = records.waiting();
            waiting.kept = agreed.incoming;
            waiting.held = agreed.unsent;
        }
        Ok(records)
    }

    fn waiting(&mut self) -> &mut Waiting {
        self.waiting.get_or_insert_default()
    }

    /// Whether it is to be ended in order, for its key is worn and there is no next one.
    fn must_end_by_wear(&self) -> bool {
        self.next_keys.is_none() && !self.wear_told && self.sealer.is_worn()
    }

    /// Gives memory back that nothing waits in.
    fn tidy(&mut self) {
        if let Some(waiting) = &self.waiting
            && waiting.kept.is_empty()
            && waiting.held.is_empty()
            && waiting.failure.is_none()
        {
            self.waiting = None;
        }
    }

    /// Whether reading again is worth a call, though no event tells.
    pub fn holds_input(&self) -> bool {
        self.is_unopened
            || self.may_have_more
            || (self.input_ended && !self.end_told)
            || self
                .waiting
                .as_ref()
                .is_some_and(|waiting| waiting.plaintext > 0 || waiting.failure.is_some())
    }

    /// Identity of the peer by its certificate, which was verified.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.clone()
    }

    /// Terms of TLS that were agreed to.
    pub fn secured(&self) -> Option<Secured> {
        Some(Secured {
            version: match self.sealer.version() {
                RecordVersion::Tls12 => "1.2",
                RecordVersion::Tls13 => "1.3",
            },
            // No other is offered.
            alpn: self.has_alpn.then_some("http/1.1"),
            is_truncated: self.is_truncated,
        })
    }

    /// Bytes that were sealed and that the socket did not take.
    pub fn held_output(&self) -> usize {
        let waiting = self.waiting.as_ref();
        waiting.map_or(0, |waiting| waiting.held.len() - waiting.sent)
    }

    /// Memory of what waits: received, and sealed.
    #[cfg(fuzzing)]
    pub fn waiting_bytes(&self) -> (usize, usize) {
        let waiting = self.waiting.as_ref();
        waiting.map_or((0, 0), |it| (it.kept.capacity(), it.held.capacity()))
    }

    /// Sends what is held, and then what TLS itself has to say. If it is to end, our side ends behind it.
    pub fn flush(&mut self, socket: &mut impl Socket, turn: &mut Turn) -> io::Result<()> {
        if self.is_away {
            return Ok(());
        }
        let was_held = self.held_output() > 0;
        loop {
            self.send_held(socket)?;
            if self.held_output() > 0 {
                return Ok(());
            }
            if self.is_over {
                break;
            }
            if self.owes_update {
                self.seal_control(turn, Content::Handshake, &KEY_UPDATE);
                self.owes_update = false;
                self.update_sealer(turn);
            } else if self.must_end && !self.close_notify_sent {
                self.seal_control(turn, Content::Alert, &[WARNING, CLOSE_NOTIFY]);
                self.close_notify_sent = true;
            } else {
                break;
            }
        }
        if std::mem::take(&mut self.must_end) {
            end(socket)?;
        }
        if was_held && self.input_ended {
            // It was not told while there was something to be sent.
            self.call_again(turn);
        }
        Ok(())
    }

    fn send_held(&mut self, socket: &mut impl Socket) -> io::Result<()> {
        let Some(waiting) = &mut self.waiting else {
            return Ok(());
        };
        while waiting.sent < waiting.held.len() {
            match socket.write(&waiting.held[waiting.sent..]) {
                Ok(0) => return self.give_up(io::ErrorKind::WriteZero.into()),
                Ok(count) => waiting.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.give_up(error),
            }
        }
        waiting.held = Vec::new();
        waiting.sent = 0;
        self.tidy();
        Ok(())
    }

    /// The socket has failed: what was sealed is lost, so nothing may be sealed behind it.
    fn give_up<R>(&mut self, error: io::Error) -> io::Result<R> {
        self.is_over = true;
        if let Some(waiting) = &mut self.waiting {
            waiting.held = Vec::new();
            waiting.sent = 0;
        }
        self.tidy();
        Err(error)
    }

    /// Holds sealed bytes that the socket did not take.
    fn hold(&mut self, sealed: &[u8]) {
        self.waiting().held.extend_from_slice(sealed);
    }

    /// Seals what TLS itself has to say, behind what is held. Behind close_notify it has nothing to say.
    fn seal_control(&mut self, turn: &mut Turn, content: Content, message: &[u8]) {
        if self.is_over || self.close_notify_sent {
            return;
        }
        let made = turn.kept_keys.get(&mut self.key_place, &self.sealer);
        let held = &mut self.waiting.get_or_insert_default().held;
        let sealed = made.and_then(|made| self.sealer.seal(made, content, &[message], held));
        if sealed.is_err() {
            self.is_over = true;
        }
    }

    /// Seals by the next key from here on. The peer was told.
    fn update_sealer(&mut self, turn: &mut Turn) {
        turn.kept_keys.forget(&mut self.key_place, &self.sealer);
        let maker = self.next_keys.as_mut();
        match maker.map(|maker| maker.next(Direction::Outgoing, &self.sealer)) {
            Some(Ok(keys)) => self.sealer = keys,
            Some(Err(_)) | None => self.is_over = true,
        }
    }

    /// Writes plaintext; all pieces share records. What was sealed counts as written.
    pub fn write(
        &mut self,
        socket: &mut impl Socket,
        turn: &mut Turn,
        pieces: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        if self.is_away {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.tell_failure()?;
        if self.waiting.is_some() || self.must_end || self.owes_update {
            self.flush(socket, turn)?;
            if self.held_output() > 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        if self.is_over || self.close_notify_sent {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if self.must_end_by_wear() {
            // Whoever reads is told.
            self.call_again(turn);
        }
        let mut sealed = std::mem::take(&mut turn.sealed);
        let mut pieces = Pieces::new(pieces);
        let mut is_early = pieces.left() > EARLY_BYTES;
        let mut taken = 0;
        let outcome = loop {
            if pieces.left() == 0 {
                break Ok(taken);
            }
            sealed.clear();
            match self.seal_some(turn, &mut pieces, is_early, &mut sealed) {
                Ok(count) => taken += count,
                Err(fatal) => {
                    self.fail(fatal, turn);
                    break self.tell_failure().map(|()| taken);
                }
            }
            is_early = false;
            match self.send(socket, &sealed) {
                Ok(true) => {}
                Ok(false) => break Ok(taken),
                Err(error) => break Err(error),
            }
        };
        turn.sealed = sealed;
        outcome
    }

    /// Seals the next pieces: a record, or small ones and one behind them. Gives how much plaintext that is.
    fn seal_some(
        &mut self,
        turn: &mut Turn,
        pieces: &mut Pieces<'_>,
        is_early: bool,
        sealed: &mut Vec<u8>,
    ) -> Result<usize, Fatal> {
        if self.sealer.is_worn() && self.next_keys.is_some() {
            let made = turn.kept_keys.get(&mut self.key_place, &self.sealer)?;
            let update = [&KEY_UPDATE[..]];
            self.sealer
                .seal(made, Content::Handshake, &update, sealed)?;
            self.update_sealer(turn);
            if self.is_over {
                return Err(Fatal::INTERNAL_ERROR);
            }
        }
        let made = turn.kept_keys.get(&mut self.key_place, &self.sealer)?;
        let mut taken = 0;
        let lengths: &[usize] = match is_early {
            true => &[
                SMALL_RECORD_BYTES,
                SMALL_RECORD_BYTES,
                SMALL_RECORD_BYTES,
                RECORD_BEHIND_BYTES,
            ],
            false => &[FRAGMENT_BYTES_MAX],
        };
        for length in lengths {
            let (record, count) = pieces.take(*length);
            if count > 0 {
                self.sealer
                    .seal(made, Content::Data, record.as_slice(), sealed)?;
                taken += count;
            }
        }
        Ok(taken)
    }

    /// Sends what was just sealed. False: a part of it is held.
    fn send(&mut self, socket: &mut impl Socket, sealed: &[u8]) -> io::Result<bool> {
        let mut sent = 0;
        while sent < sealed.len() {
            match socket.write(&sealed[sent..]) {
                Ok(0) => return self.give_up(io::ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.hold(&sealed[sent..]);
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.give_up(error),
            }
        }
        Ok(true)
    }

    /// Seals bytes behind those in `out`, for a send by a ring. False: they are to be written. Until
    /// [`finish_sealed`](Records::finish_sealed) has the outcome nothing else is sealed.
    pub fn seal(&mut self, turn: &mut Turn, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let takes = !self.is_away
            && !self.is_over
            && !self.must_end
            && !self.close_notify_sent
            && !self.owes_update
            && !self.sealer.is_worn()
            && self
                .waiting
                .as_ref()
                .is_none_or(|waiting| waiting.held.is_empty() && waiting.failure.is_none());
        if !takes || bytes.is_empty() || bytes.len() > RING_BYTES_MAX {
            return false;
        }
        let made = turn.kept_keys.get(&mut self.key_place, &self.sealer);
        let sealed = made.and_then(|made| self.sealer.seal(made, Content::Data, &[bytes], out));
        self.is_away = sealed.is_ok();
        self.is_away
    }

    /// Takes the outcome of such a send: what was not sent goes byte for byte before anything else.
    pub fn finish_sealed(
        &mut self,
        socket: &mut impl Socket,
        sealed: &[u8],
        outcome: &Outcome,
    ) -> io::Result<()> {
        self.is_away = false;
        let sent = match outcome {
            Some(Ok(count)) => (*count).min(sealed.len()),
            // What io_uring says of a socket the socket says again.
            Some(Err(_)) | None => 0,
        };
        if sent < sealed.len() {
            self.hold(&sealed[sent..]);
            self.send_held(socket)?;
        }
        Ok(())
    }

    /// Ends our side behind what was written.
    pub fn shutdown_write(&mut self, socket: &mut impl Socket, turn: &mut Turn) -> io::Result<()> {
        self.must_end = true;
        self.flush(socket, turn)
    }

    /// The connection is freed.
    pub fn finish(&mut self, turn: &mut Turn) {
        turn.kept_keys.forget(&mut self.key_place, &self.sealer);
    }

    fn tell_failure(&mut self) -> io::Result<()> {
        let failure = self
            .waiting
            .as_mut()
            .and_then(|waiting| waiting.failure.take());
        self.tidy();
        match failure {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    /// Ends the connection by an alert of ours.
    fn fail(&mut self, fatal: Fatal, turn: &mut Turn) {
        self.seal_control(turn, Content::Alert, &[FATAL, fatal.0]);
        let failure = record_failure(fatal.0, &turn.context.counts);
        self.end_by(failure);
    }

    fn end_by(&mut self, failure: ProtocolFailure) {
        self.is_over = true;
        self.is_unopened = false;
        self.may_have_more = false;
        self.waiting().failure = Some(failure);
    }

    fn call_again(&mut self, turn: &mut Turn) {
        if !std::mem::replace(&mut self.is_called, true) {
            turn.call_again(self.id);
        }
    }
}

mod receiving;
#[cfg(test)]
mod tests;
