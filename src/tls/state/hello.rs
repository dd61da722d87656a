//! The hello of a connection: taken in, answered here or by a thread, or refused.

use rustls::InvalidMessage;
use rustls::server::AcceptedAlert;

use super::{PLAIN_HTTP_ANSWER, PLAINTEXT_BYTES_MAX, Socket, Stage, TlsState};
use crate::handler::ConnectionId;
use crate::metrics::tls::HandshakeResult;
use crate::tls::failure::{ACCESS_DENIED, UNRECOGNIZED_NAME, plain_alert};
use crate::tls::table::Turn;
use crate::tls::threads::{Answered, Hello};

/// Bytes of a hello, with the heads of its records. That of a browser has two thousand, and rustls would gather 64 KiB.
pub(super) const HELLO_BYTES_MAX: usize = 16_640;

impl TlsState {
    pub(super) fn feed_hello(
        &mut self,
        socket: &mut impl Socket,
        turn: &mut Turn,
        rest: &mut &[u8],
    ) {
        let Stage::Hello(acceptor) = &mut self.stage else {
            return;
        };
        let before = rest.len();
        let outcome = match acceptor.read_tls(rest) {
            // It has said close_notify before.
            Ok(0) => {
                self.input_ended = true;
                *rest = &[];
                return;
            }
            Ok(_) => acceptor.accept(),
            Err(error) => {
                let error = rustls::Error::General(error.to_string());
                return self.fail(&error, turn);
            }
        };
        self.hello_bytes += before - rest.len();
        match outcome {
            Ok(None) if self.hello_bytes > HELLO_BYTES_MAX => {
                let error = InvalidMessage::HandshakePayloadTooLarge;
                self.fail(&error.into(), turn);
            }
            Ok(None) => {}
            Ok(Some(accepted)) => {
                self.stage = Stage::Accepted(Box::new(accepted));
                self.open_accepted(socket, turn);
            }
            Err((error, alert)) => self.refuse_hello(&error, alert, socket, turn),
        }
    }

    /// Answers a whole hello, if it is its turn.
    pub(super) fn open_accepted(&mut self, socket: &mut impl Socket, turn: &mut Turn) {
        if matches!(self.stage, Stage::Accepted(_) | Stage::Whole(_)) && !self.may_open(turn) {
            return;
        }
        let hello = match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Accepted(accepted) => Hello::Rustls(accepted),
            Stage::Whole(agreement) => Hello::Own(agreement),
            Stage::Answered(Some(answered)) => return self.open_answered(answered, socket, turn),
            _ => {
                let error = rustls::Error::General("it could not be answered".to_owned());
                return self.fail(&error, turn);
            }
        };
        let terms = turn.context.terms(self.listener);
        if let Some(desk) = &mut turn.desk {
            self.stage = match desk.give(self.id, hello, terms) {
                Ok(()) => Stage::Away,
                Err(Hello::Rustls(accepted)) => Stage::Accepted(accepted),
                Err(Hello::Own(agreement)) => Stage::Whole(agreement),
            };
            return;
        }
        turn.hellos_left -= 1;
        let answered = hello.answer(terms);
        self.open_answered(answered, socket, turn);
    }

    fn open_answered(&mut self, answered: Answered, socket: &mut impl Socket, turn: &mut Turn) {
        let answered = match answered {
            Answered::Rustls(answered) => *answered,
            Answered::Own(agreement, progress) => {
                self.stage = Stage::Agreeing(agreement);
                return self.handle_progress(progress, turn);
            }
        };
        match answered {
            Ok(mut connection) => {
                connection.set_buffer_limit(Some(PLAINTEXT_BYTES_MAX));
                self.stage = Stage::Open(connection);
                // What came with the hello.
                self.process(turn);
            }
            Err((error, alert)) => self.refuse_hello(&error, alert, socket, turn),
        }
    }

    /// Whether its hello can be answered, or given to a thread.
    fn may_open(&self, turn: &Turn) -> bool {
        match &turn.desk {
            Some(desk) => desk.room() > 0,
            None => turn.hellos_left > 0,
        }
    }

    /// It is looked at again in the next tick, or once a thread has room.
    pub(super) fn wait_for_turn(&mut self, turn: &mut Turn) {
        if turn.desk.as_ref().is_some_and(|desk| desk.room() == 0) {
            if !std::mem::replace(&mut self.is_called, true) {
                turn.queued.push_back(self.id);
            }
        } else {
            self.call_again(turn);
        }
    }

    /// Whether it is that of this connection.
    pub fn is(&self, id: ConnectionId) -> bool {
        self.id == id
    }

    /// The thread is done with its hello.
    pub fn take_answered(&mut self, answered: Option<Answered>) {
        if let Stage::Away = self.stage {
            self.stage = Stage::Answered(answered);
        }
    }

    fn refuse_hello(
        &mut self,
        error: &rustls::Error,
        mut alert: AcceptedAlert,
        socket: &mut impl Socket,
        turn: &mut Turn,
    ) {
        let mut record = Vec::new();
        // Writing to memory does not fail; and whether the peer hears of it is up to its socket.
        let _ = alert.write_all(&mut record);
        if let [0x15, 3, _, 0, 2, _, alert] = &mut record[..]
            && *alert == ACCESS_DENIED
        {
            *alert = UNRECOGNIZED_NAME;
        }
        let _ = socket.write(&record);
        self.fail_with(error, plain_alert(&record), turn);
    }

    pub(super) fn refuse_plain_http(&mut self, socket: &mut impl Socket, turn: &mut Turn) {
        self.end_handshake(turn, HandshakeResult::PlainHttp);
        // It is short, and the first that is sent; who does not take it goes without.
        let _ = socket.write(PLAIN_HTTP_ANSWER);
        let _ = socket.end();
        log::debug!(connection:% = self.id; "plain HTTP on a port that speaks TLS");
        self.stage = Stage::PlainHttp;
    }
}
