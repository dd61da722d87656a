//! A topic's publications of one tick in each wanted form: contiguous, made once.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use super::compression::Compressed;
use crate::compression::places::Places;
use crate::dialect::{Class, Dialects, Form};
use crate::hub::Publication;
use crate::topic::Pattern;
use crate::topic::{SlowConsumer, TopicRules};

/// Bytes of several publications that leave in one write. More make another write.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// Publications that leave in one write.
pub struct Batch<'a> {
    publications: &'a [Arc<Publication>],
    encoded: OnceCell<EncodedBatch>,
    compressed: Option<Compressed<'a>>,
    /// Pattern that the subscribers subscribe by, if they do.
    pattern: Option<&'a Pattern>,
    /// Treatment of each publication where a subscriber is slow.
    policies: OnceCell<Box<[SlowConsumer]>>,
}

/// A batch in one form, and in forms asked for later.
pub struct EncodedBatch {
    bytes: Arc<[u8]>,
    form: Form,
    subscribers: Cell<u64>,
    next: OnceCell<Box<EncodedBatch>>,
}

impl EncodedBatch {
    /// The frames.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// The form.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Counts a subscriber that gets it.
    pub fn count(&self) {
        self.subscribers.set(self.subscribers.get() + 1);
    }

    /// Gives the number of subscribers that were counted, and begins anew.
    pub fn take_count(&self) -> u64 {
        self.subscribers.take()
    }
}

impl<'a> Batch<'a> {
    /// One that goes out uncompressed.
    pub fn new(publications: &'a [Arc<Publication>]) -> Batch<'a> {
        Batch {
            publications,
            encoded: OnceCell::new(),
            compressed: None,
            pattern: None,
            policies: OnceCell::new(),
        }
    }

    /// One that goes out compressed to those who take it.
    #[cfg(feature = "deflate")]
    pub fn with_compressed(mut self, compressed: Compressed<'a>) -> Batch<'a> {
        self.compressed = Some(compressed);
        self
    }

    /// One for those who subscribe by a pattern, and are told so.
    pub fn with_pattern(mut self, pattern: &'a Pattern) -> Batch<'a> {
        self.pattern = Some(pattern);
        self
    }

    /// Whether some of it goes out compressed.
    pub fn is_compressed(&self) -> bool {
        self.compressed.is_some()
    }

    /// Whether it holds no publications.
    pub fn is_empty(&self) -> bool {
        self.publications.is_empty()
    }

    /// Number of publications.
    pub fn len(&self) -> usize {
        self.publications.len()
    }

    /// The batch in a form. `COMPRESSED`: the batch is, and the form may be a compressed one.
    #[inline]
    pub fn encoded<const COMPRESSED: bool>(
        &self,
        form: Form,
        dialects: &Dialects,
    ) -> &EncodedBatch {
        match self.encoded_already(form) {
            Some(encoded) => encoded,
            None => self.find_or_encode::<COMPRESSED>(form, dialects),
        }
    }

    /// The batch in the form that was asked for first. It is looked for there alone, for most batches have one form.
    #[inline]
    pub fn encoded_already(&self, form: Form) -> Option<&EncodedBatch> {
        self.encoded.get().filter(|first| first.form == form)
    }

    /// Apart from [`encoded`](Batch::encoded), so that what most deliveries do stays in registers.
    #[inline(never)]
    fn find_or_encode<const COMPRESSED: bool>(
        &self,
        form: Form,
        dialects: &Dialects,
    ) -> &EncodedBatch {
        let encode = || self.encode::<COMPRESSED>(form, dialects);
        let mut at = self.encoded.get_or_init(encode);
        while at.form != form {
            at = at.next.get_or_init(|| Box::new(encode()));
        }
        at
    }

    /// The forms that were asked for.
    pub fn forms(&self) -> impl Iterator<Item = &EncodedBatch> {
        std::iter::successors(self.encoded.get(), |it| it.next.get().map(|next| &**next))
    }

    #[cold]
    fn encode<const COMPRESSED: bool>(&self, form: Form, dialects: &Dialects) -> EncodedBatch {
        let encoding = form.encoding();
        let bytes = match (&self.compressed, self.pattern) {
            (_, Some(pattern)) => {
                let frames = self.publications.iter();
                let frames: Vec<_> = frames
                    .map(|it| dialects.encode_anew(encoding, it, Some(pattern)))
                    .collect();
                frames.concat().into()
            }
            (Some(compressed), None) if COMPRESSED && form.is_compressed() => {
                compressed.encode(self, form, dialects)
            }
            _ => self.join(|publication| dialects.encode(encoding, publication)),
        };
        EncodedBatch {
            bytes,
            form,
            subscribers: Cell::new(0),
            next: OnceCell::new(),
        }
    }

    /// The form in which the connection at an index gets the batch. It may be asked for more than once, with the same
    /// answer. `best`: what it agreed to.
    pub fn form(&self, best: Form, places: &mut Places, index: u32, dialects: &Dialects) -> Form {
        match &self.compressed {
            None => best.plain(),
            Some(compressed) if best.class() == Class::Cohort => {
                compressed.form(self, places, index, dialects)
            }
            Some(_) => best,
        }
    }

    /// Frame of one publication among the bytes of the form.
    pub fn frame(
        &self,
        publication: &Arc<Publication>,
        form: Form,
        dialects: &Dialects,
    ) -> Arc<[u8]> {
        let encoding = form.encoding();
        match (&self.compressed, self.pattern) {
            (_, Some(pattern)) => {
                let frame = dialects.encode_anew(encoding, publication, Some(pattern));
                frame.into()
            }
            (Some(compressed), None) if form.is_compressed() => {
                compressed.frame(publication, form, dialects)
            }
            _ => Arc::clone(dialects.encode(encoding, publication)),
        }
    }

    /// Pattern that the subscribers subscribe by, if they do.
    pub fn pattern(&self) -> Option<&'a Pattern> {
        self.pattern
    }

    /// Treatment of each publication where a subscriber is slow, by the rules: looked up once for all who are.
    pub fn policies(&self, rules: &TopicRules) -> &[SlowConsumer] {
        self.policies.get_or_init(|| {
            let policy = |publication: &Arc<Publication>| {
                let topic = publication.topic();
                topic.map_or(SlowConsumer::Close, |topic| rules.rule(topic).slow_consumer)
            };
            self.publications.iter().map(policy).collect()
        })
    }

    /// The publications.
    pub fn publications(&self) -> &'a [Arc<Publication>] {
        self.publications
    }

    /// Rest of it once all is delivered.
    pub fn into_compressed(self) -> Option<Compressed<'a>> {
        self.compressed
    }

    /// All of them as `encode` has them, in one piece.
    pub fn join<'p>(&self, mut encode: impl FnMut(&'p Publication) -> &'p Arc<[u8]>) -> Arc<[u8]>
    where
        'a: 'p,
    {
        match self.publications {
            [one] => Arc::clone(encode(one)),
            many => {
                let frames: Vec<_> = many.iter().map(|publication| encode(publication)).collect();
                let mut bytes = Vec::with_capacity(frames.iter().map(|frame| frame.len()).sum());
                frames
                    .iter()
                    .for_each(|frame| bytes.extend_from_slice(frame));
                bytes.into()
            }
        }
    }
}

/// Cuts publications into batches, each within `BATCH_BYTES_MAX` or of one publication.
pub fn batches(publications: &[Arc<Publication>]) -> impl Iterator<Item = &[Arc<Publication>]> {
    let mut rest = publications;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|publication| {
            bytes += publication.frame().len();
            bytes <= BATCH_BYTES_MAX
        });
        let count = fitting.count().max(1).min(rest.len());
        let (batch, tail) = rest.split_at(count);
        rest = tail;
        (!batch.is_empty()).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Kind;

    fn publications(sizes: &[usize]) -> Vec<Arc<Publication>> {
        sizes
            .iter()
            .map(|&size| Arc::new(Publication::new(Kind::Binary, &vec![0; size], 0)))
            .collect()
    }

    #[test]
    fn batches_are_bounded_and_complete() {
        let all = publications(&[10, 40_000, 30_000, 100_000, 1, 2]);
        let sizes: Vec<usize> = batches(&all).map(<[_]>::len).collect();
        assert_eq!(sizes, [2, 1, 1, 2]);
        assert_eq!(batches(&[]).count(), 0);
    }

    #[test]
    fn a_batch_is_one_piece_in_each_form() {
        let dialects = Dialects::default();
        let all = publications(&[1, 2]);
        let batch = Batch::new(&all);
        let plain = batch.encoded::<false>(Form::PAYLOAD, &dialects);
        assert_eq!(&**plain.bytes(), [0x82, 1, 0, 0x82, 2, 0, 0]);
        for (encoding, _) in dialects.rows() {
            let form = Form::new(encoding, Class::Plain);
            let encoded = batch.encoded::<false>(form, &dialects);
            let again = batch.encoded::<false>(form, &dialects);
            assert!(std::ptr::eq(encoded, again));
            let frames = [&all[0], &all[1]].map(|it| batch.frame(it, form, &dialects));
            assert_eq!(**encoded.bytes(), frames.concat());
            encoded.count();
        }
        let counts: Vec<u64> = batch.forms().map(EncodedBatch::take_count).collect();
        assert_eq!(counts, [1; 4]);
        let single = publications(&[3]);
        let batch = Batch::new(&single);
        let encoded = batch.encoded::<false>(Form::PAYLOAD, &dialects);
        assert!(
            Arc::ptr_eq(encoded.bytes(), single[0].frame()),
            "one publication is not copied"
        );
    }
}
