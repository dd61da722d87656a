// Umbel's script in Chromium: imported by pages of another origin, in many tabs, while connections break in the middle
// of frames and the server is killed and started again. The servers are the test's own.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { CuttingProxy } from "../clients/cutting_proxy.mjs";
import { UmbelProcess } from "../clients/umbel_process.mjs";
import { DEADLINE_MS, freshTopic, launch } from "./chromium.mjs";

const TABS = 8;
const limits = { timeout: 90_000 };

let browser;
let server;
let proxy;
let site;
before(async () => {
  browser = await launch();
  server = await UmbelProcess.start("--topic-rule", "** history=10000");
  proxy = await CuttingProxy.start(server.port);
  site = createServer((request, response) => {
    response.writeHead(200, { "content-type": "text/html" });
    response.end("<!doctype html><title>a page of somebody else</title><link rel=icon href=data:,>");
  });
  await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
}, limits);
after(async () => {
  await browser?.close();
  await proxy?.stop();
  await server?.stop();
  site?.close();
});

/** Opens a tab that imports the script and listens to `topic`. What it hears is in `window.heard`. */
async function openTab(context, topic, options = {}) {
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  await page.evaluate(
    async ([module, url, name, given]) => {
      const { connect } = await import(module);
      const heard = { data: [], gaps: [], subscribed: [] };
      const umbel = connect(url, { backoff: { minMs: 20, maxMs: 200 }, ...given });
      Object.assign(window, { heard, umbel });
      await new Promise((resolve, reject) => {
        heard.subscription = umbel.subscribe(name, {
          onPublication: ({ data }) =>
            heard.data.push(data instanceof Uint8Array ? Array.from(data) : data),
          onGap: (gap) => heard.gaps.push(gap),
          onSubscribed: (subscribed) => {
            heard.subscribed.push(subscribed);
            resolve();
          },
          onError: reject,
        });
      });
    },
    [`${server.url}/umbel.js`, `http://127.0.0.1:${proxy.port}/ws`, topic, options],
  );
  return page;
}

/** What a tab heard, once it has heard `last`. */
async function heardUntil(page, last) {
  await page.waitForFunction((text) => window.heard.data.at(-1) === text, last, { timeout: 30_000 });
  return page.evaluate(() => {
    const { data, gaps, subscribed } = window.heard;
    return { data, gaps, subscribed };
  });
}

for (const binary of [false, true]) {
  const dialect = binary ? "umbel.v1.bin" : "umbel.v1";
  test(`${dialect}: a page publishes and hears, text and bytes`, limits, async () => {
    const context = await browser.newContext();
    const page = await openTab(context, freshTopic("script"), { binary });
    const positions = await page.evaluate(async () => {
      const topic = window.heard.subscription.topic;
      const bytes = Uint8Array.from({ length: 70_000 }, (_, index) => index & 0xff);
      const sent = ["with ü and \u2028", bytes, { any: "JSON" }, bytes.buffer.slice(0, 2), "end"];
      const published = await Promise.all(sent.map((data) => window.umbel.publish(topic, data)));
      return published.map(({ position }) => position);
    });
    const { data, gaps } = await heardUntil(page, "end");
    assert.equal(new Set(positions).size, 5);
    assert.deepEqual(gaps, []);
    assert.equal(data[0], "with ü and \u2028");
    assert.equal(data[1].length, 70_000);
    assert.ok(data[1].every((byte, index) => byte === (index & 0xff)));
    assert.deepEqual(data.slice(2), [{ any: "JSON" }, [0, 1], "end"]);
    assert.equal(await page.evaluate(() => window.heard.subscription.position), positions[4]);
    await context.close();
  });
}

test("tabs whose connections break in the middle of frames miss nothing", limits, async () => {
  const context = await browser.newContext();
  const topic = freshTopic("cut");
  const pages = [];
  for (let count = 0; count < TABS; count += 1) {
    pages.push(await openTab(context, topic, { binary: count % 2 === 0 }));
  }
  const expected = [];
  for (let number = 0; number < 400; number += 1) {
    expected.push(`${number} ${"x".repeat((number * 37) % 700)}`);
    await server.publish(topic, expected.at(-1));
    if (number % 60 === 20) proxy.cutAfterBytes = 400 + number * 7;
    if (number % 60 === 20) proxy.cutAll();
    if (number % 60 === 50) proxy.cutAfterBytes = null;
  }
  proxy.cutAfterBytes = null;
  proxy.cutAll();
  for (const page of pages) {
    const { data, gaps, subscribed } = await heardUntil(page, expected.at(-1));
    assert.deepEqual(data, expected);
    assert.deepEqual(gaps, []);
    assert.ok(subscribed.length >= 3, `${subscribed.length} connections`);
  }
  await context.close();
});

test("a page is told why it was refused", limits, async () => {
  const own = await UmbelProcess.start(
    ...["--subscribe", "token", "--subscribe-token", "the right one, long enough"],
    ...["--publish", "nobody", "--origin", "localhost"],
  );
  const page = await browser.newPage();
  try {
    await page.goto(`http://127.0.0.1:${site.address().port}/`);
    const endings = await page.evaluate(
      async ([module, paths]) => {
        const { connect } = await import(module);
        const endOf = (url) =>
          new Promise((resolve) => {
            const umbel = connect(url, { token: "a wrong one, just as long" });
            const isEnd = (state) => state === "closed" || state === "denied";
            umbel.onState((state, { code, reason }) => isEnd(state) && resolve([code, reason]));
          });
        return Promise.all(paths.map(endOf));
      },
      [`${own.url}/umbel.js`, ["/ws", "/wrong", "/ws/news"].map((path) => `${own.url}${path}`)],
    );
    assert.deepEqual(endings.map(([code]) => code), [4401, 4404, 4401]);
    for (const [, reason] of endings) assert.match(reason, /token|nothing/);
  } finally {
    await page.close();
    await own.stop();
  }
});

test("a page whose network is back, and one that comes to the front, connect at once", limits, async () => {
  const context = await browser.newContext();
  // An hour, so that nothing but the event can be the reason.
  const backoff = { minMs: 3_600_000, maxMs: 3_600_000 };
  const page = await openTab(context, freshTopic("woken"), { backoff });
  const isIn = (state) => page.waitForFunction((wanted) => window.umbel.state === wanted, state);
  proxy.cutAll();
  await isIn("waiting");
  await context.setOffline(true);
  await context.setOffline(false);
  await isIn("open");
  proxy.cutAll();
  await isIn("waiting");
  // Of the driver's making, for whom every page is always in front.
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  await isIn("open");
  await context.close();
});

test("tabs are told of the gap when the server was killed, and go on", limits, async () => {
  const context = await browser.newContext();
  const topic = freshTopic("killed");
  const pages = [];
  for (let count = 0; count < TABS; count += 1) pages.push(await openTab(context, topic));
  await server.publish(topic, "before");
  for (const page of pages) await heardUntil(page, "before");
  await server.stop("SIGKILL");
  const waiting = pages[0].evaluate((name) => window.umbel.publish(name, "while it was away"), topic);
  // The first one may not have noticed yet, and then what it sent has an unknown fate.
  const fate = waiting.then(() => "published", (error) => error.message);
  await server.restart();
  assert.match(await fate, /^published$|fate_unknown|is not known/);
  for (const page of pages) {
    await page.waitForFunction(() => window.heard.subscribed.length >= 2);
  }
  await server.publish(topic, "after");
  for (const page of pages) {
    const { data, gaps, subscribed } = await heardUntil(page, "after");
    assert.equal(data[0], "before");
    assert.deepEqual(gaps.map(({ reason }) => reason), ["unrecovered"]);
    assert.equal(subscribed[1].recovered, false);
  }
  await context.close();
});
