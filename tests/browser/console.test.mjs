// The console as a person meets it, in Chromium, against the server at UMBEL_URL.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { DEADLINE_MS, SERVER, freshTopic, launch, openPage, picture, publish } from "./chromium.mjs";

// Generous, for a machine that is busy with more than this: a page that froze is far beyond it.
const STANDSTILL_MS_MAX = 2_500;

let browser;
before(async () => (browser = await launch()), { timeout: DEADLINE_MS });
after(() => browser?.close());

/** Opens the console on a topic and waits until it is connected. */
async function openConsole(topic, options) {
  const opened = await openPage(browser, `/#${topic}`, options);
  await opened.page.locator("#state[data-state=open]").waitFor();
  return opened;
}

/** Waits until an element holds exactly `text`. */
function waitForText(page, selector, text) {
  return page.waitForFunction(
    ([where, wanted]) => document.querySelector(where)?.textContent === wanted,
    [selector, text],
    { timeout: DEADLINE_MS },
  );
}

/** Opens a WebSocket in a page of its own and keeps what it receives. */
async function openSecondWebSocket(topic) {
  const opened = await openPage(browser, `/#${freshTopic("elsewhere")}`);
  await opened.page.evaluate(
    (path) =>
      new Promise((resolve, reject) => {
        window.received = [];
        window.second = new WebSocket(`ws://${location.host}/ws/${path}`);
        window.second.onmessage = ({ data }) => window.received.push(data);
        window.second.onopen = resolve;
        window.second.onerror = () => reject(new Error("the second WebSocket failed"));
      }),
    topic,
  );
  return opened;
}

test("the page loads, connects and has nothing to complain of", async () => {
  const { page, complaints, close } = await openConsole(freshTopic("load"));
  await page.locator("#charts .chart").first().waitFor();
  assert.equal(await page.locator("#charts .chart").count(), 6);
  assert.equal(await page.textContent("#empty-title"), "Nothing yet");
  await picture(page, "empty");
  assert.deepEqual(complaints, []);
  await close();
});

test("the page is sent with a policy that allows nothing inline", async () => {
  const answer = await fetch(`${SERVER}/`);
  const policy = answer.headers.get("content-security-policy");
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe/);
  await answer.body?.cancel();
});

test("without a fragment it takes the topic hello", async () => {
  const { page, close } = await openPage(browser, "/");
  await page.locator("#state[data-state=open]").waitFor();
  assert.equal(await page.inputValue("#topic"), "hello");
  await close();
});

test("what is posted from outside shows up", async () => {
  const topic = freshTopic("outside");
  const { page, close } = await openConsole(topic);
  await publish(topic, "from outside");
  await waitForText(page, "#rows li .payload", "from outside");
  assert.equal(await page.textContent("#rows li .size"), "12 B");
  assert.match(await page.textContent("#rows li time"), /^\d\d:\d\d:\d\d\.\d{3}$/);
  await close();
});

test("a topic may have a query, in any order", async () => {
  const topic = freshTopic("query");
  const { page, close } = await openConsole(`${topic}?b=2&a=1%2B1`);
  await publish(`${topic}?a=1%2B1&b=2`, "met");
  await waitForText(page, "#rows li .payload", "met");
  await close();
});

test("what is published here reaches the page and everyone else", async () => {
  const topic = freshTopic("publish");
  const second = await openSecondWebSocket(topic);
  const { page, complaints, close } = await openConsole(topic);

  await page.fill("#payload", "by POST");
  await page.click("#publish");
  await waitForText(page, "#rows li .payload", "by POST");
  await page.locator("#publish-result[data-outcome=done]").waitFor();
  const published = /^Published at offset \d+, epoch \S+\.$/;
  assert.match(await page.textContent("#publish-result"), published);

  await page.check("input[value=websocket]");
  await page.fill("#payload", "by WebSocket");
  await page.press("#payload", "Control+Enter");
  await waitForText(page, "#rows li .payload", "by WebSocket");

  await second.page.waitForFunction(() => window.received.length >= 2, null, { timeout: DEADLINE_MS });
  const received = await second.page.evaluate(() => window.received);
  assert.deepEqual(received, ["by POST", "by WebSocket"]);
  assert.deepEqual(complaints, []);
  await close();
  await second.close();
});

test("a publish that the server refuses shows its reason", async () => {
  const { page, close } = await openConsole(freshTopic("refused"));
  await page.fill("#topic", "x".repeat(255));
  await page.route("**/pub/**", (route) =>
    route.fulfill({ status: 413, contentType: "text/plain", body: "the body is too large\n" }),
  );
  await page.click("#publish");
  await waitForText(page, "#publish-result", "Not published. 413: the body is too large");
  await close();
});

test("the charts are alive", async () => {
  const topic = freshTopic("charts");
  const { page, close } = await openConsole(topic);
  const number = (name) => `[data-chart=${name}] .number`;
  await page.waitForFunction(
    (where) => Number(document.querySelector(where).textContent.replace(/,/g, "")) >= 1,
    number("connections"),
    { timeout: DEADLINE_MS },
  );
  // Publishes until the rate has been seen, for a rate is known from the second reading on.
  const deadlineMs = performance.now() + DEADLINE_MS;
  const isSeen = () =>
    page.evaluate(
      (names) => names.every((where) => parseFloat(document.querySelector(where).textContent) > 0),
      ["deliveries", "publications", "latency"].map(number),
    );
  while (!(await isSeen())) {
    assert.ok(performance.now() < deadlineMs, "the rates stay unknown");
    await publish(topic, "tick");
  }
  assert.match(await page.getAttribute("[data-chart=deliveries] .line", "d"), /^M/);
  await close();
});

test("metrics that are refused are said to be, and nothing breaks", async () => {
  const topic = freshTopic("no-metrics");
  const opened = await openPage(browser, `/console/icon.svg`);
  await opened.page.route("**/metrics", (route) => route.fulfill({ status: 403, body: "no" }));
  await opened.page.goto(`${SERVER}/#${topic}`);
  await waitForText(
    opened.page,
    "#charts-note",
    "The server's metrics are not available here (403).",
  );
  await opened.page.locator("#state[data-state=open]").waitFor();
  await publish(topic, "still here");
  await waitForText(opened.page, "#rows li .payload", "still here");
  await opened.close();
});

test("hostile text stays text", async () => {
  const topic = freshTopic("hostile");
  const { page, complaints, close } = await openConsole(topic);
  const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;
  await publish(topic, hostile);
  await waitForText(page, "#rows li .payload", hostile);
  await page.click("#pretty");
  assert.equal(await page.locator("#rows img, #rows script").count(), 0);
  assert.equal(await page.title(), `${topic} · Umbel`);
  assert.deepEqual(complaints, []);
  await close();
});

test("JSON is indented when asked, binary is dumped, long text is cut", async () => {
  const topic = freshTopic("payloads");
  const { page, close } = await openConsole(topic);
  await publish(topic, `{"a":[1,2]}`);
  await waitForText(page, "#rows li .payload", `{"a":[1,2]}`);
  await page.click("#pretty");
  await waitForText(page, "#rows li .payload", JSON.stringify({ a: [1, 2] }, null, 2));

  await publish(topic, "[".repeat(8000) + "]".repeat(8000));
  await page.waitForFunction(
    () => document.querySelector("#rows li .payload").textContent.length === 16_000,
    null,
    { timeout: DEADLINE_MS },
  );

  await publish(topic, "é".repeat(100_000));
  await page.locator("#rows .left-out").waitFor();
  assert.equal(await page.textContent("#rows .left-out"), "… 179 KiB more");
  assert.equal(await page.textContent("#rows li .size"), "195 KiB");

  await page.evaluate(async (path) => {
    const socket = new WebSocket(`ws://${location.host}/ws/${path}`);
    await new Promise((resolve) => (socket.onopen = resolve));
    socket.send(new Uint8Array([0, 0x41, 0xff]));
    socket.close();
  }, topic);
  await page.waitForFunction(
    () => /^0000 {2}00 41 ff +\.A\.$/.test(document.querySelector("#rows li .payload").textContent),
    null,
    { timeout: DEADLINE_MS },
  );
  await close();
});

test("pause holds messages back, the filter hides them, clear forgets them", async () => {
  const topic = freshTopic("tools");
  const { page, close } = await openConsole(topic);
  await page.click("#pause");
  await publish(topic, "apple");
  await publish(topic, "pear");
  await waitForText(page, "#count-received", "2");
  assert.equal(await page.locator("#rows li").count(), 0);
  await page.click("#pause");
  await waitForText(page, "#count-shown", "2");

  await page.fill("#filter", "PEAR");
  await waitForText(page, "#count-shown", "1");
  await publish(topic, "plum");
  await waitForText(page, "#count-unmatched", "1");
  assert.equal(await page.locator("#rows li:visible").count(), 1);
  await page.fill("#filter", "");
  await waitForText(page, "#count-shown", "2");

  await page.click("#clear");
  await waitForText(page, "#count-received", "0");
  assert.equal(await page.locator("#rows li").count(), 0);
  await close();
});

test("a burst of 3,000 messages leaves the page responsive", async () => {
  const topic = freshTopic("burst");
  const { page, close } = await openConsole(topic);
  const second = await openSecondWebSocket(topic);
  await page.evaluate(() => {
    window.longestGapMs = 0;
    let lastMs = performance.now();
    const beat = () => {
      const nowMs = performance.now();
      window.longestGapMs = Math.max(window.longestGapMs, nowMs - lastMs);
      lastMs = nowMs;
      setTimeout(beat, 0);
    };
    beat();
  });
  await second.page.evaluate(() => {
    for (let index = 0; index < 3000; index += 1) window.second.send(`{"index":${index}}`);
  });
  await waitForText(page, "#count-received", "3,000");
  await waitForText(page, "#count-shown", "500");
  await waitForText(page, "#count-dropped", "2,500");
  assert.equal(await page.locator("#rows li").count(), 500);
  await waitForText(page, "#rows li .payload", `{"index":2999}`);
  const longestGapMs = await page.evaluate(() => window.longestGapMs);
  assert.ok(longestGapMs < STANDSTILL_MS_MAX, `the page stood still for ${longestGapMs} ms`);
  await picture(page, "burst");
  await close();
  await second.close();
});

test("disconnect stays disconnected, connect comes back", async () => {
  const { page, close } = await openConsole(freshTopic("button"));
  await page.click("#connect");
  await page.locator("#state[data-state=closed]").waitFor();
  assert.equal(await page.textContent("#connect"), "Connect");
  await page.click("#connect");
  await page.locator("#state[data-state=open]").waitFor();
  await close();
});

test("a lost connection is named and made anew", async () => {
  const opened = await openPage(browser, "/console/icon.svg");
  let attempts = 0;
  await opened.page.routeWebSocket(/\/ws\?/, (socket) => {
    attempts += 1;
    if (attempts === 1) socket.close({ code: 1013, reason: "slow consumer" });
    else socket.connectToServer();
  });
  await opened.page.goto(`${SERVER}/#${freshTopic("lost")}`);
  await opened.page.locator("#state[data-state=waiting]").waitFor();
  assert.equal(
    await opened.page.textContent("#state-detail"),
    "1013 try again later “slow consumer”",
  );
  await opened.page.locator("#state[data-state=open]").waitFor();
  assert.equal(attempts, 2);
  await opened.close();
});

test("the commands for a terminal name this host and topic", async () => {
  const { page, close } = await openConsole("it's/new");
  await page.fill("#payload", "a b");
  const command = await page.textContent("#curl-publish");
  assert.equal(command, `curl -d 'a b' '${SERVER}/pub/it'\\''s/new'`);
  await close();
});

for (const colorScheme of ["light", "dark"]) {
  test(`375 pixels are wide enough, ${colorScheme}`, async () => {
    const topic = freshTopic("narrow");
    const viewport = { width: 375, height: 812 };
    const { page, close } = await openConsole(topic, { viewport, colorScheme });
    await publish(topic, "x".repeat(2000));
    await publish(topic, `{"side":"buy","price":3024.58}`);
    await waitForText(page, "#count-shown", "2");
    const { scrollWidth, clientWidth } = await page.evaluate(() => {
      const { scrollWidth, clientWidth } = document.documentElement;
      return { scrollWidth, clientWidth };
    });
    assert.ok(scrollWidth <= clientWidth, `${scrollWidth} in ${clientWidth}`);
    await picture(page, `narrow-${colorScheme}`);
    await page.setViewportSize({ width: 1440, height: 900 });
    await picture(page, `wide-${colorScheme}`);
    await close();
  });
}

test("everything can be reached and used by keyboard", async () => {
  const { page, close } = await openConsole(freshTopic("keyboard"));
  const names = ["publish-topic", "publish-key"];
  const wanted = ["topic", "connect", ...names, "payload", "publish", "filter", "pretty", "pause", "clear"];
  const seen = new Set();
  for (let presses = 0; presses < 40; presses += 1) {
    await page.keyboard.press("Tab");
    seen.add(await page.evaluate(() => document.activeElement.id));
  }
  assert.deepEqual(wanted.filter((id) => !seen.has(id)), []);
  await close();
});
