// The console's entry: finds the elements, joins the parts, and keeps the topic in the address.

import { currentToken, keepToken } from "./api.js";
import { Charts } from "./charts.js";
import { Connection } from "./connection.js";
import { Messages } from "./messages.js";
import { Operate } from "./operate.js";
import { PublishForm } from "./publish.js";
import {
  TOPIC_DEFAULT,
  curlListen,
  curlPublish,
  encodeTopic,
  hashFromTopic,
  isPattern,
  nameOf,
  socketUrl,
  topicFromHash,
  umbelListen,
} from "./topic.js";
import { TopicDetails, Topics } from "./topics.js";

/** How long a copy button says that it has copied, in milliseconds. */
const COPIED_SHOWN_MS = 1_500;

/** Payloads of one line and up to this long go into the curl line; a longer one is left to the reader. */
const COMMAND_PAYLOAD_CHARACTERS_MAX = 60;

const STATE_NAMES = {
  connecting: "Connecting",
  open: "Open",
  waiting: "Closed",
  closed: "Closed",
};

const byId = (id) => document.getElementById(id);

const messages = new Messages({
  rows: byId("rows"),
  template: byId("row"),
  filter: byId("filter"),
  pretty: byId("pretty"),
  pause: byId("pause"),
  clear: byId("clear"),
  empty: byId("empty"),
  emptyTitle: byId("empty-title"),
  count: {
    received: byId("count-received"),
    shown: byId("count-shown"),
    unmatched: byId("count-unmatched"),
    dropped: byId("count-dropped"),
  },
});

const connection = new Connection(socketUrl(location), {
  handleState: showState,
  handlePublication: (publication) => messages.handlePublication(publication),
  handleGap: (gap) => messages.handleGap(gap),
  handlePresence: () => details.handlePresence(),
});

const topics = new Topics(
  {
    list: byId("topics"),
    note: byId("topics-note"),
    template: byId("topic-row"),
    pages: byId("topics-pages"),
    previous: byId("topics-previous"),
    next: byId("topics-next"),
  },
  (topic) => {
    byId("topic").value = topic;
    handleTopicInput();
    connect();
  },
);

const details = new TopicDetails(
  {
    card: byId("details"),
    title: byId("details-title"),
    present: byId("present"),
    presentField: byId("present-total"),
    members: byId("members"),
  },
  (topic) => connection.presence(nameOf(topic)),
);

/** The topic or pattern that is connected to, as typed. */
let connectedTopic = "";

const publishForm = {
  form: byId("publish-form"),
  topic: byId("publish-topic"),
  key: byId("publish-key"),
  payload: byId("payload"),
  ways: [...document.querySelectorAll("input[name=way]")],
  result: byId("publish-result"),
};

new PublishForm(publishForm, (topic, payload, key) =>
  connection.publish(nameOf(topic), payload, key),
);

new Charts({
  list: byId("charts"),
  template: byId("chart"),
  note: byId("charts-note"),
}).start();

const operate = new Operate({
  dialog: byId("operate"),
  result: byId("operate-result"),
  connectionsForm: byId("connections-form"),
  subject: byId("connections-subject"),
  topic: byId("connections-topic"),
  connections: byId("connections"),
  connectionsMore: byId("connections-more"),
  connectionTemplate: byId("connection-row"),
  historyForm: byId("history-form"),
  historyTopic: byId("history-topic"),
  history: byId("history"),
  historyMore: byId("history-more"),
  mayForm: byId("may-form"),
  mayToken: byId("may-token"),
  mayAction: byId("may-action"),
  mayTopic: byId("may-topic"),
  mayResult: byId("may-result"),
});

// With another token everything is asked anew.
function handleTokenClose() {
  const wanted = byId("token").returnValue;
  if (wanted !== "keep" && wanted !== "forget") return;
  keepToken(wanted === "keep" ? byId("token-value").value.trim() : "");
  location.reload();
}

function showState({ name, detail, retryInSeconds }) {
  byId("state").dataset.state = name;
  setChangedText(byId("state-name"), STATE_NAMES[name]);
  setChangedText(byId("state-detail"), detail);
  byId("state").title = detail;
  byId("state-countdown").textContent =
    retryInSeconds === undefined ? "" : `· again in ${retryInSeconds} s`;
  showButton();
  if (name === "open") details.handleSubscribed();
  if (name === "closed") details.show(null);
}

// A live region is read out whenever its text is set, even to what it was.
function setChangedText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// The button connects when there is something to connect to that is not connected yet.
function showButton() {
  const leads = connection.isWanted && byId("topic").value === connectedTopic;
  byId("connect").textContent = leads ? "Disconnect" : "Connect";
}

function connect() {
  const topic = byId("topic").value;
  let encodedTopic;
  try {
    encodedTopic = encodeTopic(topic);
  } catch (error) {
    connection.disconnect(error.message);
    return;
  }
  if (topic !== connectedTopic) messages.clear();
  connectedTopic = topic;
  document.title = `${topic} · Umbel`;
  history.replaceState(null, "", hashFromTopic(topic));
  const isOne = !isPattern(topic);
  topics.mark(isOne ? nameOf(topic) : null);
  details.show(isOne ? topic : null, encodedTopic);
  connection.show(isOne ? { topic: nameOf(topic) } : { pattern: nameOf(topic) });
}

// What is typed is where publications go too, unless it stands for many.
function handleTopicInput() {
  const topic = byId("topic").value;
  if (!isPattern(topic)) publishForm.topic.value = topic;
  showCommands();
  showButton();
}

function showCommands() {
  const { value } = publishForm.payload;
  const isShort = value.length <= COMMAND_PAYLOAD_CHARACTERS_MAX && /^.+$/.test(value);
  // A leading @ would make curl read a file.
  const payload = isShort && !value.startsWith("@") ? value : "hello";
  try {
    const topic = byId("topic").value;
    const encodedTopic = encodeTopic(topic);
    byId("curl-listen").textContent = isPattern(topic)
      ? umbelListen(location.host, topic)
      : curlListen(location.origin, encodedTopic);
    const publishTopic = encodeTopic(publishForm.topic.value);
    byId("curl-publish").textContent = curlPublish(location.origin, publishTopic, payload);
  } catch {
    // A topic that cannot be addressed leaves the last commands in place; connecting says why.
  }
}

async function copy(button) {
  const source = byId(button.dataset.copy);
  let outcome = "Copied";
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    // The clipboard is closed to pages that are neither secure nor local: select it instead.
    getSelection().selectAllChildren(source);
    outcome = "Selected";
  }
  button.textContent = outcome;
  byId("copied").textContent = outcome;
  setTimeout(() => {
    button.textContent = "Copy";
    byId("copied").textContent = "";
  }, COPIED_SHOWN_MS);
}

byId("connect-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (connection.isWanted && byId("topic").value === connectedTopic) {
    connection.disconnect();
  } else {
    connect();
  }
});
byId("open-token").addEventListener("click", () => {
  byId("token-value").value = currentToken();
  byId("token").returnValue = "";
  byId("token").showModal();
});
byId("token").addEventListener("close", handleTokenClose);
byId("open-operate").addEventListener("click", () => operate.open(connectedTopic));
byId("topic").addEventListener("input", handleTopicInput);
publishForm.topic.addEventListener("input", showCommands);
publishForm.payload.addEventListener("input", showCommands);
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copy(button));
}
window.addEventListener("hashchange", () => {
  const topic = topicFromHash(location.hash);
  if (topic === connectedTopic) return;
  byId("topic").value = topic;
  handleTopicInput();
  connect();
});

if (/Mac|iPhone|iPad/.test(navigator.platform)) byId("modifier-key").textContent = "⌘";
byId("topic").value = topicFromHash(location.hash);
if (isPattern(byId("topic").value)) publishForm.topic.value = TOPIC_DEFAULT;
handleTopicInput();
connect();
topics.start();
