//! Places of secrets.

use crate::config::Secret;

/// Place of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretPlace<'a> {
    /// The file of the settings itself.
    Here(&'a str),
    /// A file of its own.
    File(&'a str),
    /// A credential of the service, as systemd hands it over.
    Credential(&'a str),
    /// A variable of the environment.
    Variable(&'a str),
}

/// Most bytes of a secret.
pub const SECRET_BYTES_MAX: usize = 64 << 10;

/// Finds secrets.
pub trait SecretSource {
    /// The secret, and what is not well about where it is.
    ///
    /// # Errors
    /// Why there is none there.
    fn resolve(&self, place: &SecretPlace<'_>) -> Result<(Secret, Option<String>), String>;

    /// Text of a file that holds no secret, such as a public key.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read_file(&self, path: &str) -> Result<String, String>;

    /// Path of a file, from where this process runs.
    fn path_of(&self, path: &str) -> String;
}

/// The secret that a text is: one line end behind it goes.
///
/// # Errors
/// It is empty, or too long.
pub fn secret_of(text: &str) -> Result<Secret, String> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text.len() {
        0 => Err("the secret is empty".to_owned()),
        bytes if bytes > SECRET_BYTES_MAX => {
            Err(format!("the secret has over {SECRET_BYTES_MAX} bytes"))
        }
        _ => Ok(text.into()),
    }
}
