// One WebSocket that is kept open: it connects again after every loss, later each time.

/** The first delay before connecting again, in milliseconds. It doubles with every failure. */
const RETRY_DELAY_MS_MIN = 500;

/** The longest delay before connecting again, in milliseconds. */
const RETRY_DELAY_MS_MAX = 15_000;

/** A connection that stayed open this long counts as a success: delays start over. */
const STABLE_AFTER_MS = 5_000;

// RFC 6455 section 7.4.1 and the IANA registry.
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
]);

/** A close code and reason in words. */
export function describeClose(code, reason) {
  const name = CLOSE_CODES.get(code);
  return [code, name, reason && `“${reason}”`].filter(Boolean).join(" ");
}

/**
 * The delay before the next attempt, in milliseconds: doubling, capped, and between half and the
 * whole of that, so that connections lost together do not come back together. `random` is 0 to 1.
 */
export function retryDelayMs(failures, random) {
  const delayMs = Math.min(RETRY_DELAY_MS_MAX, RETRY_DELAY_MS_MIN * 2 ** Math.min(failures, 30));
  return delayMs * (0.5 + random / 2);
}

/**
 * `handleState({ name, detail, retryInSeconds })` hears of every change, `name` being one of
 * `connecting`, `open`, `waiting` (closed, and about to connect again) and `closed`.
 * `handleMessage(data)` gets each message as a string or an ArrayBuffer.
 */
export class Connection {
  #handleState;
  #handleMessage;
  #url = null;
  #socket = null;
  #failures = 0;
  #openedAtMs = 0;
  #retryAtMs = 0;
  #timer = 0;
  #closeDetail = "";

  constructor(handleState, handleMessage) {
    this.#handleState = handleState;
    this.#handleMessage = handleMessage;
  }

  /** Whether it is open, or on its way to be. */
  get isWanted() {
    return this.#url !== null;
  }

  /** Leaves whatever it is connected to and connects to `url`. */
  connect(url) {
    this.#abandon();
    this.#url = url;
    this.#failures = 0;
    this.#open();
  }

  /** Closes, and stays closed. */
  disconnect() {
    this.#abandon();
    this.#url = null;
    this.#handleState({ name: "closed", detail: "by you" });
  }

  /** Sends one message. Throws an Error when there is no open connection. */
  send(payload) {
    if (this.#socket?.readyState !== WebSocket.OPEN) throw new Error("the WebSocket is not open");
    this.#socket.send(payload);
  }

  #open() {
    this.#handleState({ name: "connecting", detail: "" });
    const socket = new WebSocket(this.#url);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    // An abandoned socket still fires events; only the present one is heard.
    const ifPresent = (handle) => (event) => {
      if (this.#socket === socket) handle(event);
    };
    socket.addEventListener("open", ifPresent(() => this.#opened()));
    socket.addEventListener("message", ifPresent((event) => this.#handleMessage(event.data)));
    socket.addEventListener("close", ifPresent((event) => this.#lost(event)));
  }

  #opened() {
    this.#openedAtMs = performance.now();
    this.#handleState({ name: "open", detail: "" });
  }

  #lost({ code, reason }) {
    const wasOpenMs = this.#openedAtMs > 0 ? performance.now() - this.#openedAtMs : 0;
    this.#failures = wasOpenMs >= STABLE_AFTER_MS ? 0 : this.#failures + 1;
    this.#openedAtMs = 0;
    this.#socket = null;
    this.#closeDetail = describeClose(code, reason);
    this.#retryAtMs = performance.now() + retryDelayMs(this.#failures, Math.random());
    this.#wait();
  }

  // Counts down in whole seconds, then connects.
  #wait() {
    const leftMs = this.#retryAtMs - performance.now();
    if (leftMs <= 0) {
      this.#open();
      return;
    }
    const retryInSeconds = Math.ceil(leftMs / 1000);
    this.#handleState({ name: "waiting", detail: this.#closeDetail, retryInSeconds });
    const untilNextSecondMs = leftMs % 1000 || 1000;
    this.#timer = setTimeout(() => this.#wait(), untilNextSecondMs);
  }

  #abandon() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    this.#openedAtMs = 0;
    socket?.close(1000);
  }
}
