// What both test files need: Chromium, a page that fails the test when it complains, and the server.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

/** Where the server under test is, without a slash at the end. */
export const SERVER = requireServer();

/** How long anything may take, in milliseconds. */
export const DEADLINE_MS = 20_000;

function requireServer() {
  const url = process.env.UMBEL_URL;
  if (!url) throw new Error("UMBEL_URL must hold the server's address, as http://127.0.0.1:8080");
  return new URL(url).origin;
}

/** `flags` are more of Chromium's own. */
export function launch(...flags) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      ...flags,
    ],
  });
}

/** Opens `path` of the server and gathers in `complaints` whatever Chromium reports of it. */
export async function openPage(browser, path, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  context.setDefaultTimeout(DEADLINE_MS);
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(`uncaught: ${error.message}`));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  await page.goto(new URL(path, SERVER).href);
  return { page, complaints, close: () => context.close() };
}

/** Publishes as any program would. Returns the server's answer. */
export async function publish(topic, payload) {
  const answer = await fetch(`${SERVER}/pub/${topic}`, {
    method: "POST",
    body: payload,
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  const text = await answer.text();
  assert.ok(answer.ok, `${answer.status} ${text}`);
  return JSON.parse(text);
}

let topicsMade = 0;

/** A topic that nothing else uses. */
export function freshTopic(name) {
  topicsMade += 1;
  return `browser/${name}-${process.pid}-${topicsMade}`;
}

/** Takes a picture if SCREENSHOTS names a directory. */
export async function picture(page, name) {
  const directory = process.env.SCREENSHOTS;
  if (!directory) return;
  mkdirSync(directory, { recursive: true });
  await page.screenshot({ path: join(directory, `${name}.png`) });
}
