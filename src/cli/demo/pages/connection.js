// What the pages share: a connection, and its state in words.

import { connect } from "/umbel.js";

/** Connects, and keeps the page's line about it. */
export function open(options = {}) {
  const umbel = connect(new URL("/ws", location.href), options);
  const line = document.getElementById("state");
  umbel.onState((state) => {
    line.dataset.state = state;
    line.textContent = state === "open" ? "connected" : state;
  });
  for (const place of document.querySelectorAll(".origin")) place.textContent = location.origin;
  return umbel;
}

/** An element with a class and a text. */
export function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}
