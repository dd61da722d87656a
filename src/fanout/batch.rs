//! The publications of one topic in one tick, in each form that somebody wants: contiguous, made once.

use std::cell::OnceCell;
use std::sync::Arc;

use super::compression::{Compressed, Places};
use crate::dialect::{Dialect, FORM_COUNT, Form, umbel_v1};
use crate::hub::Publication;
use crate::topic::Pattern;
use crate::topic::{SlowConsumer, TopicRules};

/// Bytes of several publications that leave in one write. More make another write.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// Publications that leave in one write.
pub struct Batch<'a> {
    publications: &'a [Arc<Publication>],
    encoded: [OnceCell<Arc<[u8]>>; FORM_COUNT],
    compressed: Option<Compressed<'a>>,
    /// What the subscribers subscribe by, if that is not the topic.
    pattern: Option<&'a Pattern>,
    /// What becomes of each publication where a subscriber is too slow.
    policies: OnceCell<Box<[SlowConsumer]>>,
}

impl<'a> Batch<'a> {
    /// One that goes out uncompressed.
    pub fn new(publications: &'a [Arc<Publication>]) -> Batch<'a> {
        Batch {
            publications,
            encoded: [const { OnceCell::new() }; FORM_COUNT],
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

    /// The bytes of a form. `COMPRESSED`: the batch is, and the form may be a compressed one.
    pub fn encoded<const COMPRESSED: bool>(&self, form: Form) -> &Arc<[u8]> {
        self.encoded[form as usize].get_or_init(|| self.encode::<COMPRESSED>(form))
    }

    fn encode<const COMPRESSED: bool>(&self, form: Form) -> Arc<[u8]> {
        if let Some(pattern) = self.pattern {
            return self.join_for(pattern, form == Form::V1Binary);
        }
        match (form, &self.compressed) {
            (Form::Sse, _) => self.join(|publication| Dialect::Sse.encode(publication)),
            (form, Some(compressed)) if COMPRESSED && form.is_compressed() => {
                compressed.encode(self, form)
            }
            (Form::V1 | Form::V1Deflated, _) => self.join(|it| Dialect::V1.encode(it)),
            (Form::V1Binary | Form::V1BinaryDeflated, _) => {
                self.join(|it| Dialect::V1Binary.encode(it))
            }
            _ => self.join(|publication| Dialect::Raw.encode(publication)),
        }
    }

    /// All of them as those get them who subscribe by a pattern.
    fn join_for(&self, pattern: &Pattern, is_binary: bool) -> Arc<[u8]> {
        let frames = self.publications.iter();
        let frames: Vec<_> = frames
            .map(|publication| umbel_v1::frame_for_pattern(publication, pattern, is_binary))
            .collect();
        frames.concat().into()
    }

    /// The form in which the connection at an index gets the batch. It may be asked for more than once, with the same
    /// answer. `plain`: that of its dialect; `best`: what it agreed to.
    pub fn form(&self, plain: Form, best: Form, places: &mut Places, index: u32) -> Form {
        match (&self.compressed, best) {
            (None, _) | (_, Form::Raw) => plain,
            (Some(compressed), Form::Cohort) => compressed.form(self, places, index),
            (Some(_), form) => form,
        }
    }

    /// The frame of one publication of the batch, as it stands among the bytes of the form.
    pub fn frame(&self, publication: &Arc<Publication>, form: Form) -> Arc<[u8]> {
        if let Some(pattern) = self.pattern {
            return umbel_v1::frame_for_pattern(publication, pattern, form == Form::V1Binary)
                .into();
        }
        match (form, &self.compressed) {
            (form, Some(compressed)) if form.is_compressed() => compressed.frame(publication, form),
            (Form::Sse, _) => Arc::clone(Dialect::Sse.encode(publication)),
            (Form::V1 | Form::V1Deflated, _) => Arc::clone(Dialect::V1.encode(publication)),
            (Form::V1Binary | Form::V1BinaryDeflated, _) => {
                Arc::clone(Dialect::V1Binary.encode(publication))
            }
            _ => Arc::clone(publication.frame()),
        }
    }

    /// What the subscribers subscribe by, if that is not the topic.
    pub fn pattern(&self) -> Option<&'a Pattern> {
        self.pattern
    }

    /// What becomes of each publication where a subscriber is too slow, by the rules: looked up once for all who are.
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

    /// What is left of it once all is delivered.
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
    fn a_batch_is_one_piece_for_each_dialect() {
        let all = publications(&[1, 2]);
        let batch = Batch::new(&all);
        assert_eq!(
            &**batch.encoded::<false>(Form::Raw),
            [0x82, 1, 0, 0x82, 2, 0, 0]
        );
        let single = publications(&[3]);
        let batch = Batch::new(&single);
        assert!(
            Arc::ptr_eq(batch.encoded::<false>(Form::Raw), single[0].frame()),
            "one publication is not copied"
        );
    }
}
