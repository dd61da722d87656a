// Messages of umbel.v1 and umbel.v1.bin. What is wrong with one is thrown, by the parsers used here too.

import { encodeFields, parseFields } from "./fields.js";

export const TEXT_DIALECT = "umbel.v1";
export const BINARY_DIALECT = "umbel.v1.bin";
const LONE_SURROGATE = /\p{Surrogate}/u;
const utf8 = new TextEncoder();
const utf8Parser = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export const routeOf = ({ topic, pattern }) =>
  pattern === undefined ? `topic ${topic}` : `pattern ${pattern}`;

/** How many bytes a message has on the wire, uncompressed. */
export const sizeOf = (message) =>
  typeof message === "string" ? utf8.encode(message).length : message.length;

/** Whether somebody who knows patterns means one by this, and not the topic of this very name. */
export const looksLikePattern = (text) => /(^|[/.])\*\*?([/.]|$)/.test(text.split("?", 1)[0]);

export function checkText(text, what) {
  const isText = typeof text === "string" && text !== "" && !LONE_SURROGATE.test(text);
  if (!isText) throw new TypeError(`${what} must be Unicode text`);
}

/** A text, or bytes that nobody else can change. */
export function payloadOf(data) {
  if (data instanceof ArrayBuffer) return new Uint8Array(data.slice(0));
  if (ArrayBuffer.isView(data)) {
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
  }
  const text = typeof data === "string" ? data : JSON.stringify(data);
  if (text !== "") checkText(text, "data");
  return text;
}

/** A number of 32 bits, big-endian. */
const bytesOf = (number) => [24, 16, 8, 0].map((shift) => (number >>> shift) & 0xff);

export function parseText(text) {
  const message = JSON.parse(text);
  if (typeof message?.type !== "string") throw new Error("a message without a type");
  if (message.type === "publication") parsePayload(message);
  if (message.type === "history") message.publications.forEach(parsePayload);
  return message;
}

function parsePayload(message) {
  if (typeof message.data === "string") return;
  const binary = atob(message.base64);
  message.data = new Uint8Array(binary.length).map((_, index) => binary.charCodeAt(index));
}

/** The binary framing: type, flags, epoch, offset, topic, perhaps pattern, key and fields, payload. */
export function parsePublication(buffer) {
  const view = new DataView(buffer);
  const [type, flags] = [view.getUint8(0), view.getUint8(1)];
  if ((type !== 1 && type !== 2) || flags > 7) throw new Error("a binary message of unknown type");
  const epoch = view.getBigUint64(2).toString(16).padStart(16, "0");
  const position = `${epoch}:${view.getBigUint64(10)}`;
  let end = 18;
  const takeName = () => {
    const length = view.getUint8(end);
    end += 1 + length;
    return utf8Parser.decode(new Uint8Array(buffer, end - length, length));
  };
  const topic = takeName();
  const pattern = flags & 1 ? takeName() : undefined;
  const key = flags & 2 ? takeName() : undefined;
  let fields;
  if (flags & 4) {
    const length = view.getUint16(end);
    end += 2 + length;
    fields = parseFields(buffer, end - length, length);
  }
  const payload = new Uint8Array(buffer.slice(end));
  const data = type === 1 ? utf8Parser.decode(payload) : payload;
  return { type: "publication", topic, pattern, position, key, ...fields, data };
}

/** `sentMs`: when it was first sent, in milliseconds before this connection opened; else it is sent for the first time. */
export function encodePublish(id, { topic, payload, key, receipt, once, fields }, isBinary, sentMs) {
  const isText = typeof payload === "string";
  const [topicBytes, keyBytes, onceBytes] = [topic, key ?? "", once ?? ""].map((name) => utf8.encode(name));
  const names = [topicBytes, keyBytes, onceBytes];
  if (!isBinary || names.some(({ length }) => length > 0xff)) {
    // Names that the framing cannot hold are for the server to refuse.
    const append = (text, byte) => text + String.fromCharCode(byte);
    const data = isText ? { data: payload } : { base64: btoa(payload.reduce(append, "")) };
    const command = { type: "publish", id, topic, ...fields, ...data, key, receipt };
    return JSON.stringify({ ...command, idempotency_key: once, first_sent_ms: once && sentMs });
  }
  const [hasKey, hasOnce] = [key !== undefined, once !== undefined];
  const fieldBytes = encodeFields(fields);
  const hasFields = fieldBytes.length > 0;
  const flags = 1 | (hasKey && 2) | (receipt && 4) | (hasOnce && 8) | (hasFields && 16);
  const nameOf = (bytes) => [bytes.length, ...bytes];
  const head = [isText ? 3 : 4, flags, ...bytesOf(id), ...nameOf(topicBytes)];
  if (hasKey) head.push(...nameOf(keyBytes));
  if (hasOnce) head.push(...nameOf(onceBytes), ...bytesOf(sentMs ?? 0xffff_ffff));
  head.push(...fieldBytes);
  const bytes = isText ? utf8.encode(payload) : payload;
  const message = new Uint8Array(head.length + bytes.length);
  message.set(head);
  message.set(bytes, head.length);
  return message;
}
