//! Connections of each subject, for their bound.

use std::collections::HashMap;

/// Numbers of connections by subject, of all reactors. Only those stand here that were counted: as many entries as there
/// are connections at most.
#[derive(Debug, Default)]
pub struct Shares {
    connections: HashMap<Box<str>, u32>,
}

impl Shares {
    /// Counts one more connection of a subject. False: it has as many as it may.
    pub fn enter(&mut self, subject: &str, connections_max: u32) -> bool {
        match self.connections.get_mut(subject) {
            Some(connections) if *connections >= connections_max => return false,
            Some(connections) => *connections += 1,
            None => {
                self.connections.insert(subject.into(), 1);
            }
        }
        true
    }

    /// Counts one connection less.
    pub fn leave(&mut self, subject: &str) {
        let Some(connections) = self.connections.get_mut(subject) else {
            return;
        };
        *connections -= 1;
        if *connections == 0 {
            self.connections.remove(subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_have_as_many_as_they_may() {
        let mut shares = Shares::default();
        assert!(shares.enter("a", 2) && shares.enter("a", 2) && !shares.enter("a", 2));
        assert!(shares.enter("b", 1));
        shares.leave("a");
        assert!(shares.enter("a", 2));
        for subject in ["a", "a", "b", "never there"] {
            shares.leave(subject);
        }
        assert!(shares.connections.is_empty());
    }
}
