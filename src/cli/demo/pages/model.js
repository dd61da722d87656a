import { open } from "./connection.js";

const byId = (id) => document.getElementById(id);
const umbel = open();
let subscription = null;

/** Shows the answer of an id, from its first word on. */
function follow(id, question) {
  subscription?.unsubscribe();
  byId("answer").hidden = false;
  byId("answer").dataset.state = "speaking";
  byId("asked").textContent = question;
  byId("words").textContent = "";
  let count = 0;
  const isBack = performance.getEntriesByType("navigation")[0]?.type === "reload";
  byId("origin").textContent = isBack ? ", from its first word after a reload" : "";
  subscription = umbel.subscribe(`model/${id}`, {
    last: 2000,
    onPublication: ({ data, event, position }) => {
      count += 1;
      byId("count").textContent = count;
      byId("position").textContent = position;
      if (event === "end") byId("answer").dataset.state = "done";
      else byId("words").append(data);
    },
    onGap: () => byId("words").append(" (some words are missing here) "),
  });
}

async function ask(text) {
  const id = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(36)).join("");
  history.replaceState(null, "", `#${new URLSearchParams({ id, text })}`);
  follow(id, text);
  try {
    await umbel.publish("model/ask", { id, text });
  } catch (error) {
    byId("words").textContent = `It was not asked: ${error.message}`;
  }
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("question").value.trim();
  if (text !== "") ask(text);
});
for (const button of document.querySelectorAll(".suggestions button")) {
  button.addEventListener("click", () => {
    byId("question").value = button.textContent;
    ask(button.textContent);
  });
}

const asked = new URLSearchParams(location.hash.slice(1));
if (/^[a-z0-9]{1,24}$/.test(asked.get("id") ?? "")) follow(asked.get("id"), asked.get("text") ?? "");
