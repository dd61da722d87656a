//! Keys that are kept ready, for the busiest connections of a reactor.
//!
//! Making a key ready costs more than sealing a small record does, and a key that is ready takes some 630 bytes. So it is
//! made for the moment where little is sent, and kept for those that send much. The keys of all reactors are counted together
//! and have one bound.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::record::{Fatal, Keys, MadeKey};
use crate::metrics::tls::TlsCounts;

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
    made: Option<(MadeKey, Counted)>,
    /// Since it was last looked at.
    is_used: bool,
}

/// Part of a key in the count of all reactors.
struct Counted(Arc<TlsCounts>);

impl Counted {
    /// Counts one more. None: there are as many as there may be.
    fn take(counts: &Arc<TlsCounts>, max: usize) -> Option<Counted> {
        let before = counts.kept_keys.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(counts));
        (before < max).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.kept_keys.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keys that may be kept.
#[derive(Clone, Copy, Debug)]
pub struct KeptKeysMax {
    /// Of one reactor.
    pub here: usize,
    /// Of all reactors.
    pub total: usize,
}

/// The keys of one reactor.
pub struct KeptKeys {
    kept: Vec<Kept>,
    /// Places without a key.
    free: Vec<KeyPlace>,
    max: KeptKeysMax,
    /// The count of all reactors.
    counts: Arc<TlsCounts>,
    misses: u32,
    /// The place to be looked at next.
    hand: usize,
    /// The key of whoever sealed last and has no place.
    last: Option<MadeKey>,
}

impl KeptKeys {
    /// Keeps so many at most.
    pub fn new(max: KeptKeysMax, counts: Arc<TlsCounts>) -> KeptKeys {
        KeptKeys {
            kept: Vec::new(),
            free: Vec::new(),
            max: KeptKeysMax {
                here: max.here.min(usize::from(NO_PLACE)),
                ..max
            },
            counts,
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
            let made = match self.last.take() {
                Some(last) if last.is_of(keys) => last,
                _ => keys.make()?,
            };
            let is_busy = keys.sequence() >= KEPT_FROM;
            let Some((found, counted)) = is_busy.then(|| self.room()).flatten() else {
                return Ok(self.last.insert(made));
            };
            let made = Some((made, counted));
            let is_used = true;
            match self.kept.get_mut(usize::from(found)) {
                Some(kept) => *kept = Kept { made, is_used },
                None => self.kept.push(Kept { made, is_used }),
            }
            *place = found;
        }
        let kept = &mut self.kept[usize::from(*place)];
        kept.is_used = true;
        let made = kept.made.as_ref().ok_or(Fatal::INTERNAL_ERROR);
        made.map(|(made, _)| made)
    }

    fn is_kept(&self, place: KeyPlace, keys: &Keys) -> bool {
        let kept = self.kept.get(usize::from(place));
        let made = kept.and_then(|kept| kept.made.as_ref());
        made.is_some_and(|(made, _)| made.is_of(keys))
    }

    /// A place for another key, if there is one or somebody has not used his.
    fn room(&mut self) -> Option<(KeyPlace, Counted)> {
        let has_place = !self.free.is_empty() || self.kept.len() < self.max.here;
        if has_place && let Some(counted) = Counted::take(&self.counts, self.max.total) {
            let place = self.free.pop().unwrap_or(self.kept.len() as KeyPlace);
            return Some((place, counted));
        }
        self.misses += 1;
        if self.misses < MISSES_PER_LOOK || self.kept.is_empty() {
            return None;
        }
        self.misses = 0;
        self.hand = (self.hand + 1) % self.kept.len();
        let kept = &mut self.kept[self.hand];
        if std::mem::take(&mut kept.is_used) {
            return None;
        }
        let (_, counted) = kept.made.take()?;
        Some((self.hand as KeyPlace, counted))
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

    fn kept(here: usize, total: usize, counts: &Arc<TlsCounts>) -> KeptKeys {
        KeptKeys::new(KeptKeysMax { here, total }, Arc::clone(counts))
    }

    #[test]
    fn keys_of_all_reactors_have_one_bound() {
        let counts = Arc::new(TlsCounts::default());
        let count = || counts.kept_keys.load(Ordering::Relaxed);
        let mut reactors = [kept(8, 5, &counts), kept(8, 5, &counts)];
        let mut all: Vec<_> = (0..12).map(|n| (keys(n, 20), NO_PLACE)).collect();
        for _ in 0..4 {
            for (number, (keys, place)) in all.iter_mut().enumerate() {
                let made = reactors[number % 2].get(place, keys);
                assert!(made.expect("a key").is_of(keys), "with a place or without");
                assert!(count() <= 5);
            }
        }
        assert_eq!(count(), 5);
        let [one, other] = &mut reactors;
        for (keys, place) in all.iter_mut().step_by(2) {
            one.forget(place, keys);
        }
        assert!((1..5).contains(&count()), "of the other reactor");
        // What one has let go of the other may keep.
        for (keys, place) in all.iter_mut().skip(1).step_by(2) {
            other.get(place, keys).expect("a key");
        }
        assert_eq!(count(), 5);
        drop(reactors);
        assert_eq!(count(), 0);
    }

    #[test]
    fn keys_of_the_busiest_are_kept_and_each_seals_by_its_own() {
        let counts = Arc::new(TlsCounts::default());
        let mut kept = self::kept(8, 100, &counts);
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
        let mut none = self::kept(0, 100, &counts);
        assert_eq!(none.get(place, keys).map(|_| *place), Ok(NO_PLACE));
    }
}
