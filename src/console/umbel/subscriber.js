import { tell } from "./error.js";
import { publicationOf } from "./fields.js";
import { checkText, looksLikePattern } from "./messages.js";
import { formatPosition, nextPosition, parsePosition } from "./position.js";

/** One subscription through all its connections. The program holds its `handle`. */
export class Subscriber {
  /** `waiting`, `subscribing`, `live` or `ended`. */
  state = "waiting";
  /** What it subscribed with. */
  command = null;
  failures = 0;
  cancelWait = () => {};
  #link;
  /** The publication handed out last, or the one behind which the subscription begins. */
  #position = null;
  /** With `last`, until it is known how many came: the newest position when it began. */
  #newest = null;
  #wasLive = false;
  #mayDrop = false;
  /** The newest of each key come first, wherever they stand. */
  #hasSnapshot = false;

  constructor(target, handlers, link) {
    this.kind = target?.pattern === undefined ? "topic" : "pattern";
    this.name = typeof target === "string" ? target : target?.[this.kind];
    checkText(this.name, `a ${this.kind}`);
    if (typeof target === "string" && looksLikePattern(target)) {
      const name = JSON.stringify(target);
      const words = "is the name of one topic, and a pattern only if that is said";
      throw new TypeError(`${name} ${words}: { pattern: ${name} }, or else { topic: ${name} }`);
    }
    const { since, last } = handlers;
    if (this.kind === "pattern" && (since ?? last ?? null) !== null) {
      throw new TypeError("a pattern has no history: since and last are for topics");
    }
    if (!(Number.isInteger(last ?? 0) && (last ?? 0) >= 0)) throw new TypeError("last is a number");
    if ((since ?? null) !== null) this.#position = parsePosition(since);
    this.handlers = handlers;
    this.#link = link;
    this.handle = { [this.kind]: this.name, unsubscribe: () => link.unsubscribe(this) };
    const get = () => formatPosition(this.#position);
    Object.defineProperty(this.handle, "position", { get, enumerable: true });
  }

  takeCommand() {
    const since = formatPosition(this.#position) ?? undefined;
    const last = since === undefined ? (this.handlers.last ?? undefined) : undefined;
    this.state = "subscribing";
    const echo = this.handlers.echo === false ? false : undefined;
    return (this.command = { [this.kind]: this.name, since, last, echo });
  }

  handleSubscribed(answer) {
    const { since, last } = this.command;
    const newest = this.kind === "topic" ? parsePosition(answer.position) : null;
    const expected = formatPosition(nextPosition(this.#position));
    const recovered = since === undefined ? undefined : answer.recovered === true;
    const isGap = recovered === false || (this.kind === "pattern" && this.#wasLive);
    this.state = "live";
    this.#wasLive = true;
    this.#mayDrop = (answer.slow_consumer ?? "close") !== "close" || answer.echo === false;
    this.#hasSnapshot = answer.snapshot !== undefined;
    if (last !== undefined || this.#hasSnapshot) {
      this.#newest = newest;
      // The pong comes behind all that is replayed: it tells where nothing was.
      this.#link.ping(() => this.#newest === newest && this.#moveTo(newest));
    } else if (!recovered) {
      this.#position = newest;
    }
    const position = formatPosition(newest);
    const { snapshot } = answer;
    tell(this.handlers.onSubscribed, { position, recovered, ...(this.#hasSnapshot && { snapshot }) });
    if (isGap) this.#tellGap("unrecovered", expected, position);
  }

  handlePublication(message) {
    const parsed = parsePosition(message.position);
    if (this.kind === "topic" && !this.#isInOrder(parsed)) return this.#handleDisorder(parsed);
    if (this.kind === "topic") this.#moveTo(parsed);
    this.failures = 0;
    tell(this.handlers.onPublication, publicationOf(message));
  }

  #moveTo(position) {
    this.#position = position;
    this.#newest = null;
  }

  /** Nothing may be left out without a gap, but where the server declared that it may drop. */
  #isInOrder({ epoch, offset }) {
    const { epoch: expected, offset: before } = this.#newest ?? this.#position;
    const all = this.#hasSnapshot ? before : BigInt(this.command.last ?? 0);
    const replayed = this.#newest === null ? 0n : all;
    const isLate = offset > before + 1n && !this.#mayDrop;
    return epoch === expected && offset > before - replayed && !isLate;
  }

  /** The server broke its promise; what is missing behind the last good one may still come. */
  #handleDisorder({ epoch, offset }) {
    const expected = nextPosition(this.#position);
    const isAhead = epoch === expected?.epoch && offset > expected.offset;
    this.#newest = null;
    this.#link.resubscribe(this);
    const to = isAhead ? formatPosition({ epoch, offset: offset - 1n }) : null;
    this.#tellGap("order", formatPosition(expected), to);
  }

  handleGap({ topic, from, to }) {
    parsePosition(from);
    const end = parsePosition(to);
    const isAhead = this.#position?.epoch !== end.epoch || this.#position.offset < end.offset;
    if (this.kind === "topic" && isAhead) this.#moveTo(end);
    this.#tellGap("dropped", from, to, topic);
  }

  #tellGap(reason, from, to, topic = this.handle.topic) {
    if (this.state === "ended") return;
    tell(this.handlers.onGap, { reason, topic, pattern: this.handle.pattern, from, to });
  }

  handleLoss() {
    this.cancelWait();
    this.state = "waiting";
    this.#newest = null;
  }
}
