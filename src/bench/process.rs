//! CPU time and memory of processes and threads, as Linux tells them: proc(5).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::stamp::TICK_NS;

/// The unit of times in `/proc/PID/stat`, USER_HZ: 100 a second on every architecture that Rust's std supports.
const CLOCK_TICK_US: u64 = 10_000;

/// CPU time of some processes up to a moment.
#[derive(Clone, Debug, Default)]
pub struct CpuSample {
    /// User and system time of all of them, those of threads that have ended too, in steps of 10 ms.
    total_us: u64,
    /// The same of each thread that runs, exactly where the system says so.
    threads_us: BTreeMap<u32, u64>,
}

/// CPU time between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUse {
    /// All processes together.
    pub total_us: u64,
    /// The thread that used most.
    pub busiest_thread_us: u64,
}

impl CpuSample {
    /// CPU time that these processes have used so far.
    ///
    /// # Errors
    /// When one of them does not run, or this is not Linux.
    pub fn take(pids: &[u32]) -> io::Result<CpuSample> {
        let mut sample = CpuSample::default();
        for pid in pids {
            sample.total_us += cpu_us(&fs::read_to_string(format!("/proc/{pid}/stat"))?)?;
            for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
                let entry = entry?;
                let thread = entry.file_name().to_string_lossy().parse().ok();
                // A thread may end while we look.
                let us = exact_cpu_us(&entry.path()).or_else(|| {
                    let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
                    cpu_us(&stat).ok()
                });
                if let (Some(thread), Some(us)) = (thread, us) {
                    sample.threads_us.insert(thread, us);
                }
            }
        }
        Ok(sample)
    }

    /// CPU time between an earlier sample and this one.
    pub fn since(&self, earlier: &CpuSample) -> CpuUse {
        let threads = self.threads_us.iter().map(|(thread, us)| {
            us.saturating_sub(earlier.threads_us.get(thread).copied().unwrap_or(0))
        });
        let mut before = earlier.threads_us.keys();
        // What a thread has used is gone from its exact figure with the thread.
        let total_us = match before.all(|thread| self.threads_us.contains_key(thread)) {
            true => threads.clone().sum(),
            false => self.total_us.saturating_sub(earlier.total_us),
        };
        CpuUse {
            total_us,
            busiest_thread_us: threads.max().unwrap_or(0),
        }
    }
}

/// Fields 14 and 15 of a `stat` file, utime and stime. The second field, the name, may hold blanks and parentheses.
fn cpu_us(stat: &str) -> io::Result<u64> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "stat is malformed");
    let (_, rest) = stat.rsplit_once(')').ok_or_else(malformed)?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks().zip(ticks()).ok_or_else(malformed)?;
    Ok((ticks.0 + ticks.1) * CLOCK_TICK_US)
}

/// Resident bytes (VmRSS) of these processes together.
///
/// # Errors
/// When one of them does not run, or this is not Linux.
pub fn resident_bytes(pids: &[u32]) -> io::Result<u64> {
    let mut bytes = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        let kib = kib.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no VmRSS"))?;
        bytes += kib * 1024;
    }
    Ok(bytes)
}

/// CPU time of the thread that a folder of `/proc` tells of, as the scheduler counts it; `stat` has it in steps of 10 ms.
/// None where the system does not count it.
fn exact_cpu_us(thread: &Path) -> Option<u64> {
    let text = fs::read_to_string(thread.join("schedstat")).ok()?;
    let ns = text.split(' ').next()?.parse::<u64>().ok()?;
    (ns > 0).then_some(ns / 1000)
}

/// CPU time that the calling thread has used so far. 0 where the system does not say.
pub fn thread_cpu_us() -> u64 {
    exact_cpu_us(Path::new("/proc/thread-self")).unwrap_or_else(|| {
        let stat = fs::read_to_string("/proc/thread-self/stat");
        stat.and_then(|stat| cpu_us(&stat)).unwrap_or(0)
    })
}

/// Busy share of a thread in the measured part. 0 of 0 if it did not see its beginning and its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Busy {
    pub cpu_us: u64,
    pub passed_us: u64,
}

impl Busy {
    /// From 0 to 1.
    pub fn share(self) -> f64 {
        self.cpu_us as f64 / self.passed_us.max(1) as f64
    }
}

/// Meter of the calling thread's busy share in the measured part.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    /// CPU time and time, in microseconds.
    first: Option<(u64, u64)>,
    last: Option<(u64, u64)>,
}

impl Meter {
    /// Reads the CPU time at both ends of the measured part.
    #[inline]
    pub fn observe(&mut self, now_ticks: u64, start_ticks: u64, end_ticks: u64) {
        if self.first.is_none() && now_ticks >= start_ticks {
            self.first = Some(Meter::sample(now_ticks));
        }
        if self.last.is_none() && now_ticks >= end_ticks {
            self.last = Some(Meter::sample(now_ticks));
        }
    }

    fn sample(now_ticks: u64) -> (u64, u64) {
        (thread_cpu_us(), now_ticks * TICK_NS / 1000)
    }

    /// The busy share that it measured.
    pub fn busy(&self) -> Busy {
        match (self.first, self.last) {
            (Some(first), Some(last)) => Busy {
                cpu_us: last.0.saturating_sub(first.0),
                passed_us: last.1 - first.1,
            },
            _ => Busy::default(),
        }
    }
}

/// Lets the calling thread sleep as exactly as the system can; by default Linux adds up to 50 us.
pub fn sleep_exactly() {
    if let Ok(link) = fs::read_link("/proc/thread-self")
        && let Some(thread) = link.file_name()
    {
        // Without it, sends are a little later, which the report shows.
        let _ = fs::write(format!("/proc/{}/timerslack_ns", thread.display()), "1");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20";
        assert_eq!(cpu_us(stat).unwrap(), 420_000);
        cpu_us("7 (a) S 1 2").unwrap_err();
        cpu_us("").unwrap_err();
    }

    #[test]
    fn use_is_what_came_in_between() {
        let sample = |total_us, threads: &[(u32, u64)]| CpuSample {
            total_us,
            threads_us: threads.iter().copied().collect(),
        };
        let earlier = sample(20, &[(1, 25), (2, 9)]);
        for (later, total_us) in [
            // Thread 2 has ended, and only the processes' own figure knows what it used last.
            (sample(90, &[(1, 50), (3, 30)]), 70),
            (sample(90, &[(1, 50), (2, 11), (3, 30)]), 57),
        ] {
            let expected = CpuUse {
                total_us,
                busiest_thread_us: 30,
            };
            assert_eq!(later.since(&earlier), expected);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_some() {
        let pids = [std::process::id()];
        assert!(resident_bytes(&pids).unwrap() > 1 << 16);
        assert!(!CpuSample::take(&pids).unwrap().threads_us.is_empty());
        assert!(thread_cpu_us() > 0);
        sleep_exactly();
    }
}
