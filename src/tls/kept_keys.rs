//! Keys that are kept ready, for the busiest connections of a reactor.
//!
//! Making a key ready costs more than sealing a small record does, and a key that is ready takes some 630 bytes. So it is
//! made for the moment where little is sent, and kept for those that send much.

use super::record::{Fatal, Keys, MadeKey};

/// Records that a connection has sealed before its key is kept.
const KEPT_FROM: u64 = 16;

/// Keys that find no room before one that is kept is looked at. The lower, the sooner keys of equal use push each other out.
const MISSES_PER_LOOK: u32 = 8;

/// Place of a key. [`NO_PLACE`]: it has none.
pub type KeyPlace = u16;

/// Place of a key that is not kept.
pub const NO_PLACE: KeyPlace = KeyPlace::MAX;

struct Kept {
    /// None: it was let go.
    made: Option<MadeKey>,
    /// Since it was last looked at.
    is_used: bool,
}

/// The keys of one reactor.
pub struct KeptKeys {
    kept: Vec<Kept>,
    /// Places without a key.
    free: Vec<KeyPlace>,
    max: usize,
    misses: u32,
    /// The place to be looked at next.
    hand: usize,
    /// The key of whoever sealed last and has no place.
    last: Option<MadeKey>,
}

impl KeptKeys {
    /// Keeps so many at most.
    pub fn new(max: usize) -> KeptKeys {
        KeptKeys {
            kept: Vec::new(),
            free: Vec::new(),
            max: max.min(usize::from(NO_PLACE)),
            misses: 0,
            hand: 0,
            last: None,
        }
    }

    /// The key of these, ready. `place`: where it is kept, if it is.
    ///
    /// # Errors
    /// As of [`Keys::make`].
    pub fn get(&mut self, place: &mut KeyPlace, keys: &Keys) -> Result<&MadeKey, Fatal> {
        if !self.is_kept(*place, keys) {
            *place = NO_PLACE;
            if keys.sequence() >= KEPT_FROM
                && let Some(found) = self.room()
            {
                let made = Some(keys.make()?);
                let is_used = true;
                match self.kept.get_mut(usize::from(found)) {
                    Some(kept) => *kept = Kept { made, is_used },
                    None => self.kept.push(Kept { made, is_used }),
                }
                *place = found;
            }
        }
        if *place != NO_PLACE {
            let kept = &mut self.kept[usize::from(*place)];
            kept.is_used = true;
            return kept.made.as_ref().ok_or(Fatal::INTERNAL_ERROR);
        }
        if self.last.as_ref().is_none_or(|last| !last.is_of(keys)) {
            self.last = Some(keys.make()?);
        }
        self.last.as_ref().ok_or(Fatal::INTERNAL_ERROR)
    }

    fn is_kept(&self, place: KeyPlace, keys: &Keys) -> bool {
        let kept = self.kept.get(usize::from(place));
        let made = kept.and_then(|kept| kept.made.as_ref());
        made.is_some_and(|made| made.is_of(keys))
    }

    /// A place for another key, if there is one or somebody has not used his.
    fn room(&mut self) -> Option<KeyPlace> {
        if let Some(place) = self.free.pop() {
            return Some(place);
        }
        if self.kept.len() < self.max {
            return Some(self.kept.len() as KeyPlace);
        }
        self.misses += 1;
        if self.misses < MISSES_PER_LOOK || self.kept.is_empty() {
            return None;
        }
        self.misses = 0;
        self.hand = (self.hand + 1) % self.kept.len();
        let was_used = std::mem::take(&mut self.kept[self.hand].is_used);
        (!was_used).then_some(self.hand as KeyPlace)
    }

    /// These keys are not sealed by any more.
    pub fn forget(&mut self, place: &mut KeyPlace, keys: &Keys) {
        if self.is_kept(*place, keys) {
            self.kept[usize::from(*place)].made = None;
            self.free.push(*place);
        }
        *place = NO_PLACE;
        if self.last.as_ref().is_some_and(|last| last.is_of(keys)) {
            self.last = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::ConnectionTrafficSecrets;
    use rustls::crypto::cipher::{AeadKey, Iv};

    use super::*;
    use crate::tls::record::{Content, RecordVersion};

    fn keys(number: u8, sequence: u64) -> Keys {
        let secrets = ConnectionTrafficSecrets::Aes256Gcm {
            key: AeadKey::from([number; 32]),
            iv: Iv::copy(&[number; 12]),
        };
        Keys::new(RecordVersion::Tls13, (sequence, secrets)).expect("a cipher")
    }

    #[test]
    fn keys_of_the_busiest_are_kept_and_each_seals_by_its_own() {
        let mut kept = KeptKeys::new(8);
        let mut all: Vec<_> = (0..20).map(|n| (keys(n, 20), NO_PLACE)).collect();
        let mut idle = (keys(99, 0), NO_PLACE);
        let mut out = Vec::new();
        for round in 0..40 {
            for (keys, place) in &mut all {
                let made = kept.get(place, keys).expect("a key");
                let sealed = keys.seal(made, Content::Data, &[b"x"], &mut out);
                sealed.expect("its own key");
            }
            if round == 1 {
                let (keys, place) = &mut idle;
                assert!(kept.get(place, keys).expect("a key").is_of(keys));
                assert_eq!(*place, NO_PLACE);
            }
        }
        let count = all
            .iter()
            .filter(|(keys, place)| kept.is_kept(*place, keys));
        assert_eq!(count.count(), 8);
        // Whoever goes makes room.
        for (keys, place) in &mut all[..19] {
            kept.forget(place, keys);
        }
        let (keys, place) = &mut all[19];
        kept.get(place, keys).expect("a key");
        assert!(kept.is_kept(*place, keys));
        assert_eq!(
            KeptKeys::new(0).get(place, keys).map(|_| *place),
            Ok(NO_PLACE)
        );
    }
}
