// The console with more topics and connections than anybody looks at: each page comes at once, and nothing stalls.
//
// UMBEL_ROWS_TOPICS and UMBEL_ROWS_CONNECTIONS say how many (100,000 and 5,000). Each connection takes a descriptor here
// and one of the server's.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { UmbelProcess } from "../clients/umbel_process.mjs";
import { launch, picture } from "./chromium.mjs";

const TOPICS = Number(process.env.UMBEL_ROWS_TOPICS ?? 100_000);
const CONNECTIONS = Number(process.env.UMBEL_ROWS_CONNECTIONS ?? 5_000);

const LINES_MAX = 1_000;
const OPENING_MAX = 200;
const TOPIC_PAGES = 20;
const CONNECTION_PAGES = 40;
/** The longest that a page may take, and that the browser may be busy with one thing. */
const PAGE_MS_MAX = 1_000;
const STALL_MS_MAX = 500;

const OPERATOR = "operator-token-of-the-test";
const SETTINGS = `
origins = ["localhost"]
[[topic]]
pattern = "kept/**"
history = 1
[[token]]
name = "operator"
value = "${OPERATOR}"
manage = ["**"]
observe = true
subscribe = ["**"]
publish = ["**"]
[limits]
connections_max = ${CONNECTIONS + 100}
`;

const limits = { timeout: 300_000 };
const authorization = { Authorization: `Bearer ${OPERATOR}` };

let browser;
let folder;
let server;
let sockets = [];
before(async () => {
  browser = await launch();
  folder = mkdtempSync(join(tmpdir(), "umbel-rows-"));
  const path = join(folder, "umbel.toml");
  writeFileSync(path, SETTINGS, { mode: 0o600 });
  server = await UmbelProcess.start("--config", path);
  await makeTopics();
  await openConnections();
}, limits);
after(async () => {
  for (const socket of sockets) socket.destroy();
  await browser?.close();
  await server?.stop();
  rmSync(folder, { recursive: true });
});

async function makeTopics() {
  for (let first = 0; first < TOPICS; first += LINES_MAX) {
    const lines = Array.from({ length: Math.min(LINES_MAX, TOPICS - first) }, (_, at) =>
      JSON.stringify({ topic: `kept/${String(first + at).padStart(6, "0")}`, data: "x" }),
    );
    const answer = await fetch(`${server.url}/pub`, {
      method: "POST",
      body: lines.join("\n"),
      headers: authorization,
    });
    assert.equal(answer.status, 200, await answer.text());
  }
}

/** Opens sockets that subscribe, some at a time. */
async function openConnections() {
  const open = () =>
    new Promise((resolve, reject) => {
      const socket = connect(server.port, "127.0.0.1");
      const head =
        "GET /ws/rooms/many HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
        `Authorization: Bearer ${OPERATOR}\r\nSec-WebSocket-Version: 13\r\n` +
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
      socket.on("error", reject);
      socket.once("data", (data) => (/^HTTP\/1.1 101/.test(data) ? resolve() : reject(new Error(String(data)))));
      socket.write(head);
      sockets.push(socket);
    });
  for (let first = 0; first < CONNECTIONS; first += OPENING_MAX) {
    await Promise.all(Array.from({ length: Math.min(OPENING_MAX, CONNECTIONS - first) }, open));
  }
}

/** Opens the console; notes how long the browser was busy with one thing at most. */
async function openConsole(t) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
  t.after(() => context.close());
  context.setDefaultTimeout(30_000);
  await context.addInitScript((token) => {
    sessionStorage.setItem("umbel-token", token);
    globalThis.longestMs = 0;
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) globalThis.longestMs = Math.max(globalThis.longestMs, duration);
    }).observe({ entryTypes: ["longtask"] });
  }, OPERATOR);
  const page = await context.newPage();
  await page.goto(`${server.url}/#rooms/many`);
  await page.locator("#state[data-state=open]").waitFor();
  await page.waitForFunction(() => document.querySelectorAll("#topics li").length > 0);
  return page;
}

/** Clicks so many times; gives the milliseconds until `isThere` after each, in the page's own time. */
async function turnPages(page, button, times, isThere) {
  const all = [];
  // What the page needed to come up is not what is asked here.
  await page.evaluate(() => (globalThis.longestMs = 0));
  for (let turn = 1; turn <= times; turn += 1) {
    const tookMs = await page.evaluate(
      async ([selector, source, number]) => {
        const is = new Function("number", `return ${source}`);
        const began = performance.now();
        document.querySelector(selector).click();
        while (!is(number)) await new Promise((resolve) => requestAnimationFrame(resolve));
        return performance.now() - began;
      },
      [button, isThere, turn],
    );
    all.push(tookMs);
  }
  all.sort((a, b) => a - b);
  return { median: all[all.length >> 1], longest: all.at(-1) };
}

async function check(t, page, what, { median, longest }) {
  const stall = await page.evaluate(() => globalThis.longestMs);
  const rounded = [median, longest, stall].map((ms) => ms.toFixed(0));
  t.diagnostic(`${what}: median ${rounded[0]} ms, longest ${rounded[1]} ms, longest task ${rounded[2]} ms`);
  assert.ok(longest <= PAGE_MS_MAX, `${what}: a page took ${longest} ms`);
  assert.ok(stall <= STALL_MS_MAX, `${what}: the browser was busy for ${stall} ms`);
}

test(`${TOPICS} topics by pages`, limits, async (t) => {
  const page = await openConsole(t);
  const took = await turnPages(
    page,
    "#topics-next",
    TOPIC_PAGES,
    'document.querySelector("#topics-note").textContent.startsWith("Page " + (number + 1))',
  );
  assert.ok((await page.locator("#topics li").count()) <= 200, "no more rows than one page has");
  await check(t, page, `${TOPICS} topics`, took);
  await picture(page, "many-topics");
  await page.click("#topics-previous");
  await page.waitForFunction(() => document.querySelector("#topics-note").textContent.startsWith("Page 20"));
});

test(`${CONNECTIONS} connections by pages`, limits, async (t) => {
  const page = await openConsole(t);
  await page.click("#open-operate");
  await page.locator("#connections li").first().waitFor();
  await page.locator("#connections-more").waitFor();
  const took = await turnPages(
    page,
    "#connections-more",
    CONNECTION_PAGES,
    'document.querySelectorAll("#connections li").length >= 25 * (number + 1)',
  );
  await check(t, page, `${CONNECTIONS} connections`, took);
  await picture(page, "many-connections");
});
