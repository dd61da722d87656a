//! Histories that go when memory is short.

use super::Histories;

impl Histories {
    /// Lets go of so many bytes, of the oldest by use.
    pub fn shed(&mut self, bytes: usize) {
        let less = self.bytes().saturating_sub(bytes);
        let bytes_max = std::mem::replace(&mut self.bytes_max, less);
        self.keep_bytes_max();
        self.bytes_max = bytes_max;
    }
}
