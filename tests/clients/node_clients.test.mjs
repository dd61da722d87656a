// The npm packages ws, undici and eventsource against UMBEL_URL; ws and undici are held to the
// same list. Run by tests/clients/run.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import diagnostics from "node:diagnostics_channel";
import { describe, test } from "node:test";

import { EventSource } from "eventsource";
import { fetch, ping as undiciPing, WebSocket as UndiciWebSocket } from "undici";
import { WebSocket as WsWebSocket } from "ws";

const url = process.env.UMBEL_URL.replace(/\/$/, "");
const webSocketUrl = url.replace(/^http/, "ws");
const limits = { timeout: 20_000 };

const allBytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
const binary16MiB = Buffer.alloc(16 * 1024 * 1024, allBytes);
// One byte, then characters of three: no power of two falls between two characters.
const text1MiB = "a" + "€".repeat(349_525);
const publicationsEach = 20;

/** What came and was not taken yet; `take` waits for the next. */
class Inbox {
  #arrived = [];
  #waiting = [];

  put(item) {
    const waiting = this.#waiting.shift();
    if (waiting) waiting(item);
    else this.#arrived.push(item);
  }

  take() {
    if (this.#arrived.length > 0) return Promise.resolve(this.#arrived.shift());
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

/** One connection of the package `ws`. Messages are strings or Buffers. */
class WsConnection {
  messages = new Inbox();
  pongs = new Inbox();

  static open(path) {
    const self = new WsConnection();
    self.socket = new WsWebSocket(webSocketUrl + path);
    self.socket.on("message", (data, isBinary) => self.messages.put(isBinary ? data : data.toString()));
    self.socket.on("pong", (payload) => self.pongs.put(payload));
    self.closed = new Promise((resolve) => self.socket.on("close", (code) => resolve(code)));
    return new Promise((resolve, reject) => {
      self.socket.on("open", () => resolve(self));
      self.socket.on("error", reject);
    });
  }

  static refusalStatus(path) {
    return new Promise((resolve, reject) => {
      const socket = new WsWebSocket(webSocketUrl + path);
      socket.on("unexpected-response", (request, response) => {
        resolve(response.statusCode);
        request.destroy();
      });
      socket.on("open", () => reject(new Error("it was accepted")));
      socket.on("error", reject);
    });
  }

  send(message) {
    this.socket.send(message);
  }

  sendFragments(fragments) {
    fragments.forEach((fragment, index) => {
      this.socket.send(fragment, { fin: index === fragments.length - 1 });
    });
  }

  ping(payload) {
    this.socket.ping(payload);
    return this.pongs.take();
  }

  /** Resolves with the code of the close frame that answers. */
  close(code, reason) {
    this.socket.close(code, reason);
    return this.closed;
  }
}

/** One connection of the package `undici`, through the interface that browsers have. */
class UndiciConnection {
  messages = new Inbox();
  pongs = new Inbox();

  static open(path) {
    const self = new UndiciConnection();
    self.socket = new UndiciWebSocket(webSocketUrl + path);
    self.socket.binaryType = "arraybuffer";
    self.socket.addEventListener("message", ({ data }) =>
      self.messages.put(typeof data === "string" ? data : Buffer.from(data)),
    );
    diagnostics.subscribe("undici:websocket:pong", ({ payload, websocket }) => {
      if (websocket === self.socket) self.pongs.put(payload);
    });
    self.closed = new Promise((resolve) =>
      self.socket.addEventListener("close", ({ code, wasClean }) => resolve(wasClean ? code : 1006)),
    );
    return new Promise((resolve, reject) => {
      self.socket.addEventListener("open", () => resolve(self));
      self.socket.addEventListener("error", () => reject(new Error("the connection failed")));
    });
  }

  send(message) {
    this.socket.send(message);
  }

  ping(payload) {
    undiciPing(this.socket, payload);
    return this.pongs.take();
  }

  close(code, reason) {
    this.socket.close(code, reason);
    return this.closed;
  }
}

/** Publishes over HTTP; resolves with the offset that the answer names. */
async function post(path, body) {
  const response = await fetch(url + path, {
    method: "POST",
    body,
    headers: { "content-type": "text/plain; charset=utf-8" },
  });
  assert.equal(response.status, 200);
  const answer = await response.json();
  assert.equal(typeof answer.epoch, "string");
  return answer.offset;
}

const newTopic = () => `clients/${randomBytes(8).toString("hex")}`;

async function takeAll(inbox, count) {
  const taken = [];
  while (taken.length < count) taken.push(await inbox.take());
  return taken;
}

async function assertEcho(Connection, message) {
  const connection = await Connection.open("/echo");
  connection.send(message);
  const echoed = await connection.messages.take();
  assert.equal(typeof echoed, typeof message);
  // Not deepEqual: its report on megabytes that differ would take minutes.
  assert.ok(Buffer.from(echoed).equals(Buffer.from(message)), "what came back is what was sent");
  await connection.close(1000);
}

for (const [name, Connection] of [["ws", WsConnection], ["undici", UndiciConnection]]) {
  describe(name, () => {
    test("text", limits, () => assertEcho(Connection, "one in, many out: ein Stängel, viele Blüten, 傘"));
    test("empty text", limits, () => assertEcho(Connection, ""));
    test("empty binary", limits, () => assertEcho(Connection, Buffer.alloc(0)));
    test("all byte values", limits, () => assertEcho(Connection, allBytes));
    test("binary of 16 MiB", limits, () => assertEcho(Connection, binary16MiB));
    test("text of 1 MiB", limits, () => assertEcho(Connection, text1MiB));

    test("many messages stay in order", limits, async () => {
      const connection = await Connection.open("/echo");
      const sent = Array.from({ length: 1000 }, (_, n) => `${n}`);
      sent.forEach((message) => connection.send(message));
      assert.deepEqual(await takeAll(connection.messages, sent.length), sent);
      await connection.close(1000);
    });

    test("ping", limits, async () => {
      const connection = await Connection.open("/echo");
      for (const payload of [Buffer.from("\x00 anyone? \xff", "latin1"), Buffer.alloc(125)]) {
        assert.deepEqual(await connection.ping(payload), payload);
      }
      await connection.close(1000);
    });

    test("close code comes back", limits, async () => {
      const connection = await Connection.open("/echo");
      assert.equal(await connection.close(3001, "bye"), 3001);
    });

    test("subscribers see one order", limits, async () => {
      const topic = newTopic();
      const first = await Connection.open(`/ws/${topic}`);
      const second = await Connection.open(`/ws/${topic}`);
      const overWebSocket = Array.from({ length: publicationsEach }, (_, n) => `websocket ${n}`);
      const overHttp = Array.from({ length: publicationsEach }, (_, n) => `http ${n}`);
      const offsets = [];
      for (let n = 0; n < publicationsEach; n += 1) {
        first.send(overWebSocket[n]);
        offsets.push(await post(`/pub/${topic}`, overHttp[n]));
      }
      assert.deepEqual(offsets, [...new Set(offsets)].sort((a, b) => a - b), "offsets rise");
      const seenByFirst = await takeAll(first.messages, 2 * publicationsEach);
      const seenBySecond = await takeAll(second.messages, 2 * publicationsEach);
      assert.deepEqual(seenByFirst, seenBySecond);
      assert.deepEqual(seenByFirst.filter((payload) => overWebSocket.includes(payload)), overWebSocket);
      assert.deepEqual(seenByFirst.filter((payload) => overHttp.includes(payload)), overHttp);
      await Promise.all([first.close(1000), second.close(1000)]);
    });
  });
}

/** Sends what is long enough to be compressed by both sides, and says how many bytes came back for it. */
async function bytesOfEcho(connection, message, socket) {
  const before = socket.bytesRead;
  connection.send(message);
  assert.equal(await connection.messages.take(), message);
  return socket.bytesRead - before;
}

describe("what only ws shows", () => {
  test("messages are compressed both ways", limits, async () => {
    const connection = await WsConnection.open("/echo");
    assert.match(connection.socket.extensions, /^permessage-deflate/);
    const tcp = connection.socket._socket;
    for (let n = 0; n < 20; n += 1) {
      const message = JSON.stringify(Array.from({ length: 100 }, (_, index) => ({ index, name: `tick ${n}`, price: 1000 + index })));
      const [sentBefore, length] = [tcp.bytesWritten, message.length];
      assert.ok((await bytesOfEcho(connection, message, tcp)) < length / 3, "the echo is short");
      assert.ok(tcp.bytesWritten - sentBefore < length / 3, "so was the message");
    }
    // In fragments, each of which the sender flushes.
    connection.sendFragments(["um".repeat(1000), "bel".repeat(1000)]);
    assert.equal(await connection.messages.take(), "um".repeat(1000) + "bel".repeat(1000));
    await connection.close(1000);
  });

  test("fragments", limits, async () => {
    const connection = await WsConnection.open("/echo");
    connection.sendFragments(["um", "", "bel"]);
    assert.equal(await connection.messages.take(), "umbel");
    connection.sendFragments([Buffer.from([0]), allBytes, Buffer.from([255])]);
    const whole = Buffer.concat([Buffer.from([0]), allBytes, Buffer.from([255])]);
    assert.deepEqual(await connection.messages.take(), whole);
    await connection.close(1000);
  });

  test("a ping between fragments is answered", limits, async () => {
    const connection = await WsConnection.open("/echo");
    connection.socket.send("um", { fin: false });
    assert.deepEqual(await connection.ping(Buffer.from("now?")), Buffer.from("now?"));
    connection.socket.send("bel", { fin: true });
    assert.equal(await connection.messages.take(), "umbel");
    await connection.close(1000);
  });

  test("an unknown path is refused", limits, async () => {
    assert.equal(await WsConnection.refusalStatus("/no-such-endpoint"), 404);
  });
});

describe("eventsource", () => {
  test("publications come as events, with their ids", limits, async () => {
    const topic = newTopic();
    const events = new Inbox();
    const source = new EventSource(`${url}/sse/${topic}`);
    source.addEventListener("message", (event) => events.put(event));
    await new Promise((resolve, reject) => {
      source.addEventListener("open", resolve);
      source.addEventListener("error", ({ message }) => reject(new Error(message)));
    });
    const payloads = ["one", "two\nlines: and a colon\n", " spaces around, and 傘 "];
    for (const payload of payloads) await post(`/pub/${topic}`, payload);
    const seen = await takeAll(events, payloads.length);
    source.close();
    assert.deepEqual(seen.map(({ data }) => data), payloads);
    const ids = seen.map(({ lastEventId }) => lastEventId);
    assert.ok(ids.every((id) => id !== ""), "each event has an id");
    assert.equal(new Set(ids).size, ids.length, "no two ids are the same");
  });
});
