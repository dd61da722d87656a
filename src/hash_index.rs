//! A hash index from keys to places in a slab. It grows in parts.
//!
//! It is cut into [`PARTS`] by the hash, and each part grows by itself. So of a million keys no step moves more than
//! some thousand places, where a map in one piece would stop its thread for a third of a second. A part is a row of
//! cells with open addressing and linear probing: a cell is a place and 32 bits of the hash, so neither a look at a wrong
//! cell nor the growth of a part touches a key.
//!
//! The hash is keyed differently for each index, so nobody outside can choose keys that collide.

use std::hash::{BuildHasher, Hash, RandomState};

/// Parts of the index.
const PARTS: usize = 256;

/// Cells of the smallest part that is not empty.
const CELLS_MIN: usize = 8;

/// From a key's hash to the places of those that have it. The keys are its owner's.
#[derive(Debug)]
pub struct HashIndex {
    hasher: RandomState,
    parts: Box<[Part]>,
}

/// One part. Cells stand as near behind the home of their hash as there is room, and no vacant one lies between.
#[derive(Clone, Debug, Default)]
struct Part {
    cells: Box<[Cell]>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    hash: u32,
    place: u32,
}

const VACANT: Cell = Cell {
    hash: 0,
    place: u32::MAX,
};

impl Cell {
    fn is_vacant(self) -> bool {
        self.place == VACANT.place
    }
}

impl Default for HashIndex {
    fn default() -> HashIndex {
        HashIndex {
            hasher: RandomState::new(),
            parts: vec![Part::default(); PARTS].into(),
        }
    }
}

impl HashIndex {
    /// The hash of a key, which is another in each index.
    pub fn hash(&self, key: impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Place of the key with this hash for which `is_it` holds.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let part = &self.parts[part_of(hash)];
        let mut at = part.home(hash as u32);
        while let Some(&cell) = part.cells.get(at) {
            if cell.is_vacant() {
                return None;
            }
            if cell.hash == hash as u32 && is_it(cell.place) {
                return Some(cell.place);
            }
            at = part.behind(at);
        }
        None
    }

    /// Adds a place, which must not be in the index.
    pub fn insert(&mut self, hash: u64, place: u32) {
        let part = &mut self.parts[part_of(hash)];
        // At most four fifths are in use: probes stay short, and there always is a vacant cell to end one.
        if (part.len + 1) * 5 > part.cells.len() * 4 {
            part.resize((part.cells.len() * 3 / 2).max(CELLS_MIN));
        }
        part.place(Cell {
            hash: hash as u32,
            place,
        });
        part.len += 1;
    }

    /// Takes out a place that is in the index under this hash.
    pub fn remove(&mut self, hash: u64, place: u32) {
        let part = &mut self.parts[part_of(hash)];
        let found = part.probe(hash as u32).find(|&at| {
            let cell = part.cells[at];
            cell.place == place || cell.is_vacant()
        });
        let Some(at) = found.filter(|&at| part.cells[at].place == place) else {
            return debug_assert!(false, "a place in the slab is in the index");
        };
        part.vacate(at);
        part.len -= 1;
        if part.cells.len() > CELLS_MIN && part.len < part.cells.len() / 4 {
            part.resize((part.len * 2).max(CELLS_MIN));
        }
    }
}

/// The part of a hash, by bits that do not decide where in the part it stands.
fn part_of(hash: u64) -> usize {
    (hash >> 32) as usize % PARTS
}

impl Part {
    /// Where a hash stands if there is room.
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.cells.len() as u64) >> 32) as usize
    }

    /// The next cell, around the end.
    fn behind(&self, at: usize) -> usize {
        if at + 1 == self.cells.len() {
            0
        } else {
            at + 1
        }
    }

    /// The cells from a hash's home on, around the end.
    fn probe(&self, hash: u32) -> impl Iterator<Item = usize> + use<> {
        let (home, len) = (self.home(hash), self.cells.len());
        (home..len).chain(0..home)
    }

    fn place(&mut self, cell: Cell) {
        let vacant = self
            .probe(cell.hash)
            .find(|&at| self.cells[at].is_vacant())
            .expect("a part has a vacant cell");
        self.cells[vacant] = cell;
    }

    fn resize(&mut self, cells: usize) {
        let old = std::mem::replace(&mut self.cells, vec![VACANT; cells].into());
        for cell in old.iter().filter(|cell| !cell.is_vacant()) {
            self.place(*cell);
        }
    }

    /// Empties a cell, and closes the gap between those behind it and their homes.
    fn vacate(&mut self, at: usize) {
        let len = self.cells.len();
        let distance = |from: usize, to: usize| (to + len - from) % len;
        let mut gap = at;
        let mut next = self.behind(gap);
        while !self.cells[next].is_vacant() {
            let home = self.home(self.cells[next].hash);
            if distance(home, next) >= distance(gap, next) {
                self.cells[gap] = self.cells[next];
                gap = next;
            }
            next = self.behind(next);
        }
        self.cells[gap] = VACANT;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_part_finds_what_collides(hashes in proptest::collection::vec(0..4u32, 1..60), removed in 0..60usize) {
            let mut index = HashIndex::default();
            // All in one part, and nearly all at one home, the last one: probes go around the end.
            let hash = |number: u32| u64::from(u32::MAX - number);
            for (place, number) in hashes.iter().enumerate() {
                index.insert(hash(*number), place as u32);
            }
            for (place, number) in hashes.iter().enumerate().take(removed) {
                index.remove(hash(*number), place as u32);
            }
            for (place, number) in hashes.iter().enumerate() {
                let found = index.find(hash(*number), |other| other == place as u32);
                prop_assert_eq!(found, (place >= removed).then_some(place as u32));
            }
        }
    }

    #[test]
    fn no_step_moves_much_and_memory_comes_back() {
        let mut index = HashIndex::default();
        let hash = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let count = 200_000;
        (0..count).for_each(|number| index.insert(hash(number), number as u32));
        let longest = index.parts.iter().map(|part| part.cells.len()).max();
        assert!(longest < Some(2 * count as usize / PARTS), "{longest:?}");
        (0..count).for_each(|number| index.remove(hash(number), number as u32));
        let left: usize = index.parts.iter().map(|part| part.cells.len()).sum();
        assert!(left <= CELLS_MIN * PARTS, "{left} cells");
    }
}
