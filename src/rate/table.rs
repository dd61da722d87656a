//! Entries by key, such as buckets of addresses: bounded, and shared by all reactors.
//!
//! An entry is held as long as something of it is open, and idle otherwise. Beyond the bound on idle entries that goes which
//! was not touched for the longest time. The hash is SipHash with a key of the process, so nobody can choose keys that collide.

use std::collections::hash_map::{Entry as Place, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Touches that the order of idle entries may remember beyond two for each entry.
const ORDER_SLACK: usize = 64;

/// The table. Parts of it are locked apart; each bounds its own entries.
#[derive(Debug)]
pub struct Table<K, V> {
    parts: Box<[Mutex<Part<K, V>>]>,
    hash: RandomState,
}

#[derive(Debug)]
struct Part<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys in the order of their touches. Those whose stamp is another by now, or that are held, do not count.
    order: VecDeque<(K, u64)>,
    next_stamp: u64,
    held: usize,
    idle_max: usize,
}

#[derive(Debug, Default)]
struct Entry<V> {
    value: V,
    /// How much of it is open.
    holds: u32,
    stamp: u64,
}

impl<K: Hash + Eq + Clone, V: Default> Table<K, V> {
    /// An empty one of so many parts. `idle_max` bounds the idle entries of all together.
    pub fn new(parts: usize, idle_max: usize) -> Table<K, V> {
        let part = |_| {
            Mutex::new(Part {
                entries: HashMap::new(),
                order: VecDeque::new(),
                next_stamp: 0,
                held: 0,
                idle_max: idle_max / parts.max(1),
            })
        };
        Table {
            parts: (0..parts.max(1)).map(part).collect(),
            hash: RandomState::new(),
        }
    }

    /// Judges the entry of a key, which may be new. `judge` sees how much of it is open; if it says true, one more is.
    pub fn enter<R>(&self, key: &K, judge: impl FnOnce(&V, u32) -> (bool, R)) -> R {
        let mut part = self.part(key);
        let entry = match part.entries.entry(key.clone()) {
            Place::Occupied(place) => place.into_mut(),
            Place::Vacant(place) => place.insert(Entry::default()),
        };
        let (enters, outcome) = judge(&entry.value, entry.holds);
        let was_held = entry.holds > 0;
        entry.holds = entry.holds.saturating_add(u32::from(enters));
        if entry.holds > 0 {
            part.held += usize::from(!was_held);
        } else {
            part.touch(key);
        }
        part.evict();
        outcome
    }

    /// One less of a key is open.
    pub fn leave(&self, key: &K) {
        let mut part = self.part(key);
        let Some(entry) = part.entries.get_mut(key) else {
            return;
        };
        let was_held = entry.holds > 0;
        entry.holds = entry.holds.saturating_sub(1);
        if was_held && entry.holds == 0 {
            part.held -= 1;
            part.touch(key);
            part.evict();
        }
    }

    fn part(&self, key: &K) -> MutexGuard<'_, Part<K, V>> {
        let at = match self.parts.len() {
            1 => 0,
            parts => self.hash.hash_one(key) as usize % parts,
        };
        lock(&self.parts[at])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Hash + Eq + Clone, V> Part<K, V> {
    /// The entry of a key, which is idle, was touched now.
    fn touch(&mut self, key: &K) {
        self.next_stamp += 1;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.stamp = self.next_stamp;
            self.order.push_back((key.clone(), self.next_stamp));
        }
        if self.order.len() > 2 * self.entries.len() + ORDER_SLACK {
            let entries = &self.entries;
            self.order
                .retain(|(key, stamp)| is_idle_since(entries, key, *stamp));
        }
    }

    fn evict(&mut self) {
        while self.entries.len() - self.held > self.idle_max {
            let Some((key, stamp)) = self.order.pop_front() else {
                return;
            };
            if is_idle_since(&self.entries, &key, stamp) {
                self.entries.remove(&key);
            }
        }
    }
}

fn is_idle_since<K: Hash + Eq, V>(entries: &HashMap<K, Entry<V>>, key: &K, stamp: u64) -> bool {
    let entry = entries.get(key);
    entry.is_some_and(|entry| entry.holds == 0 && entry.stamp == stamp)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    const IDLE_MAX: usize = 4;

    /// The same in the plainest way: entries in the order of their touches.
    #[derive(Default)]
    struct Model(Vec<(u8, u32, u32)>);

    impl Model {
        fn enter(&mut self, key: u8, enters: bool) -> (u32, u32) {
            let at = self.0.iter().position(|(of, ..)| *of == key);
            let (_, visits, holds) = at.map_or((key, 0, 0), |at| self.0.remove(at));
            self.0.push((key, visits + 1, holds + u32::from(enters)));
            self.evict();
            (visits, holds)
        }

        fn leave(&mut self, key: u8) {
            let at = self
                .0
                .iter()
                .position(|(of, _, holds)| *of == key && *holds > 0);
            let Some(at) = at else { return };
            let (_, visits, holds) = self.0.remove(at);
            self.0.push((key, visits, holds - 1));
            self.evict();
        }

        fn evict(&mut self) {
            let idle = self.0.iter().filter(|(_, _, holds)| *holds == 0).count();
            if idle > IDLE_MAX {
                let oldest = self.0.iter().position(|(_, _, holds)| *holds == 0);
                self.0.remove(oldest.expect("there are idle ones"));
            }
        }
    }

    impl<K: Hash + Eq + Clone, V: Default> Table<K, V> {
        fn len(&self) -> usize {
            let parts = self.parts.iter();
            parts.map(|part| lock(part).entries.len()).sum()
        }
    }

    proptest! {
        #[test]
        fn as_the_model(steps in prop::collection::vec((0u8..12, 0u8..3), 0..100)) {
            let table: Table<u8, Cell<u32>> = Table::new(1, IDLE_MAX);
            let mut model = Model::default();
            for (key, step) in steps {
                if step == 2 {
                    table.leave(&key);
                    model.leave(key);
                } else {
                    let seen = table.enter(&key, |visits, holds| {
                        let before = visits.replace(visits.get() + 1);
                        (step == 1, (before, holds))
                    });
                    prop_assert_eq!(seen, model.enter(key, step == 1));
                }
                prop_assert_eq!(table.len(), model.0.len());
                let part = lock(&table.parts[0]);
                prop_assert!(part.order.len() <= 2 * part.entries.len() + ORDER_SLACK + 1);
                for (key, visits, holds) in &model.0 {
                    let entry = part.entries.get(key);
                    let entry = entry.map(|entry| (entry.value.get(), entry.holds));
                    prop_assert_eq!(entry, Some((*visits, *holds)));
                }
            }
        }
    }

    #[test]
    fn parts_bound_all_together() {
        let table: Table<u32, Cell<u32>> = Table::new(8, 64);
        for key in 0..10_000 {
            table.enter(&key, |_, _| (false, ()));
        }
        assert!(table.len() <= 64);
        for key in 0..1000 {
            table.enter(&key, |_, _| (true, ()));
        }
        assert!((1000..=1064).contains(&table.len()), "{}", table.len());
        (0..1000).for_each(|key| table.leave(&key));
        assert!((1..=64).contains(&table.len()));
    }
}
