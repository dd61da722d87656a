//! A reactor's mailbox: a bounded channel of effects, and one wake-up for a whole burst of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::hub::{Effect, ReactorId};
use crate::worker::Outlet;

/// Wakes a reactor out of its wait for events; false if it did not work.
pub type Wake = dyn Fn() -> bool + Send + Sync;

/// Tries of a wake that does not work, before it is left to the next one, or to the end of the reactor's wait.
const WAKE_TRIES: usize = 3;

/// The sending side's state, shared with the reactor.
pub struct Mailbox {
    reactor: ReactorId,
    sender: Sender<Effect>,
    bytes: AtomicUsize,
    bytes_max: usize,
    /// A wake is on its way, so further ones are not needed.
    woken: AtomicBool,
    /// The reactor has ended: nobody there waits for mail, and others must not wait because of it either.
    ended: AtomicBool,
    /// A shard was turned away and waits for [`Shards::resume`](crate::worker::Shards::resume).
    starved: AtomicBool,
    wake: Box<Wake>,
}

/// The receiving side.
pub struct Inbox {
    mailbox: Arc<Mailbox>,
    receiver: Receiver<Effect>,
}

/// Makes both sides.
pub fn mailbox(
    reactor: ReactorId,
    messages_max: usize,
    bytes_max: usize,
    wake: Box<Wake>,
) -> (Arc<Mailbox>, Inbox) {
    let (sender, receiver) = bounded(messages_max);
    let mailbox = Arc::new(Mailbox {
        reactor,
        sender,
        bytes: AtomicUsize::new(0),
        bytes_max,
        woken: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        starved: AtomicBool::new(false),
        wake,
    });
    (Arc::clone(&mailbox), Inbox { mailbox, receiver })
}

impl Mailbox {
    fn push(&self, effect: Effect) -> Result<(), Effect> {
        if self.ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        let bytes = effect.bytes();
        // One effect always fits, whatever its size.
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before + bytes > self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(effect);
        }
        match self.sender.try_send(effect) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(effect)) => {
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                Err(effect)
            }
            Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// Wakes the reactor, unless a wake is on its way.
    pub fn wake(&self) {
        if self.woken.swap(true, Ordering::SeqCst) {
            return;
        }
        if !(0..WAKE_TRIES).any(|_| (self.wake)()) {
            self.woken.store(false, Ordering::SeqCst);
        }
    }
}

impl Outlet for Arc<Mailbox> {
    fn offer(&self, effect: Effect, from: Option<ReactorId>) -> Result<(), Effect> {
        self.push(effect).or_else(|effect| {
            self.starved.store(true, Ordering::SeqCst);
            // Room may have been made before the flag was seen.
            self.push(effect)
        })?;
        // A reactor looks into its own mailbox before it waits.
        if from != Some(self.reactor) {
            Mailbox::wake(self);
        }
        Ok(())
    }

    fn wake(&self) {
        Mailbox::wake(self);
    }
}

impl Inbox {
    /// To be called before the effects are taken: from here on a new effect wakes again.
    pub fn begin(&self) {
        self.mailbox.woken.store(false, Ordering::SeqCst);
    }

    /// The next effect.
    pub fn take(&self) -> Option<Effect> {
        let effect = self.receiver.try_recv().ok()?;
        self.mailbox
            .bytes
            .fetch_sub(effect.bytes(), Ordering::Relaxed);
        Some(effect)
    }

    /// To be called after effects were taken: whether a shard was turned away and must be resumed.
    pub fn take_starved(&self) -> bool {
        self.mailbox.starved.swap(false, Ordering::SeqCst)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Effects that wait.
    pub fn len(&self) -> usize {
        self.receiver.len()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.mailbox.ended.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Kind, LocalTopic, Publication};

    fn deliver(bytes: usize) -> Effect {
        Effect::Deliver {
            reactor: ReactorId(0),
            local: LocalTopic {
                index: 0,
                generation: 0,
            },
            publication: Arc::new(Publication::new(Kind::Binary, &vec![0; bytes], 0)),
        }
    }

    fn counting(messages_max: usize, bytes_max: usize) -> (Arc<Mailbox>, Inbox, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&wakes);
        let wake = Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            true
        });
        let (mailbox, inbox) = mailbox(ReactorId(0), messages_max, bytes_max, wake);
        (mailbox, inbox, wakes)
    }

    #[test]
    fn a_burst_wakes_once() {
        let (mailbox, inbox, wakes) = counting(10, 1000);
        for _ in 0..5 {
            mailbox.offer(deliver(1), None).expect("room");
        }
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
        inbox.begin();
        while inbox.take().is_some() {}
        mailbox.offer(deliver(1), Some(ReactorId(0))).expect("room");
        assert_eq!(
            wakes.load(Ordering::SeqCst),
            1,
            "a reactor need not wake itself"
        );
        mailbox.offer(deliver(1), Some(ReactorId(1))).expect("room");
        assert_eq!(wakes.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn count_and_bytes_are_bounded() {
        let (mailbox, inbox, _) = counting(2, 1 << 20);
        mailbox.offer(deliver(1), None).expect("room");
        mailbox.offer(deliver(1), None).expect("room");
        assert!(mailbox.offer(deliver(1), None).is_err());
        assert!(inbox.take_starved());
        let (mailbox, inbox, _) = counting(10, 100);
        mailbox.offer(deliver(1000), None).expect("one always fits");
        assert!(mailbox.offer(deliver(1), None).is_err());
        inbox.take().expect("the first one");
        mailbox.offer(deliver(1), None).expect("room again");
    }

    #[test]
    fn mail_for_a_reactor_that_has_ended_is_dropped() {
        let (mailbox, inbox, _) = counting(1, 100);
        mailbox.offer(deliver(90), None).expect("room");
        drop(inbox);
        mailbox.offer(deliver(20), None).expect("nobody waits");
    }

    #[test]
    fn a_failed_wake_is_tried_again_by_the_next_effect() {
        let (mailbox, _inbox) = mailbox(ReactorId(0), 10, 100, Box::new(|| false));
        mailbox.offer(deliver(1), None).expect("room");
        assert!(!mailbox.woken.load(Ordering::SeqCst));
    }
}
