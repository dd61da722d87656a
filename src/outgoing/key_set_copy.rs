//! Copies of fetched key sets, for a start without the network.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::signature::jwk::KEY_SET_BYTES_MAX;

/// Bytes of a copy: the set, escaped at worst, and what stands around it.
const COPY_BYTES_MAX: u64 = 6 * KEY_SET_BYTES_MAX as u64 + 4096;

/// A fetched set, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct Copy {
    /// Address that it came from.
    pub url: String,
    /// Time of the last good fetch, in seconds of the Unix epoch.
    pub fetched_at: u64,
    /// Text of the set.
    pub keys: String,
}

/// Path of an issuer's copy. The name is plain, as the configuration has checked.
pub fn path_of(directory: &Path, issuer: &str) -> PathBuf {
    directory.join(format!("jwks-{issuer}.json"))
}

/// Reads a copy. None: there is none of this address.
pub fn read(path: &Path, url: &str) -> Option<Copy> {
    let metadata = fs::metadata(path).ok()?;
    if metadata.len() > COPY_BYTES_MAX {
        return None;
    }
    let copy: Copy = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (copy.url == url).then_some(copy)
}

/// Replaces a copy at once and whole.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, copy: &Copy) -> std::io::Result<()> {
    let beside = path.with_extension("json.new");
    let text = serde_json::to_vec(copy)?;
    let mut file = File::create(&beside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
