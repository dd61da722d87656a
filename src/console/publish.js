// Publishing, by HTTP or over the open WebSocket.

import { formatBytes, formatCount } from "./format.js";

/** How long the server may take to answer a publish, in milliseconds. */
const ANSWER_TIMEOUT_MS = 10_000;

/** How much of a refusal's reason is shown, in characters. */
const REASON_CHARACTERS_MAX = 300;

/** Publishes by `POST /pub/{topic}` and returns the server's `{ epoch, offset }`. */
export async function publishByHttp(encodedTopic, payload) {
  const answer = await fetch(`/pub/${encodedTopic}`, {
    method: "POST",
    body: payload,
    signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
  });
  const text = await answer.text();
  if (!answer.ok) {
    const reason = text.trim().slice(0, REASON_CHARACTERS_MAX) || answer.statusText;
    throw new Error(`${answer.status}: ${reason}`);
  }
  return JSON.parse(text);
}

/** What to tell a person of an error, most of all of the browser's own, which say little. */
export function explainError(error) {
  if (error.name === "TimeoutError") return "the server did not answer in time";
  if (error instanceof TypeError) return "the server could not be reached";
  return error.message;
}

/** The form. `getTopic()` returns the encoded topic or throws; `send(payload)` uses the WebSocket. */
export class PublishForm {
  #page;
  #getTopic;
  #send;

  constructor(page, { getTopic, send }) {
    this.#page = page;
    this.#getTopic = getTopic;
    this.#send = send;
    page.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#publish();
    });
    page.payload.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      page.form.requestSubmit();
    });
  }

  async #publish() {
    const payload = this.#page.payload.value;
    const way = this.#page.ways.find((input) => input.checked).value;
    try {
      if (way === "websocket") {
        this.#send(payload);
        const size = formatBytes(new TextEncoder().encode(payload).length);
        this.#show("done", `Sent ${size} over the WebSocket.`);
      } else {
        const { epoch, offset } = await publishByHttp(this.#getTopic(), payload);
        this.#show("done", `Published at offset ${formatCount(offset)}, epoch ${epoch}.`);
      }
    } catch (error) {
      this.#show("failed", `Not published. ${explainError(error)}`);
    }
  }

  #show(outcome, text) {
    this.#page.result.dataset.outcome = outcome;
    this.#page.result.textContent = text;
  }
}
