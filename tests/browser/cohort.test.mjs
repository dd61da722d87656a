// Chromium's subscribers in a cohort, which share a deflate context on the server's side: whoever joins, leaves or is
// slow, each gets its part of the stream byte for byte.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  cohortDeliveries,
  LOT,
  messageOf,
  publishLot,
  startOf,
  STREAM_LENGTH,
} from "../clients/cohort_stream.mjs";
import { freshTopic, launch, openPage, SERVER } from "./chromium.mjs";

let browser;
let page;
before(
  async () => {
    browser = await launch();
    ({ page } = await openPage(browser, "/console/icon.svg"));
  },
  { timeout: 20_000 },
);
after(() => browser?.close());

/** Opens one more socket in the page, which expects the stream from message `next` on. */
function join(topic, next) {
  return page.evaluate(
    ([path, first]) =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(`ws://${location.host}/ws/${path}`);
        socket.binaryType = "arraybuffer";
        const subscriber = { socket, first, received: [], ending: null };
        (window.subscribers ??= []).push(subscriber);
        socket.onopen = () => resolve(socket.extensions);
        socket.onerror = () => reject(new Error("the WebSocket failed"));
        socket.onclose = ({ code, reason }) => (subscriber.ending = `${code} ${reason}`);
        socket.onmessage = ({ data }) => {
          subscriber.received.push(
            typeof data === "string" ? data : Array.from(new Uint8Array(data)),
          );
        };
      }),
    [topic, next],
  );
}

test("a cohort's stream arrives whole", { timeout: 60_000 }, async () => {
  const topic = freshTopic("cohort");
  const deliveriesBefore = await cohortDeliveries(SERVER);
  for (let count = 0; count < 3; count += 1) {
    assert.match(await join(topic, 0), /^permessage-deflate/);
  }
  for (let first = 0; first < STREAM_LENGTH; first += LOT) {
    if (first % 2000 === 500) await join(topic, first);
    if (first % 4000 === 3000) await page.evaluate(() => window.subscribers.pop().socket.close());
    // Nothing is read meanwhile.
    if (first === 5000) {
      await page.evaluate(() => {
        const until = performance.now() + 300;
        setTimeout(() => {
          while (performance.now() < until);
        });
      });
    }
    await publishLot(SERVER, topic, first);
  }
  await page.waitForFunction(
    (last) =>
      window.subscribers.every(
        ({ received, ending }) => ending || received.at(-1) === last,
      ),
    messageOf(STREAM_LENGTH - 1),
    { timeout: 30_000 },
  );
  const subscribers = await page.evaluate(() =>
    window.subscribers.map(({ first, received, ending }) => ({ first, received, ending })),
  );
  assert.ok(subscribers.length >= 4);
  const expected = Array.from({ length: STREAM_LENGTH }, (_, n) => JSON.stringify(messageOf(n)));
  for (const { first, received, ending } of subscribers) {
    assert.equal(ending, null);
    const start = startOf(received[0], first);
    const wrong = received.findIndex((message, n) => JSON.stringify(message) !== expected[start + n]);
    assert.equal(wrong, -1, "every message is what was published");
    assert.equal(start + received.length, STREAM_LENGTH);
  }
  const delivered = (await cohortDeliveries(SERVER)) - deliveriesBefore;
  assert.ok(delivered > STREAM_LENGTH, `${delivered} deliveries by the cohort`);
});
