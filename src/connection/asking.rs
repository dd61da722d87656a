//! Requests that wait for a decision of somebody else's.
//!
//! The head, or the whole body, is kept, and dealt with again then.

use std::mem;

use super::exchange::{Exchange, RequestState};
use super::{Connection, InputContext, Phase};

impl Exchange {
    /// What the peer is told if the hub does not speak in time.
    pub(super) fn no_answer_in_time(&self) -> &'static str {
        match self.state {
            RequestState::Gathering(_) => {
                "not every reactor counted its subscribers in time; try again"
            }
            RequestState::Reading(_) | RequestState::Joining(_) => {
                "the hub did not answer in time; try again"
            }
            RequestState::Calling => "not every reactor answered in time; try again",
            RequestState::Asking(_) => "it was not decided in time; try again",
            _ => "the hub did not answer in time; whether it was published is not known",
        }
    }

    /// A whole request, or its whole body, waits for a decision.
    pub(super) fn has_asked(&self) -> bool {
        match &self.state {
            RequestState::Asking(_) => true,
            RequestState::Body(body) => body.decoder.is_done(),
            _ => false,
        }
    }
}

impl Connection {
    /// Whether it has a request that is to be dealt with again once it is decided about.
    pub(super) fn has_asked(&self) -> bool {
        matches!(&self.phase, Phase::Http(exchange) if exchange.has_asked())
    }

    /// Deals again with the request that somebody else has decided about. `is_last`: nothing came behind it.
    pub(super) fn handle_asked(&mut self, context: &mut InputContext<'_, '_>, is_last: bool) {
        let Phase::Http(exchange) = &mut self.phase else {
            return;
        };
        match mem::take(&mut exchange.state) {
            RequestState::Asking(head) => self.handle_request_again(context, &head, is_last),
            state @ RequestState::Body(_) => {
                exchange.state = state;
                self.handle_body(context, &mut (&mut [] as &mut [u8]));
            }
            state => exchange.state = state,
        }
    }
}
