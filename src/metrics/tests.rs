//! Text of a scrape.

use super::*;

#[test]
fn the_text_adds_up_the_reactors() {
    let metrics = Arc::new(Metrics::new(2, &["one", "two"]));
    metrics.reactor(0).deliveries.add(3);
    metrics.reactor(1).deliveries.add(4);
    metrics.reactor(1).connections[label_index(Label::Handler)].set(5);
    metrics.reactor(0).closed[CloseReason::SlowConsumerAge.index()].add(1);
    metrics.reactor(1).slow_consumers.add(1);
    metrics.reactor(0).publish_to_write.record_us(3);
    let text = metrics.encode(HubCounts::default());
    assert!(text.contains("\numbel_deliveries_total 7\n"), "{text}");
    assert!(
        text.contains("umbel_connections{state=\"open\",dialect=\"endpoint\"} 5\n"),
        "{text}"
    );
    assert!(
        text.contains("umbel_closed_total{reason=\"slow_consumer_age\"} 1\n"),
        "{text}"
    );
    assert!(text.contains("\numbel_slow_consumers_total 1\n"), "{text}");
    assert!(
        text.contains("umbel_publish_to_write_seconds_bucket{le=\"0.000002\"} 0\n"),
        "{text}"
    );
    assert!(
        text.contains("umbel_publish_to_write_seconds_bucket{le=\"0.000004\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("umbel_publish_to_write_seconds_bucket{le=\"+Inf\"} 1\n"),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"), "{text}");
    let text = metrics.encode_prometheus(HubCounts::default());
    assert!(text.contains("\n# HELP umbel_deliveries_total "), "{text}");
    assert!(
        text.contains("\n# TYPE umbel_deliveries_total counter\numbel_deliveries_total 7\n"),
        "{text}"
    );
    assert!(
        text.contains("\n# TYPE umbel_topics gauge\numbel_topics 0\n"),
        "{text}"
    );
    assert!(!text.contains("EOF"), "{text}");
}

#[test]
fn the_largest_duration_lands_in_the_last_bucket() {
    let histogram = Histogram::default();
    histogram.record_us(0);
    histogram.record_us(u64::MAX);
    assert_eq!(histogram.buckets[0].get(), 1);
    assert_eq!(histogram.buckets[BUCKETS - 1].get(), 1);
}

#[test]
fn every_dialect_has_a_gauge_of_its_name() {
    let metrics = Arc::new(Metrics::new(1, &["one", "two"]));
    let connections = &metrics.reactor(0).connections;
    for (at, count) in connections.iter().zip(1..) {
        at.set(count);
    }
    let text = metrics.encode(HubCounts::default());
    for (state, dialect, count) in [
        ("http", "none", 1),
        ("open", "one", 4),
        ("open", "two", 5),
        ("open", "endpoint", 2),
        ("closing", "none", 3),
    ] {
        let row = format!("umbel_connections{{state=\"{state}\",dialect=\"{dialect}\"}} {count}\n");
        assert!(text.contains(&row), "{row} {text}");
    }
    assert_eq!(metrics.connection_count(), 15);
}
