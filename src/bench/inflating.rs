//! Compressed messages of one connection: RFC 7692, section 7.2.2. Each is inflated as its frames arrive.

use std::fmt;

use umbel::internals::protocol::ProtocolError;
use umbel::internals::protocol::deflate::{Agreement, Inflater};

/// The longest message that is inflated.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// A connection's inflater, made for its first compressed message.
pub struct Inflating {
    inflater: Option<Inflater>,
    server_takeover: bool,
    message: Vec<u8>,
}

impl Inflating {
    /// For a connection that has agreed to this.
    pub fn new(agreement: Agreement) -> Inflating {
        Inflating {
            inflater: None,
            server_takeover: agreement.server_takeover,
            message: Vec::new(),
        }
    }

    /// Takes the payload of a message's next frame. The message, once it is whole.
    ///
    /// # Errors
    /// When it is wrong, or too long.
    pub fn feed(
        &mut self,
        is_first: bool,
        is_last: bool,
        payload: &[u8],
    ) -> Result<Option<&[u8]>, ProtocolError> {
        let takeover = self.server_takeover;
        let inflater = self.inflater.get_or_insert_with(|| Inflater::new(takeover));
        if is_first {
            self.message.clear();
            if !takeover {
                inflater.reset();
            }
        }
        inflater.feed(payload, MESSAGE_BYTES_MAX, &mut self.message)?;
        if !is_last {
            return Ok(None);
        }
        inflater.finish()?;
        Ok(Some(&self.message))
    }
}

impl fmt::Debug for Inflating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflating").finish_non_exhaustive()
    }
}
