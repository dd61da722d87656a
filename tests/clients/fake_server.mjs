// A server of umbel.v1 that tests hold in their hands: a hub in memory, what one peer says to it, and the two ways
// to reach it, through the package `ws` or through no network at all. It follows the specification of the
// dialect and shares no line with Umbel's script.

import assert from "node:assert/strict";
import { WebSocketServer } from "ws";

const encodeEpoch = (epoch) => epoch.toString(16).padStart(16, "0");
export const positionOf = (epoch, offset) => `${encodeEpoch(epoch)}:${offset}`;

/** Topics with history, and whoever subscribes to them. */
export class FakeHub {
  historyMax = 1000;
  /** What a topic's rule says: `close`, `drop-oldest` or `latest`. */
  slowConsumer = "close";
  /** Of idempotency keys: how long one is remembered, since when, and the publishes by their keys. */
  keyAgeMs = 60_000;
  keysSinceMs = -Infinity;
  #keys = new Map();
  #nextEpoch = 0xa1;
  #topics = new Map();
  peers = new Set();

  /** What its clock says. */
  nowMs() {
    return performance.now();
  }

  topic(name) {
    if (!this.#topics.has(name)) {
      this.#topics.set(name, { name, epoch: this.#nextEpoch++, offset: 0, history: [] });
    }
    return this.#topics.get(name);
  }

  /** Whose a token is: `{ subject }`, or why it is refused: `{ refusal }`. */
  judge() {
    return {};
  }

  /** All that was known is gone, as after a kill. */
  forget() {
    this.#topics.clear();
    this.#keys.clear();
    this.keysSinceMs = this.nowMs();
  }

  /**
   * Publishes once. `openedAtMs` is that of the peer's connection. Gives `{ position }`, for a repetition with
   * `duplicate`, or `{ code }`.
   */
  publishOnce(name, what, { idempotency_key: key, first_sent_ms: sentMs }, openedAtMs) {
    if (key === undefined) return { position: this.publish(name, what) };
    const nowMs = this.nowMs();
    const [scope, body] = [JSON.stringify([name, key]), JSON.stringify(what)];
    const known = this.#keys.get(scope);
    if (known !== undefined && nowMs - known.atMs < this.keyAgeMs) {
      const isSame = known.body === body;
      return isSame ? { position: known.position, duplicate: true } : { code: "idempotency_key_reused" };
    }
    const firstMs = openedAtMs - sentMs;
    const isUnsure = sentMs !== undefined && (firstMs < this.keysSinceMs || nowMs - firstMs >= this.keyAgeMs);
    if (isUnsure) return { code: "fate_unknown" };
    const position = this.publish(name, what);
    this.#keys.set(scope, { body, position, atMs: nowMs });
    return { position };
  }

  /** `what` is `{ data }` or `{ base64 }`, and perhaps a key. */
  publish(name, what) {
    const topic = this.topic(name);
    topic.offset += 1;
    const position = positionOf(topic.epoch, topic.offset);
    const publication = { topic: name, position, ...what };
    topic.history.push(publication);
    if (topic.history.length > this.historyMax) topic.history.shift();
    for (const peer of this.peers) peer.deliver(publication);
    return position;
  }
}

/** What one connection has said. `send` takes a string or bytes. */
export class FakePeer {
  subscriptions = new Set();
  patterns = new Set();
  /** Every command as it came. */
  commands = [];

  constructor(hub, { send, close, isBinary = false }) {
    Object.assign(this, { hub, sendRaw: send, close, isBinary, openedAtMs: hub.nowMs() });
    hub.peers.add(this);
  }

  leave() {
    this.hub.peers.delete(this);
  }

  send(message) {
    this.sendRaw(JSON.stringify(message));
  }

  deliver(publication) {
    if (this.subscriptions.has(publication.topic)) this.sendPublication(publication);
    for (const pattern of this.patterns) {
      const [before] = pattern.split("*");
      if (publication.topic.startsWith(before)) this.sendPublication({ ...publication, pattern });
    }
  }

  sendPublication({ topic, pattern, position, key, content_type, data, base64 }) {
    if (!this.isBinary) {
      this.send({ type: "publication", topic, pattern, position, key, content_type, data, base64 });
      return;
    }
    const [epoch, offset] = position.split(":");
    const head = Buffer.alloc(18);
    head[0] = data === undefined ? 2 : 1;
    head[1] = (pattern === undefined ? 0 : 1) | (key === undefined ? 0 : 2);
    head[1] |= content_type === undefined ? 0 : 4;
    head.writeBigUInt64BE(BigInt(`0x${epoch}`), 2);
    head.writeBigUInt64BE(BigInt(offset), 10);
    const names = [topic, pattern, key].filter((name) => name !== undefined).map((name) => Buffer.from(name));
    const parts = names.flatMap((name) => [Buffer.from([name.length]), name]);
    if (content_type !== undefined) {
      const length = content_type.length;
      parts.push(Buffer.from([0, 3 + length, 3, 0, length]), Buffer.from(content_type));
    }
    const payload = data === undefined ? Buffer.from(base64, "base64") : Buffer.from(data);
    this.sendRaw(Buffer.concat([head, ...parts, payload]));
  }

  /** A message of the peer: a string or a Buffer. */
  handle(data) {
    const command = typeof data === "string" ? JSON.parse(data) : parseBinaryPublish(data);
    for (const one of Array.isArray(command) ? command : [command]) this.handleCommand(one);
  }

  handleCommand(command) {
    this.commands.push(command);
    const { type, id, topic, pattern } = command;
    if (type === "subscribe") this.subscribe(command);
    else if (type === "unsubscribe") {
      if (pattern === undefined) this.subscriptions.delete(topic);
      else this.patterns.delete(pattern);
      this.send({ type: "unsubscribed", id, topic, pattern });
    } else if (type === "publish") {
      const { data, base64, key, content_type } = command;
      const what = { data, base64, key, content_type };
      const { position, duplicate, code } = this.hub.publishOnce(topic, what, command, this.openedAtMs);
      if (code !== undefined) return this.send({ type: "error", id, code, reason: "not now" });
      const sums = { matched: 1, written: 1, queued: 0, dropped: 0, first_write_us: 5, last_write_us: 9 };
      const receipt = command.receipt && !duplicate ? sums : undefined;
      this.send({ type: "published", id, position, receipt, duplicate });
    } else if (type === "presence") {
      this.send({ type: "presence", id, topic, total: 1, members: [{ connection: "0-1-1", info: { a: 1 } }] });
    } else if (type === "history") {
      const { epoch, offset, history } = this.hub.topic(topic);
      const publications = history.slice(-(command.limit ?? 1000)).map(({ topic: _, ...each }) => each);
      this.send({ type: "history", id, topic, position: positionOf(epoch, offset), publications });
    } else if (type === "auth") this.signIn(command);
    else if (type === "ping") this.send({ type: "pong", id });
    else throw new Error(`what is ${JSON.stringify(command)}?`);
  }

  /** Who shows which token. A test may put something else here. */
  signIn({ id, token }) {
    this.token = token;
    const { subject, refusal } = this.hub.judge(token);
    if (refusal === undefined) return this.send({ type: "authenticated", id, connection: "0-1-1", subject });
    this.send({ type: "error", id, code: refusal, reason: "not this one" });
  }

  subscribe({ id, topic: name, pattern, since, last }) {
    if (pattern !== undefined) {
      this.patterns.add(pattern);
      this.send({ type: "subscribed", id, pattern });
      return;
    }
    if (this.subscriptions.has(name)) {
      this.send({ type: "error", id, code: "already_subscribed", reason: "there is one" });
      return;
    }
    this.subscriptions.add(name);
    const { epoch, offset, history } = this.hub.topic(name);
    let recovered;
    let missed = last === undefined ? [] : history.slice(Math.max(0, history.length - last));
    if (since !== undefined) {
      const [sinceEpoch, sinceOffset] = since.split(":");
      const behind = offset - Number(sinceOffset);
      recovered = sinceEpoch === encodeEpoch(epoch) && behind >= 0 && behind <= history.length;
      missed = recovered ? history.slice(history.length - behind) : [];
    }
    const { slowConsumer } = this.hub;
    const slow_consumer = slowConsumer === "close" ? undefined : slowConsumer;
    const position = positionOf(epoch, offset);
    this.send({ type: "subscribed", id, topic: name, position, recovered, slow_consumer });
    for (const publication of missed) this.sendPublication(publication);
  }
}

function parseBinaryPublish(bytes) {
  const [type, flags] = bytes;
  let at = 2;
  const take = (length) => bytes.subarray(at, (at += length));
  const id = flags & 1 ? take(4).readUInt32BE() : undefined;
  const topic = take(take(1)[0]).toString();
  const key = flags & 2 ? take(take(1)[0]).toString() : undefined;
  const idempotency_key = flags & 8 ? take(take(1)[0]).toString() : undefined;
  const sentMs = flags & 8 ? take(4).readUInt32BE() : 0xffff_ffff;
  const first_sent_ms = sentMs === 0xffff_ffff ? undefined : sentMs;
  const once = { idempotency_key, first_sent_ms };
  const contentType = flags & 16 ? takeContentType(take(take(2).readUInt16BE())) : undefined;
  const payload = bytes.subarray(at);
  const data = type === 3 ? { data: payload.toString() } : { base64: payload.toString("base64") };
  return { type: "publish", id, topic, key, receipt: (flags & 4) !== 0, isBinary: true, content_type: contentType, ...once, ...data };
}

/** The content type, if that is the only field. */
function takeContentType(fields) {
  assert.deepEqual([fields[0], fields.readUInt16BE(1)], [3, fields.length - 3]);
  return fields.subarray(3).toString();
}

/** The hub behind a port of this machine. `peers` are FakePeers with their `socket` and `request`, oldest first. */
export class FakeServer {
  hub = new FakeHub();
  peers = [];
  #waiting = [];

  /** `choose` gives the subprotocol of those offered, or false for none. */
  static async start({ choose = defaultChoice } = {}) {
    const self = new FakeServer();
    self.server = new WebSocketServer({ host: "127.0.0.1", port: 0, handleProtocols: choose });
    self.server.on("connection", (socket, request) => self.#accept(socket, request));
    await new Promise((resolve) => self.server.on("listening", resolve));
    self.port = self.server.address().port;
    self.url = `ws://127.0.0.1:${self.port}/ws`;
    return self;
  }

  #accept(socket, request) {
    const close = (code, reason) => socket.close(code, reason);
    const send = (data) => socket.send(data);
    const isBinary = socket.protocol === "umbel.v1.bin";
    const peer = new FakePeer(this.hub, { send, close, isBinary });
    Object.assign(peer, { socket, request });
    socket.on("message", (data, isBytes) => this.handle(peer, isBytes ? data : data.toString()));
    socket.on("close", (code) => {
      peer.closeCode = code;
      peer.leave();
    });
    socket.on("error", () => {});
    this.peers.push(peer);
    this.#waiting.splice(0).forEach((wake) => wake());
  }

  /** What is done with a message. A test may put something else here. */
  handle(peer, message) {
    peer.handle(message);
  }

  /** The connection number `index`, once it is there. */
  async peer(index) {
    while (this.peers.length <= index) await new Promise((resolve) => this.#waiting.push(resolve));
    return this.peers[index];
  }

  async stop() {
    for (const socket of this.server.clients) socket.terminate();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

function defaultChoice(offers) {
  return ["umbel.v1.bin", "umbel.v1"].find((name) => offers.has(name)) ?? false;
}
