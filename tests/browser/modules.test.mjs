// The console's pure modules, imported from the server into Chromium: bytes in, numbers out.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { DEADLINE_MS, launch, openPage } from "./chromium.mjs";

let browser;
let page;
before(
  async () => {
    browser = await launch();
    ({ page } = await openPage(browser, "/"));
  },
  { timeout: DEADLINE_MS },
);
after(() => browser?.close());

test("topics are encoded segment by segment, once", async () => {
  const encode = (topic) =>
    page.evaluate(async (text) => {
      const { encodeTopic } = await import("/console/topic.js");
      try {
        return encodeTopic(text);
      } catch (error) {
        return error;
      }
    }, topic);
  assert.equal(await encode("news"), "news");
  assert.equal(await encode("a/b c/ü"), "a/b%20c/%C3%BC");
  assert.equal(await encode("100%#"), "100%25%23");
  assert.equal(await encode("t?chain_id=1&&a=x y"), "t?chain_id=1&a=x%20y");
  assert.equal(await encode("t?a=%26&b=1+1&c=5%"), "t?a=%26&b=1%2B1&c=5%25");
  assert.equal((await encode("?a=1")).message, "a topic needs a name");
  assert.match((await encode("a/../b")).message, /segment/);
  assert.match((await encode("a\nb")).message, /control/);
  assert.match((await encode("ü".repeat(128))).message, /255 bytes/);
  assert.match((await encode("\ud800")).message, /Unicode/);
});

test("a topic survives the address", async () => {
  const topics = ["hello", "tokens?chain_id=1", "100%25", "a%2fb", "ü/ö", "a#b"];
  const back = await page.evaluate(async (list) => {
    const { hashFromTopic, topicFromHash } = await import("/console/topic.js");
    return list.map((topic) => topicFromHash(new URL(hashFromTopic(topic), location).hash));
  }, topics);
  assert.deepEqual(back, topics);
});

test("metrics are parsed, labels and all", async () => {
  const text = [
    "# HELP umbel_connections Connections.",
    "# TYPE umbel_connections gauge",
    'umbel_connections{state="open",dialect="a\\"}b\\\\"} 3',
    'umbel_connections{state="closing",dialect="raw"} 4 1700000000000',
    "umbel_outbox_bytes 1e3",
    "umbel_broken",
    "umbel_broken NaN",
    "# EOF",
  ].join("\n");
  const [total, label, bytes, broken] = await page.evaluate(async (exposition) => {
    const { parseMetrics, sum } = await import("/console/metrics.js");
    const samples = parseMetrics(exposition);
    const [first] = samples.get("umbel_connections");
    const named = ["umbel_connections", "umbel_outbox_bytes", "umbel_broken"];
    const [connections, outbox, missing] = named.map((name) => sum(samples, name));
    return [connections, first.labels.dialect, outbox, missing];
  }, text);
  assert.equal(total, 7);
  assert.equal(label, 'a"}b\\');
  assert.equal(bytes, 1000);
  assert.equal(broken, null);
});

test("the quantile is of what came between two readings", async () => {
  const quantile = (before, after) =>
    page.evaluate(
      async ([then, now]) => {
        const { quantile: compute } = await import("/console/metrics.js");
        const bounds = [0.001, 0.002, Infinity];
        const pair = (counts) => bounds.map((bound, index) => [bound, counts[index]]);
        return compute(0.99, pair(then), pair(now));
      },
      [before, after],
    );
  assert.equal(await quantile([5, 5, 5], [105, 105, 105]), 0.00099);
  assert.equal(await quantile([0, 0, 0], [98, 100, 100]), 0.0015);
  assert.equal(await quantile([0, 0, 0], [0, 0, 10]), 0.002);
  assert.equal(await quantile([5, 5, 5], [5, 5, 5]), null);
  assert.equal(await quantile([5, 5, 5], [1, 1, 1]), null);
});

test("rates come from the time that passed, and not from a restart", async () => {
  const rates = await page.evaluate(async () => {
    const { Readings, parseMetrics } = await import("/console/metrics.js");
    const readings = new Readings();
    return [
      [1000, 100],
      [3000, 300],
      [4000, 7],
      [5000, 8],
    ].map(([atMs, count]) => {
      const samples = parseMetrics(`umbel_deliveries_total ${count}`);
      return readings.handleReading(samples, atMs).deliveries;
    });
  });
  assert.deepEqual(rates, [null, 100, null, 1]);
});

test("what is a pattern is one by its segments", async () => {
  const found = await page.evaluate(async () => {
    const { isPattern } = await import("/console/topic.js");
    const texts = ["*", "**", "a/*", "a.*.b", "a/**", "*?x=1", "a", "a*", "a/***", "a?b=/*", ""];
    return texts.filter(isPattern);
  });
  assert.deepEqual(found, ["*", "**", "a/*", "a.*.b", "a/**", "*?x=1"]);
});

test("connections are WebSockets and streams, not requests", async () => {
  const { connections } = await page.evaluate(async () => {
    const { Readings, parseMetrics } = await import("/console/metrics.js");
    const line = (state, dialect, count) => `umbel_connections{state="${state}",dialect="${dialect}"} ${count}`;
    const lines = [line("http", "none", 7), line("open", "raw", 2), line("open", "sse", 3)];
    return new Readings().handleReading(parseMetrics(lines.join("\n")), 1000);
  });
  assert.equal(connections, 5);
});
