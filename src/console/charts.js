// The strip of charts: asks the server for its metrics every second and shows them.

import { UNKNOWN, splitBytes, splitCount, splitRate, splitSeconds } from "./format.js";
import { Readings, parseMetrics } from "./metrics.js";
import { Poll } from "./poll.js";
import { Sparkline } from "./sparkline.js";

/** How often the metrics are asked for, in milliseconds. */
const POLL_INTERVAL_MS = 1_000;

const CHARTS = [
  { name: "connections", label: "Connections", split: splitCount },
  { name: "deliveries", label: "Deliveries", split: splitRate },
  { name: "publications", label: "Publications", split: splitRate },
  { name: "latency", label: "Publish to write, p99", split: splitSeconds },
  { name: "outboxBytes", label: "Outbox", split: splitBytes },
  { name: "slowConsumers", label: "Slow consumers", split: splitCount },
];

class Chart {
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

/** Builds the charts in `list` and keeps them up to date; `note` says why there is nothing. */
export class Charts {
  #charts;
  #note;
  #readings = new Readings();
  #poll;

  constructor({ list, template, note }) {
    this.#note = note;
    this.#charts = CHARTS.map((chart) => {
      const element = template.content.firstElementChild.cloneNode(true);
      list.append(element);
      return { name: chart.name, chart: new Chart(element, chart) };
    });
    this.#poll = new Poll({
      path: () => "/metrics",
      intervalMs: POLL_INTERVAL_MS,
      handleAnswer: async (answer) => {
        const samples = parseMetrics(await answer.text());
        this.#show(this.#readings.handleReading(samples, performance.now()));
      },
      handleFailure: (why) => this.#showNothing(`The server's metrics are ${why}.`),
    });
  }

  start() {
    this.#poll.ask();
  }

  #show(values) {
    this.#note.textContent = "";
    for (const { name, chart } of this.#charts) chart.show(values[name]);
  }

  #showNothing(reason) {
    this.#readings.reset();
    if (this.#note.textContent !== reason) this.#note.textContent = reason;
    for (const { chart } of this.#charts) chart.show(null);
  }
}
