//! A request that waits for its topic's position.

use super::exchange::{Exchange, RequestState};
use super::{Admission, CloseReason, Connection, Hold, Phase, Settings};
use crate::dialect::{Encoding, JoinedAt, StreamStart};
use crate::http::refusal::Refusal;

/// The header that says after which publication the subscription begins.
pub const POSITION_HEADER: &str = "Umbel-Position";

/// The header that says whether what came after the given position follows.
pub const RECOVERED_HEADER: &str = "Umbel-Recovered";

impl Exchange {
    /// Whether it would be a subscriber's from the answer on.
    pub(super) fn is_joining(&self) -> bool {
        matches!(self.state, RequestState::Joining(_))
    }
}

impl Connection {
    /// Keeps the answer until the hub has spoken. Until then nothing further is read.
    pub(super) fn begin_join(&mut self, settings: &Settings, now_ms: u64, admission: Admission) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        exchange.state = RequestState::Joining(Box::new(admission));
        self.phase_deadline_ms = now_ms + settings.limits.handshake_timeout_ms;
        self.hold(Hold::Answer);
    }

    /// Dialect of the publications, if it waits for [`handle_joined`](Connection::handle_joined).
    pub fn joining_encoding(&self) -> Option<Encoding> {
        let Phase::Http(exchange) = &self.phase else {
            return None;
        };
        match &exchange.state {
            RequestState::Joining(admission) => Some(match &**admission {
                Admission::Upgrade(_) => Encoding::PAYLOAD,
                Admission::Stream(stream) => stream.encoding,
            }),
            _ => None,
        }
    }

    /// Refuses the request instead, for the connection has to end. What it waits for would outlive that.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse_join(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        reason: CloseReason,
        out: &mut Vec<u8>,
    ) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        exchange.end_after_answer();
        let words = match reason.on_wire().1 {
            "" => "the connection was ended before it was answered; try again",
            words => words,
        };
        exchange.encode_refusal(&Refusal::unavailable(words), settings, out);
        self.holds &= !(Hold::Answer as u8);
        self.linger(settings, now_ms, reason);
    }

    /// Answers the request with the topic's position. True: `out` has the head of the answer, and the connection is a subscriber
    /// from here on. False: it is gone, or going.
    pub fn handle_joined(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        joined: JoinedAt,
        out: &mut Vec<u8>,
    ) -> bool {
        let Phase::Http(exchange) = &mut self.phase else {
            return false;
        };
        let RequestState::Joining(admission) = std::mem::take(&mut exchange.state) else {
            return false;
        };
        if self.eof {
            self.finish(CloseReason::PeerGone);
            return false;
        }
        self.holds &= !(Hold::Answer as u8);
        let position = joined.position.to_string();
        let recovered = joined
            .recovered
            .map(|recovered| if recovered { "true" } else { "false" });
        let headers = [
            Some((POSITION_HEADER, &*position)),
            recovered.map(|text| (RECOVERED_HEADER, text)),
        ];
        let headers = headers.into_iter().flatten();
        match *admission {
            Admission::Upgrade(upgrade) => {
                let headers: Vec<_> = headers.collect();
                self.open(settings, now_ms, &upgrade, &headers, out);
            }
            Admission::Stream(stream) => {
                let headers: Vec<_> = headers.collect();
                let start = StreamStart {
                    headers: &headers,
                    joined: Some(joined),
                };
                self.open_stream(settings, now_ms, stream.encoding, &start, out);
            }
        }
        true
    }
}
