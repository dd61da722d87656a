// Umbel's script against a fake server that the tests hold in their hands: what it does on a good day, on a bad
// one, and when the server talks nonsense. Over the package `ws`, with time that passes when a test says so.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createServer } from "node:http";
import { afterEach, describe, test } from "node:test";
import { promisify } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { WebSocket as UndiciWebSocket } from "undici";
import { WebSocket } from "ws";

import { connect, UmbelError } from "../../src/console/umbel.js";
import { CuttingProxy } from "./cutting_proxy.mjs";
import { FakeServer } from "./fake_server.mjs";
import { VirtualClock } from "./virtual_clock.mjs";

const limits = { timeout: 20_000 };
const POSITION_1 = "00000000000000a1:1";

let opened = [];
afterEach(async () => {
  for (const one of opened.reverse()) await (one.stop?.() ?? one.close());
  opened = [];
});

async function startServer(options) {
  const server = await FakeServer.start(options);
  opened.push(server);
  return server;
}

/** Connects with real time, and with chance that is always the largest unless told otherwise. */
function open(url, options = {}) {
  const umbel = connect(url, { WebSocket, backoff: { minMs: 5, maxMs: 50 }, ...options });
  opened.push(umbel);
  return umbel;
}

/** Waits until something holds, in real time. */
async function until(holds, what = holds.toString()) {
  const deadlineMs = performance.now() + 10_000;
  while (!holds()) {
    if (performance.now() > deadlineMs) assert.fail(`it never came: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Subscribes and writes down what it hears. */
function listen(umbel, target, options = {}) {
  const heard = { data: [], publications: [], gaps: [], subscribed: [], errors: [], joins: [], leaves: [] };
  heard.subscription = umbel.subscribe(target, {
    onPublication: (publication) => {
      heard.publications.push(publication);
      heard.data.push(publication.data);
    },
    onGap: (gap) => heard.gaps.push(gap),
    onSubscribed: (subscribed) => heard.subscribed.push(subscribed),
    onError: (error) => heard.errors.push(error),
    onJoin: (event) => heard.joins.push(event),
    onLeave: (event) => heard.leaves.push(event),
    ...options,
  });
  return heard;
}

const isLive = (heard, times = 1) => until(() => heard.subscribed.length >= times, "subscribed");
const rejects = (promise, code) => assert.rejects(promise, (error) => error instanceof UmbelError && error.code === code);

for (const binary of [false, true]) {
  describe(binary ? "umbel.v1.bin" : "umbel.v1", () => {
    test("payloads go out and come back as they were", limits, async () => {
      const server = await startServer();
      const umbel = open(server.url, { binary });
      const heard = listen(umbel, "t/ü");
      await isLive(heard);
      const bytes = Uint8Array.from({ length: 70_000 }, (_, index) => index & 0xff);
      const published = [
        await umbel.publish("t/ü", "text with \u2028, \"quotes\", \0 and 傘"),
        await umbel.publish("t/ü", ""),
        await umbel.publish("t/ü", bytes),
        await umbel.publish("t/ü", bytes.subarray(3, 5).buffer.slice(0, 2)),
        await umbel.publish("t/ü", new DataView(bytes.buffer, 1, 2), { key: "k€y" }),
        await umbel.publish("t/ü", { a: [1, null] }, { receipt: true }),
        await umbel.publish("t/ü", null),
      ];
      await until(() => heard.data.length === published.length);
      assert.deepEqual(heard.data, [
        "text with \u2028, \"quotes\", \0 and 傘",
        "",
        bytes,
        Uint8Array.of(0, 1),
        Uint8Array.of(1, 2),
        { a: [1, null] },
        null,
      ]);
      assert.deepEqual(
        heard.publications.map(({ position }) => position),
        published.map(({ position }) => position),
      );
      assert.equal(published[0].position, POSITION_1);
      assert.equal(published[0].receipt, undefined);
      assert.equal(published[5].receipt.matched, 1);
      assert.deepEqual(heard.publications.map(({ key }) => key).filter(Boolean), ["k€y"]);
      assert.equal(heard.subscription.position, "00000000000000a1:7");
      const sent = server.peers[0].commands.filter(({ type }) => type === "publish");
      assert.ok(sent.every(({ isBinary = false }) => isBinary === binary), "in the framing agreed to");
      assert.deepEqual(heard.gaps, []);
    });

    test("patterns get what matches, and a gap after each reconnect", limits, async () => {
      const server = await startServer();
      const umbel = open(server.url, { binary });
      const heard = listen(umbel, { pattern: "orders/*" });
      const alone = listen(umbel, "orders/eu");
      await Promise.all([isLive(heard), isLive(alone)]);
      await umbel.publish("orders/eu", "1", { key: "k" });
      await umbel.publish("orders/us", "2");
      await umbel.publish("other", "3");
      await until(() => heard.data.length === 2 && alone.data.length === 1);
      const [first, second] = heard.publications;
      assert.deepEqual([first.topic, first.pattern, first.key], ["orders/eu", "orders/*", "k"]);
      assert.equal(second.topic, "orders/us");
      assert.equal(alone.publications[0].pattern, undefined);
      assert.equal(heard.subscription.position, null);
      assert.deepEqual(heard.gaps, []);
      server.peers[0].socket.terminate();
      await Promise.all([isLive(heard, 2), isLive(alone, 2)]);
      const gap = { reason: "unrecovered", topic: undefined, pattern: "orders/*", from: null, to: null };
      assert.deepEqual(heard.gaps, [gap]);
      assert.deepEqual(alone.gaps, []);
    });

    test("what was missed comes after a reconnect, once and in order", limits, async () => {
      const server = await startServer();
      const proxy = await CuttingProxy.start(server.port);
      opened.push(proxy);
      const umbel = open(`ws://127.0.0.1:${proxy.port}/ws`, { binary });
      const heard = listen(umbel, "t");
      await isLive(heard);
      const expected = [];
      for (let round = 0; round < 30; round += 1) {
        // Cuts fall behind the handshake (about 200 bytes), in heads and in payloads.
        proxy.cutAfterBytes = 150 + round * 13;
        for (let count = 0; count < 5; count += 1) {
          expected.push(`${round}/${count} ${"x".repeat(count * 40)}`);
          server.hub.publish("t", { data: expected.at(-1) });
        }
        proxy.cutAll();
        await until(() => umbel.state !== "open");
        if (round % 3 === 0) await until(() => proxy.connections > 0);
      }
      proxy.cutAfterBytes = null;
      proxy.cutAll();
      await until(() => heard.data.length >= expected.length);
      assert.deepEqual(heard.data, expected);
      assert.deepEqual(heard.gaps, []);
    });
  });
}

test("the subprotocol that the server chooses counts, and none is a refusal that is tried again", limits, async () => {
  const onlyText = await startServer({ choose: (offers) => (offers.has("umbel.v1") ? "umbel.v1" : false) });
  const umbel = open(onlyText.url, { binary: true });
  const heard = listen(umbel, "t");
  await isLive(heard);
  await umbel.publish("t", Uint8Array.of(1, 2));
  await until(() => heard.data.length === 1);
  assert.deepEqual(heard.data, [Uint8Array.of(1, 2)]);
  assert.equal(onlyText.peers[0].commands[1].base64, "AQI=");
  const none = await startServer({ choose: () => false });
  const states = [];
  open(none.url).onState((state, { code }) => states.push(`${state} ${code}`));
  await until(() => states.length >= 2);
  assert.deepEqual(states.slice(0, 2), ["waiting 1006", "waiting 1006"]);
});

test("info is in the address, a token in the first message, and a function is asked for each", limits, async () => {
  const server = await startServer();
  let asked = 0;
  const token = async () => {
    asked += 1;
    if (asked === 2) throw new Error("not now");
    return `a+b &${asked}`;
  };
  const states = [];
  const umbel = open(`${server.url}?x=1#f`, { token, info: { name: "ü" } });
  umbel.onState((state, { reason }) => states.push(reason ?? state));
  const first = new URL((await server.peer(0)).request.url, "ws://a");
  assert.ok(!first.search.includes("token"));
  assert.equal(first.searchParams.get("x"), "1");
  assert.deepEqual(JSON.parse(first.searchParams.get("info")), { name: "ü" });
  await until(() => umbel.state === "open");
  assert.deepEqual(server.peers[0].commands, [{ type: "auth", id: 1, token: "a+b &1" }]);
  server.peers[0].socket.terminate();
  await server.peer(1);
  await until(() => umbel.state === "open");
  assert.deepEqual(server.peers[1].commands, [{ type: "auth", id: 2, token: "a+b &3" }]);
  assert.equal(states[2], "not now");
  const plain = open(server.url.replace("ws:", "http:"), { token: "plain" });
  await until(() => plain.state === "open");
  assert.equal(server.peers[2].token, "plain");
});

test("close() ends it: nothing is left that keeps the program running", limits, async () => {
  const server = await startServer();
  const umbel = open(server.url);
  const heard = listen(umbel, "t");
  await isLive(heard);
  const states = [];
  umbel.onState((state) => states.push(state));
  server.handle = () => {};
  const inFlight = umbel.publish("t", "1");
  umbel.close();
  umbel.close();
  await rejects(inFlight, "fate_unknown");
  await rejects(umbel.publish("t", "2"), "closed");
  assert.throws(() => umbel.subscribe("t"), { code: "closed" });
  heard.subscription.unsubscribe();
  await until(() => server.peers[0].closeCode === 1000);
  assert.deepEqual(states, ["closed"]);
  assert.deepEqual(heard.errors, []);
});

describe("subscriptions", () => {
  test("since and last begin where they say", limits, async () => {
    const server = await startServer();
    for (let count = 1; count <= 9; count += 1) server.hub.publish("t", { data: String(count) });
    const umbel = open(server.url);
    const since = listen(umbel, "t", { since: "00000000000000A1:6" });
    await until(() => since.data.length === 3);
    assert.deepEqual(since.data, ["7", "8", "9"]);
    assert.deepEqual(since.subscribed, [{ position: "00000000000000a1:9", recovered: true }]);
    since.subscription.unsubscribe();
    const last = listen(umbel, "t", { last: 2 });
    await until(() => last.data.length === 2);
    assert.deepEqual(last.data, ["8", "9"]);
    assert.deepEqual(last.subscribed, [{ position: "00000000000000a1:9", recovered: undefined }]);
    assert.equal(last.subscription.position, "00000000000000a1:9");
    server.hub.publish("t", { data: "10" });
    await until(() => last.data.length === 3);
    assert.deepEqual([since.data.length, since.gaps, last.gaps], [3, [], []]);
  });

  test("last without any history still knows where it began", limits, async () => {
    const server = await startServer();
    const umbel = open(server.url);
    const heard = listen(umbel, "quiet", { last: 2 });
    await until(() => heard.subscription.position !== null);
    assert.equal(heard.subscription.position, "00000000000000a1:0");
    server.peers[0].socket.terminate();
    for (let count = 1; count <= 5; count += 1) server.hub.publish("quiet", { data: String(count) });
    await until(() => heard.data.length === 5);
    assert.deepEqual(heard.data, ["1", "2", "3", "4", "5"]);
    assert.deepEqual(heard.gaps, []);
  });

  test("what cannot be recovered is told as a gap", limits, async () => {
    const server = await startServer();
    const umbel = open(server.url);
    const heard = listen(umbel, "t");
    await isLive(heard);
    await umbel.publish("t", "1");
    server.hub.historyMax = 2;
    server.peers[0].socket.terminate();
    for (let count = 2; count <= 9; count += 1) server.hub.publish("t", { data: String(count) });
    await isLive(heard, 2);
    assert.deepEqual(heard.subscribed[1], { position: "00000000000000a1:9", recovered: false });
    const gap = { topic: "t", pattern: undefined, from: "00000000000000a1:2", to: "00000000000000a1:9" };
    assert.deepEqual(heard.gaps, [{ reason: "unrecovered", ...gap }]);
    server.hub.forget();
    server.peers[1].socket.terminate();
    await isLive(heard, 3);
    assert.equal(heard.gaps[1].to, "00000000000000a2:0");
    assert.equal(heard.gaps[1].from, "00000000000000a1:10");
    await umbel.publish("t", "new");
    await until(() => heard.data.length === 2);
    assert.deepEqual(heard.data, ["1", "new"]);
    const late = listen(umbel, "other", { since: "ffffffffffffffff:18446744073709551615" });
    await until(() => late.gaps.length === 1);
  });

  test("gaps that the server tells are handed on, and the count goes on behind them", limits, async () => {
    const server = await startServer();
    server.hub.slowConsumer = "drop-oldest";
    const umbel = open(server.url);
    const heard = listen(umbel, "t");
    await isLive(heard);
    const [peer] = server.peers;
    const [from, to] = ["00000000000000a1:1", "00000000000000a1:4"];
    peer.send({ type: "gap", topic: "t", from, to });
    await until(() => heard.gaps.length === 1);
    assert.deepEqual(heard.gaps, [{ reason: "dropped", topic: "t", pattern: undefined, from, to }]);
    assert.equal(heard.subscription.position, to);
    peer.send({ type: "publication", topic: "t", position: "00000000000000a1:5", data: "5" });
    // Conflation leaves out what is old without a word.
    peer.send({ type: "publication", topic: "t", position: "00000000000000a1:9", data: "9" });
    await until(() => heard.data.length === 2);
    assert.equal(heard.gaps.length, 1);
    peer.send({ type: "publication", topic: "t", position: "00000000000000a1:9", data: "9" });
    await until(() => heard.gaps.length === 2);
    assert.equal(heard.gaps[1].reason, "order");
    assert.deepEqual(heard.data, ["5", "9"]);
  });

  for (const [wrong, to] of [
    ["00000000000000a1:4", "00000000000000a1:3"],
    ["00000000000000a1:1", null],
    ["00000000000000a7:2", null],
  ]) {
    test(`${wrong} behind 1 is out of order: it tells and subscribes anew`, limits, async () => {
      const server = await startServer();
      const umbel = open(server.url);
      const heard = listen(umbel, "t");
      const beside = listen(umbel, "u");
      await Promise.all([isLive(heard), isLive(beside)]);
      await umbel.publish("t", "1");
      const { peers } = server.hub;
      server.hub.peers = new Set();
      for (const data of ["2", "3"]) server.hub.publish("t", { data });
      server.hub.peers = peers;
      server.peers[0].send({ type: "publication", topic: "t", position: wrong, data: "wrong" });
      server.peers[0].send({ type: "publication", topic: "t", position: wrong, data: "wrong" });
      await until(() => heard.data.length === 3);
      assert.deepEqual(heard.data, ["1", "2", "3"]);
      const from = "00000000000000a1:2";
      assert.deepEqual(heard.gaps, [{ reason: "order", topic: "t", pattern: undefined, from, to }]);
      assert.equal(server.peers.length, 1, "on the same connection");
      assert.equal(beside.subscribed.length, 1);
    });
  }

  test("after unsubscribing nothing comes, and the name is free at once", limits, async () => {
    const server = await startServer();
    const umbel = open(server.url);
    const first = listen(umbel, "t");
    await isLive(first);
    assert.throws(() => umbel.subscribe("t"), { code: "already_subscribed" });
    server.hub.publish("t", { data: "1" });
    first.subscription.unsubscribe();
    first.subscription.unsubscribe();
    const second = listen(umbel, "t");
    await isLive(second);
    server.hub.publish("t", { data: "2" });
    await until(() => second.data.length === 1);
    assert.deepEqual([first.data, second.data, second.gaps], [[], ["2"], []]);
    second.subscription.unsubscribe();
    await umbel.presence("t");
    assert.equal(server.peers[0].subscriptions.size, 0);
    // In a callback too.
    const third = listen(umbel, "t", {
      since: "0000000000000001:1",
      onSubscribed: () => third.subscription.unsubscribe(),
    });
    await until(() => server.peers[0].commands.at(-1).type === "unsubscribe");
    await umbel.presence("t");
    assert.deepEqual(third.gaps, []);
  });

  test("a subscription that ended before it began leaves nothing behind", limits, async () => {
    const server = await startServer();
    const umbel = open(server.url);
    await until(() => umbel.state === "open");
    // As the server does: a subscribe whose unsubscribe came before its answer has none.
    server.handle = (peer, message) => {
      const command = JSON.parse(message);
      if (command.type === "unsubscribe") peer.send({ ...command, type: "unsubscribed" });
    };
    const handlers = ["topic", "pattern"].map((kind) => {
      const ofKind = {};
      umbel.subscribe({ [kind]: "a" }, ofKind).unsubscribe();
      return new WeakRef(ofKind);
    });
    setFlagsFromString("--expose-gc");
    await until(() => {
      runInNewContext("gc")();
      return handlers.every((ofKind) => ofKind.deref() === undefined);
    });
  });

  test("a topic may be spelt in another way than the server spells it", limits, async () => {
    const server = await startServer();
    server.handle = (peer, text) => {
      const command = JSON.parse(text);
      peer.handle(JSON.stringify({ ...command, topic: command.topic?.replace("b=2&a=1", "a=1&b=2") }));
    };
    const umbel = open(server.url);
    const heard = listen(umbel, "t?b=2&a=1");
    await isLive(heard);
    server.hub.publish("t?a=1&b=2", { data: "met" });
    await until(() => heard.data.length === 1);
    assert.equal(heard.subscription.topic, "t?b=2&a=1");
    heard.subscription.unsubscribe();
    await umbel.presence("x");
    assert.equal(server.peers[0].subscriptions.size, 0);
  });

  test("a refusal ends it, and one that passes is tried again", limits, async () => {
    const server = await startServer();
    let refusals = 3;
    server.handle = (peer, text) => {
      const { type, id, topic } = JSON.parse(text);
      const error = (code) => peer.send({ type: "error", id, code, reason: "no" });
      if (type === "subscribe" && topic === "secret") error("forbidden");
      else if (type === "subscribe" && refusals-- > 0) error("unavailable");
      else peer.handle(text);
    };
    const umbel = open(server.url);
    const secret = listen(umbel, "secret");
    const busy = listen(umbel, "busy");
    await isLive(busy);
    assert.deepEqual(secret.errors.map(({ code, isRetried }) => [code, isRetried]), [["forbidden", false]]);
    assert.deepEqual(
      busy.errors.map(({ code, isRetried }) => [code, isRetried]),
      Array(3).fill(["unavailable", true]),
    );
    // The refused one is gone and does not come back with the next connection.
    server.peers[0].socket.terminate();
    await isLive(busy, 2);
    assert.equal(secret.errors.length, 1);
    secret.subscription.unsubscribe();
  });

  test("a subscription that the server ends is the end of it, and of no other", limits, async () => {
    const server = await startServer();
    const umbel = open(server.url);
    const [gone, stays] = [listen(umbel, "t"), listen(umbel, { pattern: "p/*" })];
    await isLive(gone);
    await isLive(stays);
    server.peers[0].send({ type: "unsubscribed", topic: "t", code: "forbidden" });
    server.peers[0].send({ type: "unsubscribed", topic: "elsewhere", code: "forbidden" });
    await until(() => gone.errors.length === 1);
    assert.equal(gone.errors[0].code, "forbidden");
    // It does not come back with the next connection.
    server.peers[0].socket.terminate();
    await isLive(stays, 2);
    assert.deepEqual([gone.subscribed.length, stays.errors.length], [1, 0]);
  });

  test("presence is asked and told", limits, async () => {
    const server = await startServer();
    const umbel = open(server.url);
    const early = umbel.presence("t");
    const heard = listen(umbel, "t");
    assert.deepEqual(await early, { total: 1, members: [{ connection: "0-1-1", info: { a: 1 } }] });
    await isLive(heard);
    server.peers[0].send({ type: "join", topic: "t", connection: "0-1-2", info: "i" });
    server.peers[0].send({ type: "leave", topic: "t", connection: "0-1-2" });
    server.peers[0].send({ type: "leave", topic: "elsewhere", connection: "0-1-2" });
    await until(() => heard.leaves.length === 1);
    const [{ topic, connection, info }] = heard.joins;
    assert.deepEqual({ topic, connection, info }, { topic: "t", connection: "0-1-2", info: "i" });
  });

  test("presence that is left out is told, and may be asked for", limits, async () => {
    const server = await startServer();
    const umbel = open(server.url);
    const skipped = [];
    const heard = listen(umbel, "t", { onPresenceSkipped: (event) => skipped.push(event) });
    await isLive(heard);
    server.peers[0].send({ type: "presence_skipped", topic: "t", members: 5000 });
    await until(() => skipped.length === 1);
    assert.deepEqual([skipped[0].topic, skipped[0].members], ["t", 5000]);
    assert.equal((await umbel.presence("t")).total, 1);
  });

  test("what a callback throws is the program's, and the others hear the rest", limits, async () => {
    const server = await startServer();
    const umbel = open(server.url);
    const thrown = [];
    const keep = (error) => thrown.push(error.message);
    const before = process.listeners("unhandledRejection");
    process.removeAllListeners("unhandledRejection");
    process.on("unhandledRejection", keep);
    try {
      const heard = listen(umbel, "t", {
        onSubscribed: () => {
          throw new Error("thrown");
        },
      });
      await umbel.publish("t", "1");
      await until(() => heard.data.length === 1 && thrown.length === 1);
      assert.deepEqual(thrown, ["thrown"]);
      assert.equal(server.peers.length, 1);
    } finally {
      process.removeListener("unhandledRejection", keep);
      for (const listener of before) process.on("unhandledRejection", listener);
    }
  });

  test("arguments that make no sense are refused at once", limits, async () => {
    const umbel = open((await startServer()).url);
    const subscribe = (target, options) => () => umbel.subscribe(target, options);
    for (const wrong of ["", undefined, null, 7, {}, "\ud800", { pattern: "" }]) {
      assert.throws(subscribe(wrong), TypeError, String(wrong));
    }
    for (const pattern of ["*", "**", "orders/*", "a.*.b", "*/a", "a/**", "orders/*?a=1"]) {
      const words = { name: "TypeError", message: new RegExp(`{ pattern: "${pattern.replace(/[*?.]/g, "\\$&")}" }`) };
      assert.throws(subscribe(pattern), words);
      umbel.subscribe({ topic: pattern }).unsubscribe();
      umbel.subscribe({ pattern }).unsubscribe();
    }
    for (const topic of ["a*", "a/***", "b?a=/*", "*a.b*c"]) umbel.subscribe(topic).unsubscribe();
    for (const since of ["", "1:1", "00000000000000a1:", "00000000000000a1:-1", "00000000000000a1:18446744073709551616", 7]) {
      assert.throws(subscribe("t", { since }), TypeError, String(since));
    }
    for (const last of [-1, 1.5, NaN, "1"]) assert.throws(subscribe("t", { last }), TypeError);
    assert.throws(subscribe({ pattern: "a/*" }, { last: 1 }), TypeError);
    for (const [topic, data, key] of [
      ["", "x"],
      ["t", undefined],
      ["t", () => {}],
      ["t", "\udc00"],
      ["t", "x", ""],
      ["t", "x", "\ud800"],
    ]) {
      await assert.rejects(umbel.publish(topic, data, { key }), TypeError);
    }
    assert.throws(() => connect("ftp://a/ws", { WebSocket }), TypeError);
    assert.throws(() => connect("/ws", { WebSocket }), TypeError);
    if (!globalThis.WebSocket) assert.throws(() => connect("ws://a/ws"), TypeError);
  });
});

describe("publishes", () => {
  test("wait for a connection within a bound, and keep their order", limits, async () => {
    const server = await startServer();
    const umbel = open(server.url, { publishesMax: 3 });
    const published = ["1", "2", "3", "4"].map((data) => umbel.publish("t", data));
    await rejects(published[3], "too_many_publishes");
    const positions = await Promise.all(published.slice(0, 3));
    assert.deepEqual(positions.map(({ position }) => position.at(-1)), ["1", "2", "3"]);
    const burst = await Promise.all(Array.from({ length: 2000 }, (_, count) => umbel.publish("b", String(count))));
    assert.equal(burst.at(-1).position.split(":")[1], "2000");
    const data = server.peers[0].commands.filter(({ topic }) => topic === "b").map((command) => command.data);
    assert.deepEqual(data, Array.from({ length: 2000 }, (_, count) => String(count)));
  });

  test("more than bufferedBytesMax in the socket is refused", limits, async () => {
    const server = await startServer();
    const umbel = open(server.url, { bufferedBytesMax: 100_000 });
    await umbel.publish("t", "x");
    server.peers[0].socket.pause();
    const published = [];
    for (let count = 0; count < 300; count += 1) published.push(umbel.publish("t", "x".repeat(50_000)));
    const refused = Promise.allSettled(published).then((all) => all.filter(({ status }) => status === "rejected"));
    server.peers[0].socket.resume();
    const reasons = (await refused).map(({ reason }) => reason.code);
    assert.ok(reasons.length > 0 && reasons.length < 300, `${reasons.length} refused`);
    assert.deepEqual([...new Set(reasons)], ["too_many_publishes"]);
  });

  test("a server's error is the publish's", limits, async () => {
    const server = await startServer();
    server.handle = (peer, text) => {
      peer.send({ type: "error", id: JSON.parse(text).id, code: "too_big", reason: "at most 1 byte" });
    };
    const umbel = open(server.url);
    await assert.rejects(umbel.publish("t", "22"), { name: "UmbelError", code: "too_big", message: "at most 1 byte" });
    assert.equal(server.peers.length, 1);
  });

  test("a publish over its rate is told when the next may come", limits, async () => {
    const server = await startServer();
    server.handle = (peer, text) => {
      const { id } = JSON.parse(text);
      peer.send({ type: "error", id, code: "rate_limited", reason: "too fast", retry_ms: 250 });
    };
    const umbel = open(server.url);
    await assert.rejects(umbel.publish("t", "x"), { code: "rate_limited", retryMs: 250 });
    assert.equal(server.peers.length, 1);
  });

  test("of one without an answer and a key the fate is unknown; others are sent again", limits, async () => {
    const server = await startServer();
    const umbel = open(server.url);
    await until(() => umbel.state === "open");
    const got = [];
    server.handle = (peer, text) => got.push(JSON.parse(text).data);
    const fates = [
      umbel.publish("t", "once", { idempotencyKey: null }),
      umbel.publish("t", "again", { idempotencyKey: null, resend: true }),
      umbel.publish("t", "by its key"),
      umbel.presence("t"),
    ];
    const settled = Promise.allSettled(fates);
    await until(() => got.length === 4);
    delete server.handle;
    server.peers[0].socket.terminate();
    await until(() => umbel.state === "waiting");
    const behind = umbel.publish("t", "behind");
    const [once, again, byKey, presence] = await settled;
    assert.equal(once.reason.code, "fate_unknown");
    assert.equal(again.value.position, POSITION_1);
    assert.deepEqual(byKey.value, { position: "00000000000000a1:2" });
    assert.equal(presence.value.total, 1);
    assert.equal((await behind).position, "00000000000000a1:3");
    const { commands } = server.peers[1];
    assert.deepEqual(
      commands.map(({ type, data }) => data ?? type),
      ["again", "by its key", "presence", "behind"],
    );
    const keys = commands.map(({ idempotency_key: key }) => key);
    assert.deepEqual([keys[0], typeof keys[1], keys[2], typeof keys[3]], [undefined, "string", undefined, "string"]);
    assert.notEqual(keys[1], keys[3]);
    // Only what is sent again says so.
    const sent = commands.map(({ first_sent_ms: sentMs }) => typeof sentMs);
    assert.deepEqual(sent, ["undefined", "number", "undefined", "undefined"]);
  });

  for (const binary of [false, true]) {
    test(`one that was done before the loss is not done again: binary is ${binary}`, limits, async () => {
      const server = await startServer();
      const umbel = open(server.url, { binary });
      await until(() => umbel.state === "open");
      server.handle = (peer, message) => {
        // It is done, and the answer is lost.
        peer.sendRaw = () => {};
        peer.handle(message);
        peer.socket.terminate();
        delete server.handle;
      };
      const { position, duplicate } = await umbel.publish("t", "x", { receipt: true });
      assert.deepEqual([position, duplicate], [POSITION_1, true]);
      const other = await umbel.publish("t", "y", { idempotencyKey: "mine" });
      assert.deepEqual(other, { position: "00000000000000a1:2" });
      assert.deepEqual(await umbel.publish("t", "y", { idempotencyKey: "mine" }), { ...other, duplicate: true });
      await rejects(umbel.publish("t", "z", { idempotencyKey: "mine" }), "idempotency_key_reused");
    });
  }

  test("of one that a new server may have had before, the fate is unknown", limits, async () => {
    const server = await startServer();
    const umbel = open(server.url);
    await until(() => umbel.state === "open");
    server.handle = (peer) => {
      delete server.handle;
      server.hub.forget();
      peer.socket.terminate();
    };
    await rejects(umbel.publish("t", "x"), "fate_unknown");
    assert.deepEqual(await umbel.publish("t", "y"), { position: POSITION_1 });
    server.handle = (peer) => {
      delete server.handle;
      server.hub.forget();
      peer.socket.terminate();
    };
    assert.equal(typeof (await umbel.publish("t", "z", { resend: true })).position, "string");
  });

  for (const binary of [false, true]) {
    test(`after 1009 the biggest was too big, and those behind it are sent: binary is ${binary}`, limits, async () => {
      const server = await startServer();
      const umbel = open(server.url, { binary });
      await until(() => umbel.state === "open");
      // As the server does: it reads no further than to what is too big.
      const got = [];
      server.handle = (peer, message) => {
        got.push(message);
        if (message.length < 1000) return;
        peer.socket.close(1009, "too big");
        delete server.handle;
        server.handle = (other, text) => other !== peer && other.handle(text);
      };
      const big = binary ? Uint8Array.of(...Array(1000).fill(7)) : "ü".repeat(1000);
      const fates = [
        umbel.publish("t", "before", { idempotencyKey: null }),
        umbel.publish("t", "before, again"),
        umbel.publish("t", big),
        umbel.publish("t", "x".repeat(999)),
        umbel.publish("t", "last"),
      ];
      const [before, again, tooBig, behind, last] = await Promise.allSettled(fates);
      assert.equal(got.length, 3);
      assert.deepEqual([before.reason.code, tooBig.reason.code], ["fate_unknown", "too_big"]);
      assert.match(tooBig.reason.message, /1009|big/);
      const positions = [again, behind, last].map(({ value }) => value.position.split(":")[1]);
      assert.deepEqual(positions, ["1", "2", "3"]);
    });
  }

  test("several that are too big are each told, by one connection each", limits, async () => {
    const server = await startServer();
    server.handle = (peer, text) => {
      if (text.length >= 1000) peer.socket.close(1009, "");
      else peer.handle(text);
    };
    const umbel = open(server.url, { resend: true });
    const sizes = [1000, 5, 3000, 2000, 6];
    const fates = await Promise.allSettled(sizes.map((size) => umbel.publish("t", "x".repeat(size))));
    assert.deepEqual(
      fates.map(({ reason }) => reason?.code),
      ["too_big", undefined, "too_big", "too_big", undefined],
    );
  });

  test("each settles in time: unsent, unanswered, and when it cannot be written", limits, async () => {
    const server = await startServer();
    const clock = new VirtualClock();
    const umbel = open(server.url, { timers: clock.timers, publishTimeoutMs: 3000 });
    // Before there is a connection: it is never sent.
    const unsent = rejects(umbel.publish("t", "unsent"), "timed_out");
    await clock.pass(3000);
    await unsent;
    await until(() => umbel.state === "open");
    server.handle = (peer, text) => JSON.parse(text).type === "ping" && peer.handle(text);
    const unanswered = [umbel.publish("t", "1", { resend: true }), umbel.presence("t")];
    const codes = Promise.allSettled(unanswered).then((all) => all.map(({ reason }) => reason.code));
    await clock.pass(3000);
    assert.deepEqual(await codes, ["fate_unknown", "fate_unknown"]);
    // Once told, it is not sent again.
    delete server.handle;
    server.peers[0].socket.terminate();
    await until(() => umbel.state === "waiting");
    const { btoa } = globalThis;
    globalThis.btoa = () => {
      throw new RangeError("Invalid string length");
    };
    const fates = [umbel.publish("t", Uint8Array.of(1)), umbel.publish("t", "behind")];
    const settled = Promise.allSettled(fates);
    await clock.pass(100);
    const [unwritten, behind] = await settled;
    globalThis.btoa = btoa;
    assert.equal(unwritten.reason.code, "too_big");
    assert.equal(behind.value.position, POSITION_1);
    umbel.close();
    assert.equal(clock.nextInMs, null, "nothing is left to do");
  });
});

describe("reconnecting", () => {
  /** Connects under a virtual clock and hears what the states were. */
  async function openVirtual(server, options) {
    const clock = new VirtualClock();
    const umbel = open(server.url, { timers: clock.timers, random: () => 1, backoff: {}, ...options });
    const states = [];
    umbel.onState((state, detail) => states.push({ state, ...detail }));
    await until(() => umbel.state === "open");
    return { clock, umbel, states };
  }

  test("delays double up to a cap, by chance, and start over after a while", limits, async () => {
    const server = await startServer();
    const { clock, umbel, states } = await openVirtual(server);
    server.server.options.verifyClient = () => false;
    server.peers[0].socket.terminate();
    const delays = [];
    for (let count = 0; count < 9; count += 1) {
      await until(() => states.length > count + 1);
      delays.push(states.at(-1).retryInMs);
      assert.equal(clock.nextInMs, delays.at(-1));
      await clock.pass(delays.at(-1));
    }
    assert.deepEqual(delays, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000]);
    await until(() => states.length > 10);
    server.server.options.verifyClient = null;
    await clock.pass(30_000);
    await until(() => umbel.state === "open");
    // A success that does not last counts for nothing.
    server.peers[1].socket.terminate();
    await until(() => umbel.state === "waiting");
    assert.equal(states.at(-1).retryInMs, 30_000);
    await clock.pass(30_000);
    await until(() => umbel.state === "open");
    await clock.pass(6000);
    server.peers[2].socket.terminate();
    await until(() => umbel.state === "waiting");
    assert.equal(states.at(-1).retryInMs, 1000);
    const halved = await openVirtual(server, { random: () => 0.5, backoff: { minMs: 100, maxMs: 150 } });
    server.peers.at(-1).socket.terminate();
    await until(() => halved.umbel.state === "waiting");
    assert.equal(halved.states.at(-1).retryInMs, 50);
  });

  for (const [code, reason, retryInMs, error = "closed"] of [
    [1000, "", 1000],
    [1001, "going away; retry=3", 4000],
    [1012, "retry=0.25", 1250],
    [1013, "slow consumer: more is queued than the outbox may hold", 1000],
    [1013, "retry=999999999", 3_601_000],
    [1013, "noretry=7 and retry=x", 1000],
    [1009, "", 1000],
    [1008, "come again; retry=1", 2000],
    [4321, "retry=2", 3000],
    [4429, "as many connections as one address may have", 1000],
    [4429, "retry=5", 6000],
    [3000, "", 1000],
    [1002, "", null],
    [1003, "", null],
    [1007, "", null],
    [1008, "this connection may not publish", null],
    [1010, "", null],
    [4000, "", null],
    [4401, "a token is needed", null, "unauthorized"],
    [4408, "", null, "unauthorized"],
    [4403, "subscribing is closed to everybody here", null, "forbidden"],
    [4404, "there is nothing here", null],
    [4999, "bye", null],
  ]) {
    const outcome = retryInMs === null ? "ends it" : `waits ${retryInMs} ms`;
    test(`a close with ${code} "${reason}" ${outcome}`, limits, async () => {
      const server = await startServer();
      const { clock, umbel, states } = await openVirtual(server);
      const heard = listen(umbel, "t");
      await isLive(heard);
      // The package does not let a server send every code.
      if (code === 1010) {
        const text = Buffer.from([0x88, 2, code >> 8, code & 0xff]);
        server.peers[0].socket._socket.write(text);
      } else server.peers[0].socket.close(code, reason);
      await until(() => umbel.state !== "open");
      const ended = [4401, 4403, 4408].includes(code) ? "denied" : "closed";
      const state = retryInMs === null ? ended : "waiting";
      const detail = retryInMs === null ? {} : { retryInMs };
      assert.deepEqual(states.at(-1), { state, code, reason, ...detail });
      if (retryInMs === null) {
        assert.equal(clock.nextInMs, null, "nothing is left to do");
        assert.deepEqual(heard.errors.map((told) => told.code), [error]);
        assert.match(heard.errors[0].message, new RegExp(`${code} ${reason}`));
        await rejects(umbel.publish("t", "x"), "closed");
      } else {
        assert.deepEqual(heard.errors, []);
        await clock.pass(retryInMs);
        await isLive(heard, 2);
        assert.deepEqual(heard.gaps, []);
      }
    });
  }

  for (const code of [4401, 4408]) {
    test(`${code}: a function is asked for one other token, and after a good connection again`, limits, async () => {
      const server = await startServer();
      const tokens = [];
      const token = () => tokens.push(tokens.length);
      const { clock, umbel, states } = await openVirtual(server, { token });
      const refuse = async (index) => (await server.peer(index)).socket.close(code, "the token has expired");
      await refuse(0);
      await until(() => umbel.state === "waiting");
      assert.equal(states.at(-1).code, code);
      await clock.pass(1000);
      await until(() => umbel.state === "open");
      // What was heard shows that this one was taken.
      await umbel.publish("t", "x");
      await refuse(1);
      await until(() => umbel.state === "waiting");
      await clock.pass(2000);
      await until(() => umbel.state === "open");
      // So does time.
      await clock.pass(5000);
      await refuse(2);
      await until(() => umbel.state === "waiting");
      await clock.pass(1000);
      await refuse(3);
      await until(() => umbel.state === "denied");
      assert.equal(tokens.length, 4);
      assert.deepEqual(states.at(-1), { state: "denied", code, reason: "the token has expired" });
    });
  }

  test("what was sent on a connection that is refused was not done", limits, async () => {
    const server = await startServer();
    let refusals = 1;
    server.handle = (peer, text) => refusals === 0 && peer.handle(text);
    server.server.on("connection", (socket) => refusals > 0 && socket.close(4401, "the token has expired"));
    const tokens = ["old", "new"];
    const umbel = open(server.url, { token: () => tokens.shift() });
    const published = ["1", "2"].map((data) => umbel.publish("t", data));
    await until(() => umbel.state === "waiting");
    refusals = 0;
    const positions = (await Promise.all(published)).map(({ position }) => position);
    assert.deepEqual(positions, [POSITION_1, "00000000000000a1:2"]);
    refusals = 1;
    const refused = open(server.url, { token: "never good" });
    await rejects(refused.publish("t", "x"), "unauthorized");
    await rejects(refused.presence("t"), "closed");
  });

  for (const [status, told] of [
    [400, 4400],
    [401, 4401],
    [403, 4403],
    [404, 4404],
    [408, null],
    [429, null],
    [503, null],
  ]) {
    test(`a first handshake that is answered ${status} ${told ? "ends it" : "is tried again"}`, limits, async () => {
      const server = createServer((request, response) => response.writeHead(status).end());
      await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
      opened.push({ stop: () => server.close() });
      server.on("upgrade", (request, socket) => socket.end(`HTTP/1.1 ${status} No\r\nContent-Length: 0\r\n\r\n`));
      const umbel = open(`ws://127.0.0.1:${server.address().port}/ws`);
      const states = [];
      umbel.onState((state, { code, reason }) => states.push({ state, code, reason }));
      const published = umbel.publish("t", "x");
      published.catch(() => {});
      const heard = listen(umbel, "t");
      await until(() => states.length > (told ? 0 : 1));
      const ended = [401, 403].includes(status) ? "denied" : "closed";
      assert.equal(states[0].state, told ? ended : "waiting");
      assert.match(states[0].reason, new RegExp(String(status)));
      const code = { 401: "unauthorized", 403: "forbidden" }[status] ?? "closed";
      if (told) {
        assert.equal(states[0].code, told);
        await rejects(published, code);
        assert.deepEqual(heard.errors.map((error) => error.code), [code]);
      }
    });
  }

  test("where there is no server, the reason says so", limits, async () => {
    const umbel = open("ws://127.0.0.1:9/ws");
    const reasons = [];
    umbel.onState((state, { reason }) => reasons.push(reason));
    await until(() => reasons.length > 0);
    assert.match(reasons[0], /ECONNREFUSED/);
    const silent = open("ws://127.0.0.1:9/ws", { WebSocket: UndiciWebSocket });
    silent.onState((state, { reason }) => reasons.push(reason));
    await until(() => reasons.some((reason) => reason.startsWith("no connection: ")));
  });

  describe("the page", () => {
    async function openWithPage(server, options) {
      const page = new EventTarget();
      page.document = Object.assign(new EventTarget(), { visibilityState: "visible" });
      const ofDocument = ["resume", "visibilitychange"];
      const tell = (name, more) => {
        const target = ofDocument.includes(name) ? page.document : page;
        target.dispatchEvent(Object.assign(new Event(name), more));
      };
      return { page, tell, ...(await openVirtual(server, { page, ...options })) };
    }

    for (const [name, more] of [
      ["online", {}],
      ["pageshow", { persisted: true }],
      ["resume", {}],
      ["visibilitychange", {}],
    ]) {
      test(`${name} connects at once, but not before the server wants it`, limits, async () => {
        const server = await startServer();
        const { clock, umbel, tell, page } = await openWithPage(server, { backoff: { minMs: 60_000 } });
        server.peers[0].socket.terminate();
        await until(() => umbel.state === "waiting");
        page.document.visibilityState = "hidden";
        tell("visibilitychange");
        tell("pageshow", { persisted: false });
        tell("offline");
        assert.equal(clock.nextInMs, 30_000);
        page.document.visibilityState = "visible";
        tell(name, more);
        await clock.pass(0);
        await until(() => umbel.state === "open");
        server.peers[1].socket.close(1013, "retry=7");
        await until(() => umbel.state === "waiting");
        tell(name, more);
        assert.equal(clock.nextInMs, 7000);
        await clock.pass(7000);
        await until(() => umbel.state === "open");
      });

      test(`${name} asks an open connection for a pong`, limits, async () => {
        const server = await startServer();
        const { clock, umbel, tell, states } = await openWithPage(server);
        tell(name, more);
        await until(() => server.peers[0].commands.length === 1);
        await umbel.publish("t", "x");
        await clock.pass(5000);
        assert.equal(umbel.state, "open");
        server.handle = () => {};
        tell(name, more);
        await clock.pass(4999);
        assert.equal(umbel.state, "open");
        await clock.pass(1);
        assert.equal(states.at(-1).reason, "no pong in time");
      });
    }

    test("offline asks for a pong, for a server on this machine stays", limits, async () => {
      const server = await startServer();
      const { clock, umbel, tell } = await openWithPage(server);
      tell("offline");
      await umbel.publish("t", "x");
      await clock.pass(5000);
      assert.equal(umbel.state, "open");
      server.handle = () => {};
      tell("offline");
      await clock.pass(5000);
      assert.equal(umbel.state, "waiting");
    });

    test("online starts the delays over, and close() stops listening", limits, async () => {
      const server = await startServer();
      const { clock, umbel, states, page, tell } = await openWithPage(server);
      server.server.options.verifyClient = () => false;
      server.peers[0].socket.terminate();
      for (let count = 1; count <= 5; count += 1) {
        await until(() => states.length > count);
        await clock.pass(states.at(-1).retryInMs);
      }
      await until(() => states.length > 6);
      assert.equal(states.at(-1).retryInMs, 30_000);
      tell("online");
      await clock.pass(0);
      await until(() => states.length > 7);
      assert.equal(states.at(-1).retryInMs, 1000);
      const left = [];
      page.removeEventListener = page.document.removeEventListener = (name) => left.push(name);
      umbel.close();
      assert.deepEqual(left.sort(), ["offline", "online", "pageshow", "resume", "visibilitychange"]);
    });
  });

  test("silence is answered by a ping, and more silence by a new connection", limits, async () => {
    const server = await startServer();
    const { clock, umbel, states } = await openVirtual(server);
    const pings = () => server.peers[0].commands.filter(({ type }) => type === "ping").length;
    await clock.pass(24_000);
    await umbel.publish("t", "x");
    await clock.pass(24_999);
    assert.equal(pings(), 0);
    await clock.pass(1);
    await until(() => pings() === 1);
    await umbel.publish("t", "x");
    await clock.pass(20_000);
    await clock.pass(5_000);
    await until(() => pings() === 2);
    assert.equal(umbel.state, "open");
    await umbel.publish("t", "x");
    server.handle = () => {};
    await clock.pass(25_000 + 19_999);
    assert.equal(umbel.state, "open");
    await clock.pass(1);
    assert.equal(umbel.state, "waiting");
    const { code, reason } = states.at(-1);
    assert.deepEqual({ code, reason }, { code: 1006, reason: "no pong in time" });
    delete server.handle;
    await clock.pass(1000);
    await until(() => umbel.state === "open");
    await until(() => server.peers[0].closeCode === 4001);
  });

  test("an opening that hangs is given up", limits, async () => {
    const server = await startServer();
    const proxy = await CuttingProxy.start(server.port);
    opened.push(proxy);
    proxy.isDeaf = true;
    const clock = new VirtualClock();
    const umbel = open(`ws://127.0.0.1:${proxy.port}/ws`, { timers: clock.timers, random: () => 1, backoff: {} });
    await until(() => proxy.connections === 1);
    await clock.pass(20_000);
    assert.equal(umbel.state, "waiting");
    proxy.isDeaf = false;
    await clock.pass(1000);
    await until(() => umbel.state === "open");
  });

  test("a listener may close it, and one that left hears nothing", limits, async () => {
    const server = await startServer();
    const umbel = open(server.url);
    const states = [];
    umbel.onState((state) => state === "waiting" && umbel.close());
    umbel.onState((state) => states.push(state));
    const leave = umbel.onState(() => assert.fail("it left"));
    leave();
    await until(() => umbel.state === "open");
    server.peers[0].socket.terminate();
    await until(() => umbel.state === "closed");
    assert.deepEqual(states, ["open", "closed"]);
  });
});

describe("wrong messages", () => {
  const binary = (...bytes) => Buffer.from(bytes);
  const head = [0, 0, 0, 0, 0, 0, 0, 0xa1, 0, 0, 0, 0, 0, 0, 0, 2];
  for (const [name, message] of [
    ["no JSON", "{"],
    ["JSON that is no object", "7"],
    ["null", "null"],
    ["no type", "{}"],
    ["an error without an id", '{"type":"error","id":null,"code":"invalid_json","reason":"x"}'],
    ["the wrong answer", '{"type":"pong","id":3}'],
    ["a published without a position", '{"type":"published","id":3}'],
    ["a position that is none", '{"type":"publication","topic":"t","position":"a1:2","data":"x"}'],
    ["no position", '{"type":"publication","topic":"t","data":"x"}'],
    ["base64 that is none", '{"type":"publication","topic":"t","position":"00000000000000a1:2","base64":"%"}'],
    ["a gap to nowhere", '{"type":"gap","topic":"t","from":"00000000000000a1:2"}'],
    ["an empty binary message", binary()],
    ["a cut head", binary(1, 0, 0)],
    ["a head alone", binary(1, 0, ...head)],
    ["a topic that is cut short", binary(1, 0, ...head, 2, 0x74)],
    ["a key that is cut short", binary(1, 2, ...head, 1, 0x74, 5)],
    ["text that is no UTF-8", binary(1, 0, ...head, 1, 0x74, 0xff)],
    ["a topic that is no UTF-8", binary(1, 0, ...head, 1, 0xff, 0x74)],
    ["an unknown type", binary(9, 0, ...head, 1, 0x74)],
    ["unknown flags", binary(1, 4, ...head, 1, 0x74)],
  ]) {
    test(`${name}: the connection is given up, and nothing is lost`, limits, async () => {
      const server = await startServer();
      const umbel = open(server.url);
      const heard = listen(umbel, "t");
      await isLive(heard);
      await umbel.publish("t", "1");
      server.handle = () => server.peers[0].socket.send(message);
      // Its id is 3.
      await rejects(umbel.publish("t", "?", { idempotencyKey: null }), "fate_unknown");
      delete server.handle;
      await isLive(heard, 2);
      await umbel.publish("t", "2");
      await until(() => heard.data.length === 2);
      assert.deepEqual([heard.data, heard.gaps], [["1", "2"], []]);
      assert.equal(server.peers.length, 2);
      await until(() => server.peers[0].closeCode === 4002);
    });
  }

  test("what a later server may say more is passed over", limits, async () => {
    const server = await startServer();
    const umbel = open(server.url);
    const heard = listen(umbel, "t");
    await isLive(heard);
    const [peer] = server.peers;
    peer.send({ type: "weather", topic: "t", is: "fine" });
    peer.send({ type: "pong", id: 12_345 });
    peer.send({ type: "publication", topic: "nobody's", position: "x", data: "x" });
    peer.send({ type: "gap", pattern: "nobody's", from: "x", to: "x" });
    server.hub.publish("t", { data: "1", more: true });
    await until(() => heard.data.length === 1);
    assert.equal(server.peers.length, 1);
  });
});

test("undici's WebSocket does as well", limits, async () => {
  const server = await startServer();
  const umbel = open(server.url, { WebSocket: UndiciWebSocket, binary: true });
  const heard = listen(umbel, "t");
  await isLive(heard);
  await umbel.publish("t", Uint8Array.of(7));
  await until(() => heard.data.length === 1);
  server.peers[0].socket.terminate();
  await isLive(heard, 2);
  await umbel.publish("t", "8");
  await until(() => heard.data.length === 2);
  assert.deepEqual(heard.data, [Uint8Array.of(7), "8"]);
  assert.deepEqual(heard.gaps, []);
});

test("Node's own WebSocket does as well, and a program that closes it ends", limits, async () => {
  const server = await startServer();
  const program = `
    import { connect } from ${JSON.stringify(new URL("../../src/console/umbel.js", import.meta.url).href)};
    const umbel = connect(${JSON.stringify(server.url)});
    const heard = new Promise((onPublication) => umbel.subscribe("t", { onPublication }));
    await umbel.publish("t", "from Node");
    console.log((await heard).data);
    umbel.close();
  `;
  const isThere = parseInt(process.versions.node) >= 22;
  const flags = [...(isThere ? [] : ["--experimental-websocket"]), "--input-type=module", "--eval", program];
  const { stdout } = await promisify(execFile)(process.execPath, flags, { timeout: 15_000 });
  assert.equal(stdout, "from Node\n");
});
