// The Prometheus text format, and what the console's charts show of it.

/** How far back the latency quantile looks. One second alone would hold too few deliveries. */
const QUANTILE_WINDOW_MS = 5_000;

// A sample: name, optional labels, value; a timestamp may follow. Braces in label values are fine,
// because the value cannot contain one.
const SAMPLE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** Parses an exposition into a map from name to `[{ labels, value }]`. Other lines are skipped. */
export function parseMetrics(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const match = SAMPLE.exec(line);
    if (match === null) continue;
    const [, name, labelText, valueText] = match;
    const value = parseValue(valueText);
    if (Number.isNaN(value)) continue;
    const labels = {};
    for (const [, label, escaped] of (labelText ?? "").matchAll(LABEL)) {
      labels[label] = escaped.replace(/\\(.)/g, (_, next) => (next === "n" ? "\n" : next));
    }
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels, value });
  }
  return samples;
}

function parseValue(text) {
  if (text === "+Inf") return Infinity;
  if (text === "-Inf") return -Infinity;
  return Number(text);
}

/** The sum over the label sets of a name that `counts` takes; null if there is no such name. */
export function sum(samples, name, counts = () => true) {
  const all = samples.get(name)?.filter(({ labels }) => counts(labels));
  return all === undefined ? null : all.reduce((total, { value }) => total + value, 0);
}

/** A histogram's cumulative counts as `[[upperBound, count]]` in rising order, label sets summed. */
export function buckets(samples, name) {
  const counts = new Map();
  for (const { labels, value } of samples.get(`${name}_bucket`) ?? []) {
    const bound = parseValue(labels.le ?? "");
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  return [...counts].sort(([a], [b]) => a - b);
}

/**
 * The quantile of what was observed between two readings of a histogram, interpolated within its
 * bucket. In the last, unbounded bucket it is the bound below. Null if nothing was observed.
 */
export function quantile(fraction, before, after) {
  const countsBefore = new Map(before);
  const deltas = after.map(([bound, count]) => [bound, count - (countsBefore.get(bound) ?? 0)]);
  const total = deltas.at(-1)?.[1] ?? 0;
  // Counts that fall mean that the server was restarted.
  if (!(total > 0) || deltas.some(([, delta]) => delta < 0)) return null;
  const rank = fraction * total;
  let [boundBelow, countBelow] = [0, 0];
  for (const [bound, count] of deltas) {
    if (count >= rank) {
      if (bound === Infinity) return boundBelow;
      return boundBelow + ((bound - boundBelow) * (rank - countBelow)) / (count - countBelow || 1);
    }
    [boundBelow, countBelow] = [bound, count];
  }
  return boundBelow;
}

const CONNECTIONS = "umbel_connections";
/** WebSockets and event streams. The rest are requests: the page's own, one a second, among them. */
const isSubscriber = ({ state }) => state === "open";
const DELIVERIES = "umbel_deliveries_total";
const PUBLICATIONS = "umbel_publications_total";
const SLOW_CONSUMERS = "umbel_slow_consumers_total";
const OUTBOX_BYTES = "umbel_outbox_bytes";
const PUBLISH_TO_WRITE = "umbel_publish_to_write_seconds";

/** Turns successive readings of `/metrics` into the values of the moment. */
export class Readings {
  #readings = [];

  /** Takes a reading and its time, and returns each value by name; null is not known. */
  handleReading(samples, atMs) {
    const reading = { atMs, samples, latency: buckets(samples, PUBLISH_TO_WRITE) };
    const last = this.#readings.at(-1);
    const isWithinWindow = ({ atMs: thenMs }) => atMs - thenMs <= QUANTILE_WINDOW_MS;
    // The one just outside is kept too: the window reaches back to it.
    while (this.#readings.length > 1 && !isWithinWindow(this.#readings[1])) this.#readings.shift();
    const first = this.#readings[0];
    this.#readings.push(reading);
    return {
      connections: sum(samples, CONNECTIONS, isSubscriber),
      deliveries: rate(last, reading, DELIVERIES),
      publications: rate(last, reading, PUBLICATIONS),
      slowConsumers: sum(samples, SLOW_CONSUMERS),
      outboxBytes: sum(samples, OUTBOX_BYTES),
      latency: first === undefined ? null : quantile(0.99, first.latency, reading.latency),
    };
  }

  /** Forgets the readings, for when they have a gap. */
  reset() {
    this.#readings = [];
  }
}

// The growth of a counter per second; null when it is not known or fell, as it does at a restart.
function rate(before, after, name) {
  if (before === undefined) return null;
  const [then, now] = [sum(before.samples, name), sum(after.samples, name)];
  if (then === null || now === null || now < then) return null;
  return ((now - then) * 1000) / (after.atMs - before.atMs);
}
