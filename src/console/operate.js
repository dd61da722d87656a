// The operator's tool: connections by pages, who is thrown out, histories, and questions about rights.

import { ask, query } from "./api.js";
import { formatBytes, formatCount } from "./format.js";
import { explainError } from "./publish.js";

/** Entries of a page. */
const PAGE_ENTRIES = 25;

/** `page` holds the elements of the dialog. */
export class Operate {
  #page;
  #connections;
  #history;

  constructor(page) {
    this.#page = page;
    this.#connections = new Pages({
      list: page.connections,
      more: page.connectionsMore,
      load: (cursor) => this.#loadConnections(cursor),
      say: (text, isBad) => this.#say(text, isBad),
    });
    this.#history = new Pages({
      list: page.history,
      more: page.historyMore,
      load: (since) => this.#loadHistory(since),
      say: (text, isBad) => this.#say(text, isBad),
    });
    this.#listen(page.connectionsForm, () => this.#connections.begin());
    this.#listen(page.historyForm, () => this.#history.begin());
    this.#listen(page.mayForm, () => this.#askMay());
  }

  /** Opens the dialog, with the topic that is shown. */
  open(topic) {
    for (const field of [this.#page.historyTopic, this.#page.mayTopic]) {
      if (field.value === "") field.value = topic;
    }
    this.#say("");
    this.#page.dialog.showModal();
    this.#connections.begin();
  }

  #listen(form, act) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      act();
    });
  }

  #say(text, isBad = false) {
    this.#page.result.dataset.outcome = isBad ? "failed" : "done";
    this.#page.result.textContent = text;
  }

  async #loadConnections(cursor) {
    const { subject, topic } = this.#page;
    const parameters = { subject: subject.value, topic: topic.value, limit: PAGE_ENTRIES, cursor };
    const { connections, next } = await ask("GET", `/connections${query(parameters)}`);
    return { rows: connections.map((row) => this.#rowOfConnection(row)), next };
  }

  #rowOfConnection(row) {
    const element = this.#page.connectionTemplate.content.firstElementChild.cloneNode(true);
    const words = [
      row.dialect,
      row.peer,
      `${formatCount(row.subscriptions)} subscribed`,
      row.queued_bytes > 0 ? `${formatBytes(row.queued_bytes)} queued` : "",
    ];
    element.querySelector(".name").textContent = row.subject ?? row.connection;
    element.querySelector(".about").textContent = [row.subject && row.connection, ...words]
      .filter(Boolean)
      .join(" · ");
    const unsubscribe = element.querySelector(".unsubscribe");
    const topic = this.#page.topic.value;
    unsubscribe.hidden = topic === "";
    unsubscribe.setAttribute("aria-label", `Unsubscribe ${row.connection} from ${topic}`);
    unsubscribe.addEventListener("click", () =>
      this.#change(element, "/unsubscribe", { connection: row.connection, topic }, "unsubscribed"),
    );
    const disconnect = element.querySelector(".disconnect");
    disconnect.setAttribute("aria-label", `Disconnect ${row.connection}`);
    disconnect.addEventListener("click", () =>
      this.#change(element, "/disconnect", { connection: row.connection }, "closed"),
    );
    return element;
  }

  async #change(element, path, body, counted) {
    const buttons = element.querySelectorAll("button");
    for (const button of buttons) button.disabled = true;
    try {
      const answer = await ask("POST", path, body);
      this.#say(answer[counted] === 0 ? "It was gone already." : `${body.connection}: ${counted}.`);
      // Whoever works by the keyboard goes on at the next row.
      const next = element.nextElementSibling ?? element.previousElementSibling;
      element.remove();
      (next?.querySelector(".disconnect") ?? this.#page.subject).focus();
    } catch (error) {
      for (const button of buttons) button.disabled = false;
      this.#say(explainError(error), true);
    }
  }

  async #loadHistory(since) {
    const topic = this.#page.historyTopic.value;
    // Without a position it begins with the oldest that there is.
    const start = since === undefined ? { last: 0xffff_ffff } : { since };
    const parameters = { topic, limit: PAGE_ENTRIES, ...start };
    const { publications, next } = await ask("GET", `/history${query(parameters)}`);
    const rows = publications.map(({ position, data, base64, key }) => {
      const row = document.createElement("li");
      const name = document.createElement("span");
      name.className = "about";
      name.textContent = [position, key].filter(Boolean).join(" · ");
      const payload = document.createElement("code");
      payload.textContent = data ?? base64;
      row.append(name, payload);
      return row;
    });
    return { rows, next };
  }

  async #askMay() {
    const { mayToken, mayAction, mayTopic, mayResult } = this.#page;
    try {
      const body = { token: mayToken.value, action: mayAction.value, topic: mayTopic.value };
      const { allowed, by } = await ask("POST", "/may", body);
      mayResult.dataset.outcome = allowed ? "done" : "failed";
      mayResult.textContent = `${allowed ? "Allowed" : "Not allowed"}: ${by}`;
    } catch (error) {
      mayResult.dataset.outcome = "failed";
      mayResult.textContent = explainError(error);
    }
  }
}

/** A list that is read page after page. `load(next)` resolves to `{ rows, next }`. */
class Pages {
  #page;
  #next;
  /** Tells the answer that is wanted from an older one. */
  #turn = 0;

  constructor(page) {
    this.#page = page;
    page.more.addEventListener("click", () => this.#load());
  }

  /** Reads the first page. */
  begin() {
    this.#next = undefined;
    this.#page.list.replaceChildren();
    this.#load();
  }

  async #load() {
    const { list, more, load, say } = this.#page;
    this.#turn += 1;
    const turn = this.#turn;
    more.disabled = true;
    try {
      const { rows, next } = await load(this.#next);
      if (turn !== this.#turn) return;
      list.append(...rows);
      this.#next = next;
      more.hidden = next === undefined;
      say(list.childElementCount === 0 && next === undefined ? "There is none." : "");
    } catch (error) {
      if (turn !== this.#turn) return;
      more.hidden = true;
      say(explainError(error), true);
    } finally {
      more.disabled = false;
    }
  }
}
