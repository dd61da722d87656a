//! The line on a terminal that says how far a run is.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the line changes.
const INTERVAL: Duration = Duration::from_millis(200);

/// The line, on standard error, until it is dropped. There is none if that is not a terminal.
pub struct ProgressLine {
    is_shown: bool,
    next: Instant,
}

impl ProgressLine {
    /// Nothing yet.
    pub fn new() -> ProgressLine {
        ProgressLine {
            is_shown: io::stderr().is_terminal(),
            next: Instant::now(),
        }
    }

    /// Writes the line anew, if it is time to.
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.is_shown && now >= self.next {
            self.next = now + INTERVAL;
            self.write(&text());
        }
    }

    fn write(&self, text: &str) {
        // A terminal that is gone is no reason to stop measuring.
        let _ = write!(io::stderr(), "\r\x1b[2K{text}");
        let _ = io::stderr().flush();
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.is_shown {
            self.write("");
        }
    }
}
