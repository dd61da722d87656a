//! The peer's side of a connection over records of our own.

use std::io;

use super::*;
use crate::connection::KeyUsedUp;
use crate::tls::record::Step;

/// Ciphertext of a record that has begun, at most, with its head.
const RECORD_BYTES_MAX: usize = 16_645;

/// Bytes that are received at once, at least.
const RECEIVED_BYTES_MIN: usize = 4096;

/// Plaintext that was given, out of a buffer for it.
struct Given<'o> {
    out: &'o mut [u8],
    filled: usize,
}

impl Given<'_> {
    /// Takes as much as there is room for. Gives the rest.
    fn take<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let room = &mut self.out[self.filled..];
        let (fits, rest) = bytes.split_at(bytes.len().min(room.len()));
        room[..fits.len()].copy_from_slice(fits);
        self.filled += fits.len();
        rest
    }

    fn is_full(&self) -> bool {
        self.filled == self.out.len()
    }
}

impl Records {
    /// Reads plaintext. 0: the peer's side has ended, and all that was written has been sent.
    ///
    /// # Errors
    /// As of `read(2)`; the alert that it has failed by. Once [`KeyUsedUp`]: it goes on, but is to be ended soon.
    pub fn read(
        &mut self,
        socket: &mut impl Socket,
        turn: &mut Turn,
        out: &mut [u8],
    ) -> io::Result<usize> {
        self.is_called = false;
        loop {
            let count = self.give_plaintext(out);
            if count > 0 {
                return Ok(count);
            }
            self.tell_failure()?;
            if self.input_ended {
                return self.tell_end();
            }
            if self.is_over {
                return Err(io::ErrorKind::NotConnected.into());
            }
            if self.must_end_by_wear() {
                self.wear_told = true;
                // What waits in the socket has announced itself.
                self.call_again(turn);
                return Err(KeyUsedUp.into());
            }
            let count = self.receive(socket, turn, out)?;
            let flushed = self.flush(socket, turn);
            if count > 0 {
                if flushed.is_err() {
                    // It is told behind what was read.
                    self.call_again(turn);
                }
                return Ok(count);
            }
            self.tell_failure()?;
            flushed?;
        }
    }

    /// Gives plaintext that found no room before.
    fn give_plaintext(&mut self, out: &mut [u8]) -> usize {
        let Some(waiting) = &mut self.waiting else {
            return 0;
        };
        let count = waiting.plaintext.min(out.len());
        if count > 0 {
            out[..count].copy_from_slice(&waiting.kept[..count]);
            waiting.kept.drain(..count);
            waiting.plaintext -= count;
            self.tidy();
        }
        count
    }

    /// 0 once all that was written has been sent: whoever is told of the end closes.
    fn tell_end(&mut self) -> io::Result<usize> {
        if self.held_output() > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.end_told = true;
        Ok(0)
    }

    /// Receives once, unless whole records are kept, and opens what is there.
    fn receive(
        &mut self,
        socket: &mut impl Socket,
        turn: &mut Turn,
        out: &mut [u8],
    ) -> io::Result<usize> {
        if self.received.0 != turn.tick {
            self.received = (turn.tick, 0);
        }
        let budget = turn.budget.saturating_sub(self.received.1 as usize);
        if budget == 0 && !self.is_unopened {
            self.call_again(turn);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut scratch = std::mem::take(&mut turn.scratch);
        let kept = self.waiting.as_ref().map_or(&[][..], |it| &it.kept);
        let from = kept.len();
        scratch[..from].copy_from_slice(kept);
        let received = match self.is_unopened {
            true => Ok(0),
            false => {
                // So much that its plaintext, and that of a record that has begun, finds room.
                let room = out.len().saturating_sub(RECORD_BYTES_MAX);
                let room = room.max(RECEIVED_BYTES_MIN).min(budget);
                let room = room.min(scratch.len() - from);
                self.receive_into(socket, &mut scratch[from..from + room])
            }
        };
        let outcome = received.map(|count| {
            if let Some(waiting) = &mut self.waiting {
                waiting.kept = Vec::new();
            }
            let mut given = Given { out, filled: 0 };
            self.open(turn, &mut scratch[..from + count], &mut given);
            self.tidy();
            given.filled
        });
        turn.scratch = scratch;
        outcome
    }

    fn receive_into(&mut self, socket: &mut impl Socket, room: &mut [u8]) -> io::Result<usize> {
        match socket.read(room) {
            Ok(0) => {
                self.may_have_more = false;
                self.input_ended = true;
                if !self.close_notify_sent {
                    self.is_truncated = true;
                    log::debug!(connection:% = self.id, truncated = true; "TCP ended without close_notify");
                }
                Ok(0)
            }
            Ok(count) => {
                self.received.1 += count as u32;
                self.may_have_more = count == room.len();
                Ok(count)
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::WouldBlock {
                    self.may_have_more = false;
                }
                Err(error)
            }
        }
    }

    /// Opens the records at the front of these bytes where they lie. What is not whole, or finds no room, is kept.
    fn open(&mut self, turn: &mut Turn, bytes: &mut [u8], given: &mut Given<'_>) {
        self.is_unopened = false;
        let (mut made, mut at) = (None, 0);
        while at < bytes.len() && !self.input_ended {
            if given.is_full() {
                self.is_unopened = true;
                break;
            }
            let (length, step) = match self.opener.take(&mut made, &mut bytes[at..]) {
                Ok((0, _)) => break,
                Ok(taken) => taken,
                Err(fatal) => return self.fail(fatal, turn),
            };
            let mut rest = &[][..];
            match step {
                Step::Data(place) => rest = given.take(&bytes[at..][place]),
                Step::Partial | Step::Nothing => {}
                Step::KeyUpdate { wants_answer } => {
                    if let Err(fatal) = self.take_key_update(wants_answer, turn) {
                        return self.fail(fatal, turn);
                    }
                }
                // Nothing counts behind it.
                Step::Closed => {
                    self.input_ended = true;
                    self.may_have_more = false;
                    return;
                }
                Step::Ended(alert) => {
                    return self.end_by(peer_failure(alert, &turn.context.counts));
                }
                Step::Renegotiation => {
                    if std::mem::replace(&mut self.has_refused, true) {
                        return self.fail(Fatal::UNEXPECTED_MESSAGE, turn);
                    }
                    self.seal_control(turn, Content::Alert, &[WARNING, NO_RENEGOTIATION]);
                }
            }
            at += length;
            if !rest.is_empty() {
                let plaintext = rest.len();
                let kept = [rest, &bytes[at..]].concat();
                self.is_unopened = kept.len() > plaintext;
                let waiting = self.waiting();
                (waiting.kept, waiting.plaintext) = (kept, plaintext);
                return;
            }
        }
        if at < bytes.len() && !self.input_ended {
            self.waiting().kept = bytes[at..].to_vec();
        }
    }

    /// Opens by the peer's next key from here on, and owes it ours if it wants that.
    fn take_key_update(&mut self, wants_answer: bool, turn: &Turn) -> Result<(), Fatal> {
        let minute = (turn.began.elapsed().as_secs() / 60) as u32;
        if self.key_updates.0 != minute {
            self.key_updates = (minute, 0);
        }
        self.key_updates.1 += 1;
        if self.key_updates.1 > KEY_UPDATES_PER_MINUTE {
            return Err(Fatal::UNEXPECTED_MESSAGE);
        }
        let maker = self.next_keys.as_mut().ok_or(Fatal::INTERNAL_ERROR)?;
        let next = maker.next(Direction::Incoming, self.opener.keys())?;
        self.opener.set_keys(next);
        // One answer is enough for several, if they come before it is sent (RFC 8446 section 4.6.3).
        // Behind our close_notify there is nothing that it would be for.
        self.owes_update |= wants_answer && !self.close_notify_sent;
        Ok(())
    }
}
