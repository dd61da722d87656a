// The list of messages: newest first, bounded, drawn once per animation frame.

import { formatBytes, formatCount, formatTime } from "./format.js";
import { keepPayload, leftOutBytes, payloadMatches, writePayload } from "./payload.js";

/** How many messages are kept. Older ones are dropped from view and counted. */
export const ROWS_MAX = 500;

// Beyond this many rows in a frame nobody can read along: such batches are drawn less often, so
// that a stream of any rate leaves time for everything else.
const BATCH_ROWS_CALM = 50;
const BATCH_INTERVAL_MS = 250;

// Rows light up as they arrive, unless they follow upon each other faster than this.
const FADE_INTERVAL_MS = 200;

export class Messages {
  #page;
  #kept = []; // oldest first, each with its row
  #arrived = []; // not drawn yet, oldest first; while paused they stay here
  #needle = "";
  #isPretty = false;
  #isPaused = false;
  #isScheduled = false;
  #drawnAtMs = 0;
  #addedAtMs = 0;
  #counts = { received: 0, unmatched: 0, dropped: 0 };
  #narrow = matchMedia("(max-width: 1100px)");

  /** `page` holds the elements that it works on, by name. */
  constructor(page) {
    this.#page = page;
    page.filter.addEventListener("input", () => this.#setFilter(page.filter.value));
    page.pretty.addEventListener("click", () => this.#setPretty(!this.#isPretty));
    page.pause.addEventListener("click", () => this.#setPaused(!this.#isPaused));
    page.clear.addEventListener("click", () => this.clear());
    this.#narrow.addEventListener("change", () => this.#rewrite());
  }

  /** Takes one publication; `isOld` if it is out of the history. */
  handlePublication({ topic, pattern, position, key, data, isOld }) {
    this.#counts.received += 1;
    const names = { position, topic: pattern === undefined ? undefined : topic, key, isOld };
    this.#keep({ ...keepPayload(data, new Date()), names });
  }

  /** Takes word of publications that do not come. */
  handleGap({ topic, pattern, from, to }) {
    const places = [from && `from ${from}`, to && `to ${to}`].filter(Boolean).join(" ");
    const what = `Publications are missing${places && `: ${places}`}`;
    const names = { topic: pattern === undefined ? undefined : topic, isGap: true };
    this.#keep({ ...keepPayload(what, new Date()), names });
  }

  #keep(kept) {
    if (payloadMatches(kept, this.#needle)) {
      this.#arrived.push(kept);
    } else {
      this.#counts.unmatched += 1;
    }
    // Trimmed at twice the limit, so that a burst costs no shift for each message.
    if (this.#arrived.length >= 2 * ROWS_MAX) this.#trimArrived();
    this.#schedule();
  }

  /** Forgets all messages and counts. */
  clear() {
    this.#kept = [];
    this.#arrived = [];
    this.#counts = { received: 0, unmatched: 0, dropped: 0 };
    this.#page.rows.replaceChildren();
    this.#schedule();
  }

  #trimArrived() {
    const surplus = Math.max(0, this.#arrived.length - ROWS_MAX);
    this.#arrived.splice(0, surplus);
    this.#counts.dropped += surplus;
  }

  #schedule() {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    requestAnimationFrame((nowMs) => this.#draw(nowMs));
  }

  #draw(nowMs) {
    this.#isScheduled = false;
    const isCrowded = this.#arrived.length > BATCH_ROWS_CALM;
    if (isCrowded && nowMs - this.#drawnAtMs < BATCH_INTERVAL_MS) {
      this.#schedule();
      return;
    }
    this.#drawnAtMs = nowMs;
    this.#trimArrived();
    if (!this.#isPaused && this.#arrived.length > 0) {
      this.#addRows(this.#arrived.splice(0), nowMs - this.#addedAtMs > FADE_INTERVAL_MS);
      this.#addedAtMs = nowMs;
    }
    this.#showCounts();
  }

  #addRows(batch, isFading) {
    const fragment = document.createDocumentFragment();
    for (const kept of batch) {
      kept.row = this.#page.template.content.firstElementChild.cloneNode(true);
      kept.row.classList.toggle("fading", isFading);
      this.#writeNames(kept);
      this.#write(kept);
      fragment.prepend(kept.row);
    }
    this.#page.rows.prepend(fragment);
    this.#kept.push(...batch);
    const surplus = this.#kept.splice(0, Math.max(0, this.#kept.length - ROWS_MAX));
    for (const kept of surplus) kept.row.remove();
    this.#counts.dropped += surplus.length;
  }

  #writeNames({ row, receivedAt, bytes, names }) {
    const { position, topic, key, isOld, isGap } = names;
    row.classList.toggle("gap", isGap === true);
    const text = {
      time: isOld ? "history" : formatTime(receivedAt),
      ".position": position,
      ".topic": topic,
      ".key": key,
      ".size": isGap ? undefined : formatBytes(bytes),
    };
    for (const [where, value] of Object.entries(text)) {
      const element = row.querySelector(where);
      if (value === undefined) element.remove();
      else element.textContent = value;
    }
  }

  // Text goes in as text alone, never as markup.
  #write(kept) {
    const payload = kept.row.querySelector(".payload");
    const bytesPerLine = this.#narrow.matches ? 8 : 16;
    payload.textContent = writePayload(kept, { isPretty: this.#isPretty, bytesPerLine });
    payload.classList.toggle("binary", kept.text === null);
    payload.classList.toggle("blank", kept.bytes === 0);
    const leftOut = leftOutBytes(kept);
    if (leftOut > 0) {
      const note = document.createElement("span");
      note.className = "left-out";
      note.textContent = `… ${formatBytes(leftOut)} more`;
      payload.append(note);
    }
  }

  #rewrite() {
    for (const kept of this.#kept) this.#write(kept);
  }

  #setFilter(text) {
    this.#needle = text.toLowerCase();
    for (const kept of this.#kept) kept.row.hidden = !payloadMatches(kept, this.#needle);
    this.#arrived = this.#arrived.filter((kept) => {
      const matches = payloadMatches(kept, this.#needle);
      if (!matches) this.#counts.unmatched += 1;
      return matches;
    });
    this.#schedule();
  }

  #setPretty(isPretty) {
    this.#isPretty = isPretty;
    this.#page.pretty.setAttribute("aria-pressed", String(isPretty));
    this.#rewrite();
  }

  #setPaused(isPaused) {
    this.#isPaused = isPaused;
    this.#page.pause.setAttribute("aria-pressed", String(isPaused));
    this.#page.pause.textContent = isPaused ? "Resume" : "Pause";
    this.#schedule();
  }

  #showCounts() {
    const shown = this.#kept.reduce((count, kept) => count + (kept.row.hidden ? 0 : 1), 0);
    const { received, unmatched, dropped } = this.#counts;
    const { empty, emptyTitle, count } = this.#page;
    count.received.textContent = formatCount(received);
    count.shown.textContent = formatCount(shown);
    count.unmatched.textContent = formatCount(unmatched);
    count.dropped.textContent = formatCount(dropped);
    empty.hidden = shown > 0;
    emptyTitle.textContent = this.#emptyReason();
  }

  #emptyReason() {
    if (this.#isPaused && this.#arrived.length > 0) return "Paused";
    return this.#needle === "" ? "Nothing yet" : "Nothing matches the filter";
  }
}
