//! A request that waits for its topic's position.

use super::exchange::RequestState;
use super::{Admission, CloseReason, Connection, Hold, Phase, Settings};
use crate::dialect::Dialect;
use crate::dialect::sse::event as sse;
use crate::hub::Position;

/// The header that says after which publication the subscription begins.
pub const POSITION_HEADER: &str = "Umbel-Position";

/// The header that says whether what came after the given position follows.
pub const RECOVERED_HEADER: &str = "Umbel-Recovered";

/// The event that says in a stream that what came after the given position does not follow.
const GAP_EVENT: &str = "gap";

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
    pub fn joining_dialect(&self) -> Option<Dialect> {
        let Phase::Http(exchange) = &self.phase else {
            return None;
        };
        match &exchange.state {
            RequestState::Joining(admission) => Some(match **admission {
                Admission::Upgrade(_) => Dialect::Raw,
                Admission::Stream(_) => Dialect::Sse,
            }),
            _ => None,
        }
    }

    /// Answers the request with the topic's position. `recovered` says whether the publications since the one that was
    /// given follow; None where none was given. True: `out` has the head of the answer, and the connection is a
    /// subscriber from here on. False: it is gone, or going.
    pub fn handle_joined(
        &mut self,
        settings: &Settings,
        now_ms: u64,
        position: Position,
        recovered: Option<bool>,
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
        let position = position.to_string();
        let recovered_text = recovered.map(|recovered| if recovered { "true" } else { "false" });
        let headers = [
            Some((POSITION_HEADER, &*position)),
            recovered_text.map(|text| (RECOVERED_HEADER, text)),
        ];
        let headers = headers.into_iter().flatten();
        match *admission {
            Admission::Upgrade(upgrade) => {
                let headers: Vec<_> = headers.collect();
                self.open(settings, now_ms, &upgrade, &headers, out);
            }
            Admission::Stream(extra) => {
                let mut headers: Vec<_> = headers.collect();
                headers.extend(extra.iter().map(|(name, value)| (*name, value.as_str())));
                self.open_stream(settings, now_ms, &headers, out);
                if recovered == Some(false) {
                    let data = r#"{"recovered":false}"#;
                    sse::encode_event(out, Some(&position), Some(GAP_EVENT), data);
                }
            }
        }
        true
    }
}
