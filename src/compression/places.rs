//! Places of connections in the cohorts of their topics.

use crate::dialect::Place;

/// Places of connections in their topics' cohorts, by slab index. It reaches as far as the last one that a cohort has
/// looked at, so that a server without cohorts has no memory in it.
#[derive(Debug, Default)]
pub struct Places {
    places: Vec<Place>,
}

impl Places {
    /// The place of the connection at an index.
    #[cfg(feature = "deflate")]
    pub fn get_mut(&mut self, index: u32) -> &mut Place {
        let index = index as usize;
        if index >= self.places.len() {
            self.places.resize_with(index + 1, Place::default);
        }
        &mut self.places[index]
    }

    /// Another connection may come to the index: it is in no cohort.
    pub fn forget(&mut self, index: u32) {
        if let Some(place) = self.places.get_mut(index as usize) {
            *place = Place::default();
        }
    }

    /// No connection stands at this index or behind it.
    pub fn truncate(&mut self, end: usize) {
        if self.places.len() > end {
            self.places.truncate(end);
            self.places.shrink_to_fit();
        }
    }
}

#[cfg(all(test, feature = "deflate"))]
mod tests {
    use super::*;

    #[test]
    fn a_place_lasts_as_long_as_its_connection() {
        let mut places = Places::default();
        places.forget(7);
        assert_eq!(places.places.capacity(), 0);
        let taken = Place(5);
        *places.get_mut(7) = taken;
        assert_eq!(*places.get_mut(3), Place::default());
        assert_eq!(*places.get_mut(7), taken);
        places.forget(7);
        assert_eq!(*places.get_mut(7), Place::default());
        *places.get_mut(7) = taken;
        places.truncate(8);
        assert_eq!(*places.get_mut(7), taken);
        places.truncate(7);
        assert_eq!(*places.get_mut(7), Place::default());
    }
}
