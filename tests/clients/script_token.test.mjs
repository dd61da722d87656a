// Umbel's script and its tokens, against a fake server: which is asked for when, and what becomes of one that is refused.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { WebSocket } from "ws";

import { connect, signUrl, UmbelError } from "../../src/console/umbel.js";
import { FakeServer } from "./fake_server.mjs";
import { VirtualClock } from "./virtual_clock.mjs";

const limits = { timeout: 20_000 };

let opened = [];
afterEach(async () => {
  for (const one of opened.reverse()) await (one.stop?.() ?? one.close());
  opened = [];
});

/** A server that takes the tokens of a map, each for its subject. */
async function startServer(subjects) {
  const server = await FakeServer.start();
  opened.push(server);
  server.hub.judge = (token) => (subjects.has(token) ? { subject: subjects.get(token) } : { refusal: "unauthorized" });
  return server;
}

/** Connects, and writes down what it asks for and what it is told. */
function open(url, token, options = {}) {
  const told = { reasons: [], denials: [], states: [] };
  const ask =
    typeof token === "function"
      ? ({ reason }) => {
          told.reasons.push(reason);
          return token(reason);
        }
      : token;
  const onDenied = (denial) => told.denials.push(denial);
  told.umbel = connect(url, { WebSocket, token: ask, onDenied, backoff: { minMs: 5, maxMs: 50 }, ...options });
  told.umbel.onState((state) => told.states.push(state));
  opened.push(told.umbel);
  return told;
}

async function until(holds, what = holds.toString()) {
  const deadlineMs = performance.now() + 10_000;
  while (!holds()) {
    if (performance.now() > deadlineMs) assert.fail(`it never came: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

const rejects = (promise, code) => assert.rejects(promise, (error) => error instanceof UmbelError && error.code === code);
const expiring = (peer) => peer.send({ type: "expiring", in_ms: 60_000 });
const typesOf = ({ commands }) => commands.map(({ type }) => type);

test("nothing is sent before the token is taken", limits, async () => {
  const server = await startServer(new Map([["good", "42"]]));
  const { umbel } = open(server.url, "good");
  const published = umbel.publish("t", "x");
  umbel.subscribe("t", {});
  await published;
  assert.deepEqual(typesOf(server.peers[0]), ["auth", "subscribe", "publish"]);
});

test("a refreshed token keeps the connection, its subscriptions and positions", limits, async () => {
  const server = await startServer(new Map([["1", "42"], ["2", "42"]]));
  const tokens = ["1", "2"];
  const { umbel, reasons, states } = open(server.url, () => tokens.shift());
  const data = [];
  const subscription = umbel.subscribe("t", { onPublication: (it) => data.push(it.data) });
  await umbel.publish("t", "before");
  expiring(server.peers[0]);
  await until(() => server.peers[0].token === "2");
  await umbel.publish("t", "after");
  await until(() => data.length === 2);
  assert.deepEqual([reasons, states], [["start", "expiring"], ["open"]]);
  assert.deepEqual(typesOf(server.peers[0]), ["auth", "subscribe", "publish", "auth", "publish"]);
  assert.equal(subscription.position, "00000000000000a1:2");
  assert.equal(server.peers.length, 1);
});

test("a refused token is asked for once more, and then it is denied", limits, async () => {
  const server = await startServer(new Map([["good", "42"]]));
  const renewed = open(server.url, (reason) => (reason === "rejected" ? "good" : "old"));
  await until(() => renewed.umbel.state === "open");
  assert.deepEqual(renewed.reasons, ["start", "rejected"]);
  const denied = open(server.url, () => "bad");
  const published = denied.umbel.publish("t", "x");
  const errors = [];
  denied.umbel.subscribe("t", { onError: ({ code }) => errors.push(code) });
  await rejects(published, "unauthorized");
  assert.deepEqual(denied.reasons, ["start", "rejected"]);
  assert.deepEqual(denied.denials, [{ code: 4401, reason: "not this one" }]);
  assert.deepEqual([denied.umbel.state, errors], ["denied", ["unauthorized"]]);
  await rejects(denied.umbel.publish("t", "x"), "closed");
  // A plain string is final.
  const plain = open(server.url, "bad");
  await until(() => plain.umbel.state === "denied");
  assert.deepEqual(plain.states, ["denied"]);
});

test("4403 is denied at once", limits, async () => {
  const server = await startServer(new Map([["good", "42"]]));
  const { umbel, denials, reasons } = open(server.url, () => "good");
  await until(() => umbel.state === "open");
  server.peers[0].socket.close(4403, "thrown out");
  await until(() => umbel.state === "denied");
  assert.deepEqual([denials, reasons], [[{ code: 4403, reason: "thrown out" }], ["start"]]);
});

test("a function that gives nothing any more ends it with 4401", limits, async () => {
  const server = await startServer(new Map([["good", "42"]]));
  let token = "good";
  const { umbel, denials, reasons } = open(server.url, () => token);
  await until(() => umbel.state === "open");
  token = null;
  expiring(server.peers[0]);
  await until(() => reasons.length === 2);
  server.peers[0].socket.close(4401, "expired");
  await until(() => umbel.state === "denied");
  assert.deepEqual(reasons, ["start", "expiring", "rejected"]);
  assert.equal(denials[0].code, 4401);
  assert.equal(server.peers.length, 1);
});

test("a token of another subject opens another connection", limits, async () => {
  const server = await startServer(new Map([["a", "1"], ["b", "2"]]));
  const tokens = ["a", "b"];
  const { umbel, states } = open(server.url, () => tokens.shift());
  const heard = [];
  umbel.subscribe("t", { onPublication: ({ data }) => heard.push(data) });
  await umbel.publish("t", "1");
  const [first] = server.peers;
  first.signIn = ({ id }) => first.send({ type: "error", id, code: "subject_changed", reason: "another" });
  expiring(first);
  const second = await server.peer(1);
  await until(() => umbel.state === "open");
  await umbel.publish("t", "2");
  await until(() => heard.length === 2);
  assert.equal(second.token, "b");
  assert.deepEqual(states, ["open", "waiting", "open"]);
  assert.equal(second.commands[1].since, "00000000000000a1:1");
});

test("a function that throws, or takes 10 s, is a connect that failed", limits, async () => {
  const server = await startServer(new Map([["good", "42"]]));
  const clock = new VirtualClock();
  const answers = [() => Promise.reject(new Error("offline")), () => new Promise(() => {}), () => "good"];
  const options = { timers: clock.timers, random: () => 1, backoff: { minMs: 1000, maxMs: 8000 } };
  const { umbel, states, reasons } = open(server.url, () => answers.shift()(), options);
  await until(() => states.length === 1);
  await clock.pass(1000);
  await until(() => reasons.length === 2);
  await clock.pass(10_000);
  await until(() => states.length === 2);
  await clock.pass(2000);
  await until(() => umbel.state === "open");
  assert.deepEqual(states, ["waiting", "waiting", "open"]);
  // While it is connected, it asks again later.
  const broken = [() => Promise.reject(new Error("offline")), () => "good"];
  answers.push(...broken);
  expiring(server.peers[0]);
  await until(() => reasons.length === 4);
  server.peers[0].token = null;
  while (server.peers[0].token !== "good") {
    await clock.pass(100);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assert.deepEqual(reasons.slice(3), ["expiring", "expiring"]);
});

test("a subscription takes over what the server has subscribed to of itself", limits, async () => {
  const server = await startServer(new Map([["good", "42"]]));
  server.hub.publish("inbox", { data: "before" });
  const { umbel } = open(server.url, "good");
  const heard = [];
  const errors = [];
  const onError = ({ code }) => errors.push(code);
  let subscribed = 0;
  const onSubscribed = () => (subscribed += 1);
  umbel.subscribe("inbox", { onPublication: ({ data }) => heard.push(data), onError, onSubscribed });
  const peer = await server.peer(0);
  const signIn = peer.signIn.bind(peer);
  peer.signIn = (command) => {
    signIn(command);
    peer.subscribe({ topic: "inbox" });
  };
  await until(() => subscribed === 1);
  server.hub.publish("inbox", { data: "after" });
  await until(() => heard.length === 1);
  assert.deepEqual([heard, errors], [["after"], []]);
  assert.deepEqual(typesOf(peer), ["auth", "subscribe", "unsubscribe", "subscribe"]);
});

test("a signed URL is the one that the server knows", limits, async () => {
  const signature = { kid: "k1", secret: "umbel-test-secret-0123456789abcdef", expiresAt: 1_800_003_600_000 };
  const url = await signUrl("https://push.example.com/sse/news/eu", { ...signature, subject: "42" });
  assert.equal(
    url,
    "https://push.example.com/sse/news/eu?umbel_exp=1800003600&umbel_sub=42&umbel_kid=k1" +
      "&umbel_sig=rmRqnPsuvAnZL8GjGAi7Ig3A_-BIs2pGmej_Jn06VMM",
  );
  const escaped = await signUrl(new URL("https://x/sse/news%2Feu"), { ...signature, expiresAt: new Date(1_800_003_600_000) });
  assert.ok(!escaped.includes("umbel_sub") && escaped.startsWith("https://x/sse/news%2Feu?umbel_exp=1800003600&"));
  for (const wrong of ["/sse/a", "https://x/topics/a", "https://x/sse/", "https://x/sse/a?last=1"]) {
    await assert.rejects(signUrl(wrong, signature), TypeError, wrong);
  }
  await assert.rejects(signUrl("https://x/sse/a", { ...signature, expiresAt: "soon" }), TypeError);
});
