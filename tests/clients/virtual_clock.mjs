// Time that passes when a test says so, and chance from a seed.

/** Timers in the form that the script takes. */
export class VirtualClock {
  nowMs = 0;
  #timers = new Map();
  #nextNumber = 1;

  get timers() {
    return {
      now: () => this.nowMs,
      setTimeout: (handle, delayMs) => this.after(delayMs, handle),
      clearTimeout: (number) => this.#timers.delete(number),
    };
  }

  after(delayMs, handle) {
    const number = this.#nextNumber++;
    this.#timers.set(number, { number, atMs: this.nowMs + delayMs, handle });
    return number;
  }

  /** When the next timer is due, from now, in milliseconds. */
  get nextInMs() {
    const due = this.#next();
    return due ? due.atMs - this.nowMs : null;
  }

  #next() {
    let next;
    for (const timer of this.#timers.values()) if (!next || timer.atMs < next.atMs) next = timer;
    return next;
  }

  /** Lets this much time pass, with everything that is due in it. */
  async pass(ms) {
    const untilMs = this.nowMs + ms;
    for (let due = this.#next(); due && due.atMs <= untilMs; due = this.#next()) {
      this.#timers.delete(due.number);
      this.nowMs = Math.max(this.nowMs, due.atMs);
      due.handle();
      // What was promised is kept before time goes on.
      await new Promise(setImmediate);
    }
    this.nowMs = untilMs;
  }
}

/** Numbers from 0 to 1 (mulberry32). */
export function seededRandom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
