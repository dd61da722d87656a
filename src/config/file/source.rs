//! Reads files, credentials and variables: the one part of this room that asks the system.

use std::env;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::secrets::{SECRET_BYTES_MAX, SecretPlace, SecretSource, secret_of};
use crate::config::Secret;

/// Most bytes of a configuration file.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Reads a configuration file.
///
/// # Errors
/// What keeps it from being read, in words.
pub fn read_file(path: &Path) -> Result<Zeroizing<String>, String> {
    let bytes = read(path, FILE_BYTES_MAX).map_err(|error| in_words(&error))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!("it has over {FILE_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        format!("it is not UTF-8, in line {line}")
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn read(path: &Path, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?
        .take(bytes_max as u64 + 3)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "the server's user may not read it".to_owned(),
        ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// Secrets of the process's own system. Files are named from the directory of the configuration.
#[derive(Debug)]
pub struct SystemSecrets {
    directory: PathBuf,
}

impl SystemSecrets {
    /// Those that this configuration file may name.
    pub fn of(file: &Path) -> SystemSecrets {
        let directory = file.parent().unwrap_or(Path::new(""));
        SystemSecrets {
            directory: directory.to_owned(),
        }
    }
}

impl SecretSource for SystemSecrets {
    fn resolve(&self, place: &SecretPlace<'_>) -> Result<(Secret, Option<String>), String> {
        match *place {
            SecretPlace::Here(text) => Ok((secret_of(text)?, None)),
            SecretPlace::File("") => Err("file: it must be a path, in quotes".to_owned()),
            SecretPlace::File(path) => read_secret(&self.directory.join(path)),
            SecretPlace::Credential(name) => {
                if name.is_empty() || name.contains('/') || name == ".." {
                    return Err(
                        "credential: it must be a name without slashes, in quotes".to_owned()
                    );
                }
                let directory = env::var_os("CREDENTIALS_DIRECTORY").ok_or(
                    "there are no credentials, for CREDENTIALS_DIRECTORY is not set: systemd sets it for a unit with \
                     LoadCredential=",
                )?;
                let (secret, _) = read_secret(&Path::new(&directory).join(name))?;
                Ok((secret, None))
            }
            SecretPlace::Variable("") => {
                Err("env: it must be the name of a variable, in quotes".to_owned())
            }
            SecretPlace::Variable(name) => {
                let text = env::var(name).map_err(|_| format!("the variable {name} is not set"))?;
                let text = Zeroizing::new(text);
                Ok((secret_of(&text)?, None))
            }
        }
    }

    fn read_file(&self, path: &str) -> Result<String, String> {
        match path {
            "" => Err("it must be a path, in quotes".to_owned()),
            path => read_public(&self.directory.join(path)),
        }
    }

    fn path_of(&self, path: &str) -> String {
        self.directory.join(path).display().to_string()
    }
}

fn read_public(path: &Path) -> Result<String, String> {
    let name = path.display();
    let text = read_file(path).map_err(|problem| format!("{name}: {problem}"))?;
    Ok(text.to_string())
}

fn read_secret(path: &Path) -> Result<(Secret, Option<String>), String> {
    let name = path.display();
    let explain = |error: io::Error| format!("{name}: {}", in_words(&error));
    let metadata = fs::metadata(path).map_err(explain)?;
    if !metadata.is_file() {
        return Err(format!("{name}: it is no file"));
    }
    let bytes = read(path, SECRET_BYTES_MAX).map_err(explain)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{name}: it is not UTF-8"))?;
    let secret = secret_of(text).map_err(|problem| format!("{name}: {problem}"))?;
    let warning = is_readable_by_others(&metadata)
        .then(|| format!("others may read {name}: chmod o-r {name}"));
    Ok((secret, warning))
}

#[cfg(unix)]
fn is_readable_by_others(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o004 != 0
}

#[cfg(not(unix))]
fn is_readable_by_others(_: &fs::Metadata) -> bool {
    false
}
