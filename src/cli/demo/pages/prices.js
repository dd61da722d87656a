import { element, open } from "./connection.js";

const POINTS_MAX = 120;
/** So many take the whole width; before there are more, a line begins on the left. */
const POINTS_MIN = 12;
const POINT_MS = 500;
const [WIDTH, HEIGHT] = [160, 32];
const SVG = "http://www.w3.org/2000/svg";

const body = document.getElementById("prices");
const rows = new Map();
let updates = 0;

/** A row for a thing, in the order of names. */
function rowOf(name) {
  if (rows.has(name)) return rows.get(name);
  const line = document.createElement("tr");
  const head = element("th", "", name);
  head.scope = "row";
  const chart = document.createElementNS(SVG, "svg");
  chart.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  chart.setAttribute("preserveAspectRatio", "none");
  chart.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "polyline");
  chart.append(path);
  const cell = element("td", "chart");
  cell.append(chart);
  const price = element("td", "number price");
  const change = element("td", "number change");
  line.append(head, cell, price, change);
  const row = { line, path, price, change, points: [], value: 0 };
  rows.set(name, row);
  const later = [...rows.keys()].sort().find((other) => other > name);
  body.insertBefore(line, later === undefined ? null : rows.get(later).line);
  return row;
}

function show({ name, first, price }) {
  const row = rowOf(name);
  const change = (price / first - 1) * 100;
  row.price.textContent = price.toFixed(2);
  row.change.textContent = `${change < 0 ? "▼" : "▲"} ${Math.abs(change).toFixed(2)} %`;
  row.change.dataset.way = change < 0 ? "down" : "up";
  row.value = price;
  updates += 1;
}

/** Draws the last minute, between its lowest and highest price. */
function draw(row) {
  row.points.push(row.value);
  if (row.points.length > POINTS_MAX) row.points.shift();
  const [low, high] = [Math.min(...row.points), Math.max(...row.points)];
  const heightOf = (value) => HEIGHT - 3 - ((value - low) / (high - low || 1)) * (HEIGHT - 6);
  const step = WIDTH / (Math.max(row.points.length, POINTS_MIN) - 1);
  const place = (value, at) => `${(at * step).toFixed(1)},${heightOf(value).toFixed(1)}`;
  row.path.setAttribute("points", row.points.map(place).join(" "));
  row.path.dataset.way = row.change.dataset.way;
}

let [before, at] = [0, performance.now()];
setInterval(() => {
  for (const row of rows.values()) draw(row);
  const now = performance.now();
  if (now - at < 950) return;
  document.getElementById("updates").textContent = updates.toLocaleString("en");
  document.getElementById("rate").textContent = Math.round(((updates - before) * 1000) / (now - at));
  [before, at] = [updates, now];
}, POINT_MS);

open().subscribe("prices/market", { onPublication: ({ data }) => show(data) });
