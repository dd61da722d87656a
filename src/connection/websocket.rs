//! The phases after the opening handshake: frames in, messages and control frames out.

use std::borrow::Cow;

use super::unread::keep_rest;
use super::{
    Answer, CloseReason, Connection, Context, Endpoint, Event, Hold, InputContext, Message,
    NEVER_MS, Outbox, Phase, Settings, output_bytes_max,
};
use crate::protocol::{
    CONTROL_PAYLOAD_BYTES_MAX, CloseCode, CloseFrame, MessageLimits, Opcode, ProtocolError,
    Received, encode_frame,
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
        context: &mut InputContext<'_, '_>,
        rest: &mut &mut [u8],
    ) {
        let (settings, now_ms, endpoint) = (context.settings, context.now_ms, self.endpoint);
        let mut limits = self.message_limits(settings);
        let (output_max, mut any_whole) = (output_bytes_max(settings), false);
        loop {
            let step = match self.decoder.decode(limits, rest) {
                Ok(None) => break,
                Ok(Some(received)) => match received {
                    Received::Text(_) | Received::Binary(_) | Received::Compressed(..)
                        if matches!(self.phase, Phase::CloseSent(_)) =>
                    {
                        continue;
                    }
                    Received::Text(text) => report(context, endpoint, Message::Text(text)),
                    Received::Binary(bytes) => report(context, endpoint, Message::Binary(bytes)),
                    Received::Compressed(opcode, payload) => {
                        let kept = self.phase.kept_context();
                        report_compressed(context, endpoint, limits, kept, (opcode, payload))
                    }
                    Received::Ping(payload) => {
                        answer_ping(context, &mut self.outbox, payload);
                        continue;
                    }
                    Received::Pong(payload) => {
                        report_control(context, Opcode::Pong, payload.len());
                        continue;
                    }
                    Received::Close(frame) => {
                        let is_first = matches!(self.phase, Phase::Open { .. });
                        Step::PeerClosed(take_close(context, is_first, frame))
                    }
                },
                Err(error) => Step::Failed(error),
            };
            match step {
                Step::Act(answer @ Answer::Proceed) if context.out.len() <= output_max => {
                    any_whole = true;
                    std::mem::forget(answer); // Dropping it would be a call, to find nothing in it.
                }
                Step::Act(answer) => {
                    any_whole = true;
                    self.act(settings, now_ms, answer, context.out);
                    self.hold_for_output(settings, context.out);
                    if self.is_held() || !matches!(self.phase, Phase::Open { .. }) {
                        self.decoder.free_handed_out();
                        break;
                    }
                    limits = self.message_limits(settings);
                }
                // Both sides have said it, and the server ends the stream first (RFC 6455 section 7.1.1).
                Step::PeerClosed(code) => {
                    return self.linger(settings, now_ms, CloseReason::Peer(code));
                }
                Step::Failed(error) => {
                    return self.handle_error(settings, now_ms, error, context.out);
                }
            }
        }
        // While the peer's Close is awaited its messages are nobody's: the close timeout bounds them, and none is kept.
        match self.phase {
            Phase::Open { .. } => self.watch_message(settings, now_ms, any_whole),
            _ => self.decoder.discard_payload(),
        }
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
        encode_close(
            out,
            Some(CloseFrame {
                code,
                reason: words,
            }),
        );
        self.phase = Phase::CloseSent(self.ending().unwrap_or(reason));
        self.phase_deadline_ms = now_ms + settings.limits.close_timeout_ms;
        self.message_deadline_ms = NEVER_MS;
        self.decoder.discard_payload();
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
            Answer::SignedIn(answer) => {
                if let Phase::Open { must_sign_in, .. } = &mut self.phase {
                    *must_sign_in = false;
                }
                self.act(settings, now_ms, *answer, out);
            }
            Answer::End(reason) => self.close(settings, now_ms, reason, out),
            Answer::Close(code, words) => {
                let reason = match self.endpoint {
                    Endpoint::Commands(_) => CloseReason::Dialect(code),
                    Endpoint::Topic { .. } | Endpoint::Handler(_) => CloseReason::Handler(code),
                };
                // A code that may not stand on the wire is the embedding program's mistake, and told as such.
                let (code, words) = match code.is_valid_on_wire() {
                    true => (code, words),
                    false => (CloseCode::INTERNAL_ERROR, Cow::Borrowed("")),
                };
                self.send_close(settings, now_ms, code, &words, reason, out);
            }
            Answer::Keep(..)
            | Answer::Respond(_)
            | Answer::Refuse(_)
            | Answer::RefuseHandshake(_)
            | Answer::RefuseStream(_)
            | Answer::ReadBody(_)
            | Answer::Await(_)
            | Answer::Upgrade(_)
            | Answer::Stream(_)
            | Answer::Lines
            | Answer::Join(_)
            | Answer::Ask => {
                debug_assert!(false, "{answer:?} answers no message as a whole");
            }
        }
    }

    fn message_limits<'s>(&self, settings: &'s Settings) -> &'s MessageLimits {
        let is_strange = matches!(
            self.phase,
            Phase::Open {
                must_sign_in: true,
                ..
            }
        );
        match self.endpoint {
            _ if is_strange => &settings.unauthenticated,
            Endpoint::Topic { .. } => &settings.publication,
            Endpoint::Commands(_) | Endpoint::Handler(_) => &settings.message,
        }
    }

    /// The connection is failed (RFC 6455 section 7.1.7): a Close frame says why, and the peer's is not awaited.
    fn handle_error(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        error: ProtocolError,
        out: &mut Vec<u8>,
    ) {
        if matches!(self.phase, Phase::Open { .. }) {
            encode_close(
                out,
                Some(CloseFrame {
                    code: error.close_code(),
                    reason: error.reason(),
                }),
            );
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

#[inline]
fn report(context: &mut InputContext<'_, '_>, endpoint: Endpoint, message: Message<'_>) -> Step {
    let answer = (context.on_event)(Event::Message(endpoint, message), context.out);
    if matches!(answer, Answer::Proceed) {
        return Step::Act(answer);
    }
    Step::Act(keep_rest(&mut context.kept, message, answer))
}

/// Answers a ping at once, or behind what waits to be written.
fn answer_ping(context: &mut InputContext<'_, '_>, outbox: &mut Outbox, payload: &[u8]) {
    report_control(context, Opcode::Ping, payload.len());
    match outbox.is_empty() {
        true => encode_frame(context.out, Opcode::Pong, payload, None),
        false => outbox.set_ping(payload),
    }
}

/// Takes the peer's Close frame, and answers it if it is the first of both. Gives its code.
fn take_close(
    context: &mut InputContext<'_, '_>,
    is_first: bool,
    frame: Option<CloseFrame<'_>>,
) -> CloseCode {
    let bytes = frame.map_or(0, |frame| size_of::<u16>() + frame.reason.len());
    report_control(context, Opcode::Close, bytes);
    if is_first {
        encode_close(context.out, frame);
    }
    frame.map_or(CloseCode::NO_STATUS, |frame| frame.code)
}

/// Tells of a control frame, which the connection itself deals with.
fn report_control(context: &mut InputContext<'_, '_>, opcode: Opcode, bytes: usize) {
    (context.on_event)(Event::Control(opcode, bytes), context.out);
}

fn report_compressed(
    context: &mut InputContext<'_, '_>,
    endpoint: Endpoint,
    limits: &MessageLimits,
    kept: Option<&mut Context>,
    (opcode, payload): (Opcode, &[u8]),
) -> Step {
    let bytes_max = limits.message_bytes_max;
    let answer = match context.inflation.inflate(kept, opcode, payload, bytes_max) {
        Ok(message) => {
            let answer = (context.on_event)(Event::Message(endpoint, message), context.out);
            keep_rest(&mut context.kept, message, answer)
        }
        Err(error) => return Step::Failed(error),
    };
    let inflated_bytes = context.inflation.inflated_bytes();
    match answer {
        // A few bytes may be inflated to very many. The others have their turn before more is.
        Answer::Proceed if inflated_bytes > context.settings.limits.read_budget_bytes => {
            Step::Act(Answer::Hold(Hold::Outbox))
        }
        answer => Step::Act(answer),
    }
}

/// A Close frame, which repeats the peer's when it answers it.
fn encode_close(out: &mut Vec<u8>, frame: Option<CloseFrame<'_>>) {
    let mut payload = Vec::with_capacity(CONTROL_PAYLOAD_BYTES_MAX);
    CloseFrame::encode(&mut payload, frame);
    encode_frame(out, Opcode::Close, &payload, None);
}
