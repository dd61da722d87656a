import { ABNORMAL, GIVEN_UP, NORMAL, PROTOCOL_ERROR, TOO_BIG } from "./ending.js";
import { UNAUTHORIZED, codeOfRefusal, endingOf } from "./ending.js";
import { UNKNOWN_FAILURE, UmbelError, tell } from "./error.js";
import { fieldsToSend, publicationOf } from "./fields.js";
import { BINARY_DIALECT, TEXT_DIALECT, encodePublish, parsePublication, parseText } from "./messages.js";
import { checkText, payloadOf, routeOf, sizeOf } from "./messages.js";
import { idempotencyKeys } from "./keys.js";
import { listenToPage } from "./page.js";
import { parsePosition } from "./position.js";
import { addressOf, parseUrl, settingsOf } from "./settings.js";
import { Subscriber } from "./subscriber.js";
import { askForToken, authCommand, codeOfRefusedToken, isNothing } from "./token.js";

/** Errors that pass by themselves: the subscription is tried again. */
const PASSING_ERRORS = new Set(["unavailable", "rate_limited"]);
/** A connection that stayed open this long counts as a success: delays start over. */
const STABLE_AFTER_MS = 5_000;
/** The longest time for which a first sending is told. */
const MOMENT_MS_MAX = 0xffff_fffe;
/** How long a connection that may have died unseen has for its pong. */
const DOUBTED_PONG_TIMEOUT_MS = 5_000;

/** The one WebSocket at a time, and what must outlive it. */
export class Link {
  state = "connecting";
  #settings;
  #url;
  #listeners = new Set();
  #socket = null;
  #openedAtMs = Infinity;
  #openedAt = null;
  #heardAtMs = 0;
  /** Whether a message came on this connection. */
  #hasHeard = false;
  #nowMs = () => this.#settings.timers.now();
  #keys;
  /** Counts what makes a token obsolete that is being waited for. */
  #attempts = 0;
  #failures = 0;
  /** Whether there ever was a connection: before, a refusal by status is believed. */
  #wasOpen = false;
  /** Whether a token was asked for once more because the last one was refused. */
  #askedAgain = false;
  /** Whether it ever signed in: without a token it is nobody from then on, and not anonymous. */
  #hasSignedIn = false;
  /** Whose the last connection was, once it signed in. */
  #subject = null;
  /** While it waits to connect again: before when the server does not want it, else null. */
  #retryNotBeforeMs = null;
  /** The one timer: of the opening, of the silence, or until the next attempt. */
  #timer = null;
  #nextId = 0;
  /**
   * Requests that were sent and have no answer, by id, in the order in which they were sent. Those that
   * outlive their connection say by `isRepeatable`, true or false, whether they are sent again.
   */
  #unanswered = new Map();
  /** Requests that wait for a connection. */
  #waiting = [];
  #subscribers = new Map();
  /** Routes to which the server itself subscribed. What comes by one is lost, so the program's is made anew. */
  #joined = new Set();
  /** Who gets what comes, by kind and by the name that the server gave, in its own spelling. */
  #routes = new Map();
  #leavePage;
  /** Failed attempts in a row to show a newer token. */
  #refreshFailures = 0;

  constructor(url, options) {
    this.#settings = settingsOf(options);
    this.#keys = idempotencyKeys(this.#settings.random);
    this.#url = parseUrl(url);
    const handleWake = (isOnline) => this.#handleWake(isOnline);
    this.#leavePage = listenToPage(this.#settings.page, handleWake, () => this.#doubt());
    this.#connect();
  }

  onState(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  subscribe(target, handlers) {
    this.#checkNotOver();
    const subscriber = new Subscriber(target, handlers, this);
    const key = routeOf(subscriber.handle);
    if (this.#subscribers.has(key)) throw new UmbelError("already_subscribed", `twice to ${key}`);
    this.#subscribers.set(key, subscriber);
    if (this.state === "open") this.#sendSubscribe(subscriber);
    return subscriber.handle;
  }

  publish(topic, data, { key, receipt, idempotencyKey, resend = this.#settings.resend, ...given }) {
    checkText(topic, "a topic");
    if (key !== undefined) checkText(key, "a key");
    if ((idempotencyKey ?? null) !== null) checkText(idempotencyKey, "an idempotency key");
    const once = idempotencyKey === undefined ? this.#keys.next().value : (idempotencyKey ?? undefined);
    const fields = fieldsToSend(data, given);
    const publication = { topic, payload: payloadOf(data), key, receipt, once, fields };
    // Who wants it sent again in any case does not let the server refuse it for its age.
    const encode = (id, isBinary, sentMs) =>
      encodePublish(id, publication, isBinary, resend ? undefined : sentMs);
    return this.#request("published", encode, resend || once !== undefined, (answer) => {
      if (answer.skipped === true) return { position: null, skipped: true };
      parsePosition(answer.position);
      const { position, receipt: report, duplicate } = answer;
      return { position, ...(report && { receipt: report }), ...(duplicate && { duplicate }) };
    });
  }

  presence(topic) {
    checkText(topic, "a topic");
    const encode = (id) => JSON.stringify({ type: "presence", id, topic });
    return this.#request("presence", encode, true, ({ total, members }) => ({ total, members }));
  }

  history(topic, { since, last, limit }) {
    checkText(topic, "a topic");
    if (since !== undefined) parsePosition(since);
    const encode = (id) => JSON.stringify({ type: "history", id, topic, since, last, limit });
    return this.#request("history", encode, true, (page) => {
      const publications = page.publications.map((each) => publicationOf({ ...each, topic: page.topic }));
      for (const { position } of publications) parsePosition(position);
      const { position = null, recovered, next = null } = page;
      return { position, recovered, publications, next };
    });
  }

  close() {
    this.#end(new UmbelError("closed", "it was closed here"), { code: NORMAL, reason: "" }, true);
  }

  async #connect() {
    const attempt = (this.#attempts += 1);
    this.#retryNotBeforeMs = null;
    const { token, timers } = this.#settings;
    const reason = this.#askedAgain ? "rejected" : "start";
    try {
      // Without a function there is nothing to wait for, and the socket exists when this returns.
      const value = typeof token === "function" ? await askForToken(token, reason, timers) : token;
      if (attempt !== this.#attempts) return;
      if (isNothing(value) && this.#hasSignedIn) this.#deny(UNAUTHORIZED, "there is no token any more");
      else this.#open(value);
    } catch (error) {
      if (attempt === this.#attempts) this.#handleLoss(ABNORMAL, String(error?.message ?? error));
    }
  }

  #open(token) {
    const { WebSocket, binary, info, pongTimeoutMs } = this.#settings;
    const offers = binary ? [BINARY_DIALECT, TEXT_DIALECT] : [TEXT_DIALECT];
    const socket = new WebSocket(addressOf(this.#url, info), offers);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    // An abandoned socket still fires events; only the present one is heard.
    const listen = (name, handle) =>
      socket.addEventListener(name, (event) => this.#socket === socket && handle(event));
    listen("open", () => this.#handleOpen(token));
    listen("message", ({ data }) => this.#handleMessage(data));
    // A close follows each error. Without a listener, one of `ws` would end the process.
    let failure = "";
    socket.addEventListener("error", ({ message }) => (failure ||= message ?? ""));
    listen("close", ({ code, reason }) => {
      if (code !== ABNORMAL || this.state === "open") return this.#handleLoss(code, reason);
      const refusal = codeOfRefusal(failure);
      this.#handleLoss(this.#wasOpen ? code : refusal, reason || failure || UNKNOWN_FAILURE);
    });
    const giveUp = () => this.#handleLoss(ABNORMAL, "it did not open in time", GIVEN_UP);
    this.#setTimer(pongTimeoutMs, giveUp);
  }

  #handleOpen(token) {
    if (![TEXT_DIALECT, BINARY_DIALECT].includes(this.#socket.protocol)) {
      return this.#handleLoss(ABNORMAL, `the server speaks no ${TEXT_DIALECT}`, PROTOCOL_ERROR);
    }
    this.#wasOpen = true;
    this.#hasHeard = false;
    this.#openedAtMs = this.#heardAtMs = this.#nowMs();
    this.#openedAt = this.#moment();
    if (isNothing(token)) this.#begin();
    else this.#signIn(token);
  }

  /** Shows a token before anything else. What the server says to that decides. */
  #signIn(token) {
    const attempt = this.#attempts;
    this.#hasSignedIn = true;
    const accept = ({ subject = null }) => {
      this.#takeSubject(subject);
      this.#begin();
    };
    const reject = ({ code, message }) => {
      if (attempt === this.#attempts) this.#handleLoss(codeOfRefusedToken(code), message);
    };
    this.#send({ answer: "authenticated", encode: authCommand(token), accept, reject });
  }

  /** What another subject has sent is not sent again as this one. */
  #takeSubject(subject) {
    const isOther = this.#subject !== null && this.#subject !== subject;
    this.#subject = subject;
    if (!isOther) return;
    const wasSent = ({ wasSent: was }) => was;
    const lost = this.#waiting.filter(wasSent);
    this.#waiting = this.#waiting.filter((request) => !wasSent(request));
    const words = "it was sent as somebody else: whether it was done is not known";
    for (const request of lost) request.reject(new UmbelError("fate_unknown", words));
  }

  /** Shows a newer token on a connection that stays. */
  async #refresh(reason) {
    const { token, timers } = this.#settings;
    if (typeof token !== "function") return;
    const attempt = this.#attempts;
    const isLeft = () => attempt !== this.#attempts;
    const refreshLater = () => {
      const again = () => isLeft() || this.#refresh(reason);
      timers.setTimeout(again, this.#backoffMs((this.#refreshFailures += 1)));
    };
    let value;
    try {
      value = await askForToken(token, reason, timers);
    } catch {
      if (!isLeft()) refreshLater();
      return;
    }
    // Who gives nothing lets the identity end, and the connection with it.
    if (isLeft() || isNothing(value)) return;
    const accept = () => (this.#refreshFailures = 0);
    const reject = ({ code }) => {
      if (isLeft()) return;
      if (code === "subject_changed") this.#changeTo(value);
      else if (PASSING_ERRORS.has(code)) refreshLater();
      else if (reason === "expiring") this.#refresh("rejected");
    };
    this.#send({ answer: "authenticated", encode: authCommand(value), accept, reject });
  }

  /** Connects anew, for this token is another subject's. */
  #changeTo(token) {
    this.#forgetConnection(NORMAL);
    this.#settleUnanswered({ mayRepeat: true });
    this.#setState("waiting", { code: NORMAL, reason: "the token is another subject's", retryInMs: 0 });
    if (this.#socket === null && !this.#isOver) this.#open(token);
  }

  /** The connection is ready for all that waits. */
  #begin() {
    this.#watch();
    for (const subscriber of this.#subscribers.values()) this.#sendSubscribe(subscriber);
    for (const request of this.#waiting.splice(0)) this.#send(request);
    this.#setState("open", {});
  }

  /** Pings when nothing came for a while, and gives the connection up when then nothing comes. */
  #watch() {
    const { pingAfterMs, pongTimeoutMs } = this.#settings;
    this.#setTimer(this.#heardAtMs + pingAfterMs - this.#nowMs(), () => {
      if (this.#nowMs() - this.#heardAtMs < pingAfterMs) this.#watch();
      else this.#expectPong(pongTimeoutMs);
    });
  }

  #expectPong(timeoutMs) {
    const pingedAtMs = this.#nowMs();
    this.ping();
    this.#setTimer(timeoutMs, () => {
      if (this.#heardAtMs >= pingedAtMs) this.#watch();
      else this.#handleLoss(ABNORMAL, "no pong in time", GIVEN_UP);
    });
  }

  /** Asks at once whether the connection still carries anything. */
  #doubt() {
    const timeoutMs = Math.min(DOUBTED_PONG_TIMEOUT_MS, this.#settings.pongTimeoutMs);
    if (this.state === "open") this.#expectPong(timeoutMs);
  }

  #handleWake(isOnline) {
    this.#doubt();
    if (this.#retryNotBeforeMs === null) return;
    if (isOnline) this.#failures = 0;
    this.#setTimer(this.#retryNotBeforeMs - this.#nowMs(), () => this.#connect());
  }

  #handleLoss(code, reason, closeCode = NORMAL) {
    const { isFinal, isRefusal, isDenial, mayNeedToken, hintMs, error } = endingOf(code, reason);
    if (isRefusal && !this.#hasHeard) this.#takeBack();
    if (this.#nowMs() - this.#openedAtMs >= STABLE_AFTER_MS) this.#startOver();
    const mayAskAgain = typeof this.#settings.token === "function" && !this.#askedAgain;
    if (isFinal && !(mayNeedToken && mayAskAgain)) {
      if (isDenial) return this.#deny(code, reason);
      return this.#end(new UmbelError(error, `refused: ${code} ${reason}`), { code, reason }, false);
    }
    this.#askedAgain ||= mayNeedToken;
    const isBinary = this.#socket?.protocol === BINARY_DIALECT;
    this.#forgetConnection(closeCode);
    this.#settleUnanswered({ mayRepeat: true, isTooBig: code === TOO_BIG, isBinary });
    this.#openedAtMs = Infinity;
    const retryInMs = hintMs + this.#backoffMs(this.#failures);
    this.#failures += 1;
    this.#retryNotBeforeMs = this.#nowMs() + hintMs;
    this.#setTimer(retryInMs, () => this.#connect());
    this.#setState("waiting", { code, reason, retryInMs });
  }

  /** No token that the program has lets it in. */
  #deny(code, reason) {
    const error = new UmbelError(endingOf(code, reason).error, `refused: ${code} ${reason}`);
    if (this.#isOver) return;
    this.#end(error, { code, reason }, false, "denied");
    tell(this.#settings.onDenied, { code, reason });
  }

  get #isOver() {
    return this.state === "closed" || this.state === "denied";
  }

  #checkNotOver() {
    if (this.#isOver) throw new UmbelError("closed", `it is ${this.state}`);
  }

  /** Nothing that was sent was read: it waits as if it had not been sent. */
  #takeBack() {
    const requests = [...this.#unanswered.values()];
    const outlives = ({ isRepeatable }) => isRepeatable !== undefined;
    this.#unanswered.clear();
    this.#waiting = requests.filter(outlives).concat(this.#waiting);
    for (const request of this.#waiting) {
      request.wasSent = false;
      request.firstSent = null;
    }
  }

  /** The last connection was a good one: what went wrong before it counts no longer. */
  #startOver() {
    this.#failures = 0;
    this.#askedAgain = false;
  }

  #forgetConnection(closeCode) {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(closeCode);
    this.#attempts += 1;
    this.#retryNotBeforeMs = null;
    this.#setTimer(0, null);
    this.#routes.clear();
    this.#joined.clear();
    for (const subscriber of this.#subscribers.values()) subscriber.handleLoss();
  }

  /** What was sent and has no answer waits in its order if it may be sent again, or is rejected. */
  #settleUnanswered({ mayRepeat, isTooBig = false, isBinary = false }) {
    const requests = [...this.#unanswered.values()];
    this.#unanswered.clear();
    // The biggest was too big, whichever the server met first; what came behind it was not read.
    const tooBig = isTooBig ? indexOfBiggest(requests, isBinary) : requests.length;
    const isUnread = (request, index) => index > tooBig && request.isRepeatable !== undefined;
    const isKept = (request, index) =>
      mayRepeat && index !== tooBig && (request.isRepeatable || isUnread(request, index));
    this.#waiting = requests.filter(isKept).concat(this.#waiting);
    const reasons = {
      too_big: "the server takes no message as big as this (1009)",
      fate_unknown: "the connection was lost before the answer: whether it was done is not known",
    };
    requests.forEach((request, index) => {
      const code = index === tooBig ? "too_big" : "fate_unknown";
      if (!isKept(request, index)) request.reject?.(new UmbelError(code, reasons[code]));
    });
  }

  /** For good. Subscribers hear of it unless the program wanted it. */
  #end(error, detail, isWanted, state = "closed") {
    if (this.#isOver) return;
    this.#leavePage();
    this.#forgetConnection(NORMAL);
    this.#settleUnanswered({ mayRepeat: false });
    for (const request of this.#waiting.splice(0)) request.reject(error);
    const subscribers = [...this.#subscribers.values()];
    for (const subscriber of subscribers) subscriber.state = "ended";
    this.#subscribers.clear();
    this.#setState(state, detail);
    for (const { handlers } of isWanted ? [] : subscribers) tell(handlers.onError, error);
  }

  #setState(state, detail) {
    this.state = state;
    // A listener may change the state, and then the others have heard of that already.
    for (const listener of [...this.#listeners]) {
      if (this.state === state) tell(listener, state, detail);
    }
  }

  #setTimer(delayMs, handle) {
    const { setTimeout, clearTimeout } = this.#settings.timers;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = handle && setTimeout(handle, Math.max(0, delayMs));
  }

  /** By both clocks: one may stand still while the machine sleeps, the other may be set back. */
  #moment() {
    return [this.#nowMs(), Date.now()];
  }

  /** Full jitter: anything up to a bound that doubles with each failure. */
  #backoffMs(failures) {
    const { backoff, random } = this.#settings;
    return random() * Math.min(backoff.maxMs, backoff.minMs * 2 ** Math.min(failures, 30));
  }

  /** Sends it, or keeps it for the next connection. `read` makes the result of the answer. */
  #request(answer, encode, isRepeatable, read) {
    this.#checkNotOver();
    const { publishesMax, bufferedBytesMax } = this.#settings;
    const socket = this.#socket;
    const maySend = this.state === "open" && socket.readyState === socket.OPEN;
    const queued = maySend ? socket.bufferedAmount : this.#waiting.length;
    const isFull = queued >= (maySend ? bufferedBytesMax : publishesMax);
    if (isFull) throw new UmbelError("too_many_publishes", "too much waits to be sent");
    return new Promise((resolve, reject) => {
      const settle = (finish, value) => {
        request.cancelWait();
        finish(value);
      };
      const accept = (message) => settle(resolve, read(message));
      const refuse = (error) => settle(reject, error);
      const isRepeated = Boolean(isRepeatable);
      const request = { answer, encode, isRepeatable: isRepeated, accept, reject: refuse };
      request.firstSent = null;
      request.cancelWait = this.#limitWait(request);
      if (maySend) this.#send(request);
      else this.#waiting.push(request);
    });
  }

  /** Rejects a request that gets no answer in time. Returns what ends the wait. */
  #limitWait(request) {
    const { publishTimeoutMs, timers } = this.#settings;
    if (!Number.isFinite(publishTimeoutMs)) return () => {};
    const timer = timers.setTimeout(() => {
      this.#waiting = this.#waiting.filter((other) => other !== request);
      request.isRepeatable = undefined;
      const error = request.wasSent
        ? new UmbelError("fate_unknown", "no answer came in time: whether it was done is not known")
        : new UmbelError("timed_out", "there was no connection in time: it was not sent");
      request.reject(error);
    }, publishTimeoutMs);
    return () => timers.clearTimeout(timer);
  }

  #send(request) {
    do this.#nextId = (this.#nextId + 1) >>> 0;
    while (this.#unanswered.has(this.#nextId));
    this.#unanswered.set(this.#nextId, request);
    const sentMs = request.wasSent ? elapsedMs(request.firstSent, this.#openedAt) : undefined;
    request.firstSent ??= this.#moment();
    try {
      const isBinary = this.#socket.protocol === BINARY_DIALECT;
      this.#socket.send(request.encode(this.#nextId, isBinary, sentMs));
      request.wasSent = true;
    } catch (error) {
      this.#unanswered.delete(this.#nextId);
      // All but its size was checked before.
      request.reject?.(new UmbelError("too_big", `it cannot be sent: ${error.message}`));
    }
    return this.#nextId;
  }

  ping(accept) {
    this.#send({ answer: "pong", encode: (id) => JSON.stringify({ type: "ping", id }), accept });
  }

  #handleMessage(data) {
    this.#heardAtMs = this.#nowMs();
    if (this.state === "open") this.#askedAgain = false;
    this.#hasHeard = true;
    try {
      const message = typeof data === "string" ? parseText(data) : parsePublication(data);
      const { type, id } = message;
      const subscriber = this.#routes.get(routeOf(message));
      if (type === "publication") subscriber?.handlePublication(message);
      else if (type === "gap") subscriber?.handleGap(message);
      else if (type === "join") tell(subscriber?.handlers.onJoin, message);
      else if (type === "leave") tell(subscriber?.handlers.onLeave, message);
      else if (type === "presence_skipped") tell(subscriber?.handlers.onPresenceSkipped, message);
      else if (type === "unsubscribed" && id === undefined) this.#handleEnd(message);
      else if (type === "expiring") this.#refresh("expiring");
      else if (type === "subscribed" && id === undefined) this.#joined.add(routeOf(message));
      // What is of no known type and has no id is of a later server.
      else if (id !== undefined) this.#handleAnswer(message);
    } catch (error) {
      // What the program throws does not come here: this is a message that is not umbel.v1.
      this.#handleLoss(ABNORMAL, error.message, PROTOCOL_ERROR);
    }
  }

  /** The server has ended a subscription: a right is gone. */
  #handleEnd(message) {
    const route = routeOf(message);
    const subscriber = this.#routes.get(route) ?? this.#subscribers.get(route);
    if (subscriber === undefined || subscriber.state === "ended") return;
    this.#subscribers.delete(routeOf(subscriber.handle));
    this.#routes.delete(route);
    subscriber.cancelWait();
    subscriber.state = "ended";
    const words = "the server has ended the subscription, for the right to it is gone";
    tell(subscriber.handlers.onError, new UmbelError(String(message.code), words));
  }

  #handleAnswer(message) {
    const { id, type, code, reason } = message;
    const request = this.#unanswered.get(id);
    if (type === "error") {
      // Every command has an id, so without one the server could not read what this is about.
      if (request === undefined) throw new Error(`${code}: ${reason}`);
      this.#unanswered.delete(id);
      request.reject?.(new UmbelError(String(code), String(reason), message.retry_ms));
    } else if (request !== undefined) {
      if (type !== request.answer) throw new Error(`${type} answers what wants ${request.answer}`);
      // It counts as answered only once the answer made sense.
      request.accept?.(message);
      this.#unanswered.delete(id);
    }
  }

  #sendSubscribe(subscriber) {
    const command = subscriber.takeCommand();
    // Answers and ends are this attempt's alone. If it is left before its answer, it gets none.
    const isAwaited = () => subscriber.state === "subscribing" && subscriber.command === command;
    const accept = (answer) => {
      if (!isAwaited()) return;
      this.#routes.set(routeOf(answer), subscriber);
      subscriber.handleSubscribed(answer);
    };
    const reject = (error) => {
      if (!isAwaited()) return;
      if (error.code === "already_subscribed" && this.#joined.delete(routeOf(subscriber.handle))) {
        this.#leave(subscriber);
        return this.#sendSubscribe(subscriber);
      }
      error.isRetried = PASSING_ERRORS.has(error.code);
      if (error.isRetried) this.#subscribeLater(subscriber);
      else this.#subscribers.delete(routeOf(subscriber.handle));
      if (!error.isRetried) subscriber.state = "ended";
      tell(subscriber.handlers.onError, error);
    };
    const encode = (id) => JSON.stringify({ type: "subscribe", id, ...command });
    command.id = this.#send({ answer: "subscribed", encode, accept, reject });
  }

  /** Subscribes once more on this connection, if it lasts until then. */
  #subscribeLater(subscriber) {
    const { setTimeout, clearTimeout } = this.#settings.timers;
    const again = () => this.#sendSubscribe(subscriber);
    const timer = setTimeout(again, this.#backoffMs(subscriber.failures));
    subscriber.state = "waiting";
    subscriber.failures += 1;
    subscriber.cancelWait = () => clearTimeout(timer);
  }

  #leave(subscriber) {
    const { kind, name, state, command } = subscriber;
    for (const [route, other] of this.#routes) if (other === subscriber) this.#routes.delete(route);
    if (state !== "live" && state !== "subscribing") return;
    const encode = (id) => JSON.stringify({ type: "unsubscribe", id, [kind]: name });
    const accept = () => this.#unanswered.delete(command.id);
    this.#send({ answer: "unsubscribed", encode, accept });
  }

  unsubscribe(subscriber) {
    if (subscriber.state === "ended") return;
    this.#subscribers.delete(routeOf(subscriber.handle));
    subscriber.cancelWait();
    this.#leave(subscriber);
    subscriber.state = "ended";
  }

  resubscribe(subscriber) {
    this.#leave(subscriber);
    this.#subscribeLater(subscriber);
  }
}

/** How long it took from one moment to another, at least 0, in whole milliseconds and rather more than less. */
function elapsedMs(from, to) {
  const elapsed = from.map((moment, clock) => to[clock] - moment);
  return Math.min(Math.ceil(Math.max(0, ...elapsed)) + 1, MOMENT_MS_MAX);
}

/** Where the biggest of the publishes among them is; behind all where there is none. */
function indexOfBiggest(requests, isBinary) {
  const sizes = requests.map(({ answer, encode }) =>
    answer === "published" ? sizeOf(encode(0, isBinary)) : 0,
  );
  const index = sizes.indexOf(Math.max(...sizes));
  return sizes[index] > 0 ? index : requests.length;
}
