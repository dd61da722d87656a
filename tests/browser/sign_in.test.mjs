// A page that signs in with tokens of a backend's making: refreshed while connected, and shut out once there are none.
// The server is the test's own.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { UmbelProcess } from "../clients/umbel_process.mjs";
import { DEADLINE_MS, launch } from "./chromium.mjs";

const SECRET = "umbel-test-secret-0123456789abcdef";
const TOPIC = "news/eu";
const limits = { timeout: 60_000 };
/** Life of a token. The server warns a tenth of that before its end. */
const LIFE_S = 3;

/** A token as a backend makes it (RFC 7519). */
function mint(subject, lifeS, umbel) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const issuedAt = Math.floor(Date.now() / 1000);
  const claims = { sub: subject, iat: issuedAt, exp: issuedAt + lifeS, umbel: { v: 1, ...umbel } };
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

let browser;
let server;
const folder = mkdtempSync(join(tmpdir(), "umbel-sign-in-"));
before(async () => {
  browser = await launch();
  const file = join(folder, "umbel.toml");
  writeFileSync(
    file,
    `origins = ["any"]
[[jwt]]
name = "app"
algorithms = ["HS256"]
secret = "${SECRET}"
subject_prefix = ""
leeway_ms = 0
[[topic]]
pattern = "**"
history = 100
`,
  );
  server = await UmbelProcess.start("--config", file, "--token-grace-ms", "1000");
}, limits);
after(async () => {
  await browser?.close();
  await server?.stop();
  rmSync(folder, { recursive: true });
});

async function publish(text) {
  const authorization = `Bearer ${mint("backend", 60, { publish: ["**"] })}`;
  const request = { method: "POST", headers: { authorization, "content-type": "text/plain" }, body: text };
  const answer = await fetch(`${server.url}/pub/${TOPIC}`, request);
  assert.equal(answer.status, 200, await answer.text());
}

/** Opens a page of the server's own origin, which connects with tokens that `give` makes. */
async function open(give) {
  const page = await browser.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  const addresses = [];
  page.on("websocket", (socket) => addresses.push(socket.url()));
  const reasons = [];
  await page.exposeFunction("giveToken", (reason) => {
    reasons.push(reason);
    return give();
  });
  await page.goto(`${server.url}/health`);
  await page.evaluate(
    async ([module, url, topic]) => {
      const { connect } = await import(module);
      const heard = { data: [], gaps: [], states: [], denials: [], errors: [] };
      const umbel = connect(url, {
        token: ({ reason }) => window.giveToken(reason),
        onDenied: (denial) => heard.denials.push(denial),
        backoff: { minMs: 20, maxMs: 200 },
      });
      umbel.onState((state) => heard.states.push(state));
      const subscription = umbel.subscribe(topic, {
        onPublication: ({ data }) => heard.data.push(data),
        onGap: (gap) => heard.gaps.push(gap),
        onError: ({ code }) => heard.errors.push(code),
      });
      Object.assign(window, { heard, umbel, subscription });
    },
    [`${server.url}/umbel.js`, `${server.url}/ws`, TOPIC],
  );
  return { page, reasons, addresses };
}

test("a page is refreshed while connected, and shut out when there are no more tokens", limits, async () => {
  let token = () => mint("42", LIFE_S, { subscribe: ["news/**"] });
  const { page, reasons, addresses } = await open(() => token());
  await page.waitForFunction(() => window.umbel.state === "open");
  await publish("before");
  await page.waitForFunction(() => window.heard.data.length === 1);
  while (reasons.length < 2) await new Promise((resolve) => setTimeout(resolve, 50));
  await publish("after");
  await page.waitForFunction(() => window.heard.data.length === 2);
  const kept = await page.evaluate(() => ({ ...window.heard, position: window.subscription.position }));
  assert.deepEqual(reasons, ["start", "expiring"]);
  assert.deepEqual([kept.states, kept.data, kept.gaps, kept.errors], [["open"], ["before", "after"], [], []]);
  assert.match(kept.position, /:2$/);
  assert.equal(addresses.length, 1);
  assert.ok(!addresses[0].includes("token"), "a token stands in no address");
  token = () => null;
  await page.waitForFunction(() => window.umbel.state === "denied", null, { timeout: 15_000 });
  const { denials, errors } = await page.evaluate(() => window.heard);
  assert.deepEqual([denials.length, denials[0].code, errors], [1, 4401, ["unauthorized"]]);
  assert.equal(reasons.at(-1), "rejected");
  assert.equal(addresses.length, 1, "nothing is tried without a token");
  await page.close();
});

test("a page with a bad token is told so, and does not try for ever", limits, async () => {
  const { page, reasons } = await open(() => "no.good.token");
  await page.waitForFunction(() => window.umbel.state === "denied");
  const { denials, errors } = await page.evaluate(() => window.heard);
  assert.deepEqual([denials[0].code, errors, reasons], [4401, ["unauthorized"], ["start", "rejected"]]);
  await page.close();
});

test("a newer token with fewer rights ends what it does not allow", limits, async () => {
  let subscribe = ["news/**"];
  const { page } = await open(() => mint("42", LIFE_S, { subscribe, publish: ["**"] }));
  await page.waitForFunction(() => window.umbel.state === "open");
  subscribe = ["other/**"];
  await page.waitForFunction(() => window.heard.errors.length === 1);
  const { states, errors } = await page.evaluate(() => window.heard);
  assert.deepEqual([states, errors], [["open"], ["forbidden"]]);
  await page.close();
});
