// Publishing, by HTTP or over the open WebSocket.

import { request } from "./api.js";
import { parsePosition } from "./connection.js";
import { formatCount } from "./format.js";
import { encodeTopic } from "./topic.js";

/** How long the server may take to answer a publish, in milliseconds. */
const ANSWER_TIMEOUT_MS = 10_000;

/** How much of a refusal's reason is shown, in characters. */
const REASON_CHARACTERS_MAX = 300;

/** Publishes by `POST /pub/{topic}` and returns the server's `{ epoch, offset }`. */
export async function publishByHttp(encodedTopic, payload, key) {
  // A header's value is bytes; fetch takes a character for each.
  const bytes = String.fromCharCode(...new TextEncoder().encode(key));
  const answer = await request(`/pub/${encodedTopic}`, {
    method: "POST",
    headers: key === "" ? {} : { "Umbel-Key": bytes },
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

/** What became of a publication, in words. */
function describeReceipt({ matched, dropped, last_write_us: lastUs }) {
  if (matched === 0) return "Nobody is subscribed.";
  const lost = dropped > 0 ? `, dropped for ${formatCount(dropped)}` : "";
  const time = Number.isFinite(lastUs) ? ` in ${formatCount(lastUs)} µs` : "";
  return `For ${formatCount(matched)} subscribed${time}${lost}.`;
}

/** The form. `send(topic, payload, key)` uses the WebSocket, and resolves to position and receipt. */
export class PublishForm {
  #page;
  #send;

  constructor(page, send) {
    this.#page = page;
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
    const [topic, key, payload] = ["topic", "key", "payload"].map((name) => this.#page[name].value);
    const way = this.#page.ways.find((input) => input.checked).value;
    try {
      const encodedTopic = encodeTopic(topic);
      if (way === "websocket") {
        const { position, receipt } = await this.#send(topic, payload, key || undefined);
        this.#showDone(parsePosition(position), ` ${describeReceipt(receipt)}`);
      } else {
        this.#showDone(await publishByHttp(encodedTopic, payload, key), "");
      }
    } catch (error) {
      this.#show("failed", `Not published. ${explainError(error)}`);
    }
  }

  #showDone({ epoch, offset }, more) {
    this.#show("done", `Published at offset ${formatCount(offset)}, epoch ${epoch}.${more}`);
  }

  #show(outcome, text) {
    this.#page.result.dataset.outcome = outcome;
    this.#page.result.textContent = text;
  }
}
