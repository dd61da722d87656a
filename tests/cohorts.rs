//! Subscribers that share a deflate context each get every message byte for byte, whoever joins, leaves or stops reading
//! beside them.

#[path = "support/audience.rs"]
mod audience;
#[path = "support/node.rs"]
mod node;
#[path = "support/random.rs"]
mod random;
#[path = "support/recorder.rs"]
mod recorder;

use audience::{Audience, Outcome};
use random::Random;

/// Runs the script of a seed; a failure names it.
fn run(seed: u64) -> Outcome {
    let mut random = Random::new(seed);
    let len = 2 * random.below(300);
    let script = random.bytes(len);
    println!("seed {seed}");
    Audience::new(seed as u8).run(&script)
}

#[test]
fn every_message_in_every_cohort() {
    let mut sum = Outcome::default();
    for seed in 0..16 {
        let outcome = run(seed);
        sum.messages += outcome.messages;
        sum.compressed += outcome.compressed;
        sum.by_cohort += outcome.by_cohort;
        sum.slow += outcome.slow;
    }
    println!("{sum:?}");
    assert!(sum.compressed * 3 > sum.messages, "{sum:?}");
    assert!(sum.by_cohort as usize * 5 > sum.compressed, "{sum:?}");
    assert!(sum.slow > 0, "{sum:?}");
}
