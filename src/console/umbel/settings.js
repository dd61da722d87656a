// What a program may set, and the address that it gave.

const DEFAULTS = {
  binary: false,
  resend: false,
  publishesMax: 1_000,
  publishTimeoutMs: 300_000,
  bufferedBytesMax: 16 * 1024 * 1024,
  pingAfterMs: 25_000,
  pongTimeoutMs: 20_000,
  random: Math.random,
};
const DEFAULT_BACKOFF = { minMs: 1_000, maxMs: 30_000 };
const DEFAULT_TIMERS = {
  setTimeout: (handle, delayMs) => setTimeout(handle, delayMs),
  clearTimeout: (timer) => clearTimeout(timer),
  now: () => performance.now(),
};

/** All settings, with what the program gave. */
export function settingsOf(options) {
  const { WebSocket, addEventListener } = globalThis;
  const page = typeof addEventListener === "function" ? globalThis : null;
  const settings = withDefaults(options, { WebSocket, page, ...DEFAULTS });
  settings.backoff = withDefaults(options.backoff, DEFAULT_BACKOFF);
  settings.timers = withDefaults(options.timers, DEFAULT_TIMERS);
  if (!settings.WebSocket) throw new TypeError("no WebSocket here: pass one as an option");
  return settings;
}

function withDefaults(options, defaults) {
  const given = Object.entries(options ?? {}).filter(([, value]) => value !== undefined);
  return { ...defaults, ...Object.fromEntries(given) };
}

export function parseUrl(text) {
  const url = new URL(text, globalThis.location?.href);
  url.protocol = url.protocol.replace(/^http/, "ws");
  if (!/^wss?:$/.test(url.protocol)) throw new TypeError(`${text} is no address of a WebSocket`);
  url.hash = "";
  return url;
}

export function addressOf(base, info) {
  const url = new URL(base);
  const and = url.search && "&";
  if (info !== undefined) url.search += `${and}info=${encodeURIComponent(JSON.stringify(info))}`;
  return url.href;
}
