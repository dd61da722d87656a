//! A reactor's mailbox: a bounded channel of effects, and one wake-up for a whole burst of them.

use std::sync::Arc;

use crate::hub::{Effect, ReactorId, Share};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Receiver, Sender, Wake, bounded};
use crate::worker::Outlet;

/// Tries of a wake that does not work, before it is left to the next one, or to the end of the reactor's wait.
const WAKE_TRIES: usize = 3;

/// The sending side's state, shared with the reactor.
pub struct Mailbox {
    reactor: ReactorId,
    sender: Sender<Effect>,
    receiver: Receiver<Effect>,
    /// Counted in an order with `starved`: who made room sees the flag of him who found none.
    bytes: AtomicUsize,
    bytes_max: usize,
    // Flags are swapped, never stored: who takes one sees what all of those did who found it set or set it.
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
        receiver,
        bytes: AtomicUsize::new(0),
        bytes_max,
        woken: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        starved: AtomicBool::new(false),
        wake,
    });
    (Arc::clone(&mailbox), Inbox { mailbox })
}

impl Mailbox {
    fn push(&self, effect: Effect) -> Result<(), Effect> {
        if self.ended.load(Ordering::SeqCst) {
            forget(&effect);
            return Ok(());
        }
        let bytes = effect.bytes();
        // One effect always fits, whatever its size.
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        if before > 0 && before + bytes > self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::AcqRel);
            return Err(effect);
        }
        if let Err(error) = self.sender.try_send(effect) {
            self.bytes.fetch_sub(bytes, Ordering::AcqRel);
            return Err(error.into_inner());
        }
        // If the reactor ended meanwhile it may not have seen this one any more.
        if self.ended.load(Ordering::SeqCst) {
            self.forget_all();
        }
        Ok(())
    }

    /// Empties the mailbox of a reactor that has ended.
    fn forget_all(&self) {
        while let Ok(effect) = self.receiver.try_recv() {
            forget(&effect);
        }
    }

    /// Wakes the reactor, unless a wake is on its way.
    pub fn wake(&self) {
        if self.woken.swap(true, Ordering::SeqCst) {
            return;
        }
        if !(0..WAKE_TRIES).any(|_| (self.wake)()) {
            self.woken.swap(false, Ordering::SeqCst);
        }
    }
}

impl Outlet for Arc<Mailbox> {
    fn offer(&self, effect: Effect, from: Option<ReactorId>) -> Result<(), Effect> {
        self.push(effect).or_else(|effect| {
            self.starved.swap(true, Ordering::SeqCst);
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
        self.mailbox.woken.swap(false, Ordering::SeqCst);
    }

    /// The next effect.
    pub fn take(&self) -> Option<Effect> {
        let effect = self.mailbox.receiver.try_recv().ok()?;
        self.mailbox
            .bytes
            .fetch_sub(effect.bytes(), Ordering::AcqRel);
        Some(effect)
    }

    /// To be called after effects were taken: whether a shard was turned away and must be resumed.
    pub fn take_starved(&self) -> bool {
        self.mailbox.starved.swap(false, Ordering::SeqCst)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.mailbox.receiver.is_empty()
    }

    /// Effects that wait.
    pub fn len(&self) -> usize {
        self.mailbox.receiver.len()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // Whoever finds the mailbox full from here on, and so might wait for it, sees this too.
        self.mailbox.ended.swap(true, Ordering::SeqCst);
        self.mailbox.forget_all();
    }
}

/// What an effect that nobody takes any more owes to others: a publication in it reaches nobody, and its receipt would be
/// waited for in vain.
fn forget(effect: &Effect) {
    if let Effect::Deliver { publication, .. } = effect {
        publication.add_share(&Share::default());
    }
}

#[cfg(all(test, loom))]
mod interleavings;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::hub::{
        Command, Kind, LocalTopic, Origin, Publication, Receipt, Report, ShardSettings,
    };
    use crate::topic::Topic;
    use crate::worker::{QueueLimits, Shards};

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

    /// A hub of one shard and two reactors with subscribers of a topic, whose mailboxes take so many messages.
    fn hub(messages_max: usize) -> (Shards, [Inbox; 2], crossbeam_channel::Receiver<usize>) {
        let two = [ReactorId(0), ReactorId(1)];
        let both = two.map(|it| mailbox(it, messages_max, 1 << 20, Box::new(|| true)));
        let outlets = both
            .iter()
            .map(|(mailbox, _)| Box::new(Arc::clone(mailbox)) as Box<dyn Outlet>);
        let limits = QueueLimits {
            commands_max: 100,
            bytes_max: 1 << 20,
        };
        let settings = ShardSettings::default();
        let (shards, work) = Shards::new(&[1], outlets.collect(), limits, &settings, true);
        for reactor in two {
            let local = LocalTopic {
                index: 0,
                generation: 0,
            };
            let command = Command::Subscribe {
                topic: topic(),
                reactor,
                local,
            };
            shards.submit(command, None).expect("room");
        }
        (shards, both.map(|(_, inbox)| inbox), work)
    }

    fn topic() -> Topic {
        Topic::from_text("t").expect("a topic")
    }

    /// Publishes, and gives where the report comes.
    fn publish_with_receipt(shards: &Shards) -> Receiver<Report> {
        let (sender, reports) = bounded(10);
        let done = move |report| sender.try_send(report).expect("it comes once");
        let receipt = Arc::new(Receipt::new(Box::new(done)));
        let publication = Publication::new(Kind::Text, b"x", 0).with_receipt(receipt);
        let command = Command::Publish {
            topic: topic(),
            publication: Arc::new(publication),
            origin: Origin::Detached,
        };
        shards.submit(command, None).expect("room");
        reports
    }

    /// What a reactor does that writes the publication to one subscriber.
    fn write(inbox: &Inbox) {
        let Some(Effect::Deliver { publication, .. }) = inbox.take() else {
            panic!("a delivery");
        };
        let share = Share {
            matched: 1,
            written: 1,
            ..Share::default()
        };
        publication.add_share(&share);
    }

    #[test]
    fn a_receipt_waits_for_no_reactor_that_has_ended() {
        for (read_first, ends_before) in [(false, false), (true, false), (false, true)] {
            let (shards, [ended, inbox], _work) = hub(10);
            let mut ended = Some(ended).filter(|_| !ends_before);
            let reports = publish_with_receipt(&shards);
            if read_first {
                write(&inbox);
            }
            assert!(reports.is_empty());
            drop(ended.take());
            if !read_first {
                assert!(reports.is_empty());
                write(&inbox);
            }
            let report = reports.try_recv().expect("all shares are there");
            assert_eq!((report.matched, report.written), (1, 1));
            drop((inbox, shards));
            assert!(reports.is_empty());
        }
    }

    #[test]
    fn a_receipt_is_answered_though_all_reactors_have_ended() {
        let (shards, inboxes, _work) = hub(10);
        let reports = publish_with_receipt(&shards);
        drop(inboxes);
        assert_eq!(reports.try_recv().map(|it| it.matched), Ok(0));
    }

    #[test]
    fn a_shard_that_waited_for_a_reactor_goes_on_once_that_has_ended() {
        let (shards, [ended, inbox], work) = hub(1);
        let first = publish_with_receipt(&shards);
        let second = publish_with_receipt(&shards);
        write(&inbox);
        drop(ended);
        assert!(inbox.take().is_none(), "the shard waits");
        shards.resume();
        shards.run_scheduled(work.try_recv().expect("work"));
        write(&inbox);
        for reports in [first, second] {
            assert_eq!(reports.try_recv().map(|it| it.matched), Ok(1));
        }
    }

    #[test]
    fn a_failed_wake_is_tried_again_by_the_next_effect() {
        let (mailbox, _inbox) = mailbox(ReactorId(0), 10, 100, Box::new(|| false));
        mailbox.offer(deliver(1), None).expect("room");
        assert!(!mailbox.woken.load(Ordering::SeqCst));
    }
}
