//! Release of memory by slabs that most entries have left.
//!
//! A try looks at all slots, so there is one each time that half of the entries have gone, and not one for each entry.

use slab::Slab;

/// Slots that are kept however few are in use. There are hundreds of slabs in a process of 64 reactors.
const SLOTS_KEPT: usize = 64;

/// Looks after one slab.
#[derive(Debug)]
pub struct Shrink {
    /// Entries at the last try.
    tried_at: usize,
}

impl Default for Shrink {
    fn default() -> Shrink {
        Shrink {
            tried_at: usize::MAX,
        }
    }
}

impl Shrink {
    /// To be called after entries have left.
    pub fn shrink<T>(&mut self, slab: &mut Slab<T>) {
        let (len, capacity) = (slab.len(), slab.capacity());
        if capacity <= SLOTS_KEPT || len >= capacity / 4 {
            self.tried_at = usize::MAX;
        } else if len <= self.tried_at / 2 {
            slab.shrink_to_fit();
            self.tried_at = len;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_back_with_the_entries_and_tries_are_few() {
        let mut slab: Slab<[u64; 8]> = (0..100_000).map(|key| (key, [0; 8])).collect();
        let mut shrink = Shrink::default();
        let (mut tries, mut capacity) = (0, slab.capacity());
        for key in (0..100_000).rev() {
            slab.remove(key);
            shrink.shrink(&mut slab);
            tries += usize::from(slab.capacity() != capacity);
            capacity = slab.capacity();
        }
        assert!(capacity <= SLOTS_KEPT, "{capacity}");
        assert!(tries <= 10, "{tries}");
        // An entry in the last slot keeps the memory, and then nothing is tried again and again.
        let mut slab: Slab<[u64; 8]> = (0..100_000).map(|key| (key, [0; 8])).collect();
        let mut shrink = Shrink::default();
        for key in 0..99_999 {
            slab.remove(key);
            shrink.shrink(&mut slab);
        }
        assert_eq!(shrink.tried_at, 1);
    }
}
