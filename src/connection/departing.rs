//! Departure: a connection is told to go, and when to come back.

use super::{CloseReason, Connection, Phase, Settings};
use crate::dialect::StreamEnd;

impl Connection {
    /// Ends the connection as a drain does, in an orderly way. A subscriber is told when to come back: at a moment of its own
    /// within `spread_ms`. One for requests ends with the answer to its next one. False: it stays for now.
    pub fn depart(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        spread_ms: u64,
        out: &mut Vec<u8>,
    ) -> bool {
        let retry_ms = self.ping_offset.between(0..spread_ms);
        let reason = CloseReason::Shutdown;
        match &mut self.phase {
            Phase::Open { .. } => {
                let (code, own) = self.close_code(settings, reason);
                let words = match own == reason.on_wire().1 {
                    true => {
                        let (seconds, millis) = (retry_ms / 1000, retry_ms % 1000);
                        format!("the server is shutting down; retry={seconds}.{millis:03}")
                    }
                    false => own.to_owned(),
                };
                self.send_close(settings, now_ms, code, &words, reason, out);
                true
            }
            Phase::Stream(encoding) => {
                let end = StreamEnd {
                    retry_ms: retry_ms as u32,
                    refusal: None,
                    is_expired: false,
                };
                let dialect = settings.dialects.get(*encoding);
                dialect.encode_stream_end(out, &end);
                self.linger(settings, now_ms, reason);
                true
            }
            Phase::Lines => {
                self.close(settings, now_ms, reason, out);
                true
            }
            Phase::Http(_) => {
                self.end_requests();
                false
            }
            Phase::CloseSent(_) | Phase::Lingering { .. } | Phase::Closed(_) => false,
        }
    }

    /// One for requests ends with the answer to its next one.
    pub fn end_requests(&mut self) {
        if let Phase::Http(exchange) = &mut self.phase {
            exchange.end_after_answer();
        }
    }

    /// Whether it waits for the beginning of a request.
    pub fn is_idle(&self) -> bool {
        matches!(&self.phase, Phase::Http(exchange) if exchange.is_idle() && !self.has_unread())
    }
}
