//! Compression of publications on their way out: what a reactor holds for it, and what it makes of one batch.
//!
//! Nothing is compressed unless a subscriber here takes it. Without the crate's feature `deflate` none ever does.

pub use imp::{Compressed, Compression};

#[cfg(feature = "deflate")]
mod imp {
    use std::cell::{Cell, RefCell};
    use std::sync::Arc;

    use crate::compression::cohort::Stretch;
    use crate::compression::cohorts::{CohortRule, Cohorts};
    use crate::compression::deflated::{FrameDeflater, Rule};
    use crate::compression::places::Places;
    use crate::connection::Settings;
    use crate::dialect::{Dialects, Form};
    use crate::fanout::batch::Batch;
    use crate::fanout::members::Audience;
    use crate::hub::Publication;
    use crate::metrics::ReactorMetrics;

    /// The compressors of a reactor.
    pub struct Compression {
        deflater: FrameDeflater,
        cohorts: Cohorts,
        /// The gauges may not be what they were when they were shown last. Most ticks compress nothing.
        has_changed: Cell<bool>,
    }

    impl Compression {
        /// Without a compressor yet, for one of so many reactors.
        pub fn new(settings: &Settings, reactors: usize) -> Compression {
            Compression {
                deflater: FrameDeflater::new(rule(settings)),
                cohorts: Cohorts::new(cohort_rule(settings, reactors)),
                has_changed: Cell::new(false),
            }
        }

        /// Goes on by these settings.
        pub fn take_settings(&mut self, settings: &Settings, reactors: usize) {
            self.deflater = FrameDeflater::new(rule(settings));
            self.cohorts.set_rule(cohort_rule(settings, reactors));
            self.has_changed.set(true);
        }

        /// The batch as the topic's subscribers want it. `may_share`: none of it is dropped on its way to anybody who is
        /// not closed for it, so a context may be shared.
        pub fn begin<'a>(
            &'a mut self,
            topic: u32,
            audience: &mut Audience,
            publications: &'a [Arc<Publication>],
            may_share: bool,
            now_ms: u64,
        ) -> Batch<'a> {
            let batch = Batch::new(publications);
            let rule = self.deflater.rule();
            if !publications
                .iter()
                .any(|publication| rule.takes(publication))
            {
                return batch;
            }
            self.has_changed.set(true);
            let members = if may_share {
                audience.keeping_context
            } else {
                0
            };
            let recent = &mut audience.recent;
            let encoded = match members {
                0 => None,
                _ => self
                    .cohorts
                    .encode(topic, recent, members, publications, now_ms),
            };
            batch.with_compressed(Compressed {
                deflater: RefCell::new(&mut self.deflater),
                cohort: encoded,
                has_gap: Cell::new(false),
                members: Cell::new(0),
                waiters: Cell::new(0),
            })
        }

        /// The batch has been delivered; so many of the topic's subscribers got the cohort's frames, and so many could
        /// have been in it.
        pub fn finish(&mut self, topic: u32, members: u64, waiters: u64, now_ms: u64) {
            self.cohorts.finish(topic, members, waiters, now_ms);
        }

        /// Nobody is left who could be in the topic's cohort.
        pub fn forget(&mut self, topic: u32) {
            self.cohorts.remove(topic);
            self.has_changed.set(true);
        }

        /// Frees what has not been used for long.
        pub fn expire(&mut self, now_ms: u64) {
            if self.cohorts.expire(now_ms) {
                self.has_changed.set(true);
            }
        }

        /// Shows the gauges.
        #[inline]
        pub fn show(&self, metrics: &ReactorMetrics) {
            if self.has_changed.replace(false) {
                self.show_all(metrics);
            }
        }

        #[cold]
        fn show_all(&self, metrics: &ReactorMetrics) {
            let bytes = self.deflater.bytes() + self.cohorts.bytes();
            metrics.compressor_bytes.set(bytes as u64);
            metrics.cohorts.set(self.cohorts.len() as u64);
            metrics.cohort_resets.set(self.cohorts.resets());
        }
    }

    fn rule(settings: &Settings) -> Rule {
        let limits = &settings.limits;
        Rule {
            kinds: settings.deflate,
            bytes_min: limits.deflate_bytes_min,
            bytes_max: limits.deflate_bytes_max,
            level: limits.deflate_level,
        }
    }

    fn cohort_rule(settings: &Settings, reactors: usize) -> CohortRule {
        let limits = &settings.limits;
        CohortRule {
            rule: rule(settings),
            count_max: match limits.deflate_cohorts_max {
                0 => 0,
                count => (count / reactors.max(1)).max(1),
            },
            reset_interval_ms: limits.deflate_reset_interval_ms,
        }
    }

    /// One batch for connections that take compressed frames.
    pub struct Compressed<'a> {
        deflater: RefCell<&'a mut FrameDeflater>,
        cohort: Option<(Stretch, Arc<[u8]>)>,
        /// Something of it goes out plain to those who are not in step, though it was to be compressed.
        has_gap: Cell<bool>,
        members: Cell<u64>,
        waiters: Cell<u64>,
    }

    impl Compressed<'_> {
        /// The form for the connection at an index, which keeps its context.
        pub fn form(
            &self,
            batch: &Batch<'_>,
            places: &mut Places,
            index: u32,
            dialects: &Dialects,
        ) -> Form {
            let Some((stretch, _)) = &self.cohort else {
                return Form::PAYLOAD_LARGE;
            };
            let place = places.get_mut(index);
            if stretch.admits(place) {
                self.members.set(self.members.get() + 1);
                return Form::COHORT;
            }
            batch.encoded::<true>(Form::PAYLOAD_LARGE, dialects);
            stretch.follow(place, self.has_gap.get());
            self.waiters.set(self.waiters.get() + 1);
            Form::PAYLOAD_LARGE
        }

        /// The bytes of a compressed form.
        pub fn encode(&self, batch: &Batch<'_>, form: Form, dialects: &Dialects) -> Arc<[u8]> {
            if let (Form::COHORT, Some((_, frames))) = (form, &self.cohort) {
                return Arc::clone(frames);
            }
            let mut deflater = self.deflater.borrow_mut();
            let bytes = batch.join(|publication| deflater.encode(publication, form, dialects));
            if form == Form::PAYLOAD_LARGE {
                let mut publications = batch.publications().iter();
                let has_gap = publications.any(|it| deflater.is_left_plain(it, form, dialects));
                self.has_gap.set(has_gap);
            }
            bytes
        }

        /// The frame of one publication. Of a cohort's none can be taken out.
        pub fn frame(
            &self,
            publication: &Arc<Publication>,
            form: Form,
            dialects: &Dialects,
        ) -> Arc<[u8]> {
            debug_assert!(
                form != Form::COHORT,
                "publications that may be dropped leave it"
            );
            let mut deflater = self.deflater.borrow_mut();
            Arc::clone(deflater.encode(publication, form, dialects))
        }

        /// Connections that got the cohort's frames, and candidates for it.
        pub fn counts(&self) -> (u64, u64) {
            (self.members.get(), self.waiters.get())
        }
    }
}

#[cfg(not(feature = "deflate"))]
mod imp {
    use std::sync::Arc;

    use crate::compression::places::Places;
    use crate::connection::Settings;
    use crate::dialect::{Dialects, Form};
    use crate::fanout::batch::Batch;
    use crate::fanout::members::Audience;
    use crate::hub::Publication;
    use crate::metrics::ReactorMetrics;

    /// Nothing.
    pub struct Compression;

    impl Compression {
        /// Nothing.
        pub fn new(_: &Settings, _: usize) -> Compression {
            Compression
        }

        /// Does nothing.
        pub fn take_settings(&mut self, _: &Settings, _: usize) {}

        /// The batch, uncompressed.
        pub fn begin<'a>(
            &'a mut self,
            _: u32,
            _: &mut Audience,
            publications: &'a [Arc<Publication>],
            _: bool,
            _: u64,
        ) -> Batch<'a> {
            Batch::new(publications)
        }

        /// Does nothing.
        pub fn finish(&mut self, _: u32, _: u64, _: u64, _: u64) {}

        /// Does nothing.
        pub fn forget(&mut self, _: u32) {}

        /// Does nothing.
        pub fn expire(&mut self, _: u64) {}

        /// Does nothing.
        pub fn show(&self, _: &ReactorMetrics) {}
    }

    /// There is none.
    pub enum Compressed<'a> {
        /// Nothing makes one.
        Never(std::convert::Infallible, &'a ()),
    }

    impl Compressed<'_> {
        /// Never called.
        pub fn form(&self, _: &Batch<'_>, _: &mut Places, _: u32, _: &Dialects) -> Form {
            match *self {
                Compressed::Never(never, _) => match never {},
            }
        }

        /// Never called.
        pub fn encode(&self, _: &Batch<'_>, _: Form, _: &Dialects) -> Arc<[u8]> {
            match *self {
                Compressed::Never(never, _) => match never {},
            }
        }

        /// Never called.
        pub fn frame(&self, _: &Arc<Publication>, _: Form, _: &Dialects) -> Arc<[u8]> {
            match *self {
                Compressed::Never(never, _) => match never {},
            }
        }

        /// Never called.
        pub fn counts(&self) -> (u64, u64) {
            match *self {
                Compressed::Never(never, _) => match never {},
            }
        }
    }
}
