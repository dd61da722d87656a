// Pages of other sites, and of a sibling of the server's name, in the browser of a user who is signed in by a cookie: none of
// them gets anything, or does anything, in the user's name. The server is the test's own.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { UmbelProcess } from "../clients/umbel_process.mjs";
import { DEADLINE_MS, launch } from "./chromium.mjs";

const limits = { timeout: 3 * DEADLINE_MS };
const TOKEN = "umbel-test-token-0123456789abcdef";
const PAGE = "<!doctype html><title>a page</title>";
const TOPIC = "news";

let browser;
let server;
let site;
let folder;
before(async () => {
  folder = mkdtempSync(join(tmpdir(), "umbel-foreign-page-"));
  const file = join(folder, "umbel.toml");
  writeFileSync(
    file,
    `origins = ["http://good.app.example"]
hosts = ["push.app.example", "127.0.0.1", "localhost"]
[identity]
cookie = "session"
[[token]]
name = "user"
value = "${TOKEN}"
subject = "42"
subscribe = ["**"]
publish = ["**"]
[[topic]]
pattern = "**"
history = 10
`,
  );
  server = await UmbelProcess.start("--config", file);
  site = createServer((_, response) => response.setHeader("content-type", "text/html").end(PAGE));
  await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
  browser = await launch("--host-resolver-rules=MAP *.example 127.0.0.1");
}, limits);
after(async () => {
  await browser?.close();
  site?.close();
  await server?.stop();
  rmSync(folder, { recursive: true });
});

const pushUrl = () => server.url.replace("127.0.0.1", "push.app.example");

/** A page at `url` in a browser that has the user's cookie. */
async function withPage(url, use) {
  const context = await browser.newContext();
  const cookies = ["push.app.example", "127.0.0.1"].map((domain) => ({ name: "session", value: TOKEN, domain, path: "/" }));
  await context.addCookies(cookies);
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  try {
    await page.goto(url);
    return await use(page);
  } finally {
    await context.close();
  }
}

/** What a page gets of the server, and does to it, by all ways that there are. */
async function tryAll([base, topic]) {
  const socketOf = (path, protocols) =>
    new Promise((resolve) => {
      const socket = new WebSocket(`${base.replace("http", "ws")}${path}`, protocols);
      let isOpen = false;
      socket.onopen = () => {
        isOpen = true;
        if (path !== "/ws") resolve("open");
      };
      socket.onmessage = ({ data }) => resolve(data.includes('"subject":"42"') ? "open" : data);
      socket.onclose = ({ code }) => resolve(isOpen ? `closed ${code}` : "refused");
    });
  const stream = new Promise((resolve) => {
    const source = new EventSource(`${base}/sse/${topic}`, { withCredentials: true });
    source.onopen = () => resolve("open");
    source.onerror = () => resolve("refused");
  });
  const request = async (path, options) => {
    try {
      const answer = await fetch(`${base}${path}`, { credentials: "include", ...options });
      return answer.type === "opaque" ? "opaque" : `${answer.status}`;
    } catch {
      return "refused";
    }
  };
  const plain = { "content-type": "text/plain" };
  return {
    raw: await socketOf(`/ws/${topic}`, []),
    v1: await socketOf("/ws", ["umbel.v1"]),
    stream: await stream,
    read: await request(`/history/${topic}`),
    readBlindly: await request(`/history/${topic}`, { mode: "no-cors" }),
    publish: await request(`/pub/${topic}`, { method: "POST", body: "by fetch", headers: plain }),
    publishBlindly: await request(`/pub/${topic}`, { method: "POST", body: "by fetch", headers: plain, mode: "no-cors" }),
  };
}

/** Sends a form as a page does, which a browser lets any page do. */
async function sendForm(page, url) {
  const answered = page.waitForResponse((response) => response.url().startsWith(url));
  await page.evaluate((action) => {
    const form = document.createElement("form");
    Object.assign(form, { action, method: "post", enctype: "text/plain" });
    const input = document.createElement("input");
    Object.assign(input, { name: "by", value: "form" });
    form.append(input);
    document.body.append(form);
    form.submit();
  }, url);
  return (await answered).status();
}

async function published() {
  const headers = { authorization: `Bearer ${TOKEN}` };
  const answer = await fetch(`${server.url}/history/${TOPIC}`, { headers });
  return (await answer.json()).publications.map(({ data }) => data);
}

test("a page of the server's own origin is the user", limits, async () => {
  // By an address that browsers trust, for to others they do not say which site a request is from.
  const got = await withPage(`${server.url}/health`, (page) => page.evaluate(tryAll, [server.url, TOPIC]));
  assert.deepEqual(
    [got.raw, got.v1, got.stream, got.read, got.publish],
    ["open", "open", "open", "200", "200"],
    JSON.stringify(got),
  );
  assert.deepEqual(await published(), ["by fetch", "by fetch"]);
});

for (const name of ["evil.example", "evil.app.example"]) {
  test(`a page of ${name} gets nothing in the user's name`, limits, async () => {
    const before = await published();
    const url = `http://${name}:${site.address().port}/`;
    const got = await withPage(url, (page) => page.evaluate(tryAll, [pushUrl(), TOPIC]));
    for (const way of ["raw", "v1", "stream", "read", "publish"]) assert.equal(got[way], "refused", way);
    assert.deepEqual([got.readBlindly, got.publishBlindly], ["opaque", "opaque"]);
    const status = await withPage(url, (page) => sendForm(page, `${pushUrl()}/pub/${TOPIC}`));
    assert.equal(status, 403);
    assert.deepEqual(await published(), before, "nothing was published");
  });
}
