//! Topics by name and by place: a slab of what is known of each, and a hash index over it.

use slab::Slab;

use crate::hash_index::HashIndex;
use crate::shrink::Shrink;
use crate::topic::Topic;

/// A table of topics, each with a value. A topic keeps its place for as long as it is in the table.
#[derive(Debug)]
pub struct TopicTable<V> {
    index: HashIndex,
    entries: Slab<Entry<V>>,
    shrink: Shrink,
    /// No topic stands at this place or behind it.
    places_end: u32,
}

#[derive(Debug)]
struct Entry<V> {
    topic: Topic,
    value: V,
}

impl<V> Default for TopicTable<V> {
    fn default() -> TopicTable<V> {
        TopicTable {
            index: HashIndex::default(),
            entries: Slab::new(),
            shrink: Shrink::default(),
            places_end: 0,
        }
    }
}

impl<V> TopicTable<V> {
    /// Topics in the table.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The place of a topic.
    pub fn find(&self, topic: &Topic) -> Option<u32> {
        let hash = self.index.hash(topic);
        self.index
            .find(hash, |place| self.entries[place as usize].topic == *topic)
    }

    /// The place that the next topic will have.
    pub fn vacant_place(&self) -> u32 {
        self.entries.vacant_key() as u32
    }

    /// Adds a topic, which must not be in the table; gives its place.
    pub fn insert(&mut self, topic: Topic, value: V) -> u32 {
        debug_assert!(self.find(&topic).is_none(), "a topic has one place");
        let hash = self.index.hash(&topic);
        let place = self.entries.insert(Entry { topic, value }) as u32;
        self.index.insert(hash, place);
        self.places_end = self.places_end.max(place + 1);
        place
    }

    /// The topic at a place.
    pub fn topic(&self, place: u32) -> Option<&Topic> {
        self.entries.get(place as usize).map(|entry| &entry.topic)
    }

    /// First place without a topic at it or behind it.
    pub fn places_end(&self) -> u32 {
        self.places_end
    }

    /// The topic at a place, and its value.
    pub fn get(&self, place: u32) -> Option<(&Topic, &V)> {
        let entry = self.entries.get(place as usize)?;
        Some((&entry.topic, &entry.value))
    }

    /// The value at a place.
    pub fn get_mut(&mut self, place: u32) -> Option<&mut V> {
        self.entries
            .get_mut(place as usize)
            .map(|entry| &mut entry.value)
    }

    /// Takes the topic at a place out of the table.
    pub fn remove(&mut self, place: u32) -> Option<(Topic, V)> {
        let Entry { topic, value } = self.entries.try_remove(place as usize)?;
        let hash = self.index.hash(&topic);
        self.index.remove(hash, place);
        if self.entries.is_empty() {
            self.places_end = 0;
        }
        self.shrink.shrink(&mut self.entries);
        Some((topic, value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn topic(number: u16) -> Topic {
        Topic::from_text(&format!("topic/{number}")).expect("a valid topic")
    }

    proptest! {
        #[test]
        fn it_does_as_a_map_does(steps in proptest::collection::vec((any::<bool>(), 0..300u16), 0..3000)) {
            let mut table = TopicTable::default();
            let mut map = HashMap::new();
            for (adds, number) in steps {
                let name = topic(number);
                let found = table.find(&name);
                prop_assert_eq!(found, map.get(&name).copied());
                match found {
                    None if adds => {
                        let place = table.vacant_place();
                        prop_assert_eq!(table.insert(name.clone(), number), place);
                        map.insert(name, place);
                    }
                    Some(place) if !adds => {
                        prop_assert_eq!(table.remove(place), Some((name.clone(), number)));
                        map.remove(&name);
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(table.len(), map.len());
            let places = (0..table.places_end()).filter(|&place| table.get(place).is_some());
            prop_assert_eq!(places.count(), map.len());
            for (name, place) in &map {
                prop_assert_eq!(table.find(name), Some(*place));
                prop_assert_eq!(table.topic(*place), Some(name));
            }
        }
    }

    #[test]
    fn the_slab_gives_memory_back() {
        let mut table = TopicTable::default();
        let places: Vec<u32> = (0..20_000)
            .map(|number| table.insert(topic(number), ()))
            .collect();
        for place in places.into_iter().rev() {
            table.remove(place);
        }
        assert!(table.is_empty());
        assert_eq!(table.places_end(), 0);
        assert!(table.entries.capacity() <= 1024);
    }
}
