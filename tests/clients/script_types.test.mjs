// What src/console/umbel.d.ts promises, by the TypeScript compiler: script_types.ts compiles, and what it expects
// to be refused is.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { test } from "node:test";

import * as module from "../../src/console/umbel.js";

const compiler = createRequire(import.meta.url).resolve("typescript/bin/tsc");

test("the types hold", { timeout: 60_000 }, () => {
  const options = { cwd: import.meta.dirname, encoding: "utf8" };
  const run = () => execFileSync(process.execPath, [compiler, "--project", "tsconfig.json"], options);
  try {
    assert.equal(run(), "");
  } catch (error) {
    assert.fail(error.stdout || error.message);
  }
});

test("the module has what the types say, and no more", () => {
  assert.deepEqual(Object.keys(module).sort(), ["UmbelError", "connect", "signUrl"]);
});
