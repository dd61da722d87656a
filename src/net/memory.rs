//! Memory of the machine, as its files tell.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use crate::config::Config;
use crate::memory::budget;
use crate::memory::group::Memory;
use crate::worker::shard_count;

/// Bytes of the files that are read, at most.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Reads a file of `/proc` or of a control group.
pub fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = fs::File::open(path).ok()?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Memory that there is for the process, in bytes: the machine's, or less by its control groups.
pub fn there_is() -> Option<u64> {
    Memory::find(&read).map(|memory| memory.bytes)
}

/// Sets what the limits of a configuration leave open, by the memory that there is.
pub fn fill(config: &mut Config) {
    let there_is = there_is();
    let reactors = config.reactor_count();
    let shards = shard_count(reactors, config.worker_count());
    budget::fill(&mut config.limits, there_is, (reactors, shards));
}
