//! Random numbers that look good enough to the eye.

/// A generator (xorshift).
pub struct Chance(u64);

impl Chance {
    /// One that differs from run to run.
    pub fn new() -> Chance {
        Chance(getrandom::u64().unwrap_or(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`, which is above 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let end = end as u64;
        // Below a `usize`.
        (self.0 % end) as usize
    }

    /// A number from -1 to 1.
    pub fn swing(&mut self) -> f64 {
        const STEPS: usize = 20_000;
        let step = self.below(STEPS + 1) as f64;
        step / (STEPS as f64 / 2.0) - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_their_range() {
        let mut chance = Chance::new();
        for _ in 0..1000 {
            assert!(chance.below(3) < 3);
            assert!(chance.swing().abs() <= 1.0);
        }
    }
}
