//! Printing until the end, with reconnects.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::super::client::TICK;
use super::super::ending::{Ending, Return};
use super::output::Output;
use super::source::{Item, Source};

/// The bound of the first wait before it connects again.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// The bound of the longest.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Doublings that an end counts as after which a client is to come later rather than sooner.
const LATER: u32 = 2;
/// How long a connection has to stand for the next failure to count as the first again.
const STEADY: Duration = Duration::from_secs(30);

/// One subscription, from its start to its end.
pub struct Feed<'a> {
    source: Box<dyn Source>,
    output: Output<'a>,
    stop: Arc<AtomicBool>,
    /// End with the connection.
    is_once: bool,
    is_verbose: bool,
    /// Failures in a row.
    failures: u32,
}

impl<'a> Feed<'a> {
    /// Of a source that is not connected yet. `stop`: set when it is to end.
    pub fn new(
        source: Box<dyn Source>,
        output: Output<'a>,
        stop: Arc<AtomicBool>,
        is_once: bool,
        is_verbose: bool,
    ) -> Feed<'a> {
        Feed {
            source,
            output,
            stop,
            is_once,
            is_verbose,
            failures: 0,
        }
    }

    /// Prints until the end.
    ///
    /// # Errors
    /// When the first connection cannot be made, or the last one ended otherwise than in order.
    pub fn run(mut self) -> Result<ExitCode, Box<dyn Error>> {
        self.source.open()?;
        let mut is_again = false;
        loop {
            let since = Instant::now();
            let ending = self.print(is_again);
            self.output.check()?;
            let Some(ending) = ending else {
                return Ok(ExitCode::SUCCESS);
            };
            if ending.is_normal() || self.output.is_done() {
                return Ok(ExitCode::SUCCESS);
            }
            if since.elapsed() > STEADY {
                self.failures = 0;
            }
            match ending.comes_back() {
                Return::Never => return Err(ending.into()),
                _ if self.is_once => return Err(ending.into()),
                comes_back => {
                    if !self.come_back(ending.to_string(), comes_back)? {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
            }
            is_again = true;
        }
    }

    /// Prints until the connection ends, and says how; None: it is enough, and the connection is closed.
    fn print(&mut self, is_again: bool) -> Option<Ending> {
        let ending = loop {
            if self.stop.load(Ordering::Relaxed) || self.output.is_done() {
                self.source.close();
                return None;
            }
            let (output, failures) = (&mut self.output, &mut self.failures);
            let (mut is_subscribed, is_verbose) = (false, self.is_verbose);
            let read = self.source.read(&mut |item| match item {
                Item::Subscribed => is_subscribed = true,
                Item::Publication(publication) => {
                    *failures = 0;
                    output.print(&publication);
                }
                Item::Gap(gap) => output.tell_gap(&gap),
            });
            self.output.flush();
            if is_subscribed && is_verbose {
                let again = if is_again { " again" } else { "" };
                let name = self.source.name();
                eprintln!("umbel: subscribed{again} to {name}; Ctrl-C ends");
            } else if is_subscribed && is_again {
                eprintln!("umbel: subscribed again");
            }
            if let Err(ending) = read {
                break ending;
            }
        };
        self.source.finish(&ending);
        Some(ending)
    }

    /// Connects again, after waits that grow. False: it was told to stop meanwhile.
    fn come_back(
        &mut self,
        mut reason: String,
        mut comes_back: Return,
    ) -> Result<bool, Box<dyn Error>> {
        loop {
            let seconds = match comes_back {
                Return::Never => return Err(reason.into()),
                Return::Soon(seconds) => seconds,
                Return::Later(seconds) => {
                    self.failures = self.failures.max(LATER);
                    seconds
                }
            };
            let wait_min = self.source.wait_min().max(Duration::from_secs(seconds));
            let wait = wait_min.min(WAIT_MAX * 2) + random_wait(self.failures)?;
            self.failures = self.failures.saturating_add(1);
            eprintln!(
                "umbel: {reason}; connecting again in {:.1} s",
                wait.as_secs_f64()
            );
            if !self.wait(wait) {
                return Ok(false);
            }
            match self.source.open() {
                Ok(()) => return Ok(true),
                Err(refusal) => {
                    reason = refusal.text;
                    comes_back = refusal.comes_back;
                }
            }
        }
    }

    /// False: it was told to stop meanwhile.
    fn wait(&self, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            thread::sleep(left.min(TICK));
        }
        true
    }
}

/// A time between 0 and a bound that doubles with each failure, so that clients which were cut off together do not come
/// back together.
fn random_wait(failures: u32) -> Result<Duration, getrandom::Error> {
    let bound = WAIT_FIRST
        .saturating_mul(1 << failures.min(10))
        .min(WAIT_MAX);
    let share = f64::from(getrandom::u32()?) / f64::from(u32::MAX);
    Ok(bound.mul_f64(share))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn random_wait_bounds() {
        for (failures, bound) in [(0, 1), (1, 2), (3, 8), (5, 30), (u32::MAX, 30)] {
            let waits: Vec<_> = (0..100).map(|_| random_wait(failures).unwrap()).collect();
            let bound = Duration::from_secs(bound);
            assert!(waits.iter().all(|wait| *wait <= bound), "{failures}");
            // That all of a hundred lie below a half happens once in 2^100.
            assert!(waits.iter().any(|wait| *wait > bound / 2), "{failures}");
            assert!(waits[1..].iter().any(|wait| *wait != waits[0]));
        }
    }
}
