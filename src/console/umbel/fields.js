// Fields of a message besides its payload: their names on the wire, in the program, and in the compact form.

import { checkText } from "./messages.js";

const JSON_TYPE = "application/json";
const FIELD_TYPES = { event: 1, message_id: 2, content_type: 3, publisher: 4, tag: 5, time: 6, ttl_ms: 7, tombstone: 8 };
const fieldsUtf8 = new TextEncoder();
const fieldsParser = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Whether a content type says that a message is JSON. */
const isJson = (contentType) => /^application\/json$|\+json$/i.test(contentType.split(";", 1)[0].trim());

/** What the program hears of a message; fields that it has not are not there. JSON is parsed. */
export function publicationOf({ topic, pattern, position, key, data, ...message }) {
  const publication = { topic, pattern, position, key, data };
  const { event, message_id: id, content_type: contentType, publisher, tags, time, tombstone } = message;
  for (const [name, value] of Object.entries({ event, id, contentType, publisher, tags, time, tombstone })) {
    if (value !== undefined) publication[name] = value;
  }
  if (typeof data !== "string") return publication;
  publication.text = data;
  if (contentType !== undefined && isJson(contentType)) publication.data = parsedOr(data);
  return publication;
}

/** What is no JSON after all comes as the text that it is. */
function parsedOr(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** The fields of a publish by their names on the wire. What is neither text nor bytes is JSON. */
export function fieldsToSend(data, { event, id, contentType, tags, ttlMs, tombstone }) {
  const isPlain = typeof data === "string" || data instanceof ArrayBuffer || ArrayBuffer.isView(data);
  const type = contentType ?? (isPlain ? undefined : JSON_TYPE);
  const fields = { event, message_id: id, content_type: type, tags, ttl_ms: ttlMs, tombstone: tombstone || undefined };
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined) delete fields[name];
    else if (name === "ttl_ms") checkTtl(value);
    else if (name === "tombstone") fields.tombstone = true;
    else if (name !== "tags") checkText(value, name);
  }
  for (const value of Object.values(tags ?? {})) if (value !== "") checkText(value, "a tag");
  return fields;
}

function checkTtl(ttlMs) {
  if (!Number.isSafeInteger(ttlMs) || ttlMs < 1) throw new TypeError("ttlMs is a number of milliseconds");
}

/** The fields of a publish in the compact form, with their length; nothing where there are none. */
export function encodeFields({ tags, ttl_ms: ttlMs, tombstone, ...texts }) {
  const lengthOf = (bytes) => [bytes.length >> 8, bytes.length & 0xff];
  const fieldOf = (type, bytes) => [type, ...lengthOf(bytes), ...bytes];
  const all = Object.entries(texts).flatMap(([name, text]) =>
    fieldOf(FIELD_TYPES[name], fieldsUtf8.encode(text)),
  );
  if (tombstone) all.push(...fieldOf(FIELD_TYPES.tombstone, []));
  if (ttlMs !== undefined) {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(ttlMs));
    all.push(...fieldOf(FIELD_TYPES.ttl_ms, bytes));
  }
  for (const [name, value] of Object.entries(tags ?? {})) {
    const bytes = fieldsUtf8.encode(name);
    all.push(...fieldOf(FIELD_TYPES.tag, [bytes.length, ...bytes, ...fieldsUtf8.encode(value)]));
  }
  return all.length === 0 ? [] : [...lengthOf(all), ...all];
}

/** The fields of a message of the compact form; those that are not known are passed over. */
export function parseFields(buffer, start, length) {
  const view = new DataView(buffer, start, length);
  const names = new Map(Object.entries(FIELD_TYPES).map(([name, type]) => [type, name]));
  const [fields, tags] = [{}, []];
  const textOf = (from, bytes) => fieldsParser.decode(new Uint8Array(buffer, start + from, bytes));
  for (let at = 0; at < length; ) {
    const [name, bytes] = [names.get(view.getUint8(at)), view.getUint16(at + 1)];
    at += 3;
    if (at + bytes > length) throw new Error("a field that is not whole");
    if (name === "tag") {
      const nameBytes = view.getUint8(at);
      tags.push([textOf(at + 1, nameBytes), textOf(at + 1 + nameBytes, bytes - 1 - nameBytes)]);
    } else if (name === "tombstone") {
      fields.tombstone = true;
    } else if (name === "time") {
      fields.time = Number(view.getBigUint64(at));
    } else if (name !== undefined) {
      fields[name] = textOf(at, bytes);
    }
    at += bytes;
  }
  if (tags.length > 0) fields.tags = Object.fromEntries(tags);
  return fields;
}
