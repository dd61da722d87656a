//! Requests with an idempotency key: carried out once, and answered alike.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::error::ApiError;
use super::{CallContext, json};
use crate::auth::identity::Source;
use crate::connection::Reply;
use crate::http::refusal::Refusal;
use crate::http::request::Head;
use crate::hub::idempotency::GivenKey;
use crate::route::parameters::{FIRST_SENT, idempotency_key};
use crate::shared::control::ControlState;
use crate::shared::replays::{Begun, ReplayKey};

/// Header that holds a key.
pub(super) const HEADER: &str = "Idempotency-Key";

/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// A request that is under way, for its answer. One that is dropped is forgotten.
pub(super) struct Once {
    control: Arc<ControlState>,
    /// None once it is answered.
    key: Option<ReplayKey>,
}

impl Once {
    /// Remembers the answer, unless it says that it may be another later.
    pub fn finish(mut self, reply: &Reply) {
        if reply.status < 500
            && let Some(key) = self.key.take()
        {
            self.control
                .replays()
                .finish(&key, reply.status, &reply.body);
        }
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.control.replays().forget(&key);
        }
    }
}

/// Checks the header of a key, which has to be text to be looked at later.
pub(super) fn check_key(head: &Head<'_>) -> Result<(), ApiError> {
    let keys = head
        .all()
        .filter(|(name, _)| name.eq_ignore_ascii_case(HEADER));
    let mut count = 0;
    for (_, value) in keys {
        count += 1;
        let is_visible = value.iter().all(u8::is_ascii_graphic);
        if !is_visible || !(1..=KEY_BYTES_MAX).contains(&value.len()) || count > 1 {
            let reason = "Idempotency-Key stands once, and has 1 to 255 visible ASCII characters";
            return Err(ApiError::invalid_field(HEADER, reason));
        }
    }
    Ok(())
}

/// Key of a publish, whose header [`check_key`] has checked. `now_us`: when the request came.
pub(super) fn publish_key(head: &Head<'_>, now_us: u64) -> Result<Option<Box<GivenKey>>, ApiError> {
    idempotency_key(head, now_us)
        .map_err(|refusal| ApiError::invalid_field(FIRST_SENT, refusal.reason))
}

/// Begins a request with a key. Gives the answer instead, if there is one already.
pub(super) fn begin(
    call: &CallContext<'_>,
    operation: u16,
    key: &str,
    body: &[u8],
) -> Result<Result<Once, Reply>, ApiError> {
    let key = ReplayKey {
        owner: owner(call).into(),
        operation,
        key: key.into(),
    };
    let control = &call.shared.control;
    let digest: [u8; 32] = Sha256::digest(body).into();
    let begun = control.replays().begin(&key, digest, call.now_us);
    match begun {
        Begun::New => Ok(Ok(Once {
            control: Arc::clone(control),
            key: Some(key),
        })),
        Begun::Replay(status, body) => {
            let mut reply = json(status, body.trim_ascii_end().to_vec());
            let header = ("Idempotency-Replayed", "true".to_owned());
            reply.headers.push(header);
            Ok(Err(reply))
        }
        Begun::Running => Err(ApiError::from(Refusal::conflict(
            "the same request is still under way",
        ))
        .retry_after_second()),
        Begun::Other => {
            let reason = "the idempotency key was used for another body";
            Err(Refusal::unprocessable(reason).into())
        }
        Begun::Full => Err(ApiError::unavailable(
            "as many requests with an idempotency key are under way as may be",
        )),
    }
}

/// Owner of a key: the subject, else the name of the token, else the address.
fn owner(call: &CallContext<'_>) -> String {
    let identity = call.caller.identity();
    let name = identity.map(|identity| (identity.subject(), identity.source()));
    match (name, call.peer) {
        (Some((Some(subject), _)), _) => format!("subject {subject}"),
        (Some((None, Source::Token(name))), _) => format!("token {name}"),
        (_, Some(peer)) => format!("address {peer}"),
        (_, None) => "local".to_owned(),
    }
}
