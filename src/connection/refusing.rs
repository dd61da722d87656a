//! Refused requests: a status, or what a peer can read that sees none.

use std::mem;

use super::exchange::{Exchange, RequestState, lines_of};
use super::{
    Admission, CloseReason, Connection, Event, Inflation, InputContext, OnEvent, Phase,
    RefusedHandshake, RefusedStream, Reply, Settings, Stream,
};
use crate::dialect::{Encoding, StreamEnd, StreamStart};
use crate::http::refusal::Refusal;
use crate::http::response;

impl Exchange {
    /// Writes a refusal; the connection stays open if both want it.
    pub(super) fn encode_refusal(
        &mut self,
        refusal: &Refusal,
        settings: &Settings,
        out: &mut Vec<u8>,
    ) {
        if let Some((encoding, retry_ms)) = self.refusable_stream(refusal) {
            return self.encode_refused_stream((encoding, retry_ms, refusal), settings, out);
        }
        if self.is_call {
            self.keep_alive &= !refusal.close;
            let (headers, body) = (refusal.header_lines(), refusal.encode_json().into());
            let reply = Reply {
                status: refusal.status,
                content_type: "application/json",
                headers,
                body,
            };
            return self.encode_reply(&reply, settings, out);
        }
        let (date, own) = (settings.date.get(), mem::take(&mut self.headers));
        let headers: Vec<_> = lines_of(date.as_ref(), &own).collect();
        let (keep_alive, head_only) = (self.keep_alive, self.head_only);
        response::encode_refusal_with(out, refusal, &headers, keep_alive, head_only);
    }

    /// The stream that was asked for, if its reader would take this refusal for the end.
    fn refusable_stream(&self, refusal: &Refusal) -> Option<(Encoding, u32)> {
        let RequestState::Joining(admission) = &self.state else {
            return None;
        };
        match **admission {
            Admission::Stream(Stream {
                encoding,
                retry_ms: Some(retry_ms),
            }) if refusal.is_for_now() => Some((encoding, retry_ms)),
            _ => None,
        }
    }

    /// Writes a stream that says what was wrong, and when to come back, and is at its end.
    fn encode_refused_stream(
        &mut self,
        (encoding, retry_ms, refusal): (Encoding, u32, &Refusal),
        settings: &Settings,
        out: &mut Vec<u8>,
    ) {
        let (date, own) = (settings.date.get(), mem::take(&mut self.headers));
        let headers: Vec<_> = lines_of(date.as_ref(), &own).collect();
        let dialect = settings.dialects.get(encoding);
        let start = StreamStart {
            headers: &headers,
            joined: None,
        };
        dialect.encode_stream_start(out, &start);
        let end = StreamEnd {
            retry_ms,
            refusal: Some((refusal.status, &*refusal.reason)),
            is_expired: false,
        };
        dialect.encode_stream_end(out, &end);
    }
}

impl Connection {
    /// Turns the connection away before it has asked for anything.
    pub fn refuse_admission(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        refusal: &Refusal,
        out: &mut Vec<u8>,
        on_event: &mut OnEvent<'_>,
    ) {
        self.refuse(
            &mut InputContext {
                settings,
                now_ms,
                inflation: &mut Inflation::default(),
                out,
                on_event,
                kept: None,
            },
            refusal,
        );
    }

    /// Tells the peer what was wrong with its request.
    pub(super) fn refuse(&mut self, context: &mut InputContext<'_, '_>, refusal: &Refusal) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        let refused = Event::Refused(refusal, &mut exchange.headers);
        (context.on_event)(refused, context.out);
        exchange.keep_alive &= !refusal.close;
        exchange.encode_refusal(refusal, context.settings, context.out);
        if exchange.keep_alive {
            self.finish_answer(context.settings, context.now_ms);
        } else {
            self.linger(context.settings, context.now_ms, CloseReason::HttpRefused);
        }
    }

    /// Completes a handshake whose peer cannot read a status, to tell it in a Close what was wrong.
    pub(super) fn refuse_handshake(
        &mut self,
        context: &mut InputContext<'_, '_>,
        refused: &RefusedHandshake,
    ) {
        let RefusedHandshake {
            upgrade,
            code,
            refusal,
        } = refused;
        if let Phase::Http(exchange) = &mut self.phase {
            let refused = Event::Refused(refusal, &mut exchange.headers);
            (context.on_event)(refused, context.out);
        }
        let (settings, now_ms) = (context.settings, context.now_ms);
        self.open(settings, now_ms, upgrade, &[], context.out);
        let reason = CloseReason::HttpRefused;
        self.send_close(
            settings,
            now_ms,
            *code,
            &refusal.close_words(),
            reason,
            context.out,
        );
    }

    /// Refuses a stream whose reader would take a status for the end.
    pub(super) fn refuse_stream(
        &mut self,
        context: &mut InputContext<'_, '_>,
        refused: &RefusedStream,
    ) {
        let RefusedStream {
            encoding,
            retry_ms,
            refusal,
        } = refused;
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        let event = Event::Refused(refusal, &mut exchange.headers);
        (context.on_event)(event, context.out);
        let refused = (*encoding, *retry_ms, refusal);
        exchange.encode_refused_stream(refused, context.settings, context.out);
        self.linger(context.settings, context.now_ms, CloseReason::HttpRefused);
    }
}
