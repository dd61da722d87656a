// A stream of messages for tests of compression: mostly like each other, as ticks are, and between them such as go
// out plain, because they are short or binary. Whoever publishes it and whoever checks it make it anew.

export const STREAM_LENGTH = 10_000;

/** Lines that are published together. Joining and leaving happens between two lots. */
export const LOT = 250;

/** Message `n`: a string, or an array of bytes. */
export function messageOf(n) {
  if (n % 31 === 30) return Array.from({ length: 300 }, (_, index) => (index * 7 + n) & 0xff);
  if (n % 7 === 6) return `short ${n}`;
  const cents = (n * 37) % 100_000;
  return JSON.stringify({
    type: "ticker",
    sequence: 58_000_000_000 + n * 3,
    product: ["BTC-USD", "ETH-USD", "SOL-USD", "XRP-USD"][(n * 5) % 4],
    price: `${64_000 + (n % 900)}.${cents}`,
    bid: `${64_000 + (n % 900)}.${(cents * 3) % 100_000}`,
    ask: `${64_001 + (n % 900)}.${(cents * 7) % 100_000}`,
    volume: (n * 2_654_435_761) % 4_294_967_296,
    side: n % 2 === 0 ? "buy" : "sell",
    note: "¼ of what a tick says is the same in each of them",
    venue: "what stays the same is what compression in a context saves",
  });
}

export function isSame(message, other) {
  return JSON.stringify(message) === JSON.stringify(other);
}

/**
 * Which message a subscriber got first that was to get `next`. Who joins may get some before: those that had been
 * published, but not delivered to the others yet.
 */
export function startOf(message, next) {
  for (let n = next; n >= Math.max(0, next - LOT); n -= 1) {
    if (isSame(message, messageOf(n))) return n;
  }
  return next;
}

/** A lot as the body of POST /pub. */
export function linesOf(topic, first) {
  const line = (n) => {
    const message = messageOf(n);
    return typeof message === "string"
      ? JSON.stringify({ topic, data: message })
      : JSON.stringify({ topic, base64: Buffer.from(message).toString("base64") });
  };
  return Array.from({ length: LOT }, (_, index) => line(first + index)).join("\n");
}

/** Publishes a lot over HTTP. */
export async function publishLot(url, topic, first) {
  const answer = await fetch(`${url}/pub`, { method: "POST", body: linesOf(topic, first) });
  const text = await answer.text();
  if (!answer.ok || text.includes("error")) throw new Error(`${answer.status} ${text.slice(0, 200)}`);
}

/** Deliveries that the server has made in the frames of cohorts. */
export async function cohortDeliveries(url) {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(/^umbel_cohort_deliveries_total (\d+)$/m.exec(text)[1]);
}
