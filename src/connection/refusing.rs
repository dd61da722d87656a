//! Refused requests: a status, or what a peer can read that sees none.

use std::mem;

use super::exchange::{Exchange, lines_of};
use super::{
    CloseReason, Connection, Event, Inflation, InputContext, OnEvent, Phase, RefusedHandshake,
    Settings,
};
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
        let (date, own) = (settings.date.get(), mem::take(&mut self.headers));
        let headers: Vec<_> = lines_of(date.as_ref(), &own).collect();
        let (keep_alive, head_only) = (self.keep_alive, self.head_only);
        response::encode_refusal_with(out, refusal, &headers, keep_alive, head_only);
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
            },
            refusal,
        );
    }

    /// Tells the peer what was wrong with its request.
    pub(super) fn refuse(&mut self, context: &mut InputContext<'_, '_>, refusal: &Refusal) {
        (context.on_event)(Event::Refused(refusal), context.out);
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
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
        (context.on_event)(Event::Refused(refusal), context.out);
        let (settings, now_ms) = (context.settings, context.now_ms);
        self.open(settings, now_ms, upgrade, &[], context.out);
        let reason = CloseReason::HttpRefused;
        self.send_close(
            settings,
            now_ms,
            *code,
            &refusal.reason,
            reason,
            context.out,
        );
    }
}
