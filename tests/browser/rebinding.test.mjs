// Pages that have nothing to do with the server: one whose name leads to it, and one of another site.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { UmbelProcess } from "../clients/umbel_process.mjs";
import { DEADLINE_MS, freshTopic, launch } from "./chromium.mjs";

const limits = { timeout: 3 * DEADLINE_MS };
const PAGE = "<!doctype html><title>a page</title>";

let browser;
let server;
let site;
before(async () => {
  server = await UmbelProcess.start();
  site = createServer((_, response) => response.setHeader("content-type", "text/html").end(PAGE));
  await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
  browser = await launch("--host-resolver-rules=MAP *.example 127.0.0.1");
}, limits);
after(async () => {
  await browser?.close();
  site?.close();
  await server?.stop();
});

async function withPage(url, use) {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  try {
    await page.goto(url);
    return await use(page);
  } finally {
    await context.close();
  }
}

/** What a page gets of the server by each way that needs no origin, or sends its own. */
function readAll([base, topic]) {
  const read = async (path) => {
    try {
      const answer = await fetch(`${base}${path}`);
      return `${answer.status} ${await answer.text()}`;
    } catch {
      return "nothing";
    }
  };
  const stream = new Promise((resolve) => {
    const source = new EventSource(`${base}/sse/${topic}`);
    source.onopen = () => resolve("open");
    source.onerror = () => resolve("refused");
  });
  const socket = new Promise((resolve) => {
    const websocket = new WebSocket(`${base.replace("http", "ws") || `ws://${location.host}`}/ws/${topic}`);
    websocket.onopen = () => resolve("open");
    websocket.onerror = () => resolve("refused");
  });
  return Promise.all([read("/topics"), read("/metrics"), stream, socket]);
}

test("a page whose name leads to the server reads nothing of it", limits, async () => {
  const topic = freshTopic("secret");
  await server.publish(topic, "for this machine");
  const port = server.port;
  for (const name of ["rebound.example", "localhost.rebound.example"]) {
    const seen = await withPage(`http://${name}:${port}/`, (page) => page.evaluate(readAll, ["", topic]));
    const [topics, metrics, stream, socket] = seen;
    for (const answer of [topics, metrics]) assert.match(answer, /^403 this came through a proxy/);
    assert.deepEqual([stream, socket], ["refused", "refused"]);
  }
  const own = await withPage(`http://localhost:${port}/umbel.js`, (page) =>
    page.evaluate(readAll, ["", topic]),
  );
  assert.match(own[0], /^200 /);
  assert.deepEqual(own.slice(2), ["open", "open"]);
});

test("a page of another site holds no subscriber by a picture", limits, async () => {
  const topic = freshTopic("picture");
  const address = `http://other.example:${site.address().port}/`;
  const refused = async () => {
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    return Number(/^umbel_refused_total\{reason="forbidden"\} (\d+)$/m.exec(metrics)[1]);
  };
  const before = await refused();
  const ended = await withPage(address, (page) =>
    page.evaluate(
      ([base, name]) => {
        const load = (tag) =>
          new Promise((resolve) => {
            const element = document.createElement(tag);
            element.onerror = () => resolve("refused");
            element.onload = () => resolve("loaded");
            element.src = `${base}/sse/${name}`;
            document.body.append(element);
          });
        return Promise.all([load("img"), load("audio"), load("script")]);
      },
      [server.url, topic],
    ),
  );
  assert.deepEqual(ended, ["refused", "refused", "refused"]);
  const known = await fetch(`${server.url}/topics/${topic}`);
  assert.equal(known.status, 404, await known.text());
  // Chromium gives up on an event stream that is to be a picture; that the server refused it shows in its count.
  assert.equal((await refused()) - before, 3);
});

test("a page of another site opens the console by a link only", limits, async () => {
  const address = `http://other.example:${site.address().port}/`;
  await withPage(address, async (page) => {
    await page.evaluate((url) => {
      const frame = document.createElement("iframe");
      frame.src = url;
      document.body.append(frame);
    }, `${server.url}/topics`);
    await page.waitForFunction(() => window.frames.length === 1);
    const opened = page.waitForNavigation();
    await page.evaluate((url) => {
      location.href = url;
    }, `${server.url}/`);
    assert.equal((await opened).status(), 200);
    await page.goto(address);
    const listed = page.waitForNavigation();
    await page.evaluate((url) => {
      location.href = url;
    }, `${server.url}/topics`);
    assert.equal((await listed).status(), 403);
  });
});
