// `umbel demo` as a person meets it, in Chromium: each page shows its data, wide and narrow, light and dark.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { DEADLINE_MS, launch, openPage, picture } from "./chromium.mjs";

const BINARY = process.env.UMBEL_BIN ?? join(import.meta.dirname, "../../target/release/umbel");
const FORMS = [
  { name: "wide-light", viewport: { width: 1280, height: 800 }, colorScheme: "light" },
  { name: "wide-dark", viewport: { width: 1280, height: 800 }, colorScheme: "dark" },
  { name: "narrow-light", viewport: { width: 380, height: 780 }, colorScheme: "light" },
  { name: "narrow-dark", viewport: { width: 380, height: 780 }, colorScheme: "dark" },
];

let browser;
let demo;
let address;
let said = "";

before(
  async () => {
    const variables = Object.entries(process.env).filter(([name]) => !name.startsWith("UMBEL_"));
    demo = spawn(BINARY, ["demo"], { env: Object.fromEntries(variables), cwd: "/" });
    const started = new Promise((resolve, reject) => {
      demo.on("exit", (code) => reject(new Error(`it ended with ${code}: ${said}`)));
      for (const stream of [demo.stdout, demo.stderr]) {
        stream.on("data", (bytes) => {
          said += bytes;
          const found = /Open (http:\S+)\/demo\n/.exec(said);
          if (found && said.includes("Ctrl-C ends it.")) resolve(found[1]);
        });
      }
    });
    [browser, address] = await Promise.all([launch(), started]);
  },
  { timeout: DEADLINE_MS },
);

after(async () => {
  await browser?.close();
  if (demo?.exitCode === null) demo.kill("SIGKILL");
});

const open = (path, options) => openPage(browser, `${address}${path}`, options);

const waitForText = (page, selector, pattern) =>
  page.waitForFunction(
    ([where, wanted]) => new RegExp(wanted).test(document.querySelector(where)?.textContent ?? ""),
    [selector, pattern.source],
    { timeout: DEADLINE_MS },
  );

/** Nothing is wider than the window. */
async function assertFits(page) {
  const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(wide <= room, `${wide} of ${room}`);
}

test("the first page leads to the others", async () => {
  const { page, complaints, close } = await open("/demo");
  await page.click("a.card[href='/demo/prices']");
  await page.waitForURL("**/demo/prices");
  await waitForText(page, "#state", /connected/);
  assert.deepEqual(complaints, []);
  await close();
});

test("prices move", async () => {
  const { page, complaints, close } = await open("/demo/prices");
  await page.waitForFunction(() => document.querySelectorAll("#prices tr").length === 8, null, { timeout: DEADLINE_MS });
  await waitForText(page, "#prices tr:first-child .price", /^\d+\.\d\d$/);
  await page.waitForFunction(() => Number(document.getElementById("rate").textContent) > 0, null, { timeout: DEADLINE_MS });
  assert.equal(await page.textContent("#prices tr:first-child th"), "Angelica");
  assert.deepEqual(complaints, []);
  await close();
});

test("guests of the chat see each other, and what was said", async () => {
  const [first, second] = [await open("/demo/chat"), await open("/demo/chat")];
  for (const { page } of [first, second]) {
    await waitForText(page, "#total", /^2$/);
    // Said by the server's own two, before they came.
    await waitForText(page, "#lines", /Morning!/);
  }
  await first.page.fill("#line", "hello <b>there</b>");
  await first.page.press("#line", "Enter");
  await waitForText(second.page, "#lines li:last-child span", /^hello <b>there<\/b>$/);
  await first.close();
  await waitForText(second.page, "#total", /^1$/);
  assert.deepEqual([...first.complaints, ...second.complaints], []);
  await second.close();
});

test("an answer is whole after a reload in the middle of it", async () => {
  const { page, complaints, close } = await open("/demo/model");
  await page.click(".suggestions button:nth-child(2)");
  await waitForText(page, "#words", /^A subscriber that reads/);
  await page.reload();
  await waitForText(page, "#words", /^A subscriber that reads slowly never/);
  await page.waitForSelector("#answer[data-state=done]", { timeout: DEADLINE_MS });
  assert.match(await page.textContent("#words"), /nobody else notices\.$/);
  assert.equal(await page.textContent("#asked"), "What happens to slow readers?");
  assert.deepEqual(complaints, []);
  await close();
});

test("pages fit wide and narrow windows, light and dark", async () => {
  const ready = {
    "": async () => {},
    "/prices": (page) => page.waitForSelector("#prices tr:nth-child(8) .price"),
    "/chat": (page) => page.waitForSelector("#lines li"),
    "/model": async (page) => {
      await page.click(".suggestions button:nth-child(1)");
      await waitForText(page, "#words", /push server/);
    },
  };
  for (const [path, isReady] of Object.entries(ready)) {
    const { page, close } = await open(`/demo${path}`);
    await isReady(page);
    for (const { name, viewport, colorScheme } of FORMS) {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme });
      await assertFits(page);
      await picture(page, `demo${path.replace("/", "-")}-${name}`);
    }
    await close();
  }
});

test("Ctrl-C ends it", { timeout: DEADLINE_MS }, async () => {
  demo.removeAllListeners("exit");
  const ended = new Promise((resolve) => demo.on("exit", resolve));
  demo.kill("SIGINT");
  assert.equal(await ended, 0);
});
