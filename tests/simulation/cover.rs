//! How often each path was taken, over all seeds.

use std::collections::BTreeMap;

#[derive(Default)]
pub struct Cover(BTreeMap<String, u64>);

impl Cover {
    pub fn add(&mut self, path: &str, times: u64) {
        match self.0.get_mut(path) {
            Some(count) => *count += times,
            None => {
                self.0.insert(path.to_owned(), times);
            }
        }
    }

    pub fn merge(&mut self, other: &Cover) {
        for (path, times) in &other.0 {
            self.add(path, *times);
        }
    }

    pub fn get(&self, path: &str) -> u64 {
        self.0.get(path).copied().unwrap_or(0)
    }

    pub fn print(&self) {
        for (path, times) in &self.0 {
            println!("{times:>9}  {path}");
        }
    }
}
