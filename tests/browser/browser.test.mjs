// Chromium's own WebSocket and EventSource against the server at UMBEL_URL.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { DEADLINE_MS, freshTopic, launch, openPage, publish } from "./chromium.mjs";

let browser;
let page;
before(
  async () => {
    browser = await launch();
    // Any page of the server's origin does; this one runs no scripts of its own.
    ({ page } = await openPage(browser, "/console/icon.svg"));
  },
  { timeout: DEADLINE_MS },
);
after(() => browser?.close());

/** Sends a message made in the page to /echo; true if it comes back the same, in kind and in bytes. */
function isEchoed(kind, bytes) {
  return page.evaluate(
    ([kindWanted, bytesWanted]) =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(`ws://${location.host}/echo`);
        socket.binaryType = "arraybuffer";
        const sent = makePayload(kindWanted, bytesWanted);
        socket.onopen = () => socket.send(sent);
        socket.onerror = () => reject(new Error("the WebSocket failed"));
        socket.onclose = ({ code, reason }) => reject(new Error(`closed ${code} ${reason}`));
        socket.onmessage = ({ data }) => {
          socket.onclose = null;
          socket.close();
          resolve(isSame(sent, data));
        };

        function makePayload(payloadKind, length) {
          // Characters of three bytes, and as much ASCII as is left over.
          if (payloadKind === "text") return "€".repeat(length / 3) + "x".repeat(length % 3);
          return Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 8)) & 0xff);
        }

        function isSame(before, received) {
          if (typeof before === "string") return received === before;
          if (!(received instanceof ArrayBuffer)) return false;
          const now = new Uint8Array(received);
          return now.length === before.length && now.every((byte, index) => byte === before[index]);
        }
      }),
    [kind, bytes],
  );
}

for (const kind of ["text", "binary"]) {
  for (const bytes of [0, 1, 125, 126, 65_535, 65_536, 1 << 20, 16 << 20]) {
    test(`${kind} of ${bytes} bytes comes back the same`, { timeout: 60_000 }, async () => {
      assert.equal(await isEchoed(kind, bytes), true);
    });
  }
}

test("messages come back in the order in which they went", { timeout: DEADLINE_MS }, async () => {
  const received = await page.evaluate(
    () =>
      new Promise((resolve) => {
        const socket = new WebSocket(`ws://${location.host}/echo`);
        const messages = [];
        socket.onopen = () => {
          for (let index = 0; index < 500; index += 1) socket.send(String(index));
        };
        socket.onmessage = ({ data }) => {
          if (messages.push(data) === 500) resolve(messages);
        };
      }),
  );
  assert.deepEqual(received, Array.from({ length: 500 }, (_, index) => String(index)));
});

for (const [code, reason] of [
  [3001, "bye"],
  [1000, ""],
  [4999, "ü".repeat(61)],
]) {
  test(`close ${code} is answered in kind`, { timeout: DEADLINE_MS }, async () => {
    const closed = await page.evaluate(
      ([wantedCode, wantedReason]) =>
        new Promise((resolve) => {
          const socket = new WebSocket(`ws://${location.host}/echo`);
          socket.onopen = () => socket.close(wantedCode, wantedReason);
          socket.onclose = (event) =>
            resolve({ code: event.code, reason: event.reason, wasClean: event.wasClean });
        }),
      [code, reason],
    );
    assert.deepEqual(closed, { code, reason, wasClean: true });
  });
}

test("a close without a code is answered without one", { timeout: DEADLINE_MS }, async () => {
  const closed = await page.evaluate(
    () =>
      new Promise((resolve) => {
        const socket = new WebSocket(`ws://${location.host}/echo`);
        socket.onopen = () => socket.close();
        socket.onclose = (event) => resolve({ code: event.code, wasClean: event.wasClean });
      }),
  );
  assert.deepEqual(closed, { code: 1005, wasClean: true });
});

test("a WebSocket where there is none fails", { timeout: DEADLINE_MS }, async () => {
  const code = await page.evaluate(
    () =>
      new Promise((resolve) => {
        const socket = new WebSocket(`ws://${location.host}/no/such/path`);
        socket.onclose = (event) => resolve(event.code);
      }),
  );
  assert.equal(code, 1006);
});

test("EventSource gets what is posted, line ends and all", { timeout: DEADLINE_MS }, async () => {
  const topic = freshTopic("sse");
  await page.evaluate(
    (path) =>
      new Promise((resolve, reject) => {
        window.events = [];
        window.source = new EventSource(`/sse/${path}`);
        window.source.onmessage = ({ data, lastEventId }) => {
          window.events.push({ data, lastEventId });
        };
        window.source.onopen = resolve;
        window.source.onerror = () => reject(new Error("the EventSource failed"));
      }),
    topic,
  );
  for (const text of ["one", "two\nlines", " three: \n\nwith a gap, ü"]) await publish(topic, text);
  await page.waitForFunction(() => window.events.length >= 3, null, { timeout: DEADLINE_MS });
  const events = await page.evaluate(() => {
    window.source.close();
    return window.events;
  });
  assert.deepEqual(
    events.map(({ data }) => data),
    ["one", "two\nlines", " three: \n\nwith a gap, ü"],
  );
  const ids = events.map(({ lastEventId }) => lastEventId);
  assert.equal(new Set(ids).size, 3, `ids ${ids}`);
  assert.ok(!ids.includes(""), `ids ${ids}`);
});
