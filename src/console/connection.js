// The page's connection: umbel.js, which stays connected, and the one topic or pattern that is shown.

import { connect } from "/umbel.js";
import { currentToken } from "./api.js";

/** Delays before connecting again: shorter than a program's, for somebody looks on, and has to read why. */
const BACKOFF = { minMs: 1_000, maxMs: 15_000 };
const random = () => 0.5 + Math.random() / 2;

/** How many of a topic's latest publications come first, where it has a history. */
const HISTORY_SHOWN_MAX = 100;

/** What others see of the page by presence. */
const INFO = "console";

// RFC 6455 section 7.4.1, the IANA registry, and the server's own.
const CLOSE_CODES = new Map([
  [1000, "normal closure"],
  [1001, "going away"],
  [1002, "protocol error"],
  [1003, "unsupported data"],
  [1005, "no status received"],
  [1006, "no close frame received"],
  [1007, "invalid payload"],
  [1008, "policy violation"],
  [1009, "message too big"],
  [1010, "mandatory extension"],
  [1011, "internal error"],
  [1012, "service restart"],
  [1013, "try again later"],
  [1014, "bad gateway"],
  [1015, "TLS handshake failed"],
  [4401, "unauthorized"],
  [4403, "forbidden"],
  [4404, "not found"],
  [4408, "authentication timeout"],
  [4429, "too many"],
]);

/** A close code and reason in words. */
export function describeClose(code, reason) {
  const name = CLOSE_CODES.get(code);
  return [code, name, reason && `“${reason}”`].filter(Boolean).join(" ");
}

/**
 * `handlers.handleState({ name, detail, retryInSeconds })` hears of every change, `name` being one of
 * `connecting`, `open` (and subscribed), `waiting` (closed, and about to connect again) and `closed`.
 * `handlePublication(publication)`, which says by `isOld` whether it is out of the history, and
 * `handleGap(gap)` get what comes; `handlePresence()` hears that somebody came or left.
 */
export class Connection {
  #handlers;
  #url;
  #umbel = null;
  #subscription = null;
  /** What is or was shown, and how far. */
  #target = {};
  #position = null;
  #retryAtMs = 0;
  #timer = 0;
  #detail = "";

  constructor(url, handlers) {
    this.#url = url;
    this.#handlers = handlers;
  }

  /** Whether it is open, or on its way to be. */
  get isWanted() {
    return this.#umbel !== null;
  }

  /**
   * Leaves what it shows, and subscribes to `target`: `{ topic }` or `{ pattern }`. The same topic goes on
   * where it was left.
   */
  show(target) {
    this.#leave();
    if (target.topic !== this.#target.topic) this.#position = null;
    this.#target = target;
    if (this.#umbel?.state !== "waiting") {
      this.#handlers.handleState({ name: "connecting", detail: "" });
    }
    this.#open();
    this.#subscribe(target);
  }

  /** Closes, and stays closed. */
  disconnect(detail = "by you") {
    clearTimeout(this.#timer);
    this.#leave();
    const umbel = this.#umbel;
    this.#umbel = null;
    umbel?.close();
    this.#handlers.handleState({ name: "closed", detail });
  }

  /** Publishes, and resolves to the position and the receipt. */
  async publish(topic, data, key) {
    if (this.#umbel?.state !== "open") throw new Error("the WebSocket is not open");
    return this.#umbel.publish(topic, data, { key, receipt: true });
  }

  /** Who is on a topic. */
  async presence(topic) {
    if (this.#umbel?.state !== "open") throw new Error("the WebSocket is not open");
    return this.#umbel.presence(topic);
  }

  #leave() {
    if (this.#subscription === null) return;
    this.#position = this.#subscription.position;
    const subscription = this.#subscription;
    this.#subscription = null;
    subscription.unsubscribe();
  }

  #open() {
    if (this.#umbel !== null) return;
    const token = () => currentToken();
    const umbel = connect(this.#url, { backoff: BACKOFF, random, info: INFO, token });
    this.#umbel = umbel;
    umbel.onState((state, detail) => this.#umbel === umbel && this.#handleChange(state, detail));
  }

  #subscribe(target) {
    let newest = null;
    const subscription = this.#umbel.subscribe(target, {
      since: this.#position,
      last: target.topic === undefined ? undefined : HISTORY_SHOWN_MAX,
      onSubscribed: ({ position, recovered }) => {
        newest ??= recovered === undefined ? parsePosition(position) : null;
        this.#handlers.handleState({ name: "open", detail: "" });
      },
      onPublication: (publication) => {
        const { epoch, offset } = parsePosition(publication.position);
        const isOld = epoch === newest?.epoch && offset <= newest.offset;
        this.#handlers.handlePublication({ ...publication, isOld });
      },
      onGap: (gap) => this.#handlers.handleGap(gap),
      onJoin: () => this.#handlers.handlePresence(),
      onLeave: () => this.#handlers.handlePresence(),
      onError: (error) => {
        // When the connection is over, its state says so.
        if (this.#subscription !== subscription || ["closed", "denied"].includes(this.#umbel?.state)) return;
        if (!error.isRetried) this.disconnect(`${error.code}: ${error.message}`);
      },
    });
    this.#subscription = subscription;
  }

  #handleChange(state, { code, reason, retryInMs }) {
    clearTimeout(this.#timer);
    if (state === "waiting") {
      this.#detail = describeClose(code, reason);
      this.#retryAtMs = performance.now() + retryInMs;
      this.#countDown();
    } else if (state === "closed" || state === "denied") {
      this.disconnect(describeClose(code, reason));
    }
  }

  // In whole seconds. It is umbel.js that connects.
  #countDown() {
    const leftMs = this.#retryAtMs - performance.now();
    if (leftMs <= 0) return this.#handlers.handleState({ name: "connecting", detail: "" });
    const retryInSeconds = Math.ceil(leftMs / 1000);
    this.#handlers.handleState({ name: "waiting", detail: this.#detail, retryInSeconds });
    this.#timer = setTimeout(() => this.#countDown(), leftMs % 1000 || 1000);
  }
}

/** A position's parts; null where there is none. */
export function parsePosition(position) {
  if (position === null) return null;
  const [epoch, offset] = position.split(":");
  return { epoch, offset: BigInt(offset) };
}
