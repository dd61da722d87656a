// A small line over the last minute, drawn as two SVG paths.

/** How many values a line holds: a minute of one a second. */
export const VALUES_MAX = 61;

// The coordinate system of the SVG's viewBox. The line keeps clear of its upper and lower edge.
const WIDTH = 240;
const HEIGHT = 40;
const MARGIN = 2;

export class Sparkline {
  #line;
  #area;
  #values = [];

  /** Draws into an `svg` that has a `.line` and an `.area` path. */
  constructor(svg) {
    this.#line = svg.querySelector(".line");
    this.#area = svg.querySelector(".area");
  }

  /** The highest value that is shown; null when there is none. */
  get peak() {
    const known = this.#values.filter((value) => value !== null);
    return known.length === 0 ? null : Math.max(...known);
  }

  /** Adds the newest value at the right. Null leaves a gap. */
  push(value) {
    this.#values.push(value);
    if (this.#values.length > VALUES_MAX) this.#values.shift();
    const runs = toRuns(this.#values, this.peak ?? 0);
    this.#line.setAttribute("d", runs.map(linePath).join(""));
    this.#area.setAttribute("d", runs.map(areaPath).join(""));
  }
}

// Splits the values at the gaps, into lists of points.
function toRuns(values, peak) {
  const runs = [];
  const first = VALUES_MAX - values.length;
  let run = null;
  values.forEach((value, index) => {
    if (value === null) {
      run = null;
      return;
    }
    if (run === null) runs.push((run = []));
    const share = peak > 0 ? value / peak : 0;
    const x = ((first + index) * WIDTH) / (VALUES_MAX - 1);
    const y = HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN);
    run.push([x.toFixed(1), y.toFixed(1)]);
  });
  return runs;
}

// A run of a single point is drawn as a dot, which a round line cap makes of a line without length.
function linePath(run) {
  const points = run.length === 1 ? [run[0], run[0]] : run;
  return `M${points.map((point) => point.join(" ")).join("L")}`;
}

function areaPath(run) {
  return `${linePath(run)}V${HEIGHT}H${run[0][0]}Z`;
}
