import { element, open } from "./connection.js";

const TOPIC = "chat/garden";
const LINES_SHOWN_MAX = 200;
const NAMES = ["Anise", "Chervil", "Cicely", "Parsley", "Parsnip", "Hemlock", "Hogweed", "Samphire"];

const name = `${NAMES[Math.floor(Math.random() * NAMES.length)]} ${Math.floor(Math.random() * 90 + 10)}`;
const lines = document.getElementById("lines");
const input = document.getElementById("line");
const members = new Map();

function showLine(said) {
  const isAtEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
  const item = element("li", said.name === name ? "own" : "");
  item.append(element("b", "", String(said.name)), element("span", "", String(said.text)));
  lines.append(item);
  while (lines.childElementCount > LINES_SHOWN_MAX) lines.firstElementChild.remove();
  if (isAtEnd) lines.scrollTop = lines.scrollHeight;
}

const nameOf = ({ info }) => (typeof info?.name === "string" ? info.name : "somebody without a page");

function showMembers() {
  const items = [...members.values()].map((member) => {
    const own = nameOf(member) === name;
    return element("li", own ? "own" : "", own ? `${name} (you)` : nameOf(member));
  });
  document.getElementById("members").replaceChildren(...items);
  document.getElementById("total").textContent = members.size;
}

const umbel = open({ info: { name } });

async function loadMembers() {
  const present = await umbel.presence(TOPIC);
  members.clear();
  for (const member of present.members) members.set(member.connection, member);
  showMembers();
}

umbel.subscribe(TOPIC, {
  last: 50,
  onPublication: ({ data }) => showLine(data),
  onGap: () => lines.append(element("li", "gap", "Some lines are missing here.")),
  onSubscribed: loadMembers,
  onPresenceSkipped: loadMembers,
  onJoin: (member) => {
    members.set(member.connection, member);
    showMembers();
  },
  onLeave: ({ connection }) => {
    members.delete(connection);
    showMembers();
  },
});

document.getElementById("say").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = input.value.trim();
  if (text === "") return;
  input.value = "";
  try {
    await umbel.publish(TOPIC, { name, text });
  } catch (error) {
    lines.append(element("li", "gap", `That was not said: ${error.message}`));
    input.value = text;
  }
});
input.focus();
