// Subscribers that share a deflate context on the server's side, by the npm packages ws and undici with their default
// settings: whoever joins, leaves or reads slowly, each gets its part of the stream byte for byte.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";

import { WebSocket as UndiciWebSocket } from "undici";
import { WebSocket as WsWebSocket } from "ws";

import {
  cohortDeliveries,
  isSame,
  LOT,
  messageOf,
  publishLot,
  startOf,
  STREAM_LENGTH,
} from "./cohort_stream.mjs";

const url = process.env.UMBEL_URL.replace(/\/$/, "");
const webSocketUrl = url.replace(/^http/, "ws");

/** A subscriber that expects the stream from message `next` on. */
class Subscriber {
  constructor(Implementation, topic, next) {
    this.next = next;
    this.socket = new Implementation(`${webSocketUrl}/ws/${topic}`);
    this.socket.binaryType = "arraybuffer";
    this.opened = new Promise((resolve, reject) => {
      this.socket.onopen = resolve;
      this.socket.onerror = ({ message }) => reject(new Error(`failed: ${message}`));
    });
    let isFirst = true;
    this.done = new Promise((resolve, reject) => {
      this.socket.onclose = ({ code }) => reject(new Error(`closed ${code} before ${this.next}`));
      this.socket.onmessage = ({ data }) => {
        const message = typeof data === "string" ? data : Array.from(new Uint8Array(data));
        if (isFirst) this.next = startOf(message, this.next);
        isFirst = false;
        if (!isSame(message, messageOf(this.next))) reject(new Error(`message ${this.next} is not what was published`));
        this.next += 1;
        if (this.next === STREAM_LENGTH) resolve();
      };
    });
    // Who leaves does not wait for the end.
    this.done.catch(() => {});
  }

  leave() {
    this.socket.onclose = null;
    this.socket.close();
  }
}

for (const [name, Implementation] of [["ws", WsWebSocket], ["undici", UndiciWebSocket]]) {
  test(`${name}: a cohort's stream arrives whole`, { timeout: 60_000 }, async () => {
    const topic = `clients/${randomBytes(8).toString("hex")}`;
    const before = await cohortDeliveries(url);
    const subscribers = [];
    const join = async (next) => {
      const subscriber = new Subscriber(Implementation, topic, next);
      await subscriber.opened;
      assert.match(subscriber.socket.extensions, /^permessage-deflate/);
      subscribers.push(subscriber);
    };
    for (let count = 0; count < 4; count += 1) await join(0);
    const slow = subscribers[1].socket;
    for (let first = 0; first < STREAM_LENGTH; first += LOT) {
      if (first % 1000 === 500) await join(first);
      if (first % 2000 === 1000) subscribers.pop().leave();
      // Only ws lets its socket be paused.
      if (first === 3000) slow.pause?.();
      await publishLot(url, topic, first);
      if (first === 4000) slow.resume?.();
    }
    await Promise.all(subscribers.map((subscriber) => subscriber.done));
    const delivered = (await cohortDeliveries(url)) - before;
    assert.ok(delivered > 4 * STREAM_LENGTH / 2, `${delivered} deliveries by the cohort`);
    subscribers.forEach((subscriber) => subscriber.leave());
  });
}
