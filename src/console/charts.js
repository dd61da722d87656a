// The strip of charts: asks the server for its metrics every second and shows them.

import { UNKNOWN, splitBytes, splitCount, splitRate, splitSeconds } from "./format.js";
import { Readings, parseMetrics } from "./metrics.js";
import { Sparkline } from "./sparkline.js";

/** How often the metrics are asked for, in milliseconds. */
const POLL_INTERVAL_MS = 1_000;

/** How often they are asked for once the server refused them. */
const REFUSED_INTERVAL_MS = 15_000;

/** How long an answer may take. */
const ANSWER_TIMEOUT_MS = 5_000;

const TILES = [
  { name: "connections", label: "Connections", split: splitCount },
  { name: "deliveries", label: "Deliveries", split: splitRate },
  { name: "publications", label: "Publications", split: splitRate },
  { name: "latency", label: "Publish to write, p99", split: splitSeconds },
  { name: "outboxBytes", label: "Outbox", split: splitBytes },
  { name: "slowConsumers", label: "Slow consumers", split: splitCount },
];

class Tile {
  #number;
  #unit;
  #peak;
  #split;
  #sparkline;

  constructor(element, { name, label, split }) {
    element.dataset.chart = name;
    element.querySelector("dt").textContent = label;
    this.#number = element.querySelector(".number");
    this.#unit = element.querySelector(".unit");
    this.#peak = element.querySelector(".peak");
    this.#split = split;
    this.#sparkline = new Sparkline(element.querySelector("svg"));
  }

  show(value) {
    this.#sparkline.push(value);
    const [number, unit] = value === null ? [UNKNOWN, ""] : this.#split(value);
    this.#number.textContent = number;
    this.#unit.textContent = unit;
    const peak = this.#sparkline.peak;
    this.#peak.textContent = peak === null ? "" : `peak ${this.#split(peak).join(" ").trim()}`;
  }
}

/** Builds the tiles in `list` and keeps them up to date; `note` says why there is nothing. */
export class ChartStrip {
  #tiles;
  #note;
  #readings = new Readings();
  #timer = 0;
  #isAsking = false;

  constructor({ list, template, note }) {
    this.#note = note;
    this.#tiles = TILES.map((tile) => {
      const element = template.content.firstElementChild.cloneNode(true);
      list.append(element);
      return { name: tile.name, tile: new Tile(element, tile) };
    });
  }

  /** Starts, and from then on pauses by itself while the page is hidden. */
  start() {
    document.addEventListener("visibilitychange", () => this.#handleVisibility());
    this.#handleVisibility();
  }

  #handleVisibility() {
    clearTimeout(this.#timer);
    if (!document.hidden && !this.#isAsking) this.#poll();
  }

  async #poll() {
    const startedAtMs = performance.now();
    this.#isAsking = true;
    const intervalMs = await this.#ask();
    this.#isAsking = false;
    if (document.hidden) return;
    const elapsedMs = performance.now() - startedAtMs;
    this.#timer = setTimeout(() => this.#poll(), Math.max(0, intervalMs - elapsedMs));
  }

  // Asks once and shows the answer. Returns how long to wait before the next time.
  async #ask() {
    try {
      const answer = await fetch("/metrics", {
        cache: "no-store",
        signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
      });
      if (!answer.ok) {
        this.#showNothing(`The server's metrics are not available here (${answer.status}).`);
        return REFUSED_INTERVAL_MS;
      }
      const samples = parseMetrics(await answer.text());
      this.#show(this.#readings.handleReading(samples, performance.now()));
    } catch {
      this.#showNothing("The server does not answer.");
    }
    return POLL_INTERVAL_MS;
  }

  #show(values) {
    this.#note.textContent = "";
    for (const { name, tile } of this.#tiles) tile.show(values[name]);
  }

  #showNothing(reason) {
    this.#readings.reset();
    if (this.#note.textContent !== reason) this.#note.textContent = reason;
    for (const { tile } of this.#tiles) tile.show(null);
  }
}
