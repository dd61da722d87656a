// Numbers as people read them. English throughout, as the page is.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
const TENTHS = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** What stands in for a number that is not known. */
export const UNKNOWN = "–";

/** A count in full, with separators. */
export function formatCount(count) {
  return WHOLE.format(count);
}

/** A count as `[number, unit]`, short enough for a tile at any size. */
export function splitCount(count) {
  if (count >= 1e9) return [SHORT.format(count / 1e9), "G"];
  if (count >= 1e6) return [SHORT.format(count / 1e6), "M"];
  return [WHOLE.format(count), ""];
}

/** A rate as `[number, unit]`. Slow rates keep a digit after the point. */
export function splitRate(perSecond) {
  if (perSecond > 0 && perSecond < 10) return [TENTHS.format(perSecond), "/s"];
  const [number, unit] = splitCount(perSecond);
  return [number, `${unit}/s`];
}

/** A size as `[number, unit]`, in powers of 1024. */
export function splitBytes(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  let scaled = bytes;
  while (scaled >= 1000 && power < units.length - 1) {
    scaled /= 1024;
    power += 1;
  }
  return [power === 0 ? WHOLE.format(scaled) : SHORT.format(scaled), units[power]];
}

/** A duration in seconds as `[number, unit]`. */
export function splitSeconds(seconds) {
  if (seconds < 0.001) return [SHORT.format(seconds * 1e6), "µs"];
  if (seconds < 1) return [SHORT.format(seconds * 1e3), "ms"];
  return [SHORT.format(seconds), "s"];
}

/** A size in one string. */
export function formatBytes(bytes) {
  return splitBytes(bytes).join(" ");
}

/** The local time of day to the millisecond. */
export function formatTime(date) {
  const two = (part) => String(part).padStart(2, "0");
  const milliseconds = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${milliseconds}`;
}
