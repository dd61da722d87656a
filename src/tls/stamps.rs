//! Stamps of files: by another one, a file was changed or replaced.

use std::fs::{self, Metadata};
use std::path::PathBuf;
use std::time::SystemTime;

/// Inode, size and time of change, behind all links. None: it cannot be asked for.
type Stamp = Option<(u64, u64, Option<SystemTime>)>;

/// Stamps of some files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamps(Vec<Stamp>);

impl Stamps {
    /// Those of these files now.
    pub fn of<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Stamps {
        let stamp = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((inode(&metadata), metadata.len(), metadata.modified().ok()))
        };
        Stamps(paths.map(stamp).collect())
    }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    metadata.ino()
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}
