//! The handshake of connections with records of our own.

use rustls::{Error, InvalidMessage};

use super::hello::HELLO_BYTES_MAX;
use super::{Records, Socket, Stage, TlsState};
use crate::metrics::tls::HandshakeResult;
use crate::tls::agreement::Progress;
use crate::tls::table::Turn;

impl TlsState {
    /// Takes in bytes of a hello, and answers it once it is whole and its turn has come.
    pub(super) fn gather_hello(&mut self, socket: &mut impl Socket, turn: &mut Turn, bytes: &[u8]) {
        let Stage::Gathering(agreement) = &mut self.stage else {
            return;
        };
        agreement.push(bytes);
        if !agreement.has_hello() {
            if agreement.incoming_len() > HELLO_BYTES_MAX {
                let error = InvalidMessage::HandshakePayloadTooLarge;
                self.fail(&error.into(), turn);
            }
            return;
        }
        if let Stage::Gathering(agreement) = std::mem::replace(&mut self.stage, Stage::Ended) {
            self.stage = Stage::Whole(agreement);
            self.open_accepted(socket, turn);
        }
    }

    /// Goes on as far as the handshake has come.
    pub(super) fn handle_progress(&mut self, progress: Progress, turn: &mut Turn) {
        match progress {
            Progress::Blocked => {}
            Progress::Done => self.finish_handshake(turn),
            Progress::Closed => {
                self.input_ended = true;
                self.may_have_more = false;
                self.end_handshake(turn, HandshakeResult::Gone);
            }
            Progress::Failed(error) => {
                let alert = match &self.stage {
                    Stage::Agreeing(agreement) => agreement.alert(),
                    _ => None,
                };
                self.fail_with(&error, alert, turn);
            }
        }
    }

    /// The keys are agreed on: leaves rustls behind.
    fn finish_handshake(&mut self, turn: &mut Turn) {
        let identity = self.identity(turn);
        self.log_handshake();
        self.end_handshake(turn, HandshakeResult::Done);
        let Stage::Agreeing(mut agreement) = std::mem::replace(&mut self.stage, Stage::Ended)
        else {
            return;
        };
        agreement.push(&std::mem::take(&mut self.kept));
        match agreement.finish() {
            Ok(agreed) => match Records::new(self.id, agreed, identity, self.must_end) {
                Ok(records) => self.stage = Stage::Agreed(Box::new(records)),
                Err(_) => {
                    let error = Error::General("its keys cannot be used".to_owned());
                    self.fail(&error, turn);
                }
            },
            Err(error) => self.fail(&error, turn),
        }
        if std::mem::take(&mut self.waits_for_keys) {
            self.call_again(turn);
        }
    }

    /// The records that it goes on with. None: its keys are not agreed on.
    pub fn take_records(&mut self) -> Option<Box<Records>> {
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Agreed(records) => Some(records),
            stage => {
                self.stage = stage;
                None
            }
        }
    }
}
