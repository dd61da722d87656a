// Topics: what a person types, the paths it stands for, and the commands that reach it.
//
// A topic is the rest of the path plus the query. The path is typed as plain text and is
// percent-encoded here, segment by segment. The query may hold escapes already, because a topic in
// its canonical form does; they are kept, and everything else in it that needs one gets one.

/** The server's limit on a topic, in bytes of UTF-8. */
export const TOPIC_BYTES_MAX = 255;

/** The topic that is used when the address names none. */
export const TOPIC_DEFAULT = "hello";

// C0, DEL and C1.
const CONTROL_CHARACTER = /[\u0000-\u001f\u007f-\u009f]/;

/** A topic, or a pattern, as umbel.v1 takes it: the path in plain text, the query with its escapes. */
export function nameOf(text) {
  const queryAt = text.indexOf("?");
  if (queryAt < 0) return text;
  return `${text.slice(0, queryAt)}?${encodeQuery(text.slice(queryAt + 1))}`;
}

/**
 * Checks a topic and returns it percent-encoded, ready to follow `/ws/`, `/pub/` or `/sse/`.
 * Throws an Error whose message is meant for the person who typed it.
 */
export function encodeTopic(topic) {
  const queryAt = topic.indexOf("?");
  const path = queryAt < 0 ? topic : topic.slice(0, queryAt);
  if (path === "") throw new Error("a topic needs a name");
  if (CONTROL_CHARACTER.test(topic)) throw new Error("a topic holds no control characters");
  if (/[\ud800-\udfff]/u.test(topic)) throw new Error("a topic is valid Unicode");
  if (new TextEncoder().encode(topic).length > TOPIC_BYTES_MAX) {
    throw new Error(`a topic is at most ${TOPIC_BYTES_MAX} bytes`);
  }
  const segments = path.split("/");
  // A browser resolves these before it sends the request, even when they are percent-encoded.
  if (segments.some((segment) => segment === "." || segment === "..")) {
    throw new Error("a browser cannot address a topic with a segment . or ..");
  }
  const encodedPath = segments.map(encodeURIComponent).join("/");
  return queryAt < 0 ? encodedPath : `${encodedPath}?${encodeQuery(topic.slice(queryAt + 1))}`;
}

function encodeQuery(query) {
  return query
    .split("&")
    .filter((pair) => pair !== "")
    .map((pair) => pair.split("=").map(encodeQueryPart).join("="))
    .join("&");
}

// The split at escapes puts them at the odd places.
function encodeQueryPart(text) {
  return text
    .split(/(%[0-9a-f]{2})/i)
    .map((part, index) => (index % 2 === 1 ? part : encodeURIComponent(part)))
    .join("");
}

/** The topic that a URL fragment such as `#news` names; the default if it names none. */
export function topicFromHash(hash) {
  const text = hash.replace(/^#/, "");
  if (text === "") return TOPIC_DEFAULT;
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Whether it is a pattern: a segment of it is a star or two. Segments begin at each `/` and `.`. */
export function isPattern(text) {
  return /(^|[/.])\*\*?([/.]|$)/.test(text.split("?", 1)[0]);
}

/** The URL fragment for a topic. Only what would not read back is escaped. */
export function hashFromTopic(topic) {
  return `#${topic.replace(/%/g, "%25")}`;
}

/** The address of the WebSocket for many topics, for a page at `location`. */
export function socketUrl(location) {
  return `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/ws`;
}

/** The shell command that publishes `payload` to a topic. */
export function curlPublish(origin, encodedTopic, payload) {
  return `curl -d ${quote(payload)} ${quote(`${origin}/pub/${encodedTopic}`)}`;
}

/** The shell command that listens to a topic. */
export function curlListen(origin, encodedTopic) {
  return `curl -N ${quote(`${origin}/sse/${encodedTopic}`)}`;
}

/** The shell command that listens to a pattern. */
export function umbelListen(host, pattern) {
  return `umbel sub --server ${quote(host)} ${quote(pattern)}`;
}

// One word for a POSIX shell.
function quote(text) {
  return /^[\w.,:/%@+=-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`;
}
