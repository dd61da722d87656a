// Asking the server over and over, for as long as somebody can see the answers.

import { request } from "./api.js";

/** How long an answer may take, in milliseconds. */
const ANSWER_TIMEOUT_MS = 5_000;

/** How often a server is asked that refused, in milliseconds. */
const REFUSED_INTERVAL_MS = 15_000;

/** Asks for what `path()` says (null: for nothing), every `intervalMs`, and not while the page is hidden. */
export class Poll {
  #path;
  #intervalMs;
  #handleAnswer;
  #handleFailure;
  #timer = 0;
  #isAsking = false;
  /** Whether to ask once more, because what is asked for changed meanwhile. */
  #isStale = false;

  /** `handleAnswer(answer)` gets each Response that is good, `handleFailure(why)` why there is none. */
  constructor({ path, intervalMs, handleAnswer, handleFailure }) {
    this.#path = path;
    this.#intervalMs = intervalMs;
    this.#handleAnswer = handleAnswer;
    this.#handleFailure = handleFailure;
    document.addEventListener("visibilitychange", () => this.ask());
  }

  /** Asks now, and from then on. */
  ask() {
    clearTimeout(this.#timer);
    this.#isStale = this.#isAsking;
    if (!document.hidden && !this.#isAsking) this.#run();
  }

  async #run() {
    const startedAtMs = performance.now();
    const path = this.#path();
    this.#isAsking = true;
    const intervalMs = path === null ? this.#intervalMs : await this.#fetch(path);
    this.#isAsking = false;
    if (document.hidden) return;
    const elapsedMs = this.#isStale ? Infinity : performance.now() - startedAtMs;
    this.#isStale = false;
    this.#timer = setTimeout(() => this.#run(), Math.max(0, intervalMs - elapsedMs));
  }

  // Returns how long to wait before the next time.
  async #fetch(path) {
    try {
      const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
      const answer = await request(path, { cache: "no-store", signal });
      if (answer.ok) {
        await this.#handleAnswer(answer, path);
        return this.#intervalMs;
      }
      const why = answer.status === 401 ? "not shown without a token that allows it" : `not available here (${answer.status})`;
      this.#handleFailure(why);
      return REFUSED_INTERVAL_MS;
    } catch {
      this.#handleFailure("not known, for the server does not answer");
      return this.#intervalMs;
    }
  }
}
