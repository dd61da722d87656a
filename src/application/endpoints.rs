//! Connections of the embedding program's endpoints: what it does with them from outside.

use std::borrow::Cow;

use super::{Application, ConnectionContext};
use crate::connection::{Answer, CloseReason};
use crate::endpoint::{self, Callee};
use crate::handler::{CloseCode, PeerCommand};
use crate::shared::brought::Fate;

impl Application {
    /// Tells a handler that its peer has taken all that waited.
    pub fn tell_writable(&mut self, context: &mut ConnectionContext<'_>) {
        self.act_for(context, |calls, shared, metrics, callee| {
            calls.call(shared, metrics, callee, |handler, peer| {
                handler.writable(peer);
            })
        });
    }

    /// Carries out what a handle asks of its connection.
    pub fn carry_out_of_handle(
        &mut self,
        context: &mut ConnectionContext<'_>,
        command: PeerCommand,
    ) -> Fate {
        self.act_for(context, |calls, shared, metrics, callee| {
            calls.carry_out(shared, metrics, callee, command)
        })
    }

    /// Ends a connection of whatever kind, as the program wants it.
    pub fn disconnect(
        &self,
        context: &mut ConnectionContext<'_>,
        code: CloseCode,
        reason: Cow<'static, str>,
    ) -> Fate {
        let (settings, now_ms) = (&self.shared.settings, context.now_ms);
        let connection = &mut *context.connection;
        connection.handle_answer(settings, now_ms, Answer::Close(code, reason), context.out);
        // One that is no WebSocket has no Close.
        connection.close(settings, now_ms, CloseReason::Handler(code), context.out);
        Fate::CarriedOut
    }

    fn act_for(
        &mut self,
        context: &mut ConnectionContext<'_>,
        act: impl FnOnce(
            &mut endpoint::Calls,
            &crate::shared::Shared,
            &crate::metrics::ReactorMetrics,
            Callee<'_>,
        ) -> Answer,
    ) -> Fate {
        let Some(number) = context
            .connection
            .handler()
            .filter(|_| !context.connection.is_closing())
        else {
            return Fate::Gone;
        };
        let callee = Callee {
            id: context.id,
            number,
            deflate: context.connection.deflate(),
            out: &mut *context.out,
        };
        let answer = act(&mut self.calls, &self.shared, &self.metrics, callee);
        let (settings, now_ms) = (&self.shared.settings, context.now_ms);
        let connection = &mut *context.connection;
        connection.handle_answer(settings, now_ms, answer, context.out);
        Fate::CarriedOut
    }
}
