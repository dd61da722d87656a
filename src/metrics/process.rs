//! The process: its build, its use of the machine, and log lines that were dropped.
//!
//! Names without the prefix `umbel_` are those of Prometheus's own client libraries, which dashboards know. They are read
//! from `/proc/self` at a scrape, as [`proc(5)`](https://man7.org/linux/man-pages/man5/proc.5.html) has them; elsewhere than
//! on Linux they are left out.

use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{encode_counter, encode_gauge};

/// Log lines dropped. They came faster than they could be written.
pub static LOG_LINES_DROPPED: AtomicU64 = AtomicU64::new(0);

/// Ticks of a second in `/proc/self/stat`: the kernel shows 100 to programs whatever its own clock is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Size of the table of descriptors up to which they are counted one by one, which takes some 20 ms at most. Before Linux
/// 6.2 nothing else tells their number; beyond this size it is left out there.
const COUNTED_DESCRIPTORS_MAX: u64 = 65_536;

/// Features of the build, as `cargo build --features` takes them.
const FEATURES: [(&str, bool); 6] = [
    ("cli", cfg!(feature = "cli")),
    ("deflate", cfg!(feature = "deflate")),
    ("io-uring", cfg!(feature = "io-uring")),
    ("jwt", cfg!(feature = "jwt")),
    ("outgoing", cfg!(feature = "outgoing")),
    ("tls", cfg!(feature = "tls")),
];

/// Shows the build and dropped log lines.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let features = FEATURES.iter().filter(|(_, is_on)| *is_on);
    let features: Vec<_> = features.map(|(name, _)| *name).collect();
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("revision", option_env!("UMBEL_REVISION").unwrap_or("")),
        ("rustc", option_env!("UMBEL_RUSTC").unwrap_or("")),
        ("features", &features.join(",")),
    ];
    let help = "The build: its version, revision, compiler and features";
    let mut family = encoder.encode_descriptor("build_info", help, None, MetricType::Gauge)?;
    ConstGauge::new(1i64).encode(family.encode_family(&labels)?)?;
    let help = "Log lines dropped, as they came faster than they could be written";
    let dropped = LOG_LINES_DROPPED.load(Ordering::Relaxed);
    encode_counter(encoder, "log_lines_dropped", help, dropped)
}

/// Metrics of any process, under the names that all exporters give them.
#[derive(Debug)]
pub(super) struct ProcessScrape;

impl Collector for ProcessScrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let e = &mut encoder;
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}"));
        let (Ok(stat), Ok(status), Ok(limits)) = (read("stat"), read("status"), read("limits"))
        else {
            return Ok(());
        };
        if let Some(seconds) = cpu_seconds(&stat) {
            let help = "CPU time of the process, of user and system";
            let descriptor =
                e.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(descriptor)?;
        }
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        if let Some(seconds) = start_seconds(&stat, &boot) {
            let help = "Start of the process, in seconds since 1970";
            let name = "process_start_time_seconds";
            let descriptor = e.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(seconds).encode(descriptor)?;
        }
        let bytes = |field| field_of(&status, field).map(|kibibytes| kibibytes * 1024);
        let descriptors = open_descriptors(&status);
        let help_resident = "Resident memory";
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                help_resident,
                bytes("VmRSS:"),
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory",
                bytes("VmSize:"),
            ),
            ("process_threads", "Threads", field_of(&status, "Threads:")),
            ("process_open_fds", "Open descriptors", descriptors),
            (
                "process_max_fds",
                "Descriptors that may be open",
                descriptors_max(&limits),
            ),
        ] {
            if let Some(value) = value {
                encode_gauge(e, name, help, value)?;
            }
        }
        Ok(())
    }
}

/// A number of `/proc/self/status`.
fn field_of(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields of `/proc/self/stat` behind the name of the program, which may hold blanks: the first is the third of proc(5).
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    fields.split_whitespace()
}

/// CPU time of user and system: fields 14 and 15.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut times = fields(stat).skip(11).map_while(|field| field.parse().ok());
    let (user, system): (u64, u64) = (times.next()?, times.next()?);
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

/// Start of the process in seconds since 1970: field 22 counts from the start of the machine, which `/proc/stat` tells.
fn start_seconds(stat: &str, boot: &str) -> Option<f64> {
    let ticks: u64 = fields(stat).nth(19)?.parse().ok()?;
    let boot: u64 = field_of(boot, "btime")?;
    Some(boot as f64 + ticks as f64 / TICKS_PER_SECOND)
}

/// Soft limit of descriptors.
fn descriptors_max(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_descriptors(status: &str) -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    // Since Linux 6.2 the size of the folder is their number.
    match fs::metadata(FOLDER).ok()?.len() {
        0 if field_of(status, "FDSize:")? > COUNTED_DESCRIPTORS_MAX => None,
        // One of them is that of the folder.
        0 => Some((fs::read_dir(FOLDER).ok()?.count() as u64).saturating_sub(1)),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4711 (um) bel) S 1 4711 4711 0 -1 4194560 2400 0 0 0 150 50 0 0 20 0 9 0 12345 1000 200 1844 1 1";

    #[test]
    fn fields_behind_a_name_with_a_parenthesis() {
        assert_eq!(cpu_seconds(STAT), Some(2.0));
        assert_eq!(start_seconds(STAT, "cpu 1\nbtime 1000\n"), Some(1123.45));
        assert_eq!(cpu_seconds("4711 (x) S 1"), None);
        assert_eq!(start_seconds(STAT, ""), None);
    }

    #[test]
    fn numbers_of_status_and_limits() {
        let status = "Name:\tumbel\nVmRSS:\t    2048 kB\nThreads:\t9\n";
        assert_eq!(field_of(status, "VmRSS:"), Some(2048));
        assert_eq!(field_of(status, "Threads:"), Some(9));
        assert_eq!(field_of(status, "VmSize:"), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096   files\n";
        assert_eq!(descriptors_max(limits), Some(1024));
        assert_eq!(
            descriptors_max("Max open files unlimited unlimited files"),
            None
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn descriptors_of_this_process() {
        let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
        let before = open_descriptors(&status).expect("they can be counted");
        let _file = fs::File::open("/proc/self/status").expect("it can be opened");
        // Other tests of the process open and close some, too.
        assert!(before >= 3, "{before}");
    }
}
