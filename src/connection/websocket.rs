//! The phases after the opening handshake: frames in, messages and control frames out.

use std::borrow::Cow;

use super::{
    Answer, CloseReason, Connection, Endpoint, Event, Message, NEVER_MS, OnEvent, Phase, Settings,
};
use crate::protocol::{
    CloseCode, CloseFrame, Limits, Opcode, ProtocolError, Received, encode_frame,
};

/// What a frame leads to, once nothing borrows the decoder any more.
enum Step {
    Act(Answer),
    PeerClosed(CloseCode),
    Failed(ProtocolError),
}

impl Connection {
    pub(super) fn handle_frames(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        rest: &mut &mut [u8],
        out: &mut Vec<u8>,
        on_event: &mut OnEvent<'_>,
    ) {
        let limits = self.message_limits(settings);
        let mut any_whole = false;
        loop {
            let step = match self.decoder.decode(limits, rest) {
                Ok(None) => break,
                Ok(Some(received)) => match received {
                    Received::Text(_) | Received::Binary(_)
                        if matches!(self.phase, Phase::CloseSent) =>
                    {
                        continue;
                    }
                    Received::Text(text) => Step::Act(on_event(
                        Event::Message(self.endpoint, Message::Text(text)),
                        out,
                    )),
                    Received::Binary(bytes) => Step::Act(on_event(
                        Event::Message(self.endpoint, Message::Binary(bytes)),
                        out,
                    )),
                    Received::Ping(payload) => {
                        if self.outbox.is_empty() {
                            encode_frame(out, Opcode::Pong, payload, None);
                        } else {
                            self.outbox.set_ping(payload);
                        }
                        continue;
                    }
                    Received::Pong(_) => continue,
                    Received::Close(frame) => {
                        let code = frame.map_or(CloseCode::NO_STATUS, |frame| frame.code);
                        Step::PeerClosed(code)
                    }
                },
                Err(error) => Step::Failed(error),
            };
            match step {
                Step::Act(Answer::Proceed) => any_whole = true,
                Step::Act(answer) => {
                    any_whole = true;
                    self.act(settings, now_ms, answer, out);
                    if self.is_held() || !matches!(self.phase, Phase::Open) {
                        return;
                    }
                }
                Step::PeerClosed(code) => return self.handle_close(settings, now_ms, code, out),
                Step::Failed(error) => return self.handle_error(settings, now_ms, error, out),
            }
        }
        self.watch_message(settings, now_ms, any_whole);
    }

    /// Sends a Close frame and awaits the peer's.
    pub(super) fn send_close(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        code: CloseCode,
        words: &str,
        reason: CloseReason,
        out: &mut Vec<u8>,
    ) {
        let mut payload = Vec::with_capacity(words.len() + 2);
        CloseFrame::encode(
            &mut payload,
            Some(CloseFrame {
                code,
                reason: words,
            }),
        );
        encode_frame(out, Opcode::Close, &payload, None);
        self.ending.get_or_insert(reason);
        self.phase = Phase::CloseSent;
        self.phase_deadline_ms = now_ms + settings.limits.close_timeout_ms;
        self.message_deadline_ms = NEVER_MS;
    }

    /// Carries out what an event of an open connection was answered with.
    pub(super) fn act(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        answer: Answer,
        out: &mut Vec<u8>,
    ) {
        match answer {
            Answer::Proceed => {}
            Answer::Hold(hold) => self.hold(hold),
            Answer::Close(code, words) => {
                let reason = match self.endpoint {
                    Endpoint::Handler(_) => CloseReason::Handler(code),
                    Endpoint::Topic { .. } => CloseReason::Forbidden,
                };
                // A code that may not stand on the wire is the embedding program's mistake, and told as such.
                let (code, words) = match code.is_valid_on_wire() {
                    true => (code, words),
                    false => (CloseCode::INTERNAL_ERROR, Cow::Borrowed("")),
                };
                self.send_close(settings, now_ms, code, &words, reason, out);
            }
            Answer::Respond(_)
            | Answer::Refuse(_)
            | Answer::ReadBody(_)
            | Answer::Await(_)
            | Answer::Upgrade(_)
            | Answer::Stream(_) => {
                debug_assert!(false, "{answer:?} answers a request, not a message");
            }
        }
    }

    fn message_limits<'s>(&self, settings: &'s Settings) -> &'s Limits {
        match self.endpoint {
            Endpoint::Topic { .. } => &settings.publication,
            Endpoint::Handler(_) => &settings.message,
        }
    }

    /// The peer's Close: answered if it came first, and then our side of the stream ends (RFC 6455 section 7.1.1 has
    /// the server end it first).
    fn handle_close(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        code: CloseCode,
        out: &mut Vec<u8>,
    ) {
        if matches!(self.phase, Phase::Open) {
            let mut payload = Vec::with_capacity(2);
            let echoed = (code != CloseCode::NO_STATUS).then_some(CloseFrame { code, reason: "" });
            CloseFrame::encode(&mut payload, echoed);
            encode_frame(out, Opcode::Close, &payload, None);
        }
        self.linger(settings, now_ms, CloseReason::Peer(code));
    }

    /// The connection is failed (RFC 6455 section 7.1.7): a Close frame says why, and the peer's is not awaited.
    fn handle_error(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        error: ProtocolError,
        out: &mut Vec<u8>,
    ) {
        if matches!(self.phase, Phase::Open) {
            let mut payload = Vec::with_capacity(64);
            let frame = CloseFrame {
                code: error.close_code(),
                reason: error.reason(),
            };
            CloseFrame::encode(&mut payload, Some(frame));
            encode_frame(out, Opcode::Close, &payload, None);
        }
        self.linger(settings, now_ms, CloseReason::Protocol(error));
    }

    /// Starts the message deadline when a message is begun, ends it when none is. `any_whole`: what is unfinished now
    /// is another message than before.
    fn watch_message(&mut self, settings: &Settings, now_ms: u64, any_whole: bool) {
        if !self.decoder.is_mid_message() {
            self.message_deadline_ms = NEVER_MS;
        } else if any_whole || self.message_deadline_ms == NEVER_MS {
            self.message_deadline_ms = now_ms + settings.limits.message_timeout_ms;
        }
    }
}
