// The types of /umbel.js: Umbel's dialect umbel.v1, for browsers and Node.

/** `epoch:offset`: sixteen hexadecimal digits and a decimal number. Keep it to go on from there. */
export type Position = string;

/**
 * `connecting` at first, `open` while there is a connection that has signed in, `waiting` from each loss or failed
 * attempt until the next success, at last `closed`; or `denied`, where no token that the program gives lets it in.
 * It never leaves the last two.
 */
export type State = "connecting" | "open" | "waiting" | "denied" | "closed";

/**
 * Why a token is asked for: before a connection (`start`), because the identity of this one ends soon (`expiring`), or
 * because the server took the last one for nothing (`rejected`).
 */
export type TokenReason = "start" | "expiring" | "rejected";

export interface StateDetail {
  /**
   * Of the close that led to this state; 1006 where there was none. A first handshake that is refused
   * with a status of HTTP counts as a close with 4000 and the status, as 4404, where it can be seen: by the
   * package `ws`. Umbel tells browsers, and Node's own WebSocket, by a close.
   */
  code?: number;
  /** In words: the server's, or what else is known. */
  reason?: string;
  /** With `waiting`: when it connects again, in milliseconds from now. */
  retryInMs?: number;
}

/** What a publish, a question or a subscription fails with. */
export declare class UmbelError extends Error {
  /**
   * The server's code (`forbidden`, `invalid_topic`, `too_big` and so on), or one of these:
   * - `closed`: it was closed, here or for good by the server; what was not sent is never sent
   * - `unauthorized`, `forbidden`: the same, because the server wants another token, or none helps
   * - `too_big`: the server takes no message as big. Nothing else that was sent is lost by that
   * - `fate_unknown`: it was sent, and whether it was done is not known: no answer came in time, or the server
   *   cannot tell any more (it was started anew, or it is too long ago), or it had no idempotency key
   * - `timed_out`: there was no connection in time; it was not sent and never is
   * - `too_many_publishes`: not sent, because as much waits already as the options allow
   * - `already_subscribed`: there is such a subscription
   */
  readonly code: string;
  /** Of a subscription: whether it is tried again without the program's doing. */
  readonly isRetried: boolean;
  /** Of a publish that was `rate_limited`: the time after which the next may be sent, in milliseconds. */
  readonly retryMs?: number;
}

export interface Options {
  /**
   * Shown by the first message, never in the address. A function is asked anew before each connection, when the
   * identity of the connection ends soon (its subscriptions and positions then stay as they are), and once more if the
   * server refuses what it gave (4401, 4408). Refused again, or where there is no function, it is `denied`. One that
   * throws, or takes over 10 seconds, counts as a connection that failed. Nothing (`null`, `undefined`, `""`) at the
   * first time is a connection without a token, and later the end. A token of another subject closes the
   * connection and opens another.
   */
  token?:
    | string
    | ((asked: { reason: TokenReason }) => string | null | undefined | Promise<string | null | undefined>);
  /** It is `denied`: with 4401 (or 4408) no token is good, with 4403 the server allows nothing with it. */
  onDenied?(denial: { code: number; reason: string }): void;
  /** What others see of this connection by presence: any JSON. */
  info?: unknown;
  /** Whether to ask for the binary framing, `umbel.v1.bin`. It saves the base64 of binary payloads. */
  binary?: boolean;
  /** The constructor to use where there is no global one, as in Node before 22: that of `ws` or `undici`. */
  WebSocket?: unknown;
  /**
   * How long to wait before connecting again: at random between 0 and a bound, which is `minMs` (1000)
   * at first and doubles with each failure up to `maxMs` (30000). A hint `retry=SECONDS` in the reason
   * of a close comes on top. Without one, 1002, 1003, 1007, 1008, 1010 and 4000 to 4999 are final, but
   * for 4429; 4401 and 4408 as `token` says. A page that is back from sleep or from behind others, or
   * whose network is back, connects at once, though not before the server wants it.
   */
  backoff?: { minMs?: number; maxMs?: number };
  /** How many publishes and questions may wait while there is no connection (1000). */
  publishesMax?: number;
  /**
   * How long a publish or a question may take, in milliseconds (300000): then it rejects with
   * `timed_out` or `fate_unknown`. `Infinity` is for ever.
   */
  publishTimeoutMs?: number;
  /** How many bytes may wait in an open WebSocket before publishes are refused (16 MiB). */
  bufferedBytesMax?: number;
  /**
   * Whether a publish that was sent and has no answer when the connection is lost is sent again in any case (no):
   * even without an idempotency key, and to a server that was started anew. Nothing is lost then, but it may be
   * published twice.
   */
  resend?: boolean;
  /** After how long a silence it pings (25000 ms). A page that wakes up or is offline does so at once. */
  pingAfterMs?: number;
  /** How long it waits for an answer to that, and for a connection to open (20000 ms). */
  pongTimeoutMs?: number;
  /** For tests: what tells of the network and of sleep, in place of the window or worker. */
  page?: EventTarget | null;
  /** For tests: numbers from 0 to 1. */
  random?: () => number;
  /** For tests: the time in milliseconds, and what waits for it. */
  timers?: {
    setTimeout?: (handle: () => void, delayMs: number) => unknown;
    clearTimeout?: (timer: any) => void;
    now?: () => number;
  };
}

export interface Publication {
  /** In the server's spelling: parameters behind a `?` are sorted. */
  readonly topic: string;
  /** Which pattern it came by, if by one. */
  readonly pattern?: string;
  readonly position: Position;
  /** The key that its publisher gave it, if one. */
  readonly key?: string;
  /** A name of what it tells, if its publisher gave one; and so are the next four. */
  readonly event?: string;
  /** The publisher's own name for it. */
  readonly id?: string;
  /** Where it says more than text or bytes. */
  readonly contentType?: string;
  readonly tags?: { readonly [name: string]: string };
  /** Who published it, where the server knows and the topic's rule shows subjects. */
  readonly publisher?: string;
  /** When it was published, in milliseconds since 1970, where the topic's rule shows it. */
  readonly time?: number;
  /** Its key is deleted. */
  readonly tombstone?: true;
  /**
   * What was published: the value, if it is JSON by its content type (as what `publish` makes of an object is);
   * a string if it is other text; else bytes.
   */
  readonly data: any;
  /** The text itself, if it was published as text. */
  readonly text?: string;
}

export interface Gap {
  /**
   * - `unrecovered`: after a reconnect, or behind `since`, the server no longer has what was missed.
   *   A pattern has no history, so there is such a gap after each reconnect
   * - `dropped`: this connection was too slow, and the topic's rule says that publications then go
   * - `order`: the server left something out without a word. The subscription is made anew behind the
   *   last publication in order, so that what is missing may still come
   */
  readonly reason: "unrecovered" | "dropped" | "order";
  readonly topic?: string;
  readonly pattern?: string;
  /** The first position that did not come, where that is known. */
  readonly from: Position | null;
  /** The last position that did not come, where that is known. It may be of another epoch than `from`. */
  readonly to: Position | null;
}

/** Somebody who came to a topic or left it. */
export interface PresenceEvent {
  readonly topic: string;
  readonly connection: string;
  /** Whose connection it is, or a hash of that, where the server shows it for this topic. Not when somebody left. */
  readonly subject?: string;
  /** What its credential vouches for. */
  readonly verified?: unknown;
  /** What it says of itself, which may be anything. */
  readonly info?: unknown;
}

export interface Handlers {
  /**
   * Whether publications of this client come to it (yes). False concerns what it publishes by the present connection:
   * what it published by an earlier one may come with what was missed.
   */
  echo?: boolean;
  onPublication?(publication: Publication): void;
  /** Publications were missed: what was built from them is to be loaded anew. */
  onGap?(gap: Gap): void;
  /**
   * After each subscribing, so after each reconnect too. `recovered` says whether all that was missed
   * follows; it is undefined where nothing was asked for.
   */
  onSubscribed?(subscribed: {
    position: Position | null;
    recovered: boolean | undefined;
    /** The newest of each key come first, where the topic's rule keeps them; false: only some of them, the newest. */
    snapshot?: boolean;
  }): void;
  /** The subscription was refused. It is over unless `error.isRetried`. */
  onError?(error: UmbelError): void;
  /** Somebody else came, on topics with presence. */
  onJoin?(event: PresenceEvent): void;
  /** Somebody else left. */
  onLeave?(event: PresenceEvent): void;
  /** So much changed that joins and leaves were left out: ask `presence()`, a random while later where many would. */
  onPresenceSkipped?(event: { readonly topic: string; readonly members: number }): void;
}

export interface TopicHandlers extends Handlers {
  /** The position behind which to begin: everything later comes, or a gap is told. Wins over `last`. */
  since?: Position | null;
  /** How many of the latest publications to begin with. */
  last?: number;
}

export interface Subscription {
  readonly topic?: string;
  readonly pattern?: string;
  /** Of the publication that was handed out last. Null for patterns, and while it is not known. */
  readonly position: Position | null;
  /** Ends it: nothing more is handed out, not even what is on its way. */
  unsubscribe(): void;
}

/** A publication's way to its subscribers, as far as it is known when its writes are done. */
export interface Receipt {
  readonly matched: number;
  readonly written: number;
  readonly queued: number;
  readonly dropped: number;
  /** Microseconds from the publish to the first write; absent where nothing was written. */
  readonly first_write_us?: number | null;
  readonly last_write_us?: number | null;
}

export interface Published {
  /** Its position; null only if it was skipped. */
  readonly position: Position | null;
  /** True if the application that the server asks has taken it, and it was not published. */
  readonly skipped?: boolean;
  /** If it was asked for, and unless it is a duplicate. */
  readonly receipt?: Receipt;
  /** True if it was published before, by the same idempotency key: with an earlier connection, mostly. */
  readonly duplicate?: boolean;
}

export interface PublishOptions {
  /** The conflation key: a slow subscriber gets only the latest of each key, where the topic's rule says so. */
  key?: string;
  /** A name of what it tells: the type of the event on an event stream. `binary`, `gap` and `umbel…` are refused. */
  event?: string;
  /** A name of the program's own for the message. It is no position. */
  id?: string;
  /** What the payload is. Of what is neither string nor bytes it is `application/json` by itself. */
  contentType?: string;
  /** At most 16, with names of `a-z`, `0-9`, `_` and `-`. */
  tags?: { [name: string]: string };
  /** How long it is of use, in milliseconds: after that it is in no history. */
  ttlMs?: number;
  /** Says that the key is deleted: who subscribes from now on gets nothing of it, where the newest of each key come first. */
  tombstone?: boolean;
  /** Whether to be answered only after the fan-out, with what became of it. */
  receipt?: boolean;
  /**
   * By which the server knows a publish that is sent again: it is published once. By default each has one of its own,
   * and is sent again after a loss. Give one to publish once over several calls, or `null` for none: the server has
   * room for so many a minute, and refuses others with `unavailable`.
   */
  idempotencyKey?: string | null;
  /** As in {@link Options}, for this one. */
  resend?: boolean;
}

export interface Presence {
  /** How many are there; `members` may be fewer. */
  readonly total: number;
  readonly members: ReadonlyArray<Omit<PresenceEvent, "topic">>;
}

export interface HistoryPart {
  /** The position behind which the page begins. */
  since?: Position;
  /** Of how many of the latest publications it is the first part. Not together with `since`. */
  last?: number;
  /** How many publications it has at most (1000). */
  limit?: number;
}

export interface HistoryPage {
  /** Where the topic stands; null if nobody knows it. */
  readonly position: Position | null;
  /** With `since`: whether the page begins right behind it. If not, it is empty. */
  readonly recovered?: boolean;
  /** The oldest first. Their `time` is always there. */
  readonly publications: ReadonlyArray<Publication>;
  /** The `since` of the next page; null if this is the last. */
  readonly next: Position | null;
}

export interface Umbel {
  readonly state: State;
  /** Hears of each later change of the state. Returns what ends that. */
  onState(listener: (state: State, detail: StateDetail) => void): () => void;
  /**
   * Subscribes, now or once there is a connection, and again after each reconnect.
   * A string is the name of one topic. What looks like a pattern (`orders/*`) is refused as a string, so that
   * a name from elsewhere never becomes one: write `{ pattern: "orders/*" }`.
   * @throws UmbelError `already_subscribed` or `closed`; TypeError for what is no topic, pattern or position
   */
  subscribe(topic: string | { topic: string }, handlers?: TopicHandlers): Subscription;
  subscribe(target: { pattern: string }, handlers?: Handlers): Subscription;
  /**
   * Publishes, now or once there is a connection. A string is published as it is, bytes as bytes, and
   * everything else as its JSON. It always settles: rejects with an {@link UmbelError}, after
   * `publishTimeoutMs` at the latest.
   */
  publish(
    topic: string,
    data: string | Uint8Array | ArrayBuffer | ArrayBufferView | object | number | boolean | null,
    options?: PublishOptions,
  ): Promise<Published>;
  /** Who is on a topic. Rejects with an {@link UmbelError}. */
  presence(topic: string): Promise<Presence>;
  /**
   * A page of what a topic keeps, without a subscription; without `since` and `last` the newest. Rejects with an
   * {@link UmbelError}.
   */
  history(topic: string, part?: HistoryPart): Promise<HistoryPage>;
  /** Closes for good. What was not sent is rejected with `closed`. */
  close(): void;
}

/**
 * Connects to `url` (`wss://host/ws`; `https:` and relative addresses are understood too) and stays
 * connected until `close()`.
 */
export declare function connect(url: string | URL, options?: Options): Umbel;

/** Key of a signed URL, and what it is signed for. */
export interface UrlSignature {
  /** Name of the key: the server knows it by `[[url_key]]`. */
  readonly kid: string;
  readonly secret: string;
  /** Its end, to the second: a Date, or milliseconds since 1970. */
  readonly expiresAt: Date | number;
  /** Whoever opens the URL is this subject; without one, nobody in particular. */
  readonly subject?: string;
}

/**
 * Signs the URL of a topic, so that it needs no token: for a program on a server, for a page never has the key. Its path is
 * `/sse/TOPIC`, `/ws/TOPIC` or `/pub/TOPIC`, and it has no parameters: put yours behind the signature's.
 * @throws TypeError for another URL, or an end that is none
 */
export declare function signUrl(url: string | URL, signature: UrlSignature): Promise<string>;
