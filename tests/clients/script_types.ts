// A program that uses all of the script, for the compiler only: see script_types.test.mjs.

import {
  connect,
  UmbelError,
  type Gap,
  type Options,
  type Position,
  type Publication,
  type State,
  type Subscription,
  type Umbel,
} from "../../src/console/umbel.js";

const options: Options = {
  token: async ({ reason }) => (reason === "rejected" ? null : "secret"),
  onDenied: ({ code, reason }) => void [code, reason],
  info: { name: "a" },
  binary: true,
  WebSocket,
  backoff: { maxMs: 10_000 },
  publishTimeoutMs: Infinity,
  page: null,
  publishesMax: 10,
  bufferedBytesMax: 1 << 20,
  resend: true,
  pingAfterMs: 1000,
  pongTimeoutMs: 1000,
  random: Math.random,
  timers: {
    now: () => performance.now(),
    setTimeout: (handle, delayMs) => setTimeout(handle, delayMs),
    clearTimeout: (timer) => clearTimeout(timer),
  },
};
const umbel: Umbel = connect(new URL("wss://host/ws"), options);
connect("/ws");
connect("/ws", { token: "plain" });

const seen: Publication[] = [];
let missed: Gap["reason"] | undefined;
let position: Position | null = null;
const subscription: Subscription = umbel.subscribe("orders/eu", {
  since: position,
  last: 10,
  onPublication: (publication) => {
    seen.push(publication);
    const { data } = publication;
    const length: number = typeof data === "string" ? data.length : data.byteLength;
    position = publication.position;
    void length;
  },
  onGap: ({ reason, from, to }) => {
    missed = reason;
    const known: Position | null = from ?? to;
    void known;
  },
  onSubscribed: ({ position: newest, recovered }) => void [newest?.length, recovered === true],
  onError: (error) => void [error.code, error.isRetried, error.message],
  onJoin: ({ connection, subject, verified, info }) => void [connection.length, subject?.length, verified, info],
  onLeave: ({ topic }) => void topic.length,
});
umbel.subscribe({ topic: "orders/eu" });
umbel.subscribe({ pattern: "orders/*" }, { onPublication: ({ topic, pattern }) => void [topic, pattern] });
const place: Position | null = subscription.position;
subscription.unsubscribe();

const stop: () => void = umbel.onState((state: State, { code, reason, retryInMs }) => {
  if (state === "waiting") void [code, reason, retryInMs];
});
stop();

async function publish(): Promise<void> {
  const { position: at, receipt } = await umbel.publish("orders/eu", "text", { key: "k", receipt: true });
  void [at?.length, receipt?.matched, receipt?.last_write_us];
  for (const data of [Uint8Array.of(1), new ArrayBuffer(1), { any: ["JSON"] }, [1], 1, true, null]) {
    await umbel.publish("orders/eu", data, { resend: true, idempotencyKey: null });
  }
  const { total, members } = await umbel.presence("orders/eu");
  void [total, members[0]?.connection, members[0]?.info];
  try {
    await umbel.publish("orders/eu", "x");
  } catch (error) {
    if (error instanceof UmbelError && error.code === "fate_unknown") throw new Error(error.message);
  }
  umbel.close();
}
void [publish, place, missed, seen];

// @ts-expect-error: a pattern has no history.
umbel.subscribe({ pattern: "orders/*" }, { since: "00000000000000a1:1" });
// @ts-expect-error: what is neither.
umbel.subscribe({});
// @ts-expect-error: there is nothing to publish.
void umbel.publish("orders/eu");
// @ts-expect-error: no JSON is made of this.
void umbel.publish("orders/eu", undefined);
// @ts-expect-error: the position is the subscription's to move.
subscription.position = null;
// @ts-expect-error: options that do not exist are misspelt ones.
connect("/ws", { publishMax: 1 });
// @ts-expect-error: so are states.
const state: State = "closing";
void state;
