//! Many sends for one system call, by io_uring(7).
//!
//! A fan-out is one `send(2)` for each subscriber, and entering the kernel is a good part of what a small one costs.
//! Here a batch of them is handed over at once. None of them waits: each is tried while the batch is handed over, as
//! `send` with `MSG_DONTWAIT` would be, and has ended when [`Ring::send`] returns. So mio stays the event loop, and
//! all that is different is the price.
//!
//! Where the kernel does not have it, or a container forbids it, [`Ring::open`] says so, and sends are made one by one.

use std::io;

pub use imp::Ring;

/// Sends in one call.
pub const SENDS_MAX: usize = 64;

/// What `send(2)` would have returned. `None`: it was not tried.
pub type Outcome = Option<io::Result<usize>>;

#[cfg(all(target_os = "linux", feature = "io-uring"))]
#[allow(unsafe_code, reason = "the kernel is given addresses of bytes")]
mod imp {
    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};

    use io_uring::{IoUring, opcode, types};

    use super::{Outcome, SENDS_MAX};

    /// Calls in a row that may fail before the ring is given up.
    const FAILURES_MAX: u32 = 100;

    /// One ring, for the thread that opened it.
    pub struct Ring {
        /// None once it was given up.
        ring: Option<Box<IoUring>>,
    }

    impl Ring {
        /// Opens one. It may be used by the calling thread only, to which its completions are bound.
        ///
        /// # Errors
        /// As of `io_uring_setup(2)`, among them `ENOSYS` and `EPERM` where it is switched off.
        pub fn open() -> io::Result<Ring> {
            // All of a batch is tried, whatever becomes of its first send; completions cost no interrupt of the thread.
            let ring = IoUring::builder()
                .setup_submit_all()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .dontfork()
                .build(SENDS_MAX as u32)?;
            Ok(Ring {
                ring: Some(Box::new(ring)),
            })
        }

        /// Tries each send once, without waiting, and fills `outcomes` in the same order. `None` stands for a send that
        /// was not tried, because the ring does not work any more. At most [`SENDS_MAX`] sends, and no more than there
        /// are outcomes; no socket twice, for a later send would be tried though only a part of the earlier was taken.
        pub fn send<'a>(
            &mut self,
            sends: impl Iterator<Item = (BorrowedFd<'a>, &'a [u8])>,
            outcomes: &mut [Outcome],
        ) {
            outcomes.iter_mut().for_each(|outcome| *outcome = None);
            // It is put back once nothing of this batch is left in it, so not when an iterator panics.
            let Some(mut ring) = self.ring.take() else {
                return;
            };
            let mut pushed = 0;
            {
                let mut queue = ring.submission();
                let sends = sends.take(outcomes.len().min(SENDS_MAX));
                for (index, (descriptor, bytes)) in sends.enumerate() {
                    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    let descriptor = types::Fd(descriptor.as_raw_fd());
                    let entry = opcode::Send::new(descriptor, bytes.as_ptr(), len)
                        .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                        .build()
                        .user_data(index as u64);
                    // SAFETY: the bytes and the descriptor are borrowed until this function returns, and it returns
                    // when every entry that the kernel has taken is completed. Entries that it has not taken are
                    // never handed over later, for the ring is given up with them.
                    let outcome = unsafe { queue.push(&entry) };
                    debug_assert!(outcome.is_ok(), "it was empty, and has room for all");
                    pushed += usize::from(outcome.is_ok());
                }
            }
            match complete(&mut ring, pushed, outcomes) {
                Ok(()) => self.ring = Some(ring),
                Err(error) => {
                    log::warn!("io_uring failed, sends are made one by one from now on: {error}");
                }
            }
        }

        /// Whether it was given up.
        pub fn is_broken(&self) -> bool {
            self.ring.is_none()
        }
    }

    /// Hands the queue over and takes the completions, until there is one for each entry.
    fn complete(ring: &mut IoUring, pushed: usize, outcomes: &mut [Outcome]) -> io::Result<()> {
        let (mut taken, mut failures) = (0, 0);
        loop {
            let outcome = ring.submit_and_wait(pushed - taken);
            for completion in ring.completion() {
                taken += 1;
                let result = completion.result();
                outcomes[completion.user_data() as usize] = Some(match usize::try_from(result) {
                    Ok(count) => Ok(count),
                    Err(_) => Err(io::Error::from_raw_os_error(-result)),
                });
            }
            let left = ring.submission().len();
            if taken == pushed {
                return Ok(());
            }
            let Err(error) = outcome else { continue };
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            failures += 1;
            // What the kernel has taken must have ended before the bytes may go.
            if failures >= FAILURES_MAX && taken + left == pushed {
                return Err(error);
            }
        }
    }
}

#[cfg(not(all(target_os = "linux", feature = "io-uring")))]
mod imp {
    use std::io;

    use super::Outcome;

    /// There is none on this system, or in this build.
    pub enum Ring {}

    impl Ring {
        /// Always fails.
        ///
        /// # Errors
        /// `Unsupported`.
        pub fn open() -> io::Result<Ring> {
            Err(io::ErrorKind::Unsupported.into())
        }

        /// There is no ring to send by.
        pub fn send<'a, D>(
            &mut self,
            _sends: impl Iterator<Item = (D, &'a [u8])>,
            _outcomes: &mut [Outcome],
        ) {
            match *self {}
        }

        /// Whether it was given up.
        pub fn is_broken(&self) -> bool {
            match *self {}
        }
    }
}

#[cfg(all(test, target_os = "linux", feature = "io-uring"))]
mod tests {
    use std::io::{self, Read, Write};
    use std::os::fd::{AsFd, BorrowedFd};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        near.set_nonblocking(true).expect("non-blocking");
        far.set_nonblocking(true).expect("non-blocking");
        (near, far)
    }

    /// None in a container that forbids it; the server says so when it starts.
    fn open() -> Option<Ring> {
        Ring::open().ok()
    }

    fn send(ring: &mut Ring, sends: &[(BorrowedFd<'_>, &[u8])]) -> Vec<io::Result<usize>> {
        let mut outcomes: Vec<_> = sends.iter().map(|_| None).collect();
        ring.send(sends.iter().copied(), &mut outcomes);
        outcomes
            .into_iter()
            .map(|outcome| outcome.expect("it was tried"))
            .collect()
    }

    /// The same bytes to the same kinds of sockets: what io_uring says of each must be what `send` says.
    #[test]
    fn outcomes_are_those_of_single_sends() {
        let Some(mut ring) = open() else { return };
        let large = vec![7; 4 << 20];
        let sockets = || {
            let full = pair();
            while (&full.0).write(&large).is_ok() {}
            let gone = pair().0;
            [pair(), full, (gone, pair().1), pair(), pair()]
        };
        let bytes: [&[u8]; 5] = [b"hello", b"x", b"y", b"", &large];
        let (single, batched) = (sockets(), sockets());
        let expected: Vec<_> = single
            .iter()
            .zip(bytes)
            .map(|((near, _), bytes)| (&*near).write(bytes))
            .collect();
        let sends: Vec<_> = batched
            .iter()
            .zip(bytes)
            .map(|((near, _), bytes)| (near.as_fd(), bytes))
            .collect();
        for _ in 0..2 {
            let outcomes = send(&mut ring, &sends);
            let plain = |outcome: &io::Result<usize>| match outcome {
                Ok(count) => Ok(*count),
                Err(error) => Err(error.raw_os_error()),
            };
            assert_eq!(
                outcomes.iter().take(4).map(plain).collect::<Vec<_>>(),
                expected.iter().take(4).map(plain).collect::<Vec<_>>()
            );
        }
        let mut received = Vec::new();
        let end = (&batched[0].1).read_to_end(&mut received);
        assert_eq!(end.expect_err("open").kind(), io::ErrorKind::WouldBlock);
        assert_eq!(received, b"hellohello");
        received.clear();
        let _ = (&batched[4].1).read_to_end(&mut received);
        let sent = expected[4].as_ref().expect("a part of it");
        assert!(*sent < large.len(), "a socket buffer is smaller than that");
        assert_eq!(received.len(), *sent, "as much as a single send, once");
    }

    #[test]
    fn a_full_batch_is_sent() {
        let Some(mut ring) = open() else { return };
        let pairs: Vec<_> = (0..SENDS_MAX).map(|_| pair()).collect();
        for round in 0..10u8 {
            let bytes = [round];
            let sends: Vec<_> = pairs
                .iter()
                .map(|(near, _)| (near.as_fd(), &bytes[..]))
                .collect();
            let outcomes = send(&mut ring, &sends);
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(1))));
        }
        for (_, mut far) in pairs {
            let mut received = [0; 11];
            assert_eq!(far.read(&mut received).expect("bytes"), 10);
            assert_eq!(received[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        }
    }
}
