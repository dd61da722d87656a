//! Publications to those whose bytes are sealed before they leave, as over TLS: many for one system call.

use std::ops::Range;

use super::connections::Connections;
use crate::dialect::Form;
use crate::fanout::batch::Batch;
use crate::fanout::slow_consumer::Waiting;
use crate::fanout::tally::Tally;
use crate::net::byte_stream::ByteStream;
use crate::net::ring::{Ring, SENDS_MAX};

/// One that is sent to, in which form, and where the sealed bytes are.
type Sealed = (u32, Form, Range<usize>);

impl<T: ByteStream> Connections<T> {
    /// Writes a batch to those of a chunk that are not sent to as they are: to all of them at once that can be sealed for, to
    /// the others one by one.
    #[cold]
    #[inline(never)]
    pub(super) fn deliver_beside<const COMPRESSED: bool>(
        &mut self,
        ring: &mut Ring,
        batch: &Batch<'_>,
        now_ms: u64,
        tally: &mut Tally,
    ) {
        let mut beside = std::mem::take(&mut self.beside);
        let mut bytes = std::mem::take(&mut self.sealed);
        let mut sends: [Sealed; SENDS_MAX] = [const { (0, Form::PAYLOAD, 0..0) }; SENDS_MAX];
        let mut count = 0;
        for &index in &beside {
            match self.seal_one::<COMPRESSED>(batch, index, &mut bytes) {
                Some(sealed) => {
                    sends[count] = sealed;
                    count += 1;
                }
                None => self.deliver_apart::<COMPRESSED>(batch, index, now_ms, tally),
            }
        }
        let sends = &sends[..count];
        let mut outcomes = [const { None }; SENDS_MAX];
        let outcomes = &mut outcomes[..count];
        let entries = sends.iter().filter_map(|(index, _, place)| {
            let slot = self.slots.get(*index as usize)?;
            Some((slot.transport.sealed_descriptor()?, &bytes[place.clone()]))
        });
        ring.send(entries, outcomes);
        for ((index, form, place), outcome) in sends.iter().zip(&*outcomes) {
            let Some(slot) = self.slots.get_mut(*index as usize) else {
                continue;
            };
            let encoded = batch.encoded::<COMPRESSED>(*form, &self.settings.dialects);
            encoded.count();
            let frames = encoded.bytes();
            let sealed = &bytes[place.clone()];
            match slot.transport.finish_sealed(sealed, outcome) {
                Ok(()) => tally.bytes += frames.len() as u64,
                Err(error) => {
                    let waiting = Waiting {
                        batch,
                        form: *form,
                        frames,
                    };
                    slot.queue_rest(Err(error), waiting, &self.settings, now_ms, tally);
                    self.touched.push(*index);
                }
            }
        }
        beside.clear();
        bytes.clear();
        self.beside = beside;
        self.sealed = bytes;
    }

    /// Seals a batch for one subscriber. None: it is to be written.
    fn seal_one<const COMPRESSED: bool>(
        &mut self,
        batch: &Batch<'_>,
        index: u32,
        bytes: &mut Vec<u8>,
    ) -> Option<Sealed> {
        let slot = self.slots.get_mut(index as usize)?;
        if !slot.connection.takes_deliveries() || !slot.connection.outbox.is_empty() {
            return None;
        }
        let form = slot.form::<COMPRESSED>(batch, &mut self.places, index, &self.settings);
        let encoded = batch.encoded::<COMPRESSED>(form, &self.settings.dialects);
        let from = bytes.len();
        let is_sealed = slot.transport.seal(encoded.bytes(), bytes);
        is_sealed.then_some((index, form, from..bytes.len()))
    }
}
