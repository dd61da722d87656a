//! Threads for work that blocks: started on demand, a bounded number, with a bounded queue.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Time without work after which a thread ends.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// Work. It must end by itself: nobody interrupts it.
pub type Job = Box<dyn FnOnce() + Send>;

/// A pool of threads. At its end what waits is dropped, and what runs is left to itself.
pub struct Threads {
    inside: Arc<Inside>,
}

struct Inside {
    name: &'static str,
    threads_max: usize,
    jobs_max: usize,
    state: Mutex<State>,
    has_work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    has_ended: bool,
}

impl Threads {
    /// A pool without threads yet. At most `threads_max` run, and `jobs_max` wait.
    pub fn new(name: &'static str, threads_max: usize, jobs_max: usize) -> Threads {
        Threads {
            inside: Arc::new(Inside {
                name,
                threads_max: threads_max.max(1),
                jobs_max,
                state: Mutex::default(),
                has_work: Condvar::new(),
            }),
        }
    }

    /// Hands over a job.
    ///
    /// # Errors
    /// Gives it back when as many wait as may, or no thread can be started.
    pub fn submit(&self, job: Job) -> Result<(), Job> {
        let mut state = self.inside.lock();
        if state.has_ended || state.jobs.len() >= self.inside.jobs_max {
            return Err(job);
        }
        let wants_thread = state.idle <= state.jobs.len();
        if wants_thread && state.threads < self.inside.threads_max {
            match self.start() {
                Ok(()) => state.threads += 1,
                // Those that there are will come to it.
                Err(_) if state.threads > 0 => {}
                Err(error) => {
                    log::error!("a thread {} cannot be started: {error}", self.inside.name);
                    return Err(job);
                }
            }
        }
        state.jobs.push_back(job);
        drop(state);
        self.inside.has_work.notify_one();
        Ok(())
    }

    fn start(&self) -> std::io::Result<()> {
        let inside = Arc::clone(&self.inside);
        thread::Builder::new()
            .name(inside.name.to_owned())
            .spawn(move || inside.work())
            .map(|_| ())
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.inside.lock().jobs.len()
    }

    /// Threads that there are.
    pub fn threads(&self) -> usize {
        self.inside.lock().threads
    }
}

impl Inside {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A panic is the job's own end, told by the panic hook. What it had to answer is answered by its drop.
                let _ = panic::catch_unwind(AssertUnwindSafe(job));
                state = self.lock();
                continue;
            }
            if state.has_ended {
                break;
            }
            state.idle += 1;
            let waited = self.has_work.wait_timeout(state, IDLE_FOR);
            let (back, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let jobs = {
            let mut state = self.inside.lock();
            state.has_ended = true;
            std::mem::take(&mut state.jobs)
        };
        self.inside.has_work.notify_all();
        // Outside of the lock, for a job that is dropped may have something to tell.
        drop(jobs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{bounded, unbounded};

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn threads_and_queue_are_bounded() {
        let threads = Threads::new("test", 2, 3);
        assert_eq!(threads.threads(), 0);
        let (release, gate) = bounded::<()>(0);
        let (done, finished) = unbounded();
        let job = || -> Job {
            let (gate, done) = (gate.clone(), done.clone());
            Box::new(move || {
                let _ = gate.recv();
                done.send(()).expect("somebody waits");
            })
        };
        for _ in 0..2 {
            threads.submit(job()).ok().expect("a thread");
        }
        while threads.waiting() > 0 {
            thread::yield_now();
        }
        for _ in 0..3 {
            threads.submit(job()).ok().expect("room");
        }
        assert!(threads.submit(job()).is_err());
        assert_eq!((threads.threads(), threads.waiting()), (2, 3));
        drop(release);
        for _ in 0..5 {
            finished.recv_timeout(LONG).expect("all are done");
        }
    }

    #[test]
    fn panic_ends_a_job_and_not_the_thread() {
        let threads = Threads::new("test", 1, 10);
        let (done, finished) = bounded(1);
        threads
            .submit(Box::new(|| panic!("of a test")))
            .ok()
            .expect("room");
        let after = Box::new(move || done.send(()).expect("somebody waits"));
        threads.submit(after).ok().expect("room");
        finished.recv_timeout(LONG).expect("it goes on");
        assert_eq!(threads.threads(), 1);
    }

    #[test]
    fn what_waits_at_the_end_is_dropped() {
        let threads = Threads::new("test", 1, 10);
        let (release, gate) = bounded::<()>(0);
        let (kept, dropped) = bounded::<()>(1);
        let begun = gate.clone();
        threads
            .submit(Box::new(move || {
                let _ = begun.recv();
            }))
            .ok()
            .expect("room");
        threads
            .submit(Box::new(move || kept.send(()).expect("not called")))
            .ok()
            .expect("room");
        drop(threads);
        assert!(dropped.recv_timeout(LONG).is_err(), "its end is gone");
        drop(release);
    }
}
