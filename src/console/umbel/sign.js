// Signed URLs of topics, for programs that have a key. A page never has one.

const ACTIONS = new Map([
  ["sse", "subscribe"],
  ["ws", "subscribe"],
  ["pub", "publish"],
]);

/** The right that a URL is for, and its topic. */
function signedTopicOf(url) {
  const [, path, query] = /^[^?#]*?:\/\/[^/?#]*([^?#]*)(\?[^#]*)?$/.exec(url) ?? [];
  const [, place, topic] = /^\/(sse|ws|pub)\/(.+)$/.exec(path ?? "") ?? [];
  if (place === undefined) throw new TypeError("the path of a URL to sign is /sse/TOPIC, /ws/TOPIC or /pub/TOPIC");
  // What is behind a `?` may be part of the topic, in the server's spelling.
  if (query !== undefined) throw new TypeError("a URL is signed without parameters: put yours behind the signature's");
  return { action: ACTIONS.get(place), topic: decodeURIComponent(topic) };
}

/** The URL with a signature by the key `kid`, for the Web Crypto API given or the platform's own. */
export async function signUrl(url, { kid, secret, expiresAt, subject = "" }, { subtle } = globalThis.crypto) {
  const address = String(url);
  const { action, topic } = signedTopicOf(address);
  const expires = Math.floor(Number(expiresAt) / 1000);
  if (!(expires > 0)) throw new TypeError("expiresAt is a Date, or milliseconds since 1970");
  const utf8 = new TextEncoder();
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await subtle.importKey("raw", utf8.encode(secret), algorithm, false, ["sign"]);
  const text = ["umbel1", action, topic, expires, subject, kid].join("\n");
  const bytes = new Uint8Array(await subtle.sign(algorithm.name, key, utf8.encode(text)));
  const base64 = btoa(String.fromCharCode(...bytes));
  const signature = base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const named = subject === "" ? "" : `&umbel_sub=${encodeURIComponent(subject)}`;
  return `${address}?umbel_exp=${expires}${named}&umbel_kid=${encodeURIComponent(kid)}&umbel_sig=${signature}`;
}
