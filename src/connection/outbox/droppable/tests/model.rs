//! A model of an outbox: a plain list of the waiting segments, which drops by looking through all of it.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Shared,
    Own,
    DropOldest { flow: u8, offset: u64 },
    Latest { flow: u8, key: u8 },
    Gap { flow: u8, from: u64, to: u64 },
}

impl Kind {
    fn overhead_bytes(&self) -> usize {
        match self {
            Kind::Shared | Kind::Own => SEGMENT_OVERHEAD_BYTES,
            _ => SEGMENT_OVERHEAD_BYTES + DROPPABLE_OVERHEAD_BYTES,
        }
    }
}

#[derive(Debug)]
struct Entry {
    frame: Vec<u8>,
    kind: Kind,
    queued_at_ms: u64,
}

impl Entry {
    /// Bytes that are counted of its frame: of a gap the most that it may become.
    fn frame_bytes(&self) -> usize {
        match self.kind {
            Kind::Gap { flow, from, .. } => {
                let pattern = pattern(flow);
                encode_gap(&topic(flow), pattern.as_ref(), at(from), at(u64::MAX)).len()
            }
            _ => self.frame.len(),
        }
    }
}

/// The naive outbox.
#[derive(Debug, Default)]
struct Model {
    entries: Vec<Entry>,
    /// Bytes of the first that are written.
    written: usize,
    has_marks: bool,
    stalled_ms: Option<u64>,
    has_progressed: bool,
}

impl Model {
    fn bytes(&self) -> usize {
        let each = |entry: &Entry| entry.frame_bytes() + entry.kind.overhead_bytes();
        self.entries.iter().map(each).sum::<usize>() - self.written
    }

    fn watch(&mut self, now_ms: u64) {
        if std::mem::take(&mut self.has_progressed) || self.stalled_ms.is_none() {
            self.stalled_ms = Some(now_ms);
        }
    }

    /// The first that is not begun and of which `is_it` holds.
    fn find(&self, is_it: impl Fn(&Entry) -> bool) -> Option<usize> {
        let begun = usize::from(self.written > 0);
        let found = self.entries.iter().skip(begun).position(is_it);
        found.map(|index| index + begun)
    }

    fn oldest(&self) -> Option<usize> {
        self.find(|entry| matches!(entry.kind, Kind::DropOldest { .. }))
    }

    fn drop_oldest(&mut self, index: usize, now_ms: u64) {
        let Kind::DropOldest { flow, offset } = self.entries[index].kind else {
            unreachable!("it was found as one")
        };
        let begun = usize::from(self.written > 0);
        let gap_end = |entry: &Entry| match entry.kind {
            Kind::Gap {
                flow: other, to, ..
            } if other == flow => Some(to),
            _ => None,
        };
        let before = (begun..index)
            .rev()
            .find(|&other| gap_end(&self.entries[other]).is_some());
        let joined = before.filter(|&other| {
            let between = &self.entries[other..index];
            gap_end(&self.entries[other]) == Some(offset - 1)
                && between.iter().all(|entry| entry.kind != Kind::Own)
        });
        let (place, from, queued_at_ms) = match joined.map(|other| (other, &self.entries[other])) {
            Some((
                other,
                Entry {
                    kind: Kind::Gap { from, .. },
                    queued_at_ms,
                    ..
                },
            )) => (other, *from, *queued_at_ms),
            _ => (index, offset, now_ms),
        };
        self.entries[place] = Entry {
            frame: encode_gap(&topic(flow), pattern(flow).as_ref(), at(from), at(offset)).into(),
            kind: Kind::Gap {
                flow,
                from,
                to: offset,
            },
            queued_at_ms,
        };
        if place != index {
            self.entries.remove(index);
        }
    }

    fn push(
        &mut self,
        frame: Vec<u8>,
        kind: Kind,
        written: usize,
        now_ms: u64,
        bytes_max: usize,
    ) -> Result<Dropped, OutboxFull> {
        let mut dropped = Dropped::default();
        if written >= frame.len() {
            return Ok(dropped);
        }
        if matches!(kind, Kind::Latest { .. })
            && let Some(index) = self.find(|entry| entry.kind == kind)
        {
            self.entries.remove(index);
            self.watch(now_ms);
            dropped.replaced = 1;
        }
        let cost = frame.len() - written + kind.overhead_bytes();
        while !self.entries.is_empty() && self.bytes() + cost > bytes_max {
            let Some(index) = self.oldest() else {
                if dropped.oldest > 0 {
                    self.watch(now_ms);
                }
                return Err(OutboxFull(dropped));
            };
            self.drop_oldest(index, now_ms);
            dropped.oldest += 1;
        }
        if dropped.oldest > 0 {
            self.watch(now_ms);
        }
        if self.entries.is_empty() {
            self.written = written;
        }
        self.has_marks |= matches!(kind, Kind::DropOldest { .. } | Kind::Latest { .. });
        self.entries.push(Entry {
            frame,
            kind,
            queued_at_ms: now_ms,
        });
        Ok(dropped)
    }

    fn expire(&mut self, now_ms: u64, age_max_ms: u64) -> Dropped {
        let mut dropped = Dropped::default();
        while let Some(index) = self.oldest()
            && now_ms >= self.entries[index].queued_at_ms + age_max_ms
        {
            self.drop_oldest(index, now_ms);
            dropped.oldest += 1;
        }
        let begun = self.entries.first().filter(|_| self.written > 0);
        let is_begun_aged = begun.is_some_and(|entry| {
            matches!(entry.kind, Kind::DropOldest { .. })
                && now_ms >= entry.queued_at_ms + age_max_ms
        });
        if dropped.oldest > 0 || is_begun_aged || self.stalled_ms.is_some() {
            self.watch(now_ms);
        }
        dropped
    }

    fn handle_written(&mut self, mut bytes: usize) {
        self.has_progressed |= bytes > 0;
        while let Some(front) = self.entries.first() {
            let left = front.frame.len() - self.written;
            if bytes < left {
                self.written += bytes;
                return;
            }
            bytes -= left;
            self.written = 0;
            self.entries.remove(0);
        }
        *self = Model::default();
    }

    fn oldest_ms(&self) -> Option<u64> {
        let is_counted = |entry: &&Entry| {
            !self.has_marks || matches!(entry.kind, Kind::Shared | Kind::Own | Kind::Latest { .. })
        };
        let counted = self.entries.iter().find(is_counted);
        let stalled_ms = self.stalled_ms.filter(|_| self.has_marks);
        counted
            .map(|entry| entry.queued_at_ms)
            .into_iter()
            .chain(stalled_ms)
            .min()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Plain {
        is_own: bool,
        padding: u16,
    },
    DropOldest {
        flow: u8,
        padding: u16,
        written: u8,
    },
    Latest {
        flow: u8,
        key: u8,
        padding: u16,
    },
    /// A publication of a flow that never comes.
    Skip {
        flow: u8,
    },
    Write {
        bytes: u16,
    },
    Expire {
        age_max_ms: u8,
    },
    Wait {
        ms: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let padding = || prop_oneof![9 => 0..40u16, 1 => 0..2000u16];
    let step = prop_oneof![
        1 => (any::<bool>(), padding()).prop_map(|(is_own, padding)| Step::Plain { is_own, padding }),
        6 => (0..FLOWS, padding(), prop_oneof![3 => Just(0), 1 => any::<u8>()])
            .prop_map(|(flow, padding, written)| Step::DropOldest { flow, padding, written }),
        5 => (0..FLOWS, 0..6u8, padding()).prop_map(|(flow, key, padding)| Step::Latest { flow, key, padding }),
        1 => (0..FLOWS).prop_map(|flow| Step::Skip { flow }),
        2 => prop_oneof![0..60u16, 0..3000u16].prop_map(|bytes| Step::Write { bytes }),
        1 => (0..100u8).prop_map(|age_max_ms| Step::Expire { age_max_ms }),
        3 => (0..30u8).prop_map(|ms| Step::Wait { ms }),
    ];
    proptest::collection::vec(step, 1..400)
}

/// An outbox, its model, what was written of both, and what has to have become of each publication under `DropOldest`.
#[derive(Default)]
struct Pair {
    outbox: Outbox,
    model: Model,
    written: Vec<u8>,
    now_ms: u64,
    offsets: [u64; FLOWS as usize],
    queued: Vec<(u8, u64)>,
}

impl Pair {
    fn step(&mut self, step: &Step, bytes_max: usize) -> Result<(), TestCaseError> {
        let now_ms = self.now_ms;
        match *step {
            Step::Plain { is_own, padding } => {
                let bytes = format!("plain {};", "x".repeat(usize::from(padding))).into_bytes();
                let (segment, kind) = match is_own {
                    true => (own(&bytes), Kind::Own),
                    false => (shared(&bytes), Kind::Shared),
                };
                let outcome = self.outbox.push(segment, 0, now_ms, bytes_max);
                prop_assert_eq!(outcome, self.model.push(bytes, kind, 0, now_ms, bytes_max));
            }
            Step::DropOldest {
                flow,
                padding,
                written,
            } => {
                self.offsets[usize::from(flow)] += 1;
                let offset = self.offsets[usize::from(flow)];
                let bytes = frame(flow, offset, padding);
                // Only of the first segment can part be written already.
                let written = usize::from(written) * usize::from(self.outbox.is_empty());
                let droppable = droppable(SlowConsumer::DropOldest, flow, offset, 0);
                self.written.extend(&bytes[..written.min(bytes.len())]);
                let outcome = self.outbox.push_droppable(
                    shared(&bytes),
                    written,
                    droppable,
                    now_ms,
                    bytes_max,
                );
                let kind = Kind::DropOldest { flow, offset };
                prop_assert_eq!(
                    outcome,
                    self.model.push(bytes, kind, written, now_ms, bytes_max)
                );
                self.queued
                    .extend(outcome.is_ok().then_some((flow, offset)));
            }
            Step::Latest { flow, key, padding } => {
                let bytes = frame(flow, 0, padding);
                let droppable = droppable(SlowConsumer::Latest, flow, 0, key);
                let outcome =
                    self.outbox
                        .push_droppable(shared(&bytes), 0, droppable, now_ms, bytes_max);
                let kind = Kind::Latest { flow, key };
                prop_assert_eq!(outcome, self.model.push(bytes, kind, 0, now_ms, bytes_max));
            }
            Step::Skip { flow } => self.offsets[usize::from(flow)] += 1,
            Step::Write { bytes } => self.write(usize::from(bytes)),
            Step::Expire { age_max_ms } => {
                let age_max_ms = u64::from(age_max_ms);
                let dropped = self.outbox.expire_droppable(now_ms, age_max_ms);
                prop_assert_eq!(dropped, self.model.expire(now_ms, age_max_ms));
            }
            Step::Wait { ms } => self.now_ms += u64::from(ms),
        }
        self.compare()
    }

    fn write(&mut self, bytes: usize) {
        let written = write(&mut self.outbox, bytes);
        self.model.handle_written(written.len());
        self.written.extend(written);
    }

    fn compare(&mut self) -> Result<(), TestCaseError> {
        let (outbox, model) = (&mut self.outbox, &self.model);
        prop_assert_eq!(outbox.bytes(), model.bytes());
        prop_assert_eq!(outbox.is_empty(), model.entries.is_empty());
        prop_assert_eq!(outbox.oldest_ms(), model.oldest_ms());
        // Not always, for a look brings the frames of gaps up to date.
        if model.entries.len().is_multiple_of(2) {
            return Ok(());
        }
        let first = model.entries.iter().take(SEGMENTS_PER_WRITE);
        let expected: Vec<u8> = first.flat_map(|entry| entry.frame.clone()).collect();
        prop_assert_eq!(head(outbox), &expected[model.written..]);
        Ok(())
    }

    /// Each publication under `DropOldest` came, or is in exactly one gap, in order.
    fn check_written(&self) {
        let text = String::from_utf8(self.written.clone()).expect("frames of the tests are text");
        let mut told: Vec<Vec<u64>> = vec![Vec::new(); usize::from(FLOWS)];
        for words in text
            .split_terminator(';')
            .map(|frame| frame.split(' ').collect::<Vec<_>>())
        {
            let flow = || {
                ["t", "t*", "u"]
                    .iter()
                    .position(|name| *name == words[1])
                    .expect("a flow")
            };
            let number = |index: usize| words[index].parse::<u64>().expect("an offset");
            match words[0] {
                "publication" if number(2) > 0 => told[flow()].push(number(2)),
                "gap" => told[flow()].extend(number(2)..=number(3)),
                _ => {}
            }
        }
        for (flow, told) in (0..).zip(told) {
            let queued = self.queued.iter().filter(|(other, _)| *other == flow);
            let queued: Vec<u64> = queued.map(|(_, offset)| *offset).collect();
            assert_eq!(told, queued, "{text}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn it_does_as_a_list_does(steps in steps(), bytes_max in prop_oneof![Just(1500usize), Just(6000), Just(60_000)]) {
        let mut pair = Pair::default();
        for step in &steps {
            pair.step(step, bytes_max)?;
        }
        while !pair.outbox.is_empty() {
            pair.write(usize::MAX);
            pair.compare()?;
        }
        pair.check_written();
    }
}
