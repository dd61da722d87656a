// The console as the operator's tool, against a server of its own that asks for tokens.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { DEADLINE_MS, launch, picture } from "./chromium.mjs";

const OPERATOR = "operator-token-of-the-test";
const ANNA = "annas-token-of-the-test";

const SETTINGS = `
origins = ["localhost"]
[[topic]]
pattern = "rooms/**"
history = 100
presence = true
[[token]]
name = "operator"
value = "${OPERATOR}"
manage = ["**"]
observe = true
subscribe = ["**"]
publish = ["**"]
[[token]]
name = "anna"
value = "${ANNA}"
subject = "anna"
subscribe = ["**"]
`;

let browser;
let server;
let origin;
let folder;

before(
  async () => {
    folder = mkdtempSync(join(tmpdir(), "umbel-operate-"));
    const path = join(folder, "umbel.toml");
    writeFileSync(path, SETTINGS, { mode: 0o600 });
    const binary = process.env.UMBEL_BIN ?? "target/release/umbel";
    // The variables of the test are no settings.
    const env = { PATH: process.env.PATH };
    server = spawn(binary, ["serve", "--config", path, "--listen", "127.0.0.1:0"], { env });
    origin = await new Promise((resolve, reject) => {
      let log = "";
      server.on("exit", () => reject(new Error(`the server ended: ${log}`)));
      server.stderr.on("data", (data) => {
        log += data;
        const found = /listening on (http:\/\/\S+)/.exec(log);
        if (found) resolve(found[1]);
      });
    });
    browser = await launch();
  },
  { timeout: DEADLINE_MS },
);
after(async () => {
  await browser?.close();
  server?.removeAllListeners("exit");
  server?.kill();
  rmSync(folder, { recursive: true });
});

/** Opens the console, with a token unless that is empty. */
async function openConsole(token, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  context.setDefaultTimeout(DEADLINE_MS);
  if (token !== "") {
    await context.addInitScript((kept) => sessionStorage.setItem("umbel-token", kept), token);
  }
  const page = await context.newPage();
  await page.goto(`${origin}/#rooms/1`);
  if (token !== "") await page.locator("#state[data-state=open]").waitFor();
  return { page, close: () => context.close() };
}

function authorized(path, options = {}) {
  const headers = { Authorization: `Bearer ${OPERATOR}`, ...options.headers };
  return fetch(`${origin}${path}`, { ...options, headers });
}

test("the page comes without a token, and shows nothing before there is one", async () => {
  const { page, close } = await openConsole("");
  await page.waitForFunction(() => /token/.test(document.querySelector("#topics-note").textContent));
  await page.click("#open-operate");
  await page.locator("#operate-result[data-outcome=failed]").waitFor();
  assert.match(await page.textContent("#operate-result"), /token/);
  await picture(page, "operate-without-token");
  await close();
});

test("the token is typed once, kept in the tab alone and never in the address", async () => {
  const { page, close } = await openConsole("");
  await page.click("#open-token");
  await page.fill("#token-value", OPERATOR);
  await page.press("#token-value", "Enter");
  await page.locator("#state[data-state=open]").waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.getItem("umbel-token")), OPERATOR);
  assert.equal(await page.evaluate(() => localStorage.length), 0);
  assert.ok(!page.url().includes(OPERATOR));
  await page.reload();
  await page.locator("#state[data-state=open]").waitFor();
  await page.click("#open-token");
  await page.click("#token-form button[value=forget]");
  await page.waitForFunction(() => sessionStorage.getItem("umbel-token") === null);
  await close();
});

test("connections are unsubscribed and disconnected by the keyboard", async () => {
  const others = [await openConsole(ANNA), await openConsole(ANNA)];
  const { page, close } = await openConsole(OPERATOR);
  const rows = page.locator("#connections li");
  const waitForRows = (count) =>
    page.waitForFunction((wanted) => document.querySelectorAll("#connections li").length === wanted, count);
  await page.focus("#open-operate");
  await page.keyboard.press("Enter");
  await page.fill("#connections-subject", "anna");
  await page.fill("#connections-topic", "rooms/1");
  await page.keyboard.press("Enter");
  await rows.first().locator(".unsubscribe").waitFor();
  await waitForRows(2);
  assert.equal(await rows.first().locator(".name").textContent(), "anna");
  await picture(page, "operate-connections");
  await rows.first().locator(".unsubscribe").focus();
  await page.keyboard.press("Enter");
  await waitForRows(1);
  assert.match(await page.textContent("#operate-result"), /unsubscribed/);
  // The focus is at the next row.
  await page.keyboard.press("Enter");
  await waitForRows(0);
  for (const other of others) {
    await other.page.locator("#state[data-state=closed]").waitFor();
    assert.match(await other.page.textContent("#state-detail"), /forbidden/);
    await other.close();
  }
  await close();
});

test("a history is read by pages", async () => {
  for (let number = 1; number <= 30; number += 1) {
    await authorized("/pub/rooms/3", { method: "POST", body: `message ${number}` });
  }
  const { page, close } = await openConsole(OPERATOR);
  await page.click("#open-operate");
  await page.fill("#history-topic", "rooms/3");
  await page.press("#history-topic", "Enter");
  await page.waitForFunction(() => document.querySelectorAll("#history li").length === 25);
  await page.click("#history-more");
  await page.waitForFunction(() => document.querySelectorAll("#history li").length === 30);
  const payloads = await page.locator("#history code").allTextContents();
  assert.equal(payloads[0], "message 1");
  assert.equal(payloads[29], "message 30");
  assert.ok(await page.locator("#history-more").isHidden());
  await close();
});

test("a token is asked about", async () => {
  const { page, close } = await openConsole(OPERATOR);
  await page.click("#open-operate");
  await page.fill("#may-token", ANNA);
  await page.fill("#may-topic", "rooms/1");
  await page.press("#may-topic", "Enter");
  await page.locator("#may-result[data-outcome=done]").waitFor();
  await page.selectOption("#may-action", "publish");
  await page.press("#may-topic", "Enter");
  await page.locator("#may-result[data-outcome=failed]").waitFor();
  assert.match(await page.textContent("#may-result"), /^Not allowed/);
  await close();
});

test("every control of the dialogs has a name", async () => {
  const { page, close } = await openConsole(OPERATOR);
  await page.click("#open-operate");
  await page.locator("#connections li").first().waitFor();
  const nameless = await page.evaluate(() => {
    const controls = document.querySelectorAll("dialog[open] :is(input, select, button)");
    const isNamed = (control) =>
      control.ariaLabel || control.textContent.trim() || control.labels?.[0]?.textContent.trim();
    return [...controls].filter((control) => !isNamed(control)).map((control) => control.outerHTML);
  });
  assert.deepEqual(nameless, []);
  await close();
});

for (const [name, options] of [
  ["wide-light", { colorScheme: "light" }],
  ["wide-dark", { colorScheme: "dark" }],
  ["narrow-light", { viewport: { width: 390, height: 844 }, colorScheme: "light" }],
  ["narrow-dark", { viewport: { width: 390, height: 844 }, colorScheme: "dark" }],
]) {
  test(`nothing is wider than the page: ${name}`, async () => {
    const { page, close } = await openConsole(OPERATOR, options);
    const fits = () =>
      page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth);
    assert.ok(await fits());
    await picture(page, `page-${name}`);
    await page.click("#open-operate");
    await page.locator("#connections li").first().waitFor();
    assert.ok(await fits());
    const dialog = await page.evaluate(() => {
      const { scrollWidth, clientWidth } = document.querySelector("#operate");
      return scrollWidth - clientWidth;
    });
    assert.ok(dialog <= 0, `${dialog}`);
    await picture(page, `operate-${name}`);
    await close();
  });
}
