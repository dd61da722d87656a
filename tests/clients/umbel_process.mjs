// An Umbel of a test's own, which it may kill and start again at the same address.

import { spawn } from "node:child_process";
import { join } from "node:path";

const ROOT = join(import.meta.dirname, "../..");
const BINARY = process.env.UMBEL_BIN ?? join(ROOT, "target/release/umbel");
const LISTENING = /listening on (http:\/\/\S+)/;
// It refuses variables that are none of its settings, such as those by which tests are told of a server.
const ENVIRONMENT = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith("UMBEL_")),
);
const START_MS_MAX = 10_000;

export class UmbelProcess {
  /** Where it is, without a slash at the end. It stays there after a restart. */
  url = null;
  log = "";
  #settings;
  #child = null;

  /** `settings` are arguments of `umbel serve`. */
  static async start(...settings) {
    const self = new UmbelProcess();
    self.#settings = settings;
    await self.restart();
    return self;
  }

  get port() {
    return Number(new URL(this.url).port);
  }

  async restart() {
    const address = this.url ? new URL(this.url).host : "127.0.0.1:0";
    const child = spawn(BINARY, ["serve", "--listen", address, ...this.#settings], {
      env: ENVIRONMENT,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    this.log = "";
    const started = new Promise((resolve, reject) => {
      const complain = (what) => reject(new Error(`${what}: ${this.log}`));
      const timer = setTimeout(() => complain("the server named no address in time"), START_MS_MAX);
      const read = (bytes) => {
        this.log += bytes;
        const found = LISTENING.exec(this.log);
        if (found) resolve(found[1].replace(/\/$/, ""));
        if (found) clearTimeout(timer);
      };
      child.stdout.on("data", read);
      child.stderr.on("data", read);
      child.on("error", reject);
      child.on("exit", (code) => complain(`the server ended with ${code}`));
    });
    this.url = await started;
  }

  /** Resolves when it has ended. */
  async stop(signal = "SIGTERM") {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.on("exit", resolve));
    child.kill(signal);
    await ended;
  }

  /** Publishes over HTTP; resolves with the position. */
  async publish(topic, payload) {
    const answer = await fetch(`${this.url}/pub/${topic}`, {
      method: "POST",
      body: payload,
      headers: { "content-type": "text/plain; charset=utf-8" },
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${answer.status} ${text}`);
    const { epoch, offset } = JSON.parse(text);
    return `${epoch}:${offset}`;
  }
}
