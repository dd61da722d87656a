//! The result of a run as a drawing: how latencies are distributed, and the throughput over time. SVG 1.1.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::arguments::Mode;
use super::number::{brief, time};
use super::record::BUCKET_TICKS;
use super::report::Report;
use super::run::Run;
use super::stamp::TICK_NS;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 640.0;
/// Steps of the distribution in each power of ten.
const STEPS_PER_DECADE: f64 = 20.0;
/// Points of the throughput, beyond which several are drawn as one.
const POINTS_MAX: usize = 200;
/// Height of a row of percentile labels, and how wide one is taken to be.
const LABEL_ROW: f64 = 16.0;
const LABEL_WIDTH: f64 = 106.0;

const LATENCY: Panel = Panel {
    left: 76.0,
    top: 168.0,
    width: 844.0,
    height: 172.0,
};
const THROUGHPUT: Panel = Panel {
    left: 76.0,
    top: 432.0,
    width: 844.0,
    height: 152.0,
};

const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;font-size:12px;fill:#57606a}\
.title{font-size:20px;font-weight:600;fill:#1f2328}.head{font-size:14px;font-weight:600;fill:#1f2328}\
.value{fill:#1f2328;font-weight:600}.grid{stroke:#e4e8ec}.axis{stroke:#8c959f}.mark{stroke:#1f2328;stroke-dasharray:2 3}\
.blue{stroke:#2f6fd0;fill:none;stroke-width:1.75;stroke-linejoin:round}.bluefill{fill:#2f6fd0;fill-opacity:.16}\
.green{stroke:#1d7f4e;fill:none;stroke-width:1.75;stroke-linejoin:round}.greenfill{fill:#1d7f4e;fill-opacity:.14}";

/// Where something is drawn.
#[derive(Clone, Copy)]
struct Panel {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Panel {
    fn bottom(self) -> f64 {
        self.top + self.height
    }

    fn right(self) -> f64 {
        self.left + self.width
    }

    /// From shares of its width and height, from the lower left corner, to coordinates.
    fn point(self, x: f64, y: f64) -> (f64, f64) {
        (self.left + x * self.width, self.bottom() - y * self.height)
    }
}

/// Draws a run.
pub fn draw(run: &Run, report: &Report) -> String {
    let mut svg = Svg::new();
    svg.text(
        (40.0, 46.0),
        "title",
        "start",
        &format!("umbel bench {}", report.mode),
    );
    svg.text(
        (40.0, 68.0),
        "",
        "start",
        &format!("{}, {}", report.url, report.load_line()),
    );
    draw_latencies(&mut svg, &run.record.latencies);
    let what = match run.settings.mode {
        Mode::Storm => "Connects a second",
        _ => "Messages received a second",
    };
    draw_throughput(
        &mut svg,
        what,
        &rates(&report.buckets, run.window.as_secs_f64()),
    );
    svg.finish()
}

/// The distribution as steps of a logarithmic axis, and percentiles as marks on it.
fn draw_latencies(svg: &mut Svg, latencies: &Histogram<u64>) {
    svg.text((40.0, 104.0), "head", "start", "Latency");
    if latencies.is_empty() {
        svg.text((40.0, 128.0), "", "start", "nothing arrived");
        return;
    }
    let us = |ticks: u64| ticks as f64 * TICK_NS as f64 / 1000.0;
    let axis = LogAxis::new(us(latencies.min()), us(latencies.max()));
    let steps = axis.steps(latencies);
    let top = axis_top(steps.iter().copied().fold(0.0, f64::max) * 100.0);
    draw_rows(svg, LATENCY, top, |percent| format!("{} %", short(percent)));
    for decade in axis.first..=axis.last {
        let us = 10f64.powi(decade);
        for part in 1..10 {
            let x = axis.place(us * f64::from(part));
            if !(0.0..=1.0).contains(&x) {
                continue;
            }
            if part == 1 {
                svg.line(LATENCY.point(x, 0.0), LATENCY.point(x, 1.0), "grid");
                let (x, y) = LATENCY.point(x, 0.0);
                svg.text((x, y + 18.0), "", "middle", &short_time(us));
            } else {
                let (x, y) = LATENCY.point(x, 0.0);
                svg.line((x, y), (x, y + 4.0), "axis");
            }
        }
    }
    let mut points = Vec::with_capacity(steps.len() * 2 + 2);
    let width = 1.0 / steps.len() as f64;
    for (index, share) in steps.iter().enumerate() {
        let y = share * 100.0 / top;
        points.push(LATENCY.point(index as f64 * width, y));
        points.push(LATENCY.point((index + 1) as f64 * width, y));
    }
    svg.area(LATENCY, &points, "blue");
    svg.line(LATENCY.point(0.0, 0.0), LATENCY.point(1.0, 0.0), "axis");
    draw_percentiles(svg, &axis, latencies);
}

/// The row of each label, for marks from left to right. A label stands to the left of its mark's line, so it is
/// clear of all others when it is higher than those that it reaches.
fn label_rows(places: &[f64]) -> Vec<usize> {
    let mut rows: Vec<usize> = Vec::with_capacity(places.len());
    for x in places {
        let reached = places
            .iter()
            .zip(&rows)
            .filter(|(other, _)| **other > x - LABEL_WIDTH);
        rows.push(reached.map(|(_, row)| row + 1).max().unwrap_or(0));
    }
    rows
}

/// Marks with labels above the panel.
fn draw_percentiles(svg: &mut Svg, axis: &LogAxis, latencies: &Histogram<u64>) {
    let quantiles = [
        ("p50", 0.5),
        ("p90", 0.9),
        ("p99", 0.99),
        ("p99.9", 0.999),
        ("max", 1.0),
    ];
    let max = latencies.max();
    let marks = quantiles.into_iter().filter_map(|(name, quantile)| {
        let ticks = latencies.value_at_quantile(quantile);
        let us = ticks as f64 * TICK_NS as f64 / 1000.0;
        let (x, _) = LATENCY.point(axis.place(us), 0.0);
        // A percentile that is the longest of all says nothing of its own.
        (ticks < max || name == "max").then_some((name, us, x))
    });
    let marks: Vec<(&str, f64, f64)> = marks.collect();
    let places: Vec<f64> = marks.iter().map(|(_, _, x)| *x).collect();
    for ((name, us, x), row) in marks.into_iter().zip(label_rows(&places)) {
        let y = LATENCY.top - 10.0 - LABEL_ROW * row as f64;
        svg.line((x, y - 10.0), (x, LATENCY.bottom()), "mark");
        svg.value((x - 5.0, y), "end", name, &time(us));
    }
}

/// What arrived a second, at each moment in seconds.
fn draw_throughput(svg: &mut Svg, what: &str, rates: &[(f64, f64)]) {
    svg.text((40.0, THROUGHPUT.top - 28.0), "head", "start", what);
    let highest = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let top = axis_top(highest);
    let end = rates.last().map_or(1.0, |(end, _)| *end);
    draw_rows(svg, THROUGHPUT, top, short);
    let step = nice_above(end / 10.0);
    let mut second = 0.0;
    while second <= end * 1.0001 {
        let (x, y) = THROUGHPUT.point(second / end, 0.0);
        svg.line((x, y), (x, y + 4.0), "axis");
        svg.text((x, y + 18.0), "", "middle", &format!("{} s", short(second)));
        second += step;
    }
    let mut points = Vec::with_capacity(rates.len() * 2);
    let mut start = 0.0;
    for (end_of_rate, rate) in rates {
        points.push(THROUGHPUT.point(start / end, rate / top));
        points.push(THROUGHPUT.point(end_of_rate / end, rate / top));
        start = *end_of_rate;
    }
    svg.area(THROUGHPUT, &points, "green");
    svg.line(
        THROUGHPUT.point(0.0, 0.0),
        THROUGHPUT.point(1.0, 0.0),
        "axis",
    );
    if end > 0.0 && !rates.is_empty() {
        let mut start = 0.0;
        let all = rates
            .iter()
            .map(|(end, rate)| rate * (end - std::mem::replace(&mut start, *end)));
        let mean = all.sum::<f64>() / end;
        svg.line(
            THROUGHPUT.point(0.0, mean / top),
            THROUGHPUT.point(1.0, mean / top),
            "mark",
        );
        let at = (THROUGHPUT.right(), THROUGHPUT.top - 28.0);
        svg.value(at, "end", "mean", &brief(mean));
    }
}

/// Horizontal lines with their values, five at most above zero.
fn draw_rows(svg: &mut Svg, panel: Panel, top: f64, label: impl Fn(f64) -> String) {
    let step = nice_above(top / 5.0);
    let mut value = 0.0;
    while value <= top * 1.0001 {
        let (x, y) = panel.point(0.0, value / top);
        svg.line((x, y), (panel.right(), y), "grid");
        svg.text((x - 10.0, y + 4.0), "", "end", &label(value));
        value += step;
    }
}

/// Rates, each with the moment at which it ends. The last bucket may be shorter than the others.
fn rates(buckets: &[u64], window_s: f64) -> Vec<(f64, f64)> {
    let bucket_s = BUCKET_TICKS as f64 * TICK_NS as f64 / 1e9;
    let count = ((window_s / bucket_s).ceil() as usize).max(1);
    let merged = count.div_ceil(POINTS_MAX);
    let at = |index: usize| (index as f64 * bucket_s).min(window_s);
    let mut rates = Vec::with_capacity(count.div_ceil(merged));
    for start in (0..count).step_by(merged) {
        let end = (start + merged).min(count);
        let received: u64 = (start..end).filter_map(|index| buckets.get(index)).sum();
        let seconds = at(end) - at(start);
        // A sliver at the end would only show its own rounding.
        if seconds > bucket_s / 2.0 || rates.is_empty() {
            rates.push((at(end), received as f64 / seconds.max(1e-9)));
        }
    }
    rates
}

/// A logarithmic axis of microseconds over whole steps.
struct LogAxis {
    /// Powers of ten at and below its beginning, and at and above its end.
    first: i32,
    last: i32,
    /// Where it begins and ends, in steps.
    start: f64,
    end: f64,
}

impl LogAxis {
    fn new(min_us: f64, max_us: f64) -> LogAxis {
        let start = (min_us.log10() * STEPS_PER_DECADE).floor() - 2.0;
        // At least a decade, or a narrow distribution would have no label.
        let end = (max_us.log10() * STEPS_PER_DECADE).ceil() + 2.0;
        let end = end.max(start + STEPS_PER_DECADE);
        LogAxis {
            first: (start / STEPS_PER_DECADE).ceil() as i32 - 1,
            last: (end / STEPS_PER_DECADE).floor() as i32,
            start,
            end,
        }
    }

    /// The place of a time, as a share of the axis; under 0 it is before the axis.
    fn place(&self, us: f64) -> f64 {
        (us.log10() * STEPS_PER_DECADE - self.start) / (self.end - self.start)
    }

    /// The share of all latencies in each step.
    fn steps(&self, latencies: &Histogram<u64>) -> Vec<f64> {
        let mut steps = vec![0.0; (self.end - self.start) as usize];
        let last = steps.len() - 1;
        for value in latencies.iter_recorded() {
            let us = value.value_iterated_to() as f64 * TICK_NS as f64 / 1000.0;
            let step = (self.place(us) * steps.len() as f64).max(0.0) as usize;
            steps[step.min(last)] += value.count_at_value() as f64 / latencies.len() as f64;
        }
        steps
    }
}

/// The end of an axis on which a value fits, a round number of steps.
fn axis_top(value: f64) -> f64 {
    let step = nice_above(value / 5.0);
    step * (value / step).ceil().max(1.0)
}

/// The lowest of 1, 2, 5, 10 and so on that is not under the value.
fn nice_above(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors
        .into_iter()
        .find(|factor| factor * power >= value * 0.9999);
    factor.unwrap_or(10.0) * power
}

/// A round number in as few characters as it needs.
fn short(number: f64) -> String {
    let (number, unit) = match number {
        number if number >= 1e6 => (number / 1e6, "M"),
        number if number >= 1e4 => (number / 1e3, "k"),
        number => (number, ""),
    };
    let text = format!("{number:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

fn short_time(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{} s", short(us / 1e6)),
        us if us >= 1e3 => format!("{} ms", short(us / 1e3)),
        us => format!("{} us", short(us)),
    }
}

/// The drawing so far. Writing to a string never fails.
struct Svg(String);

impl Svg {
    fn new() -> Svg {
        Svg(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             viewBox=\"0 0 {WIDTH} {HEIGHT}\"><style>{STYLE}</style>\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        ))
    }

    fn text(&mut self, at: (f64, f64), class: &str, anchor: &str, text: &str) {
        let (x, y) = at;
        let text = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{text}</text>"
        );
    }

    /// A name and its value.
    fn value(&mut self, at: (f64, f64), anchor: &str, name: &str, value: &str) {
        let _ = writeln!(
            self.0,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{name} \
             <tspan class=\"value\">{value}</tspan></text>",
            at.0, at.1
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let _ = writeln!(
            self.0,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" class=\"{class}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    /// A line through points from left to right, and the area under it.
    fn area(&mut self, panel: Panel, points: &[(f64, f64)], class: &str) {
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return;
        };
        let mut path = String::with_capacity(points.len() * 14);
        for (x, y) in points {
            let _ = write!(path, "{x:.1},{y:.1} ");
        }
        let path = path.trim_end();
        let bottom = panel.bottom();
        let _ = writeln!(
            self.0,
            "<polygon points=\"{:.1},{bottom:.1} {path} {:.1},{bottom:.1}\" class=\"{class}fill\"/>\
             <polyline points=\"{path}\" class=\"{class}\"/>",
            first.0, last.0
        );
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::latencies;

    #[test]
    fn round_numbers() {
        assert_eq!(
            [0.0, 1.0, 3.0, 51.0, 0.3].map(nice_above),
            [1.0, 1.0, 5.0, 100.0, 0.5]
        );
        assert_eq!(
            [0.0, 0.5, 2000.0, 25e3, 1.5e6].map(short),
            ["0", "0.5", "2000", "25k", "1.5M"]
        );
        assert_eq!([10.0, 1e4, 1e6].map(short_time), ["10 us", "10 ms", "1 s"]);
    }

    #[test]
    fn axes_end_at_a_step() {
        assert_eq!(
            [0.0, 21.4, 50.0, 148e3].map(axis_top),
            [1.0, 25.0, 50.0, 150e3]
        );
    }

    #[test]
    fn labels_are_higher_than_what_they_reach() {
        assert_eq!(label_rows(&[100.0, 300.0, 500.0]), [0, 0, 0]);
        assert_eq!(
            label_rows(&[100.0, 101.0, 102.0, 300.0, 310.0]),
            [0, 1, 2, 0, 1]
        );
        assert_eq!(label_rows(&[100.0, 200.0, 250.0]), [0, 1, 2]);
    }

    #[test]
    fn rates_are_of_whole_buckets_and_of_what_is_left() {
        assert_eq!(rates(&[5, 10], 0.1), [(0.05, 100.0), (0.1, 200.0)]);
        assert_eq!(rates(&[5], 0.1), [(0.05, 100.0), (0.1, 0.0)]);
        assert_eq!(rates(&[5, 1], 0.06), [(0.05, 100.0)]);
        let long = rates(&vec![1; 2000], 100.0);
        assert_eq!(long.len(), 200);
        assert!((long[199].0 - 100.0).abs() < 1e-6 && (long[199].1 - 20.0).abs() < 1e-6);
    }

    #[test]
    fn every_latency_is_in_a_step_of_the_axis() {
        let mut all = latencies();
        for ticks in [1, 10, 999, 1000, 123_456_789] {
            all.saturating_record(ticks);
        }
        let axis = LogAxis::new(0.1, 12_345_678.9);
        let steps = axis.steps(&all);
        assert!((steps.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(axis.place(0.1) > 0.0 && axis.place(12_345_678.9) < 1.0);
    }

    #[test]
    fn text_is_escaped() {
        let mut svg = Svg::new();
        svg.text((0.0, 0.0), "", "start", "<a&b>");
        assert!(svg.finish().contains(">&lt;a&amp;b&gt;<"));
    }
}
