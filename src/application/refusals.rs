//! Refusals that scripts of pages can read.
//!
//! A browser hides the status of a handshake from the script that asked for it: whatever it was, the script sees a
//! connection that came to nothing, and tries again for ever. So a refused handshake is completed where a dialect is
//! offered that has codes for refusals, and what was wrong stands in the Close that follows at once.

use super::Application;
use crate::connection::{Answer, Endpoint, RefusedHandshake, Upgrade};
use crate::http::refusal::Refusal;
use crate::http::request::Head;
use crate::protocol::{is_upgrade, parse_upgrade};

/// Request of a script, which sees no status. Browsers send their origin, Node's WebSocket only its mode.
pub fn is_of_script(head: &Head<'_>) -> bool {
    head.header_count("origin") > 0 || head.header("sec-fetch-mode") == Some("websocket")
}

impl Application {
    /// Refuses a request: by a status, or where that cannot be seen, by a Close.
    pub(super) fn refuse(&self, head: &Head<'_>, refusal: Refusal) -> Answer {
        match self.refuse_handshake(head, &refusal) {
            Some(refused) => Answer::RefuseHandshake(Box::new(refused)),
            None => Answer::Refuse(refusal),
        }
    }

    /// The completed handshake of a script. A page that may not connect learns nothing.
    fn refuse_handshake(&self, head: &Head<'_>, refusal: &Refusal) -> Option<RefusedHandshake> {
        if !is_upgrade(head) || !is_of_script(head) || self.check_origin(head).is_err() {
            return None;
        }
        let upgrade = parse_upgrade(head).ok()?;
        let dialects = &self.shared.settings.dialects;
        let (subprotocol, code) = dialects.refusal_code(upgrade.offers(), refusal.status)?;
        let upgrade = Upgrade {
            accept: upgrade.accept,
            subprotocol: Some(subprotocol.into()),
            endpoint: Endpoint::Topic { may_publish: false },
            deflate: None,
            greeting: None,
        };
        Some(RefusedHandshake {
            upgrade,
            code,
            refusal: refusal.clone(),
        })
    }
}
