//! Subscribers that share a deflate context each get every message byte for byte, whatever the script lets happen: a node
//! in memory, and peers that inflate in the context that they have kept.
//!
//! The first byte chooses the settings; the rest is the script.
#![no_main]

#[path = "../../support/audience.rs"]
mod audience;
#[path = "../../support/node.rs"]
mod node;
#[path = "../../support/recorder.rs"]
mod recorder;

use audience::Audience;
use libfuzzer_sys::fuzz_target;

/// Longer ones take their time, and show nothing more.
const SCRIPT_BYTES_MAX: usize = 600;

fuzz_target!(|bytes: &[u8]| {
    if let Some((&setting, script)) = bytes.split_first() {
        let script = &script[..script.len().min(SCRIPT_BYTES_MAX)];
        Audience::new(setting).run(script);
    }
});
