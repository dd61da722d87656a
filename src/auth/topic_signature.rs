//! Signatures of topics, as peers show them by a command.

use std::fmt;

/// Signature that allows a subscription to its topic. It is that of a signed URL.
#[derive(Clone, PartialEq, Eq)]
pub struct TopicSignature {
    /// End of the right, in seconds of the Unix epoch.
    pub expires_at: u64,
    /// Subject that it is for. Empty: nobody in particular.
    pub subject: String,
    /// Name of the key.
    pub kid: String,
    /// The signature, in base64url.
    pub signature: String,
}

impl fmt::Debug for TopicSignature {
    /// Without the signature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicSignature")
            .field("expires_at", &self.expires_at)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}
