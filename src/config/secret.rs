//! Secrets: tokens that never stand in a log.

use std::fmt;

use zeroize::Zeroizing;

/// Text that is shown as `set`. It is overwritten in memory when it is dropped.
///
/// ```
/// use umbel::config::Secret;
///
/// let secret = Secret::from("0123456789abcdef");
/// assert_eq!(format!("{secret} {secret:?}"), "set set");
/// assert_eq!(secret.expose(), "0123456789abcdef");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Box<str>>);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret(Zeroizing::new(text.into()))
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        // A box has no spare capacity, so a string that has some is copied, and wiped.
        Secret::from(Zeroizing::new(text).as_str())
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("set")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
