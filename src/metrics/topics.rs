//! Figures of topics, by patterns that the operator lists.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::hub::Publication;
use crate::topic::{Pattern, Topic};

/// Counts of the topics of one pattern.
#[derive(Debug, Default)]
struct Counts {
    publications: AtomicU64,
    deliveries: AtomicU64,
    delivered_bytes: AtomicU64,
}

/// Counts by pattern, of all threads. A topic counts for the first pattern that matches it, so there are as many series as
/// patterns, whatever topics there are.
#[derive(Debug)]
pub struct TopicCounts(Box<[(Pattern, Counts)]>);

/// A series with its name, its meaning and its number.
type Series = (&'static str, &'static str, fn(&Counts) -> &AtomicU64);

const SERIES: [Series; 3] = [
    (
        "topic_publications",
        "Publications that came to topics of metrics_topics, by its pattern",
        |counts| &counts.publications,
    ),
    (
        "topic_deliveries",
        "Publications of topics of metrics_topics that were handed to subscribers, by its pattern",
        |counts| &counts.deliveries,
    ),
    (
        "topic_delivered_bytes",
        "Bytes of payloads in them, each subscriber's counted",
        |counts| &counts.delivered_bytes,
    ),
];

impl TopicCounts {
    /// Those of these patterns. None: there are none.
    pub fn of(patterns: &[Pattern]) -> Option<TopicCounts> {
        let counts = patterns
            .iter()
            .map(|pattern| (pattern.clone(), Counts::default()));
        (!patterns.is_empty()).then(|| TopicCounts(counts.collect()))
    }

    fn counts(&self, topic: &Topic) -> Option<&Counts> {
        let mut all = self.0.iter();
        let found = all.find(|(pattern, _)| pattern.matches(topic));
        found.map(|(_, counts)| counts)
    }

    /// Counts a publication that came.
    pub fn count_publication(&self, topic: &Topic) {
        if let Some(counts) = self.counts(topic) {
            counts.publications.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts publications, each handed to so many.
    #[cold]
    pub fn count_batch(&self, publications: &[Arc<Publication>], subscribers: u64) {
        for publication in publications {
            if let Some(topic) = publication.topic() {
                self.count_deliveries(topic, publication.payload().len(), subscribers);
            }
        }
    }

    /// Counts a publication with this payload that was handed to so many.
    fn count_deliveries(&self, topic: &Topic, payload_bytes: usize, subscribers: u64) {
        if let Some(counts) = self.counts(topic) {
            let bytes = subscribers * payload_bytes as u64;
            counts.deliveries.fetch_add(subscribers, Ordering::Relaxed);
            counts.delivered_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Appends the series.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, number) in SERIES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (pattern, counts) in &self.0 {
                let counter = ConstCounter::new(number(counts).load(Ordering::Relaxed));
                counter.encode(family.encode_family(&[("pattern", pattern.as_str())])?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_pattern_that_matches_counts() {
        let pattern = |text| Pattern::parse(text).expect("a pattern");
        let topic = |text| Topic::from_text(text).expect("a topic");
        assert!(TopicCounts::of(&[]).is_none());
        let counts = TopicCounts::of(&[pattern("orders/eu/*"), pattern("orders/**")]);
        let counts = counts.expect("there are two");
        counts.count_publication(&topic("orders/eu/1"));
        counts.count_publication(&topic("orders/us/1"));
        counts.count_publication(&topic("news"));
        counts.count_deliveries(&topic("orders/us/1"), 10, 3);
        let shown = counts
            .0
            .iter()
            .map(|(_, counts)| SERIES.map(|(_, _, number)| number(counts).load(Ordering::Relaxed)));
        let shown = shown.collect::<Vec<_>>();
        assert_eq!(shown, [[1, 0, 0], [1, 3, 30]]);
    }
}
