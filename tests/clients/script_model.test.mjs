// Umbel's script under a network that does its worst, without any network: time is virtual and chance comes from a
// seed. A model says what each subscriber must have got: everything once and in order, but where a gap was told;
// and of each publish, whether it may have been done.
//
// SCRIPT_SEEDS says how many seeds run (100), SCRIPT_SEED names one.

import assert from "node:assert/strict";
import { test } from "node:test";

import { connect } from "../../src/console/umbel.js";
import { FakeHub, FakePeer, positionOf } from "./fake_server.mjs";
import { seededRandom, VirtualClock } from "./virtual_clock.mjs";

const TOPICS = ["a", "b", "c/d?e=1"];
const STEPS = 250;

/** A hub that remembers all that it ever published, and where each epoch of a topic began. */
class RememberingHub extends FakeHub {
  /** Of each topic: the data in their order, and the place of each position among them. */
  records = new Map();
  /** When it forgot everything. */
  forgotAtMs = [];

  constructor(clock) {
    super();
    this.nowMs = () => clock.nowMs;
  }

  forget() {
    this.forgotAtMs.push(this.nowMs());
    super.forget();
  }

  /** Whether it may have forgotten a key that came after one moment and is asked for at another. */
  mayHaveForgotten(fromMs, toMs) {
    return toMs - fromMs >= this.keyAgeMs || this.forgotAtMs.some((atMs) => fromMs <= atMs && atMs <= toMs);
  }

  record(name) {
    if (!this.records.has(name)) this.records.set(name, { all: [], places: new Map() });
    return this.records.get(name);
  }

  topic(name) {
    const topic = super.topic(name);
    const { all, places } = this.record(name);
    const start = positionOf(topic.epoch, 0);
    if (!places.has(start)) places.set(start, all.length);
    return topic;
  }

  publish(name, what) {
    const { all, places } = this.record(name);
    this.topic(name);
    all.push(what.data ?? Buffer.from(what.base64, "base64").toString());
    const { epoch, offset } = this.topic(name);
    places.set(positionOf(epoch, offset + 1), all.length);
    return super.publish(name, what);
  }
}

/** Joins WebSockets to the hub. What is on its way when a connection breaks is gone. */
class Network {
  sockets = new Set();
  isDown = false;

  constructor(hub, clock, random) {
    Object.assign(this, { hub, clock, random });
    const network = this;
    this.WebSocket = class extends MemoryWebSocket {
      constructor(url, offers) {
        super(network, offers);
      }
    };
  }

  latencyMs() {
    return this.random() < 0.1 ? this.random() * 400 : this.random() * 20;
  }

  any() {
    const open = [...this.sockets].filter(({ readyState }) => readyState === 1);
    return open[Math.floor(this.random() * open.length)];
  }
}

class MemoryWebSocket extends EventTarget {
  OPEN = 1;
  readyState = 0;
  bufferedAmount = 0;
  protocol = "";
  /** Whether it still carries anything. */
  isJoined = true;
  #network;
  #peer = null;
  #lastAtMs = { up: 0, down: 0 };
  #isSwallowing = false;

  constructor(network, offers) {
    super();
    this.#network = network;
    network.sockets.add(this);
    this.#carry("up", () => {
      if (network.isDown) this.break();
      else this.#carry("down", () => this.#open(offers[0]));
    });
  }

  #open(protocol) {
    if (this.readyState !== 0) return;
    this.readyState = 1;
    this.protocol = protocol;
    const send = (data) => {
      const isPublication = typeof data !== "string" || data.includes('"publication"');
      const isLeftOut = this.#isSwallowing && isPublication;
      if (isLeftOut) this.#isSwallowing = false;
      else this.#carry("down", () => this.#receive(data));
    };
    const close = (code, reason) => this.#carry("down", () => this.#end(code, reason));
    const isBinary = protocol === "umbel.v1.bin";
    this.#peer = new FakePeer(this.#network.hub, { send, close, isBinary });
    this.dispatchEvent(new Event("open"));
  }

  #receive(data) {
    if (this.readyState !== 1) return;
    const whole = typeof data === "string" ? data : Uint8Array.from(data).buffer;
    this.dispatchEvent(Object.assign(new Event("message"), { data: whole }));
  }

  /** Does it later, in its order, if the connection lasts until then. */
  #carry(way, handle) {
    const { clock } = this.#network;
    this.#lastAtMs[way] = Math.max(this.#lastAtMs[way], clock.nowMs + this.#network.latencyMs());
    clock.after(this.#lastAtMs[way] - clock.nowMs, () => this.isJoined && handle());
  }

  send(data) {
    if (this.readyState === 0) throw new Error("it is not open");
    if (this.readyState !== 1) return;
    const whole = typeof data === "string" ? data : Buffer.from(data);
    this.#carry("up", () => this.#peer.handle(whole));
  }

  close() {
    if (this.readyState >= 2) return;
    this.readyState = 2;
    this.#carry("up", () => this.#end(1000, ""));
  }

  /** The server closes it. */
  refuse(code, reason) {
    this.#peer.close(code, reason);
  }

  /** The server leaves a publication out, which it never may. */
  swallow() {
    this.#isSwallowing = true;
  }

  break() {
    this.#end(1006, "");
  }

  /** Nothing comes through any more, and nobody is told. */
  goDeaf() {
    this.isJoined = false;
  }

  #end(code, reason) {
    if (this.readyState === 3) return;
    this.isJoined = false;
    this.readyState = 3;
    this.#network.sockets.delete(this);
    this.#peer?.leave();
    this.dispatchEvent(Object.assign(new Event("close"), { code, reason }));
  }
}

/** What one subscription heard, held against what was published. */
class Listener {
  gaps = 0;
  /** What was wrong first. Callbacks cannot throw it to where it matters. */
  fault = null;
  #place = null;
  #record;

  constructor(umbel, hub, topic, options) {
    this.#record = hub.record(topic);
    this.topic = topic;
    const checked = (handle) => (event) => {
      try {
        handle(event);
      } catch (error) {
        this.fault ??= error;
      }
    };
    this.subscription = umbel.subscribe(topic, {
      ...options,
      onSubscribed: checked(({ position }) => {
        // What is replayed comes behind this, so that only a plain beginning tells a place.
        if (this.#place === null && options.last === undefined) this.#place = this.#placeOf(position);
      }),
      onPublication: checked((publication) => this.#handlePublication(publication)),
      onGap: checked((gap) => this.#handleGap(gap)),
      onError: checked(assert.ifError),
    });
  }

  #placeOf(position) {
    const place = this.#record.places.get(position);
    assert.notEqual(place, undefined, `${this.topic} was never at ${position}`);
    return place;
  }

  #handlePublication({ topic, position, data }) {
    assert.equal(topic, this.topic);
    const place = this.#placeOf(position);
    if (this.#place !== null) assert.equal(place, this.#place + 1, `${topic} at ${position}`);
    const text = typeof data === "string" ? data : Buffer.from(data).toString();
    assert.equal(text, this.#record.all[place - 1]);
    this.#place = place;
  }

  #handleGap({ reason, to }) {
    this.gaps += 1;
    // What is out of order is recovered, or else a gap of the other kind follows.
    if (reason === "order") return;
    assert.equal(reason, "unrecovered");
    const place = this.#placeOf(to);
    assert.ok(this.#place === null || place >= this.#place, "time runs forward");
    this.#place = place;
  }

  check() {
    if (this.#place !== null) assert.equal(this.#place, this.#record.all.length, `the end of ${this.topic}`);
    else assert.equal(this.#record.all.length, 0);
  }
}

/** Publishes through the script, and what became of it. */
class Publisher {
  #fates = [];
  #hub;

  constructor(hub) {
    this.#hub = hub;
  }

  publish(umbel, topic, options, isBytes) {
    const text = `${topic} ${this.#fates.length}`;
    const fate = { topic, text, options, position: null, code: null, fromMs: this.#hub.nowMs() };
    this.#fates.push(fate);
    const settled = umbel.publish(topic, isBytes ? new TextEncoder().encode(text) : text, options).then(
      ({ position }) => (fate.position = position),
      ({ code, message }) => (fate.code = code ?? message),
    );
    settled.then(() => (fate.toMs = this.#hub.nowMs()));
  }

  /** `isHasty`: whether time may have run out. */
  check(hub, isHasty) {
    for (const { topic, text, options, position, code, fromMs, toMs } of this.#fates) {
      const isKeyed = options.idempotencyKey !== null;
      const isForgotten = hub.mayHaveForgotten(fromMs, toMs);
      const { all, places } = hub.record(topic);
      const times = all.filter((data) => data === text).length;
      if (position !== null) assert.equal(all[places.get(position) - 1], text);
      if (code === "too_many_publishes" || code === "timed_out") assert.equal(times, 0, text);
      else if (isKeyed && !isForgotten && !isHasty) assert.ok(position !== null && times === 1, `${text}: ${code}`);
      else if (options.resend && position !== null) assert.ok(times >= 1, text);
      else if (options.resend) assert.ok(code === "fate_unknown" && isHasty, `${text}: ${code}`);
      else if (position !== null) assert.equal(times, 1, text);
      else assert.ok(code === "fate_unknown" && times <= 1, `${text}: ${code}, ${times} times`);
    }
    const count = (wanted) => this.#fates.filter(({ code }) => code === wanted).length;
    return { unknown: count("fate_unknown"), late: count("timed_out") };
  }
}

/** One thing that happens. */
function step({ random, network, hub, umbel, listeners, left, publisher }, number) {
  const topic = TOPICS[Math.floor(random() * TOPICS.length)];
  const chance = random();
  if (chance < 0.45) hub.publish(topic, { data: `hub ${number}` });
  else if (chance < 0.7) {
    const idempotencyKey = random() < 0.5 ? null : undefined;
    publisher.publish(umbel, topic, { resend: random() < 0.3, idempotencyKey }, random() < 0.5);
  } else if (chance < 0.82) network.any()?.break();
  else if (chance < 0.84) network.any()?.goDeaf();
  else if (chance < 0.86) network.any()?.refuse(1013, "slow consumer");
  else if (chance < 0.88) network.any()?.refuse(1001, "going away; retry=2");
  else if (chance < 0.9) network.any()?.swallow();
  else if (chance < 0.93) network.isDown = !network.isDown;
  else if (chance < 0.94) {
    // Killed and started again.
    hub.forget();
    for (const socket of [...network.sockets]) socket.break();
  } else if (chance < 0.97 && listeners.has(topic)) {
    listeners.get(topic).subscription.unsubscribe();
    left.push(listeners.get(topic));
    listeners.delete(topic);
  } else if (!listeners.has(topic)) {
    const options = random() < 0.3 ? { last: Math.floor(random() * 5) } : {};
    listeners.set(topic, new Listener(umbel, hub, topic, options));
  }
}

async function run(seed) {
  const random = seededRandom(seed);
  const clock = new VirtualClock();
  const hub = new RememberingHub(clock);
  hub.historyMax = [3, 20, 1000][seed % 3];
  const network = new Network(hub, clock, random);
  const { timers } = clock;
  const options = { WebSocket: network.WebSocket, timers, random, publishesMax: 20 };
  // Every fourth has less patience than the network needs.
  const publishTimeoutMs = seed % 4 === 0 ? 5_000 : undefined;
  const umbel = connect("ws://host/ws", { ...options, publishTimeoutMs, binary: seed % 2 === 0 });
  const [listeners, left] = [new Map(), []];
  const publisher = new Publisher(hub);
  const world = { random, network, hub, umbel, listeners, left, publisher };
  for (let number = 0; number < STEPS; number += 1) {
    step(world, number);
    await clock.pass(random() < 0.05 ? random() * 10_000 : random() * 300);
  }
  network.isDown = false;
  await clock.pass(200_000);
  // Twice, because nothing can tell that the very last one was left out.
  for (const data of ["the end", "the very end"]) {
    for (const topic of TOPICS) hub.publish(topic, { data });
    await clock.pass(60_000);
  }
  assert.equal(umbel.state, "open");
  for (const { fault } of [...left, ...listeners.values()]) if (fault) throw fault;
  for (const listener of listeners.values()) listener.check();
  const { unknown, late } = publisher.check(hub, publishTimeoutMs !== undefined);
  const gaps = [...listeners.values()].reduce((sum, listener) => sum + listener.gaps, 0);
  umbel.close();
  await clock.pass(100_000);
  assert.equal(clock.nextInMs, null, "nothing is left to do");
  return { gaps, unknown, late };
}

const given = process.env.SCRIPT_SEED;
const seeds = given
  ? [Number(given)]
  : Array.from({ length: Number(process.env.SCRIPT_SEEDS ?? 100) }, (_, index) => index);

test(`nothing is lost or doubled without a gap, by ${seeds.length} seeds`, { timeout: 600_000 }, async () => {
  const seen = { gaps: 0, unknown: 0, late: 0 };
  for (const seed of seeds) {
    const { gaps, unknown, late } = await run(seed).catch((error) => {
      error.message = `SCRIPT_SEED=${seed}: ${error.message}`;
      throw error;
    });
    seen.gaps += gaps;
    seen.unknown += unknown;
    seen.late += late;
  }
  if (given) return;
  // Otherwise the network was too kind to say anything.
  const isHard = seen.gaps > seeds.length / 2 && seen.unknown > seeds.length / 2;
  assert.ok(isHard && seen.late > seeds.length / 10, JSON.stringify(seen));
});
