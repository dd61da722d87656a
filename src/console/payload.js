// What is kept of a message, and how its payload is written out as text.

/** How many bytes of one payload are kept. It bounds the page's memory, whatever arrives. */
export const PAYLOAD_BYTES_KEPT_MAX = 16 * 1024;

/** How deep JSON may be nested to be indented. Indentation grows with the square of the depth. */
const PRETTY_DEPTH_MAX = 32;

/** How many bytes of a binary payload are dumped. Four hexadecimal digits number them. */
const DUMP_BYTES_MAX = 1024;

/**
 * Takes a received string or ArrayBuffer and returns what to keep:
 * `{ receivedAt, bytes, text | binary, isCut }`, `bytes` being the size of the whole payload.
 */
export function keepPayload(data, receivedAt) {
  const isText = typeof data === "string";
  const whole = isText ? new TextEncoder().encode(data) : new Uint8Array(data);
  const isCut = whole.length > PAYLOAD_BYTES_KEPT_MAX;
  const kept = { receivedAt, bytes: whole.length, isCut, text: null, binary: null };
  if (!isText) {
    kept.binary = isCut ? whole.slice(0, PAYLOAD_BYTES_KEPT_MAX) : whole;
  } else if (isCut) {
    // Decoded anew, because a slice of the string would keep the whole of it alive. Streaming
    // leaves out a character that the cut runs through.
    const start = whole.subarray(0, PAYLOAD_BYTES_KEPT_MAX);
    kept.text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(start, { stream: true });
  } else {
    kept.text = data;
  }
  return kept;
}

/**
 * Whether a kept payload, or what `names` it has, contains `needle`, which is in lower case. A binary
 * payload is read as ASCII.
 */
export function payloadMatches(kept, needle) {
  if (needle === "") return true;
  const { topic = "", key = "" } = kept.names ?? {};
  if ([topic, key].some((name) => name.toLowerCase().includes(needle))) return true;
  const text = kept.text ?? String.fromCharCode(...kept.binary.map(printable));
  return text.toLowerCase().includes(needle);
}

/** A kept payload as text: as it came, indented if it is JSON and that is wanted, or dumped. */
export function writePayload(kept, { isPretty, bytesPerLine }) {
  if (kept.text === null) return dump(kept.binary, bytesPerLine);
  if (!isPretty || kept.isCut || !/^\s*[[{]/.test(kept.text)) return kept.text;
  try {
    const value = JSON.parse(kept.text);
    return depth(value) > PRETTY_DEPTH_MAX ? kept.text : JSON.stringify(value, null, 2);
  } catch {
    return kept.text;
  }
}

// Level by level and no further than it matters, so that no depth overflows the stack.
function depth(value) {
  let level = [value];
  let levels = 0;
  while (level.length > 0 && levels <= PRETTY_DEPTH_MAX) {
    level = level.flatMap((inner) =>
      typeof inner === "object" && inner !== null ? Object.values(inner) : [],
    );
    levels += 1;
  }
  return levels;
}

/** What the written text leaves out, in bytes. */
export function leftOutBytes(kept) {
  const writtenMax = kept.text === null ? DUMP_BYTES_MAX : PAYLOAD_BYTES_KEPT_MAX;
  return Math.max(0, kept.bytes - writtenMax);
}

/** Offset, hexadecimal and ASCII, `bytesPerLine` bytes a line. */
export function dump(binary, bytesPerLine) {
  const lines = [];
  const end = Math.min(binary.length, DUMP_BYTES_MAX);
  for (let at = 0; at < end; at += bytesPerLine) {
    const line = binary.subarray(at, Math.min(at + bytesPerLine, end));
    const hex = Array.from(line, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const ascii = String.fromCharCode(...line.map(printable));
    const offset = at.toString(16).padStart(4, "0");
    lines.push(`${offset}  ${hex.padEnd(bytesPerLine * 3 - 1)}  ${ascii}`);
  }
  return lines.join("\n");
}

function printable(byte) {
  return byte >= 0x20 && byte < 0x7f ? byte : 0x2e;
}
