//! Pieces of plaintext on their way into records.

use std::io::IoSlice;

/// Pieces of one record, at most.
const PIECES_MAX: usize = 64;

/// Pieces of which some are taken.
pub struct Pieces<'p> {
    pieces: &'p [IoSlice<'p>],
    /// The next piece, and how much of it is taken.
    at: usize,
    from: usize,
    left: usize,
}

/// The pieces of one record.
pub struct Taken<'p> {
    pieces: [&'p [u8]; PIECES_MAX],
    count: usize,
}

impl<'p> Taken<'p> {
    /// The pieces.
    pub fn as_slice(&self) -> &[&'p [u8]] {
        &self.pieces[..self.count]
    }
}

impl<'p> Pieces<'p> {
    /// All of these.
    pub fn new(pieces: &'p [IoSlice<'p>]) -> Pieces<'p> {
        Pieces {
            pieces,
            at: 0,
            from: 0,
            left: pieces.iter().map(|piece| piece.len()).sum(),
        }
    }

    /// Bytes that are not taken.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Takes the next ones, of so many bytes at most. Gives how many bytes they are, too.
    pub fn take(&mut self, mut most: usize) -> (Taken<'p>, usize) {
        let mut taken = Taken {
            pieces: [&[]; PIECES_MAX],
            count: 0,
        };
        let before = self.left;
        while most > 0 && taken.count < PIECES_MAX {
            let Some(piece) = self.pieces.get(self.at) else {
                break;
            };
            let rest = &piece[self.from..];
            let length = rest.len().min(most);
            if length == rest.len() {
                self.at += 1;
                self.from = 0;
            } else {
                self.from += length;
            }
            if length > 0 {
                taken.pieces[taken.count] = &rest[..length];
                taken.count += 1;
            }
            most -= length;
            self.left -= length;
        }
        (taken, before - self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_where_a_record_ends() {
        let all: Vec<Vec<u8>> = (0..100).map(|n| vec![n; usize::from(n % 7)]).collect();
        let slices: Vec<_> = all.iter().map(|bytes| IoSlice::new(bytes)).collect();
        for most in [1, 3, 50, 1000] {
            let mut pieces = Pieces::new(&slices);
            let mut bytes = Vec::new();
            while pieces.left() > 0 {
                let (taken, count) = pieces.take(most);
                let record = taken.as_slice().concat();
                assert!(record.len() == count && (1..=most).contains(&count));
                bytes.extend(record);
            }
            assert_eq!(bytes, all.concat());
            assert_eq!(pieces.take(most).1, 0);
        }
    }
}
