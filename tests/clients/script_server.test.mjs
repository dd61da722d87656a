// Umbel's script against Umbel: servers that are killed, terminated and started again, connections that break in the
// middle of frames, and many at once. The servers are the tests' own.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { WebSocket as UndiciWebSocket } from "undici";
import { WebSocket } from "ws";

import { CuttingProxy } from "./cutting_proxy.mjs";
import { UmbelProcess } from "./umbel_process.mjs";

const limits = { timeout: 60_000 };
const RULE = "kept/** history=10000 presence=on";
const LATEST_RULE = "latest/** history=100 keep=latest slow_consumer=latest";

let server;
let proxy;
/** The script as the server serves it. */
let script;
let topicsMade = 0;
before(async () => {
  server = await UmbelProcess.start("--topic-rule", RULE, "--topic-rule", LATEST_RULE);
  proxy = await CuttingProxy.start(server.port);
  const text = await (await fetch(`${server.url}/umbel.js`)).text();
  script = await import(`data:text/javascript,${encodeURIComponent(text)}`);
}, limits);
after(async () => {
  await proxy?.stop();
  await server?.stop();
});

const freshTopic = () => `kept/${process.pid}/${(topicsMade += 1)}`;

async function until(holds) {
  const deadlineMs = performance.now() + 30_000;
  while (!holds()) {
    if (performance.now() > deadlineMs) assert.fail(`it never came: ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Connects, for as long as the test runs. */
function open(t, options = {}, port = server.port) {
  const defaults = { WebSocket, backoff: { minMs: 20, maxMs: 200 } };
  const umbel = script.connect(`ws://127.0.0.1:${port}/ws`, { ...defaults, ...options });
  t.after(() => umbel.close());
  return umbel;
}

function listen(umbel, target, options = {}) {
  const heard = { data: [], publications: [], gaps: [], subscribed: [], joins: [], leaves: [] };
  heard.subscription = umbel.subscribe(target, {
    onPublication: (publication) => {
      heard.publications.push(publication);
      heard.data.push(publication.data);
    },
    onGap: (gap) => heard.gaps.push(gap),
    onSubscribed: (subscribed) => heard.subscribed.push(subscribed),
    onError: (error) => assert.fail(`${error.code}: ${error.message}`),
    onJoin: (event) => heard.joins.push(event),
    onLeave: (event) => heard.leaves.push(event),
    ...options,
  });
  return heard;
}

const areLive = (all, times = 1) => until(() => all.every(({ subscribed }) => subscribed.length >= times));

test("the script is served as one module, and its types as they are", limits, async () => {
  for (const [name, type] of [
    ["umbel.js", "text/javascript; charset=utf-8"],
    ["umbel.d.ts", "text/plain; charset=utf-8"],
  ]) {
    const answer = await fetch(`${server.url}/${name}`, { headers: { origin: "http://127.0.0.1:1" } });
    assert.equal(answer.headers.get("content-type"), type);
    assert.equal(answer.headers.get("access-control-allow-origin"), "http://127.0.0.1:1");
    const text = await answer.text();
    const file = new URL(`../../src/console/${name}`, import.meta.url);
    if (name === "umbel.d.ts") assert.equal(text, readFileSync(file, "utf8"));
    else assert.doesNotMatch(text, /^import /m);
  }
  assert.deepEqual(Object.keys(script).sort(), ["UmbelError", "connect", "signUrl"]);
});

for (const binary of [false, true]) {
  describe(binary ? "umbel.v1.bin" : "umbel.v1", () => {
    test("fields come back as they went, and JSON as JSON", limits, async (t) => {
      const umbel = open(t, { binary });
      const topic = freshTopic();
      const heard = listen(umbel, topic);
      await areLive([heard]);
      const fields = { event: "price", id: "m/7 é", contentType: "application/geo+json", tags: { region: "eu", b: "" } };
      await umbel.publish(topic, "[1]", { key: "k", ...fields });
      await umbel.publish(topic, "[1]");
      await umbel.publish(topic, "no JSON", { contentType: "application/json" });
      await umbel.publish(topic, null);
      await umbel.publish(topic, Uint8Array.of(7), { event: "e", contentType: "application/json" });
      await umbel.publish(topic, "x", { contentType: "text/plain" });
      await until(() => heard.data.length === 6);
      assert.deepEqual(heard.data, [[1], "[1]", "no JSON", null, Uint8Array.of(7), "x"]);
      const { position, pattern, topic: name, ...first } = heard.publications[0];
      assert.deepEqual(first, { key: "k", data: [1], text: "[1]", ...fields });
      assert.deepEqual(heard.publications.map(({ text }) => text), ["[1]", "[1]", "no JSON", "null", undefined, "x"]);
      assert.deepEqual(Object.keys(heard.publications[5]).sort(), ["data", "key", "pattern", "position", "text", "topic"]);
      await assert.rejects(umbel.publish(topic, "x", { event: "binary" }), { code: "invalid_command" });
      await assert.rejects(umbel.publish(topic, "x", { tags: { A: "x" } }), { code: "invalid_command" });
      await assert.rejects(umbel.publish(topic, "x", { event: 1 }), TypeError);
    });

    test("the newest of each key come first, then what is live", limits, async (t) => {
      const umbel = open(t, { binary });
      const topic = `latest/${process.pid}/${(topicsMade += 1)}`;
      for (const [key, data] of [["a", 1], ["b", 2], ["a", 3], ["c", 4]]) await umbel.publish(topic, data, { key });
      await umbel.publish(topic, "", { key: "b", tombstone: true });
      const heard = listen(umbel, topic);
      await areLive([heard]);
      assert.equal(heard.subscribed[0].snapshot, true);
      await umbel.publish(topic, 5, { key: "a" });
      await umbel.publish(topic, "", { key: "c", tombstone: true });
      await until(() => heard.data.length === 4);
      assert.deepEqual(heard.publications.map(({ key, data }) => [key, data]), [["a", 3], ["c", 4], ["a", 5], ["c", ""]]);
      assert.deepEqual(heard.publications.map(({ tombstone }) => tombstone), [undefined, undefined, undefined, true]);
      assert.deepEqual(heard.gaps, []);
    });

    test("what is over is not recovered, and a gap says so", limits, async (t) => {
      const umbel = open(t, { binary });
      const topic = freshTopic();
      const { position: since } = await umbel.publish(topic, "0");
      await umbel.publish(topic, "1", { ttlMs: 1 });
      await umbel.publish(topic, "2", { ttlMs: 60_000 });
      await new Promise((resolve) => setTimeout(resolve, 20));
      const heard = listen(umbel, topic, { since });
      await until(() => heard.data.length === 1);
      assert.deepEqual(heard.data, ["2"]);
      assert.equal(heard.subscribed[0].recovered, true);
      assert.deepEqual(heard.gaps.map(({ reason }) => reason), ["dropped"]);
      await assert.rejects(async () => umbel.publish(topic, "x", { ttlMs: 0 }), TypeError);
    });

    test("payloads come back as they went, by topic and by pattern", limits, async (t) => {
      const umbel = open(t, { binary });
      const topic = freshTopic();
      const [heard, all] = [listen(umbel, topic), listen(umbel, { pattern: `kept/${process.pid}/**` })];
      await areLive([heard, all]);
      const bytes = Uint8Array.from({ length: 70_000 }, (_, index) => index & 0xff);
      const sent = ["text with \u2028, \"quotes\", \0 and 傘", "", bytes, new Uint8Array(0), "x".repeat(200_000)];
      const published = [];
      for (const data of sent) published.push(await umbel.publish(topic, data, { key: "k€y" }));
      published.push(await umbel.publish(topic, { a: [1, null] }, { receipt: true }));
      await until(() => heard.data.length === 6 && all.data.length === 6);
      assert.deepEqual(heard.data, [...sent, { a: [1, null] }]);
      assert.equal(heard.publications[5].text, '{"a":[1,null]}');
      assert.equal(heard.publications[0].text, sent[0]);
      assert.deepEqual(all.data, heard.data);
      const positions = published.map(({ position }) => position);
      assert.deepEqual(heard.publications.map(({ position }) => position), positions);
      assert.equal(heard.publications[0].key, "k€y");
      assert.equal(all.publications[0].pattern, `kept/${process.pid}/**`);
      assert.equal(all.publications[0].topic, topic);
      const { matched, dropped } = published[5].receipt;
      assert.deepEqual([matched, dropped], [2, 0]);
      heard.subscription.unsubscribe();
      const late = listen(umbel, topic, { last: 1 });
      await until(() => late.data.length === 1);
      assert.deepEqual(late.data[0], { a: [1, null] });
      late.subscription.unsubscribe();
      const since = listen(umbel, topic, { since: positions[3] });
      await until(() => since.data.length === 2);
      assert.deepEqual(since.subscribed, [{ position: positions[5], recovered: true }]);
    });

    test("many through connections that break in the middle of frames miss nothing", limits, async (t) => {
      const topics = [freshTopic(), freshTopic()];
      const subscribers = [];
      for (let count = 0; count < 40; count += 1) {
        const umbel = open(t, { binary }, proxy.port);
        for (const topic of topics) subscribers.push({ topic, heard: listen(umbel, topic) });
      }
      await areLive(subscribers.map(({ heard }) => heard));
      const expected = new Map(topics.map((topic) => [topic, []]));
      for (let number = 0; number < 600; number += 1) {
        const topic = topics[number % 2];
        const text = `${number} ${"x".repeat((number * 37) % 700)}`;
        expected.get(topic).push(text);
        await server.publish(topic, text);
        // Behind the answer to the handshake, and so somewhere in the messages.
        if (number % 60 === 20) proxy.cutAfterBytes = 400 + number * 7;
        if (number % 60 === 20) proxy.cutAll();
        if (number % 60 === 50) proxy.cutAfterBytes = null;
      }
      proxy.cutAfterBytes = null;
      proxy.cutAll();
      await until(() => subscribers.every(({ topic, heard }) => heard.data.length >= expected.get(topic).length));
      for (const { topic, heard } of subscribers) {
        assert.deepEqual(heard.data, expected.get(topic));
        assert.deepEqual(heard.gaps, []);
        assert.ok(heard.subscribed.length >= 2, `${heard.subscribed.length} connections`);
      }
    });
  });
}

const CUT_PUBLISHES = 10_000;

for (const binary of [false, true]) {
  test(`${CUT_PUBLISHES} publishes over cuts arrive once each: binary is ${binary}`, { timeout: 600_000 }, async (t) => {
    const topic = freshTopic();
    const heard = listen(open(t), topic);
    await areLive([heard]);
    const cutting = await CuttingProxy.start(server.port);
    t.after(() => cutting.stop());
    const publisher = open(t, { binary, backoff: { minMs: 1, maxMs: 20 } }, cutting.port);
    const timer = setInterval(() => cutting.cutAll(), 50);
    t.after(() => clearInterval(timer));
    let duplicates = 0;
    const expected = [];
    for (let number = 0; number < CUT_PUBLISHES; number += 1) {
      const { duplicate } = await publisher.publish(topic, `${number}`);
      duplicates += duplicate === true ? 1 : 0;
      expected.push(`${number}`);
    }
    await until(() => heard.data.length >= CUT_PUBLISHES);
    assert.deepEqual(heard.data, expected);
    assert.deepEqual(heard.gaps, []);
    t.diagnostic(`${duplicates} had been published before the cut`);
  });
}

test("without an echo a client does not get what it publishes, and takes no leap for a fault", limits, async (t) => {
  const topic = freshTopic();
  const [publisher, other] = [open(t), open(t)];
  const silent = listen(publisher, topic, { echo: false });
  const byPattern = listen(publisher, { pattern: `${topic.slice(0, topic.lastIndexOf("/"))}/*` }, { echo: false });
  const heard = listen(other, topic);
  await areLive([silent, byPattern, heard]);
  for (let number = 0; number < 20; number += 1) {
    await (number % 5 === 4 ? other : publisher).publish(topic, `${number}`);
  }
  await until(() => heard.data.length === 20 && silent.data.length >= 4 && byPattern.data.length >= 4);
  assert.deepEqual(silent.data, ["4", "9", "14", "19"]);
  assert.deepEqual(byPattern.data, silent.data);
  assert.deepEqual([silent.gaps, byPattern.gaps, heard.gaps], [[], [], []]);
});

for (const binary of [false, true]) {
  test(`a history is read page by page: binary is ${binary}`, limits, async (t) => {
    const umbel = open(t, { binary });
    const topic = freshTopic();
    const bytes = Uint8Array.of(0, 255, 7);
    const sent = ["text", bytes, { json: [1] }, "last"];
    const positions = [];
    for (const data of sent) positions.push((await umbel.publish(topic, data)).position);
    const all = await umbel.history(topic);
    assert.deepEqual(all.publications.map(({ data }) => data), sent);
    assert.deepEqual(all.publications.map(({ position }) => position), positions);
    assert.deepEqual([all.position, all.recovered, all.next], [positions[3], undefined, null]);
    assert.ok(all.publications.every((each) => each.topic === topic && Math.abs(each.time - Date.now()) < 60_000));
    const seen = [];
    for (let since = positions[0]; since !== null; ) {
      const page = await umbel.history(topic, { since, limit: 2 });
      assert.equal(page.recovered, true);
      seen.push(...page.publications.map(({ data }) => data));
      since = page.next;
    }
    assert.deepEqual(seen, sent.slice(1));
    const unknown = await umbel.history(`${topic}/none`, { last: 1 });
    assert.deepEqual(unknown, { position: null, recovered: undefined, publications: [], next: null });
    await assert.rejects(umbel.history(topic, { since: positions[0], last: 1 }), { code: "invalid_command" });
    await assert.rejects(umbel.history(topic, { since: "x" }), TypeError);
  });
}

test("those who come and go are seen by the others", limits, async (t) => {
  const topic = freshTopic();
  const [stays, goes] = [open(t, { info: { name: "ü" } }), open(t, { info: "goes" })];
  const heard = listen(stays, topic);
  await areLive([heard]);
  const other = listen(goes, topic);
  await areLive([other]);
  await until(() => heard.joins.some(({ info }) => info === "goes"));
  const { total, members } = await stays.presence(topic);
  assert.equal(total, 2);
  assert.deepEqual(members.map(({ info }) => JSON.stringify(info)).sort(), ['"goes"', '{"name":"ü"}']);
  goes.close();
  await until(() => heard.leaves.length === 1);
  assert.equal((await stays.presence(topic)).total, 1);
});

for (const [name, constructor] of [
  ["ws", WebSocket],
  ["undici", UndiciWebSocket],
]) {
  test(`a refused handshake and a wrong path are told, by ${name}`, limits, async (t) => {
    const own = await UmbelProcess.start(
      ...["--subscribe", "token", "--subscribe-token", "the right one, long enough"],
      ...["--publish", "token", "--publish-token", "another one, also long enough"],
      ...["--origin", "localhost"],
    );
    t.after(() => own.stop());
    const connectTo = (path, options) => {
      const url = `ws://127.0.0.1:${own.port}${path}`;
      const umbel = script.connect(url, { WebSocket: constructor, ...options });
      t.after(() => umbel.close());
      const states = [];
      umbel.onState((state, { code }) => states.push(`${state} ${code ?? ""}`.trim()));
      return { umbel, states };
    };
    const isClosed = ({ umbel }) => until(() => ["closed", "denied"].includes(umbel.state));
    const refused = connectTo("/ws", { token: "a wrong one, just as long" });
    const published = refused.umbel.publish("t", "x").catch(({ code }) => code);
    await isClosed(refused);
    assert.equal(await published, "unauthorized");
    assert.equal(refused.states.at(-1), "denied 4401");
    const astray = connectTo("/nothing", { token: "the right one, long enough" });
    await isClosed(astray);
    assert.equal(astray.states.at(-1), "closed 4404");
    let asked = 0;
    const token = () => ((asked += 1) === 1 ? "an old one, long since over" : "the right one, long enough");
    if (constructor === UndiciWebSocket) {
      const renewed = connectTo("/ws", { token, backoff: { maxMs: 1 } });
      await until(() => renewed.umbel.state === "open" && asked === 2);
      assert.ok(renewed.states.includes("waiting 4401"), renewed.states.join(", "));
    }
  });
}

for (const signal of ["SIGKILL", "SIGTERM"]) {
  test(`${signal} and a new start: everybody is told of the gap, and goes on`, limits, async (t) => {
    const own = await UmbelProcess.start("--topic-rule", RULE);
    t.after(() => own.stop());
    const topic = freshTopic();
    const subscribers = Array.from({ length: 30 }, () => listen(open(t, {}, own.port), topic));
    await areLive(subscribers);
    const publisher = open(t, { resend: true }, own.port);
    await publisher.publish(topic, "before");
    await until(() => subscribers.every(({ data }) => data.length === 1));
    await own.stop(signal);
    await until(() => publisher.state === "waiting");
    const waiting = publisher.publish(topic, "while it was away");
    await own.restart();
    await waiting;
    await areLive(subscribers, 2);
    await publisher.publish(topic, "after");
    await until(() => subscribers.every(({ data }) => data.at(-1) === "after"));
    for (const { data, gaps, subscribed } of subscribers) {
      assert.equal(subscribed[1].recovered, false);
      assert.deepEqual(gaps.map(({ reason }) => reason), ["unrecovered"]);
      const between = data.includes("while it was away") ? ["while it was away"] : [];
      assert.deepEqual(data, ["before", ...between, "after"]);
    }
  });
}
