// What the console shows of topics: positions and keys, history, presence, patterns and the list to choose from; and what
// it does not count. The servers are the test's own.

import assert from "node:assert/strict";
import { connect as connectTcp } from "node:net";
import { after, before, test } from "node:test";

import { UmbelProcess } from "../clients/umbel_process.mjs";
import { DEADLINE_MS, freshTopic, launch, picture } from "./chromium.mjs";

const limits = { timeout: 60_000 };

let browser;
let server;
before(async () => {
  browser = await launch();
  server = await UmbelProcess.start("--topic-rule", "kept/** history=100 presence=on");
}, limits);
after(async () => {
  await browser?.close();
  await server?.stop();
});

const keptTopic = (name) => `kept/${freshTopic(name)}`;

async function openConsole(t, topic, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  t.after(() => context.close());
  context.setDefaultTimeout(DEADLINE_MS);
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(`uncaught: ${error.message}`));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  t.after(() => assert.deepEqual(complaints, []));
  await page.goto(`${server.url}/#${topic}`);
  await page.locator("#state[data-state=open]").waitFor();
  return page;
}

async function publish(topic, body, key) {
  const headers = key === undefined ? {} : { "Umbel-Key": key };
  const answer = await fetch(`${server.url}/pub/${topic}`, { method: "POST", body, headers });
  const { epoch, offset } = await answer.json();
  return `${epoch}:${offset}`;
}

/** Waits until the texts of all elements at a selector are these. */
function waitForTexts(page, selector, wanted) {
  return page.waitForFunction(
    ([where, texts]) => {
      const found = [...document.querySelectorAll(where)].map((element) => element.textContent);
      return JSON.stringify(found) === JSON.stringify(texts);
    },
    [selector, wanted],
  );
}

test("each row has its position, and its key if there is one", limits, async (t) => {
  const topic = keptTopic("rows");
  const page = await openConsole(t, topic);
  const first = await publish(topic, "with a key", "eth");
  const second = await publish(topic, "without");
  await waitForTexts(page, "#rows .payload", ["without", "with a key"]);
  await waitForTexts(page, "#rows .position", [second, first]);
  await waitForTexts(page, "#rows .key", ["eth"]);
  await page.fill("#filter", "ETH");
  await waitForTexts(page, "#rows li:not([hidden]) .payload", ["with a key"]);
});

test("the history comes first and is told apart, once", limits, async (t) => {
  const topic = keptTopic("history");
  for (const text of ["1", "2", "3"]) await publish(topic, text);
  const page = await openConsole(t, topic);
  await publish(topic, "4");
  await waitForTexts(page, "#rows .payload", ["4", "3", "2", "1"]);
  const times = await page.locator("#rows time").allTextContents();
  assert.deepEqual(times.slice(1), ["history", "history", "history"]);
  assert.match(times[0], /^\d\d:/);
  // Left and taken up again, it goes on where it was.
  await page.click("#connect");
  await page.locator("#state[data-state=closed]").waitFor();
  await publish(topic, "5");
  await page.click("#connect");
  await waitForTexts(page, "#rows .payload", ["5", "4", "3", "2", "1"]);
  await picture(page, "history");
});

test("what is known of the topic, and who is present, is shown and kept up to date", limits, async (t) => {
  const topic = keptTopic("present");
  const page = await openConsole(t, topic);
  await waitForTexts(page, "#details-title", [topic]);
  await waitForTexts(page, "#present-total", ["1"]);
  assert.match(await page.locator("#members").textContent(), /^\d+-\d+-\d+ console$/);
  const position = await publish(topic, "x");
  await waitForTexts(page, "[data-field=position]", [position]);
  await page.waitForFunction(() => /^1, /.test(document.querySelector("[data-field=history]").textContent));
  const second = await openConsole(t, topic);
  await waitForTexts(page, "#present-total", ["2"]);
  await waitForTexts(page, "[data-field=subscribers]", ["2"]);
  await second.close();
  await waitForTexts(page, "#present-total", ["1"]);
  // Without a rule there is neither.
  await page.fill("#topic", freshTopic("plain"));
  await page.click("#connect");
  await page.locator("#present").waitFor({ state: "hidden" });
  await waitForTexts(page, "[data-field=history]", ["none"]);
});

test("topics are listed, and a click goes there", limits, async (t) => {
  const [here, there] = [keptTopic("here"), keptTopic("there ü?b=1")];
  await publish(encodeURI(there).replace("ü", "%C3%BC"), "waits there");
  const page = await openConsole(t, here);
  await publish(here, "is here");
  await waitForTexts(page, "#rows .payload", ["is here"]);
  const button = page.locator("#topics button", { hasText: "there ü" });
  await button.click();
  await waitForTexts(page, "#rows .payload", ["waits there"]);
  assert.equal(await page.inputValue("#topic"), there);
  assert.equal(await page.inputValue("#publish-topic"), there);
  assert.equal(await button.getAttribute("aria-current"), "true");
  assert.equal(await page.locator("#topics [aria-current]").count(), 1);
  await page.waitForFunction(
    (name) => document.querySelector(`#topics [aria-current] .subscribers`)?.textContent === "1",
    there,
  );
  await page.click("#publish");
  await page.locator("#publish-result[data-outcome=done]").waitFor();
  await waitForTexts(page, "#rows .payload", ['{"hello": "world"}', "waits there"]);
});

test("a pattern shows the topic of each, and publishes to a topic of its own", limits, async (t) => {
  const prefix = keptTopic("pattern");
  const page = await openConsole(t, `${prefix}/*`);
  await publish(`${prefix}/a`, "1");
  await publish(`${prefix}/b`, "2", "k");
  await publish(`${prefix}/b/c`, "not this one");
  await waitForTexts(page, "#rows .payload", ["2", "1"]);
  await waitForTexts(page, "#rows .topic", [`${prefix}/b`, `${prefix}/a`]);
  await page.locator("#details").waitFor({ state: "hidden" });
  await page.fill("#publish-topic", `${prefix}/c`);
  await page.fill("#publish-key", "k€y");
  await page.fill("#payload", "3");
  await page.click("#publish");
  await waitForTexts(page, "#rows .payload", ["3", "2", "1"]);
  await page.check("input[value=websocket]");
  await page.fill("#payload", "4");
  await page.click("#publish");
  await waitForTexts(page, "#rows .payload", ["4", "3", "2", "1"]);
  await waitForTexts(page, "#rows .key", ["k€y", "k€y", "k"]);
  const told = await page.textContent("#publish-result");
  assert.match(told, /^Published at offset 2, epoch [0-9a-f]{16}\. For 1 subscribed in [\d,]+ µs\.$/);
  assert.match(await page.textContent("#curl-listen"), /^umbel sub .*'kept\/.*\/\*'$/);
  await page.fill("#topic", "a/**/b");
  await page.click("#connect");
  await page.locator("#state[data-state=closed]").waitFor();
  assert.match(await page.textContent("#state-detail"), /^invalid_pattern: /);
});

test("publications that are missing are told", limits, async (t) => {
  const own = await UmbelProcess.start("--topic-rule", "** history=10");
  t.after(() => own.stop());
  const page = await browser.newPage();
  t.after(() => page.close());
  page.setDefaultTimeout(DEADLINE_MS);
  await page.goto(`${own.url}/#t`);
  await page.locator("#state[data-state=open]").waitFor();
  await own.publish("t", "before");
  await waitForTexts(page, "#rows .payload", ["before"]);
  await own.stop("SIGKILL");
  await page.locator("#state[data-state=waiting]").waitFor();
  await own.restart();
  await page.locator("#rows .gap").waitFor();
  assert.match(await page.textContent("#rows .gap .payload"), /^Publications are missing: from \S+:2 to \S+:0$/);
});

test("requests are no connections, its own neither", limits, async (t) => {
  const own = await UmbelProcess.start();
  t.after(() => own.stop());
  const sockets = Array.from({ length: 5 }, () => connectTcp(own.port, "127.0.0.1"));
  t.after(() => sockets.forEach((socket) => socket.destroy()));
  const page = await browser.newPage();
  t.after(() => page.close());
  page.setDefaultTimeout(DEADLINE_MS);
  const readings = new Set();
  await page.exposeFunction("note", (text) => readings.add(text));
  await page.goto(`${own.url}/#t`);
  await page.locator("#state[data-state=open]").waitFor();
  const number = "[data-chart=connections] .number";
  await waitForTexts(page, number, ["1"]);
  await page.evaluate((where) => {
    const element = document.querySelector(where);
    new MutationObserver(() => window.note(element.textContent)).observe(element, { childList: true });
  }, number);
  const metrics = () => page.waitForResponse(`${own.url}/metrics`);
  for (let count = 0; count < 3; count += 1) await metrics();
  assert.deepEqual([...readings], ["1"]);
});

for (const width of [1440, 1321, 1320, 1101, 1100, 721, 720, 375]) {
  test(`no label is cut off at ${width} pixels`, limits, async (t) => {
    const page = await openConsole(t, keptTopic("labels"), { viewport: { width, height: 900 } });
    await page.waitForFunction(() => document.querySelector("#topics button") !== null);
    await page.evaluate(() => {
      // As long as they get.
      for (const number of document.querySelectorAll(".number")) number.textContent = "888,888";
      for (const unit of document.querySelectorAll(".unit")) unit.textContent = "/s";
      for (const peak of document.querySelectorAll(".peak")) peak.textContent = "peak 888,888 /s";
    });
    const cut = await page.evaluate(() => {
      const where = "dt, dd, h1, h2, h3, label, button, .hint, .peak, .value, .prefix";
      const shown = [...document.querySelectorAll(where)].filter((element) => element.checkVisibility());
      const isCut = (element) => {
        const box = element.getBoundingClientRect();
        const card = element.closest(".chart, .card, header").getBoundingClientRect();
        // A peak without room is on a line that does not show.
        const isHidden = box.top >= (element.closest(".value")?.getBoundingClientRect().bottom ?? Infinity);
        return !isHidden && (element.scrollWidth > element.clientWidth + 1 || box.right > card.right + 1);
      };
      const seen = shown.filter((element) => !element.classList.contains("visually-hidden"));
      const inline = (element) => getComputedStyle(element).display === "inline";
      return seen.filter((element) => !inline(element) && isCut(element)).map((element) => element.outerHTML);
    });
    assert.deepEqual(cut, []);
    const { scrollWidth, clientWidth } = await page.evaluate(() => {
      const { scrollWidth, clientWidth } = document.documentElement;
      return { scrollWidth, clientWidth };
    });
    assert.ok(scrollWidth <= clientWidth, `${scrollWidth} in ${clientWidth}`);
    await picture(page, `labels-${width}`);
  });
}
