// The list of topics to choose from, and what there is to know of the one that is shown.

import { formatBytes, formatCount } from "./format.js";
import { Poll } from "./poll.js";

/** How often the server is asked, in milliseconds. */
const POLL_INTERVAL_MS = 2_000;

/** How many topics are listed at a time. */
const TOPICS_LISTED_MAX = 200;

/** How many members are named. */
const MEMBERS_LISTED_MAX = 50;

/** How long after somebody came or left it is asked who is there, in milliseconds. */
const PRESENCE_DELAY_MS = 300;

/** `page` holds the elements; `choose(topic)` is called with the topic that was clicked. */
export class Topics {
  #page;
  #choose;
  #poll;
  #shown = null;
  #drawn = "";
  /** Where the pages up to the one that is shown begin, and the next one if there is one. */
  #cursors = [""];
  #next;

  constructor(page, choose) {
    this.#page = page;
    this.#choose = choose;
    this.#poll = new Poll({
      path: () => this.#path,
      intervalMs: POLL_INTERVAL_MS,
      handleAnswer: async (answer, path) => this.#draw(await answer.json(), path),
      handleFailure: (why) => {
        // A page may have gone with the server that had it.
        this.#cursors.length = 1;
        this.#say(`The topics are ${why}.`);
      },
    });
  }

  start() {
    this.#poll.ask();
    this.#page.previous.addEventListener("click", () => this.#turn(() => this.#cursors.pop()));
    this.#page.next.addEventListener("click", () => this.#turn(() => this.#cursors.push(this.#next)));
  }

  get #path() {
    const cursor = this.#cursors.at(-1);
    return `/topics?limit=${TOPICS_LISTED_MAX}${cursor === "" ? "" : `&cursor=${cursor}`}`;
  }

  /** Shows another page. */
  #turn(change) {
    change();
    this.#next = undefined;
    this.#page.previous.disabled = this.#page.next.disabled = true;
    this.#page.list.scrollTop = 0;
    this.#poll.ask();
  }

  /** Marks the topic that is shown; null for none. */
  mark(topic) {
    this.#shown = topic;
    for (const button of this.#page.list.querySelectorAll("button")) this.#markButton(button);
  }

  #say(note) {
    if (this.#page.note.textContent !== note) this.#page.note.textContent = note;
  }

  #draw({ topics, next }, path) {
    // The answer to a page that nobody looks at any more.
    if (path !== this.#path) return;
    const drawn = JSON.stringify(topics.map(({ topic, subscribers }) => [topic, subscribers]));
    if (drawn !== this.#drawn) this.#drawRows(topics);
    this.#drawn = drawn;
    this.#next = next;
    const page = this.#cursors.length;
    this.#page.pages.hidden = page === 1 && next === undefined;
    this.#page.previous.disabled = page === 1;
    this.#page.next.disabled = next === undefined;
    if (page > 1) this.#say(`Page ${formatCount(page)}${next === undefined ? ", the last one" : ""}.`);
    else if (next !== undefined) this.#say(`The first ${formatCount(topics.length)}; there are more.`);
    else this.#say(topics.length === 0 ? "No topic has a subscriber or a history." : "");
  }

  #drawRows(topics) {
    const focused = document.activeElement?.dataset?.topic;
    const sorted = [...topics].sort((a, b) => (a.topic < b.topic ? -1 : 1));
    const rows = sorted.map(({ topic, subscribers }) => {
      const row = this.#page.template.content.firstElementChild.cloneNode(true);
      const button = row.querySelector("button");
      button.dataset.topic = topic;
      row.querySelector(".name").textContent = topic;
      row.querySelector(".subscribers").textContent = formatCount(subscribers);
      button.title = `${topic}, ${formatCount(subscribers)} subscribed`;
      button.addEventListener("click", () => this.#choose(topic));
      this.#markButton(button);
      return row;
    });
    this.#page.list.replaceChildren(...rows);
    if (focused === undefined) return;
    const same = rows.map((row) => row.querySelector("button")).find((b) => b.dataset.topic === focused);
    same?.focus();
  }

  #markButton(button) {
    if (button.dataset.topic === this.#shown) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

/** Where a topic stands, what its history holds, and who is there. */
export class TopicDetails {
  #page;
  #askPresence;
  #encodedTopic = null;
  #topic = null;
  #isSubscribed = false;
  #poll;
  #timer = 0;

  /** `page` holds the elements; `askPresence(topic)` resolves to `{ total, members }`. */
  constructor(page, askPresence) {
    this.#page = page;
    this.#askPresence = askPresence;
    this.#poll = new Poll({
      path: () => (this.#isSubscribed && this.#topic !== null ? this.#path : null),
      intervalMs: POLL_INTERVAL_MS,
      handleAnswer: async (answer, path) => this.#draw(await answer.json(), path),
      handleFailure: () => this.#drawNothing(),
    });
  }

  /** Shows a topic; nothing for null. */
  show(topic, encodedTopic) {
    this.#topic = topic;
    this.#encodedTopic = encodedTopic;
    this.#isSubscribed = false;
    this.#page.card.hidden = topic === null;
    this.#page.title.textContent = topic ?? "";
    this.#page.title.title = topic ?? "";
    this.#drawNothing();
    this.#drawMembers(null);
  }

  /** It is subscribed to, so that there is something to know. */
  handleSubscribed() {
    this.#isSubscribed = true;
    this.#poll.ask();
    this.handlePresence();
  }

  /** Somebody came or left. */
  handlePresence() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#refreshPresence(), PRESENCE_DELAY_MS);
  }

  async #refreshPresence() {
    const topic = this.#topic;
    if (topic === null) return;
    // Without a rule, and while there is no connection, nobody is known to be there.
    const presence = await this.#askPresence(topic).catch(() => null);
    if (topic === this.#topic) this.#drawMembers(presence);
  }

  get #path() {
    return `/topics/${this.#encodedTopic}`;
  }

  #draw({ subscribers, position, history }, path) {
    if (path !== this.#path) return;
    const { card } = this.#page;
    const isKept = history !== undefined && history.publications > 0;
    const text = {
      subscribers: formatCount(subscribers),
      position,
      history: isKept
        ? `${formatCount(history.publications)}, ${formatBytes(history.bytes)}`
        : "none",
    };
    for (const [name, value] of Object.entries(text)) {
      card.querySelector(`[data-field=${name}]`).textContent = value;
    }
  }

  #drawNothing() {
    for (const field of this.#page.card.querySelectorAll("[data-field]")) field.textContent = "–";
  }

  #drawMembers(presence) {
    const { present, members, presentField } = this.#page;
    present.hidden = presence === null;
    if (presence === null) return members.replaceChildren();
    presentField.textContent = formatCount(presence.total);
    const rows = presence.members.slice(0, MEMBERS_LISTED_MAX).map(({ connection, info }) => {
      const row = document.createElement("li");
      const name = document.createElement("span");
      name.className = "connection";
      name.textContent = connection;
      const what = typeof info === "string" ? info : JSON.stringify(info);
      row.append(name, info === undefined ? "" : ` ${what}`);
      row.title = row.textContent;
      return row;
    });
    const left = presence.total - rows.length;
    if (left > 0) {
      const more = document.createElement("li");
      more.className = "more";
      more.textContent = `and ${formatCount(left)} more`;
      rows.push(more);
    }
    return members.replaceChildren(...rows);
  }
}
