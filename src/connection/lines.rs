//! Answers of JSON lines that go on: what is written into them is not the connection's to know.

use super::exchange::lines_of;
use super::{CloseReason, Connection, InputContext, NEVER_MS, Phase};
use crate::http::response::{encode_header, encode_status_line};

/// Last line of an answer that the server's end cuts short.
pub(super) const SHUTDOWN_LINE: &[u8] = b"{\"event\":\"ended\",\"reason\":\"shutdown\"}\n";

impl Connection {
    /// Begins an answer of lines, without a length or chunks. Whoever writes the lines ends it by
    /// [`close`](Connection::close).
    pub(super) fn begin_lines(&mut self, context: &mut InputContext<'_, '_>) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        let (date, own) = (
            context.settings.date.get(),
            std::mem::take(&mut exchange.headers),
        );
        let out = &mut *context.out;
        encode_status_line(out, 200);
        encode_header(out, "Content-Type", "application/x-ndjson");
        encode_header(out, "Cache-Control", "no-store");
        // nginx would otherwise gather lines before it passes them on.
        encode_header(out, "X-Accel-Buffering", "no");
        for (name, value) in lines_of(date.as_ref(), &own) {
            encode_header(out, name, value);
        }
        encode_header(out, "Connection", "close");
        out.extend_from_slice(b"\r\n");
        if exchange.head_only {
            return self.linger(context.settings, context.now_ms, CloseReason::HttpDone);
        }
        self.phase = Phase::Lines;
        self.phase_deadline_ms = NEVER_MS;
    }

    /// Whether its answer is one of lines that goes on.
    pub fn is_telling(&self) -> bool {
        matches!(self.phase, Phase::Lines)
    }
}
